package gateway_test

import (
	"context"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/test/pgtest"
)

// TestIdentityOnOldMinors: a server that does not apply the session role's default role gets no
// session without groups; a server that drops the role later causes a warning.
func TestIdentityOnOldMinors(t *testing.T) {
	pgtest.EachMinor(t, func(t *testing.T, pg *pgtest.Server) {
		f := newFixture(t, nil)
		f.real(pg)
		group := pg.Group(t, "analysts")
		g := f.grant("alice")
		applied := pg.Installation.Version != "15.9"
		for range 2 {
			conn, err := f.try(g.LogonName(), f.mint(g), "")
			if !applied {
				f.refused(err, "58000", "do not work as their user")
				if reason := f.audit.lastLogon(t).Reason; !strings.Contains(reason, "15.10") {
					t.Errorf("reason = %q, want the version that mends it", reason)
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := value[string](t, conn, "SELECT current_user::text"); got != "alice" {
				t.Errorf("current_user = %s, want alice", got)
			}
			_ = conn.Close(context.Background())
		}
		// Sessions with groups work as their session role on every version.
		conn := f.connect(f.grant("alice", group), "")
		if got, want := value[string](t, conn, "SELECT current_user::text"), "IAM:alice:"+group; got != want {
			t.Errorf("with a group: current_user = %s, want %s", got, want)
		}
		if n := strings.Count(f.log.String(), "DISCARD ALL"); applied && n != 1 {
			t.Errorf("%d warnings, want one for the server", n)
		}
	}, "15.8", "15.9")
}

// TestIdentityIsLookedAtOnce: the check runs once for a server and its version, and leaves the
// session unchanged.
func TestIdentityIsLookedAtOnce(t *testing.T) {
	var asked atomic.Int32
	var version atomic.Value
	version.Store("18.4")
	addr, _ := scripted(t, func(conn net.Conn) {
		c := &client{conn, t}
		sends(authOK, typed('S', []byte("server_version\x00"+version.Load().(string)+"\x00")), ready)(conn)
		for {
			head := make([]byte, 5)
			if _, err := io.ReadFull(conn, head); err != nil {
				return
			}
			body := make([]byte, int(head[3])<<8|int(head[4])-4)
			if _, err := io.ReadFull(conn, body); err != nil || head[0] != 'Q' {
				return
			}
			asked.Add(1)
			row := typed('D', append([]byte{0, 1, 0, 0, 0, 5}, "alice"...))
			c.send(slices.Concat(typed('C', []byte("BEGIN\x00")), row, row, ready))
		}
	})
	f := newFixture(t, nil)
	admin := &fakeAdmin{role: dbuser.SessionRole{Name: "IAM:alice", User: "alice", Password: "pw"}}
	f.add(&gateway.Cluster{Identifier: "examplecluster", Database: "dev", Admin: admin, Upstream: upstreamAt(t, addr)})
	for i, row := range []struct {
		version string
		asked   int32
	}{{"18.4", 1}, {"18.4", 1}, {"18.5", 2}, {"18.5", 2}} {
		version.Store(row.version)
		f.session(f.grant("alice"), "disable")
		if got := asked.Load(); got != row.asked {
			t.Errorf("logon %d: asked %d times, want %d", i, got, row.asked)
		}
	}
}

// TestIdentityAfterFailover: after a failover the new host is checked as well.
func TestIdentityAfterFailover(t *testing.T) {
	answering := func(user string) string {
		addr, _ := scripted(t, func(conn net.Conn) {
			sends(authOK, typed('S', []byte("server_version\x0018.4\x00")), ready)(conn)
			row := typed('D', append([]byte{0, 1, 0, 0, 0, byte(len(user))}, user...))
			b := make([]byte, 1)
			if n, _ := conn.Read(b); n == 1 && b[0] == 'Q' {
				sends(row, row, ready)(conn)
			}
			_, _ = io.Copy(io.Discard, conn)
		})
		return addr
	}
	good, bad := answering("alice"), answering("IAM:alice")
	f := newFixture(t, nil)
	admin := &fakeAdmin{role: dbuser.SessionRole{Name: "IAM:alice", User: "alice", Password: "pw"}}
	at := func(addrs ...string) {
		f.add(&gateway.Cluster{Identifier: "examplecluster", Database: "dev", Admin: admin, Upstream: upstreamAt(t, addrs...)})
	}
	at(good)
	f.session(f.grant("alice"), "disable")
	at(bad)
	g := f.grant("alice")
	_, err := f.try(g.LogonName(), f.mint(g), "")
	f.refused(err, "58000", "do not work as their user")
	at(bad, good) // a host that applies the default role gets sessions
	f.session(f.grant("alice"), "disable")
}
