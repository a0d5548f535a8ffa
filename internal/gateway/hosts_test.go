package gateway_test

import (
	"context"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/gateway"
)

// TestHangingHost: the first of two hosts hangs. The first logon waits for it, and later ones do not.
func TestHangingHost(t *testing.T) {
	silent := func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }
	good, _ := scripted(t, func(conn net.Conn) {
		sends(authOK, typed('S', []byte("in_hot_standby\x00off\x00")), typed('S', []byte("default_transaction_read_only\x00off\x00")),
			typed('S', []byte("server_version\x0015.1\x00")), typed('K', []byte{0, 0, 0, 9, 1, 2, 3, 4}), ready)(conn)
		_, _ = io.Copy(io.Discard, conn)
	})
	for name, part := range map[string]func(net.Conn){
		"does not answer":             silent,
		"hangs in the authentication": func(conn net.Conn) { sends(authOK)(conn); silent(conn) },
		"hangs at the question whether it is a standby": func(conn net.Conn) {
			sends(authOK, typed('S', []byte("server_version\x0013.1\x00")), typed('K', []byte{0, 0, 0, 9, 1, 2, 3, 4}), ready)(conn)
			silent(conn)
		},
	} {
		for _, sslmode := range []string{"disable", "allow"} {
			t.Run(name+" "+sslmode, func(t *testing.T) {
				t.Parallel() // it waits for the host
				hanging, _ := scripted(t, part)
				f := newFixture(t, nil)
				config := upstreamTo(t, "sslmode="+sslmode, hanging, good)
				var mu sync.Mutex
				dialled := map[string]int{}
				dial := config.DialFunc
				config.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
					mu.Lock()
					dialled[addr]++
					mu.Unlock()
					return dial(ctx, network, addr)
				}
				f.add(&gateway.Cluster{Identifier: "examplecluster", Database: "dev", Admin: &fakeAdmin{role: dbuser.SessionRole{Name: "IAM:alice", Password: "pw"}},
					Upstream: config, TargetSessionAttrs: "read-write"})
				for range 3 {
					_ = f.connect(f.grant("alice"), "dev").Close(t.Context())
				}
				mu.Lock()
				defer mu.Unlock()
				if dialled[hanging] != 1 || dialled[good] != 3 {
					t.Errorf("%d logons waited for the host that hangs, and %d got to the other one; want 1 and 3", dialled[hanging], dialled[good])
				}
			})
		}
	}
}

// TestSilentHosts: a host that does not answer is last for half a minute. Then one logon tries it.
func TestSilentHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s gateway.Silent
		want := func(database, order string) {
			t.Helper()
			if got := s.Order(database, "a", "b", "b", "c"); !slices.Equal(got, strings.Fields(order)) {
				t.Errorf("order for %s = %v, want %s", database, got, order)
			}
		}
		want("dev", "a b b c")
		s.Note("a", "dev", false, os.ErrDeadlineExceeded)
		want("dev", "b b c a")
		want("hers", "b b c a")
		time.Sleep(31 * time.Second)
		want("dev", "a b b c")
		want("dev", "b b c a") // while the one logon tries
		s.Note("a", "dev", false, os.ErrDeadlineExceeded)
		time.Sleep(20 * time.Second)
		want("dev", "b b c a")
		time.Sleep(11 * time.Second)
		want("dev", "a b b c")
		s.Note("a", "dev", true, nil)
		want("dev", "a b b c")

		s.Note("b", "hers", true, os.ErrDeadlineExceeded) // perhaps the database is locked
		want("dev", "a b b c")
		want("hers", "a c b b")
		s.Note("b", "dev", true, nil)
		want("hers", "a c b b")
		s.Note("b", "hers", true, io.EOF)
		want("hers", "a b b c")
	})
}
