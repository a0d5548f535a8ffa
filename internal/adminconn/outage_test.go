package adminconn_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/test/pgtest"
)

// TestOutage makes a thousand concurrent calls to a cluster that is down.
func TestOutage(t *testing.T) {
	s := pgtest.Start(t)
	f := plain(t, s)
	alice := f.LentUser("alice", "")
	down := f.Another(func(c *dbuser.Config) { c.Conn.Port = 1 })
	start := time.Now()
	var wg sync.WaitGroup
	for range 1000 {
		wg.Go(func() {
			if _, err := down.Ensure(t.Context(), dbuser.Need{User: alice}); !errors.Is(err, adminconn.ErrUnreachable) {
				t.Errorf("Ensure = %v, want ErrUnreachable", err)
			}
		})
	}
	wg.Wait()
	if took := time.Since(start); took > time.Minute {
		t.Errorf("a thousand logons took %v to fail", took)
	}
	if n := down.Pool.Stats().Connects; n > 20 {
		t.Errorf("%d attempts to connect", n)
	}
}

// TestSilentServer calls a server that accepts connections and never answers.
func TestSilentServer(t *testing.T) {
	peer := pgtest.NewPeer(t, pgtest.Always(pgtest.Silence()))
	s := pgtest.Start(t)
	f := plain(t, s)
	silent := f.Another(func(c *dbuser.Config) {
		c.Conn.Host, c.Conn.Port = peer.Host(), uint16(peer.Port())
		c.Timeout = 500 * time.Millisecond
	})
	start := time.Now()
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if _, err := silent.Ensure(t.Context(), dbuser.Need{User: "alice"}); !errors.Is(err, adminconn.ErrUnreachable) {
				t.Errorf("Ensure = %v, want ErrUnreachable", err)
			}
		})
	}
	wg.Wait()
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("logons took %v to fail", took)
	}
}

// TestConnectionsDie breaks the standing connections while they are idle, as a restart does. No
// logon fails because of it.
func TestConnectionsDie(t *testing.T) {
	s := pgtest.Start(t)
	f := newFixture(t, s, s.Login(t, "root", "SUPERUSER")) // its own login, whose connections are terminated
	alice := f.LentUser("alice", "")
	for range 5 {
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if _, err := f.Admin.Ensure(t.Context(), dbuser.Need{User: alice}); err != nil {
					t.Errorf("Ensure after the connections died: %v", err)
				}
			})
		}
		wg.Wait()
		if _, err := f.Super.Exec(context.Background(), "select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = $1", f.As.Name); err != nil {
			// version 13 has one argument
			f.Run("select pg_terminate_backend(pid) from pg_stat_activity where usename = '" + f.As.Name + "'")
		}
	}
}

// TestFailureIsForgotten: opening a second connection fails, and the first one continues to work.
// Much later two logons need a new connection at the same time, and the old failure does not
// refuse either of them.
func TestFailureIsForgotten(t *testing.T) {
	s := pgtest.Start(t)
	f := plain(t, s)
	alice := f.LentUser("alice", "")
	var relay *relay
	admin := f.Another(func(c *dbuser.Config) {
		relay = newRelay(t, net.JoinHostPort(c.Conn.Host, strconv.Itoa(int(c.Conn.Port))))
		c.Conn.Host, c.Conn.Port = relay.host, relay.port
	})
	n := dbuser.Need{User: alice}
	if _, err := admin.Ensure(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	release, err := hold(t.Context(), admin)
	if err != nil {
		t.Fatal(err)
	}
	relay.closed.Store(true)
	if _, err := admin.Ensure(t.Context(), n); !errors.Is(err, adminconn.ErrUnreachable) {
		t.Fatalf("Ensure = %v, want ErrUnreachable", err)
	}
	release()
	relay.closed.Store(false)
	if _, err := admin.Ensure(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	if release, err = hold(t.Context(), admin); err != nil {
		t.Fatal(err)
	}
	defer release()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if _, err := admin.Ensure(t.Context(), n); err != nil {
				t.Errorf("Ensure long after a failure = %v", err)
			}
		})
	}
	wg.Wait()
}

// TestQueueIsBounded: while no administrative connection can be opened, a bounded number of
// logons waits for one, and the others fail at once.
func TestQueueIsBounded(t *testing.T) {
	const most, surplus = 1000, 100
	f := plain(t, pgtest.Start(t))
	n := dbuser.Need{User: f.LentUser("alice", "")}
	f.Ensure(n)
	admin := f.Another(func(c *dbuser.Config) { c.MaxConns, c.Timeout = 2, time.Minute })
	var busy []func()
	for range 2 {
		release, err := hold(t.Context(), admin)
		if err != nil {
			t.Fatal(err)
		}
		busy = append(busy, release)
	}
	var served, refused atomic.Int64
	var callers sync.WaitGroup
	for range most + surplus {
		callers.Go(func() {
			switch _, err := admin.Ensure(t.Context(), n); {
			case err == nil:
				served.Add(1)
			case errors.Is(err, adminconn.ErrUnreachable) && strings.Contains(err.Error(), "too many logons wait"):
				refused.Add(1)
			default:
				t.Errorf("Ensure = %v", err)
			}
		})
	}
	f.Eventually("refusals", func() bool { return refused.Load() == surplus })
	if served.Load() > 0 {
		t.Errorf("%d logons were served without a connection", served.Load())
	}
	for _, release := range busy {
		release()
	}
	callers.Wait()
	if served.Load() != most || refused.Load() != surplus {
		t.Errorf("%d logons served, %d refused, want %d and %d", served.Load(), refused.Load(), most, surplus)
	}
}

// relay is a path to a server that can be closed to new connections.
type relay struct {
	host   string
	port   uint16
	closed atomic.Bool
}

func newRelay(t *testing.T, target string) *relay {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	address := listener.Addr().(*net.TCPAddr)
	r := &relay{host: address.IP.String(), port: uint16(address.Port)}
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", target)
			if err != nil || r.closed.Load() {
				near.Close()
				continue
			}
			go func() { _, _ = io.Copy(near, far); near.Close() }()
			go func() { _, _ = io.Copy(far, near); far.Close() }()
		}
	}()
	return r
}

// TestCallersGoAway cancels callers. The work that they share continues.
func TestCallersGoAway(t *testing.T) {
	s := pgtest.Start(t)
	f := plain(t, s)
	user := f.Name("newcomer")
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%5)*time.Millisecond)
			defer cancel()
			_, _ = f.Admin.Ensure(ctx, dbuser.Need{User: user, AutoCreate: true})
		})
	}
	wg.Wait()
	f.Logon(f.Ensure(dbuser.Need{User: user, AutoCreate: true}), "postgres")
	if n := f.Admin.Pool.Stats().Connects; n > 10 {
		t.Errorf("%d connections were opened for callers that went away", n)
	}
}

// TestClosed: Close may be called twice. Calls after it fail.
func TestClosed(t *testing.T) {
	s := pgtest.Start(t)
	f := plain(t, s)
	f.Admin.Close()
	f.Admin.Close()
	if _, err := f.Admin.Ensure(t.Context(), dbuser.Need{User: "x", AutoCreate: true}); !errors.Is(err, adminconn.ErrUnreachable) {
		t.Errorf("Ensure after Close = %v", err)
	}
	f.Admin.SessionEnded("IAM:x", nil)
}

// hold takes a standing connection, as a slow change would, until release is called.
func hold(ctx context.Context, a *handover.Admin) (release func(), err error) {
	c, err := a.Pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	return func() { a.Pool.Release(c) }, nil
}
