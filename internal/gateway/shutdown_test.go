package gateway_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/test/pgtest"
)

func TestShutdown(t *testing.T) {
	f := newFixture(t, nil)
	pg := pgtest.Start(t)
	cluster := f.real(pg)
	g := f.grant(pg.Name("alice"))
	idle := f.session(g, "verify-full")
	idler := f.session(g, "disable")
	running, pid, key := f.sessionVersion(g, "verify-full", version30)
	short := f.session(g, "verify-full")
	running.send(sleep)
	query, release := held(t, pg, cluster.Database)
	short.send(simple(query))
	idler.send(typed('Q', []byte("LISTEN x; NOTIFY x\x00"))) // this session also gets a notification
	idler.until('Z')
	pgtest.Eventually(t, "the queries run", func() bool { return sleeping(t, pg, g.DBUser) == 2 })

	early, canceller := f.dial(), f.dial()
	for _, c := range []*client{early, canceller} { // the gateway has them before the shutdown begins
		c.send(gssencRequest)
		if got := c.read(1); got != "N" {
			t.Fatalf("to a request for GSSAPI the gateway answers %q, want N", got)
		}
	}
	limit, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- f.server.Shutdown(limit) }()
	pgtest.Eventually(t, "the gateway listens no more", func() bool {
		conn, err := net.Dial("tcp", f.addr)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	early.send(startup(version30, "user", g.LogonName()))
	if fields := early.fatal(); fields['C'] != "57P03" {
		t.Errorf("logon during the shutdown: %q", fields)
	}
	// Until the deadline all sessions go on, and queries can be cancelled.
	release()
	short.until('D')
	short.until('Z')
	short.send(typed('Q', []byte("SELECT 1\x00")))
	short.until('Z')
	canceller.send(packet(80877102, be32(pid), key))
	canceller.rest()
	if got := errorFields(running.until('E')); got['C'] != "57014" {
		t.Errorf("after the cancel request: %q", got)
	}
	running.until('Z')
	running.send(sleep)
	pgtest.Eventually(t, "the query runs", func() bool { return sleeping(t, pg, g.DBUser) == 1 })
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
	// A running query was cancelled, and its client is told about the cancellation and the
	// shutdown.
	if got := errorFields(running.until('E')); got['C'] != "57014" {
		t.Errorf("running: %q", got)
	}
	if got := errorFields(running.until('E')); got['C'] != "57P01" {
		t.Errorf("running: last message %q", got)
	}
	if logons, ends := f.audit.count(); logons != 4 || ends != 4 {
		t.Errorf("%d logons and %d ends recorded, want 4 each", logons, ends)
	}
	pgtest.Eventually(t, "the upstream sessions end", func() bool { return sessionsOf(t, pg, g.DBUser) == 0 })
}

// slowAdmin answers only when the test lets it.
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

// TestShutdownDuringLogon: a logon in progress at the deadline leaves no session behind.
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
	pgtest.Eventually(t, "the logon is under way", admin.asked.Load)
	over, stop := context.WithCancel(context.Background())
	stop()
	ended := make(chan error, 1)
	go func() { ended <- f.server.Shutdown(over) }()
	pgtest.Eventually(t, "the gateway shuts down", func() bool {
		conn, err := net.Dial("tcp", f.addr)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	time.Sleep(50 * time.Millisecond) // Shutdown has gone through the sessions
	close(admin.answer)
	<-ended
	if fields := errorFields(c.until('E')); fields['C'] != "57P01" {
		t.Errorf("last message: %q", fields)
	}
	if logons, ends := f.audit.count(); logons != 1 || ends != 1 {
		t.Errorf("%d logons and %d ends recorded, want 1 each", logons, ends)
	}
}

// TestShutdownEarly: without sessions, Shutdown does not wait for the deadline.
func TestShutdownEarly(t *testing.T) {
	f := newFixture(t, nil)
	if err := f.server.Shutdown(context.Background()); err != nil {
		t.Errorf("Shutdown() = %v", err)
	}
}

// TestShutdownMany: however many sessions run endless queries on a server that does not answer,
// each client is told, each end is recorded, and the time does not grow with their number.
func TestShutdownMany(t *testing.T) {
	f := newFixture(t, nil)
	addr, _ := scripted(t, func(conn net.Conn) {
		sends(begun)(conn)
		_ = conn.SetDeadline(noDeadline)
		_, _ = io.Copy(io.Discard, conn) // includes cancel requests
		<-t.Context().Done()
	})
	admin := &fakeAdmin{role: dbuser.SessionRole{Name: "IAM:alice", Password: "pw"}}
	f.add(&gateway.Cluster{Identifier: "examplecluster", Database: "dev", Admin: admin, Upstream: upstreamAt(t, addr)})
	const many = 200
	g := f.grant("alice")
	var clients []*client
	for range many {
		c := f.session(g, "disable")
		c.send(sleep)
		clients = append(clients, c)
	}
	over, stop := context.WithCancel(context.Background())
	stop()
	began := time.Now()
	_ = f.server.Shutdown(over)
	if took := time.Since(began); took > 2*patience {
		t.Errorf("it took %v", took)
	}
	for _, c := range clients {
		c.wantFatal("57P01", "administrator command")
	}
	if _, ends := f.audit.count(); ends != many {
		t.Errorf("%d ends recorded, want %d", ends, many)
	}
}

// TestRevokedDuringShutdown: revoked sessions end while the gateway waits for others.
func TestRevokedDuringShutdown(t *testing.T) {
	registry := &revocations{}
	f := newFixture(t, func(c *gateway.Config) { c.Revoked = registry.revoked })
	pg := pgtest.Start(t)
	f.real(pg)
	bad, good := f.grant(pg.Name("alice")), f.grant(pg.Name("alice"))
	c := f.session(bad, "disable")
	f.session(good, "disable")
	limit, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.server.Shutdown(limit) }()
	pgtest.Eventually(t, "the gateway listens no more", func() bool {
		conn, err := net.Dial("tcp", f.addr)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	registry.set(func(g *credential.Grant) bool { return g.ID == bad.ID }, nil)
	f.server.Recheck()
	c.wantFatal("57P01", "revoked")
	stop()
	<-ended
}
