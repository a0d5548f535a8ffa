package gateway_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/pgtest"
)

func TestShutdown(t *testing.T) {
	f := newFixture(t, nil)
	pg := pgtest.Start(t)
	f.real(pg)
	g := f.grant(pg.Name("alice"))
	idle := f.session(g, "verify-full")
	idler := f.session(g, "disable")
	running, pid, key := f.sessionVersion(g, "verify-full", version30)
	short := f.session(g, "verify-full")
	running.send(sleep)
	short.send(typed('Q', []byte("SELECT pg_sleep(0.5), 'done'\x00")))
	idler.send(typed('Q', []byte("LISTEN x; NOTIFY x\x00"))) // a notification is the last that it was sent
	idler.until('Z')
	eventually(t, "the queries run", func() bool { return sleeping(t, pg, g.DBUser) == 2 })

	limit, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- f.server.Shutdown(limit) }()
	var fields map[byte]string
	eventually(t, "logons are refused", func() bool {
		c := f.dial()
		c.send(startup(version30, "user", g.LogonName()))
		kind, body := c.message()
		fields = errorFields(body)
		c.Close()
		return kind == 'E'
	})
	if fields['C'] != "57P03" {
		t.Errorf("logon during the shutdown: %q", fields)
	}
	// Until the limit everybody works on, and queries can be cancelled.
	short.until('D')
	short.until('Z')
	short.send(typed('Q', []byte("SELECT 1\x00")))
	short.until('Z')
	f.cancel(pid, key, false)
	if got := errorFields(running.until('E')); got['C'] != "57014" {
		t.Errorf("after the cancel request: %q", got)
	}
	running.until('Z')
	running.send(sleep)
	eventually(t, "the query runs", func() bool { return sleeping(t, pg, g.DBUser) == 1 })
	select {
	case err := <-ended:
		t.Fatalf("Shutdown() = %v with sessions running", err)
	default:
	}

	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown() = %v, want that the limit was reached", err)
	}
	for name, c := range map[string]*client{"idle": idle, "listening": idler, "short": short} {
		if kind, body := c.message(); kind == 'A' && name == "listening" {
			if got := c.fatal(); got['C'] != "57P01" {
				t.Errorf("%s: %q", name, got)
			}
		} else if got := errorFields(body); kind != 'E' || got['C'] != "57P01" || got['S'] != "FATAL" {
			t.Errorf("%s: last message %q %q", name, kind, got)
		}
	}
	// What ran was cancelled, and its client is told both.
	if got := errorFields(running.until('E')); got['C'] != "57014" {
		t.Errorf("running: %q", got)
	}
	if got := errorFields(running.until('E')); got['C'] != "57P01" {
		t.Errorf("running: last message %q", got)
	}
	if logons, ends := f.audit.count(); logons != 4 || ends != 4 {
		t.Errorf("%d logons and %d ends recorded, want 4 each", logons, ends)
	}
	if conn, err := net.Dial("tcp", f.addr); err == nil {
		conn.Close()
		t.Error("the gateway still listens")
	}
	eventually(t, "the upstream sessions end", func() bool { return sessionsOf(t, pg, g.DBUser) == 0 })
}

// slowAdmin answers when it is told to.
type slowAdmin struct {
	gateway.Admin
	asked  atomic.Bool
	answer chan struct{}
}

func (a *slowAdmin) Ensure(ctx context.Context, need dbuser.Need) (dbuser.SessionRole, error) {
	a.asked.Store(true)
	<-a.answer
	return a.Admin.Ensure(ctx, need)
}

// TestShutdownDuringLogon: a logon that is under way when the limit is reached
// leaves no session behind.
func TestShutdownDuringLogon(t *testing.T) {
	f := newFixture(t, nil)
	pg := pgtest.Start(t)
	cluster := *f.real(pg)
	admin := &slowAdmin{Admin: cluster.Admin, answer: make(chan struct{})}
	cluster.Admin = admin
	f.add(&cluster)
	g := f.grant(pg.Name("alice"))
	c := f.dial()
	c.send(startup(version30, "user", g.LogonName()))
	c.until('R')
	c.send(passwordMessage(f.mint(g)))
	eventually(t, "the logon is under way", admin.asked.Load)
	over, stop := context.WithCancel(context.Background())
	stop()
	ended := make(chan error, 1)
	go func() { ended <- f.server.Shutdown(over) }()
	eventually(t, "the gateway shuts down", func() bool {
		other := f.dial()
		defer other.Close()
		other.send(startup(version30, "user", "IAM:x"))
		kind, _ := other.message()
		return kind == 'E'
	})
	time.Sleep(50 * time.Millisecond) // the sessions have been looked at by now
	close(admin.answer)
	<-ended
	if fields := errorFields(c.until('E')); fields['C'] != "57P01" {
		t.Errorf("last message: %q", fields)
	}
	if logons, ends := f.audit.count(); logons != 1 || ends != 1 {
		t.Errorf("%d logons and %d ends recorded, want 1 each", logons, ends)
	}
}

// TestShutdownEarly: with nobody there it does not wait for the limit.
func TestShutdownEarly(t *testing.T) {
	f := newFixture(t, nil)
	if err := f.server.Shutdown(context.Background()); err != nil {
		t.Errorf("Shutdown() = %v", err)
	}
}
