package gateway_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/session"
	"github.com/daypass/daypass/test/pgtest"
)

// unwatched logs on in clear text to a server that does not check whether its client is still
// connected. The application name identifies its backend.
func (f *fixture) unwatched(pg *pgtest.Server, g grant, name string) *client {
	f.t.Helper()
	settings := []string{"user", g.LogonName(), "application_name", name}
	if pg.Major() >= 14 {
		settings = append(settings, "client_connection_check_interval", "0")
	}
	c := f.dial()
	c.send(startup(version30, settings...))
	c.read(len(askPassword))
	c.send(passwordMessage(f.mint(g)))
	c.until('Z')
	return c
}

// extended returns an extended query whose results are binary.
func extended(sql string) []byte {
	return slices.Concat(typed('P', []byte("\x00"+sql+"\x00\x00\x00")), typed('B', []byte("\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01")),
		typed('E', []byte("\x00\x00\x00\x00\x00")), typed('S', nil))
}

func simple(sql string) []byte { return typed('Q', []byte(sql+"\x00")) }

const (
	endless = "loop perform pg_sleep(0.1); end loop;"
	rebel   = "loop begin perform pg_sleep(60); exception when query_canceled then null; end; end loop;"
)

// disguised returns a query whose result looks like many ReadyForQuery messages, and which then
// runs forever. PostgreSQL sends the result up to the end of its 8192-byte buffer; with one of the
// six shifts, the buffer ends right after such a message.
func disguised(shift int) []byte {
	return extended(fmt.Sprintf("select case n when 1 then decode(repeat('00', %d) || repeat('5a0000000549', 3000), 'hex') else pg_temp.f() end from generate_series(1, 2) n", shift))
}

// TestImposedEnds: an end that the gateway imposes ends the backend, whatever the session is
// doing or appears to be doing, even on servers that would not notice by themselves. Versions differ
// in that only: before 14 none notices.
func TestImposedEnds(t *testing.T) {
	type hostile struct {
		name  string
		setup []string
		send  []byte
		read  bool // the client reads its answers
		busy  bool // the server is working on a request
	}
	function := func(code string) []string {
		return []string{"create function pg_temp.f() returns bytea language plpgsql as $$ begin " + code + " end $$"}
	}
	rows := []hostile{
		{name: "rebel", send: simple("do $$ begin " + rebel + " end $$"), busy: true, read: true},
		{name: "blocked on its client", send: simple("select repeat('x', 1000) from generate_series(1, 100000000)"), busy: true},
		{name: "COPY out", send: simple("copy (select repeat('x', 1000) from generate_series(1, 100000000)) to stdout"), busy: true},
		{name: "COPY in", setup: []string{"create temp table t (n text)"}, send: append(simple("copy t from stdin"), typed('d', []byte("one\n"))...), read: true, busy: true},
		{name: "COPY in with a Sync", setup: []string{"create temp table t (n text)"}, send: extended("copy t from stdin"), read: true, busy: true},
		{name: "idle", read: true},
		{name: "in a transaction", setup: []string{"begin"}, read: true},
		{name: "listening", setup: []string{"listen busy"}, read: true},
		{name: "one byte of a message", send: []byte{'Q'}, read: true},
		{name: "half a message", send: simple("select pg_sleep(1000)")[:15], read: true},
		{name: "an extended query without Sync", send: bytes.TrimSuffix(extended("select pg_sleep(1000)"), typed('S', nil)), read: true, busy: true},
		{name: "two Syncs", send: append(extended("select 'x'::bytea"), extended("select pg_sleep(1000)")...), read: true, busy: true},
		{name: "a query behind a COPY that fails", setup: []string{"create temp table t (n int)"},
			send: slices.Concat(simple("copy t from stdin"), typed('d', []byte("no number\n")), simple("select pg_sleep(1000)")), read: true, busy: true},
	}
	for shift := range 6 {
		rows = append(rows,
			hostile{name: fmt.Sprintf("disguised %d", shift), setup: function(endless), send: disguised(shift), read: true, busy: true},
			hostile{name: fmt.Sprintf("disguised rebel %d", shift), setup: function(rebel), send: disguised(shift), read: true, busy: true})
	}
	ends := map[string]struct {
		impose func(f *fixture, r *revocations)
		reason string
	}{
		"kill": {func(f *fixture, _ *revocations) {
			f.server.KillWhere(func(*gateway.Session) bool { return true })
		}, "terminated"},
		"revocation": {func(f *fixture, r *revocations) {
			r.set(func(*credential.Grant) bool { return true }, nil)
			f.server.Recheck()
		}, "credential revoked"},
		"session limit": {func(f *fixture, _ *revocations) {
			f.forward(2 * time.Hour)
			f.server.Recheck()
		}, "session limit"},
		"shutdown": {func(f *fixture, _ *revocations) {
			over, stop := context.WithCancel(context.Background())
			stop()
			_ = f.server.Shutdown(over)
		}, "shutdown"},
	}
	pgtest.Ends(t, func(t *testing.T, pg *pgtest.Server) {
		for name, end := range ends {
			t.Run(name, func(t *testing.T) {
				t.Parallel() // the test mostly waits
				registry := &revocations{}
				f := newFixture(t, func(c *gateway.Config) { c.Revoked = registry.revoked })
				cluster := *f.real(pg)
				cluster.SessionLimits = session.Limits{Total: time.Hour}
				f.add(&cluster)
				g := f.grant(pg.Name("mallory"))
				var looks map[string]string // by row
				states := func() map[string]string {
					list := map[string]string{}
					for _, s := range f.server.Sessions() {
						list[s.Application] = s.State
					}
					return list
				}
				for _, row := range rows {
					c := f.unwatched(pg, g, row.name)
					for _, sql := range row.setup {
						c.send(simple(sql))
						c.until('Z')
					}
					c.send(row.send)
					if row.read {
						go io.Copy(io.Discard, c)
					}
				}
				// The query has sent all of its output before the backends are counted.
				pgtest.Eventually(t, "they run", func() bool { return workers(t, pg, g.DBUser) == len(rows)-5 })
				looks = states()
				for _, row := range rows {
					if got := looks[row.name]; (got == "active") != row.busy {
						t.Errorf("%s: the session reads %q", row.name, got)
					}
				}
				end.impose(f, registry)
				pgtest.Eventually(t, "no session is left", func() bool { return len(f.server.Sessions()) == 0 })
				pgtest.Eventually(t, "no backend is left", func() bool { return len(backends(t, pg, g.DBUser)) == 0 })
				_, ended := f.audit.count()
				if ended != len(rows) {
					t.Errorf("%d ends recorded, want %d", ended, len(rows))
				}
				f.audit.mu.Lock()
				defer f.audit.mu.Unlock()
				for _, r := range f.audit.ends {
					if r.Reason != end.reason {
						t.Errorf("%s ended with %q, want %q", r.ApplicationName, r.Reason, end.reason)
					}
				}
			})
		}
	})
}

// workers counts the backends of the user's sessions that are not waiting for a request from
// their client.
func workers(t testing.TB, pg *pgtest.Server, user string) int {
	t.Helper()
	conn := pgtest.Connect(t, pg.Superuser("postgres"))
	defer conn.Close(context.Background())
	return value[int](t, conn, "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'IAM:' || $1 || '%' AND state = 'active'", user)
}

func backends(t testing.TB, pg *pgtest.Server, user string) []string {
	t.Helper()
	conn := pgtest.Connect(t, pg.Superuser("postgres"))
	defer conn.Close(context.Background())
	return value[[]string](t, conn, "SELECT coalesce(array_agg(application_name || ' ' || state || ' ' || left(query, 60)), '{}') FROM pg_stat_activity WHERE usename LIKE 'IAM:' || $1 || '%'", user)
}

// TestListenersOfABusyChannel: notifications do not keep a session that listens to a busy
// channel from ending, and each client is told why its session ends: the idle limit, or another
// cause.
func TestListenersOfABusyChannel(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, pg *pgtest.Server) {
		registry := &revocations{}
		f := newFixture(t, func(c *gateway.Config) { c.Revoked = registry.revoked })
		cluster := *f.real(pg)
		cluster.SessionLimits = session.Limits{Idle: 10 * time.Minute}
		f.add(&cluster)
		g := f.grant(pg.Name("alice"))
		talker := f.connect(f.grant(pg.Name("bob")), "")
		listeners := map[string]*client{}
		for i := range 20 {
			c := f.session(g, []string{"disable", "verify-full"}[i%2])
			c.send(simple("listen busy"))
			c.until('Z')
			for _, s := range f.server.Sessions() {
				if listeners[s.ID] == nil && s.DBUser == g.DBUser {
					listeners[s.ID] = c
				}
			}
		}
		talk, stop := context.WithCancel(context.Background())
		over := make(chan struct{})
		go func() {
			defer close(over)
			for talk.Err() == nil {
				_, _ = talker.Exec(context.Background(), "select pg_notify('busy', repeat('x', n)) from generate_series(1, 300) n")
			}
		}()
		defer func() { stop(); <-over }()
		half := 0
		last := map[string]chan map[byte]string{}
		for id, c := range listeners {
			told := make(chan map[byte]string, 1)
			last[id] = told
			go func() {
				b, _ := io.ReadAll(c.Conn)
				list := messagesOf(b)
				if n := len(list); n > 0 && list[n-1][0] == 'E' {
					told <- errorFields(list[n-1][5:])
				} else {
					told <- map[byte]string{'M': fmt.Sprintf("%d messages, and no error at the end", n)}
				}
			}()
			if half++; half <= 10 {
				f.server.Kill(id)
				if got := <-told; got['C'] != "57P01" {
					t.Errorf("a listener that was killed was told %q", got)
				}
				delete(last, id)
			}
		}
		sent := func() (n uint64) {
			for _, s := range f.server.Sessions() {
				if s.DBUser != g.DBUser {
					n += s.BytesFromClient
				}
			}
			return n
		}
		looked := func() int { registry.mu.Lock(); defer registry.mu.Unlock(); return registry.asked }
		look := func() {
			before := looked()
			pgtest.Eventually(t, "the gateway looks twice", func() bool { f.server.Recheck(); return looked() > before+2*len(last)+2 })
		}
		look()
		before := sent()
		pgtest.Eventually(t, "the talker talks", func() bool { return sent() > before })
		f.forward(11 * time.Minute)
		f.server.Recheck()
		for id := range last {
			if got := <-last[id]; got['C'] != "57P05" {
				t.Errorf("a listener over the idle limit was told %q", got)
			}
			f.wantEnd(id, "idle limit", "57P05")
		}
	})
}

// TestEveryEndNamesItsBackend: whatever ends a session, the administrative login is told which
// backend it had, so that it can check that the backend has exited.
func TestEveryEndNamesItsBackend(t *testing.T) {
	pg := pgtest.Start(t)
	login := pg.Login(t, "plain", "")
	config, err := pgconn.ParseConfig(pg.ConnString(login, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	for name, end := range map[string]func(f *fixture, c *client, pid uint32){
		"client says Terminate": func(_ *fixture, c *client, _ uint32) { c.send(typed('X', nil)) },
		"client closes":         func(_ *fixture, c *client, _ uint32) { c.Close() },
		"client resets":         func(_ *fixture, c *client, _ uint32) { _ = tcpOf(c).SetLinger(0); tcpOf(c).Close() },
		"client breaks the protocol": func(_ *fixture, c *client, _ uint32) {
			c.send([]byte{'Q', 0, 0, 0, 0})
			c.wantFatal("08P01", "invalid message length")
		},
		"server terminates": func(_ *fixture, _ *client, pid uint32) {
			pg.Exec(t, "postgres", fmt.Sprintf("select pg_terminate_backend(%d)", pid))
		},
		"kill": func(f *fixture, _ *client, _ uint32) { f.server.KillWhere(func(*gateway.Session) bool { return true }) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, func(c *gateway.Config) { c.Limits.HalfClose = 100 * time.Millisecond })
			admin := &fakeAdmin{role: dbuser.SessionRole{Name: login.Name, Password: keyring.Secret(login.Password)}}
			f.add(&gateway.Cluster{Identifier: "examplecluster", Database: "postgres", Admin: admin, Upstream: config})
			c, pid, _ := f.sessionVersion(f.grant("alice"), "verify-full", version30)
			end(f, c, pid)
			pgtest.Eventually(t, "the session ends", func() bool { return len(f.server.Sessions()) == 0 })
			admin.mu.Lock()
			defer admin.mu.Unlock()
			want := net.JoinHostPort(pg.Host(), strconv.Itoa(pg.Port()))
			if len(admin.left) != 1 || admin.left[0] == nil || admin.left[0].PID != pid || admin.left[0].Address != want {
				t.Errorf("the administrative login was told %+v, want process %d at %s", admin.left, pid, want)
			}
		})
	}
}

// TestRebelsAtTheEnd: a statement that catches its cancellation is terminated even if the
// process ends right after its sessions, and even if a reload has replaced the cluster in the
// meantime, has it lead to another server, or has removed it. This is the same in all versions.
func TestRebelsAtTheEnd(t *testing.T) {
	pgtest.Ends(t, func(t *testing.T, pg *pgtest.Server) {
		t.Parallel() // the test mostly waits
		for name, end := range map[string]func(f *fixture, cluster *gateway.Cluster){
			"shutdown": func(f *fixture, cluster *gateway.Cluster) {
				over, stop := context.WithCancel(context.Background())
				stop()
				_ = f.server.Shutdown(over)
				cluster.Admin.(*handover.Admin).Close()
			},
			"reload": func(f *fixture, cluster *gateway.Cluster) {
				f.real(pg)
				cluster.Admin.(*handover.Admin).Close()
				f.left(cluster, 0)
				f.server.KillWhere(func(*gateway.Session) bool { return true })
			},
			"another server": func(f *fixture, cluster *gateway.Cluster) {
				elsewhere := cluster.Upstream.Copy()
				elsewhere.Port, elsewhere.Fallbacks = 1, nil
				f.add(&gateway.Cluster{Identifier: cluster.Identifier, Admin: &fakeAdmin{}, Upstream: elsewhere})
				f.left(cluster, 1)
				f.server.KillWhere(func(*gateway.Session) bool { return true })
			},
			"no server": func(f *fixture, cluster *gateway.Cluster) {
				f.remove(cluster)
				f.left(cluster, 1)
				f.server.KillWhere(func(*gateway.Session) bool { return true })
			},
		} {
			t.Run(name, func(t *testing.T) {
				f := newFixture(t, nil)
				cluster := f.real(pg)
				g := f.grant(pg.Name("mallory"))
				f.unwatched(pg, g, "rebel").send(simple("do $$ begin " + rebel + " end $$"))
				pgtest.Eventually(t, "it runs", func() bool { return workers(t, pg, g.DBUser) == 1 })
				end(f, cluster)
				pgtest.Eventually(t, "its backend ends", func() bool { return len(backends(t, pg, g.DBUser)) == 0 })
				pgtest.Eventually(t, "the session is forgotten", func() bool { return f.server.Left(cluster.Admin) == 0 })
			})
		}
	})
}

// left checks how many sessions the Admin of a cluster is kept for.
func (f *fixture) left(cluster *gateway.Cluster, want int) {
	f.t.Helper()
	if got := f.server.Left(cluster.Admin); got != want {
		f.t.Errorf("%d sessions are left to the administrative login, want %d", got, want)
	}
}

// messagesOf splits a stream into messages; the last piece may be an incomplete message.
func messagesOf(b []byte) [][]byte {
	var list [][]byte
	for len(b) >= 5 {
		size := int(binary.BigEndian.Uint32(b[1:])) + 1
		if size < 5 || size > len(b) {
			break
		}
		list = append(list, b[:size])
		b = b[size:]
	}
	if len(b) > 0 {
		list = append(list, b)
	}
	return list
}
