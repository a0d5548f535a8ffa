package gateway_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/session"
	"github.com/daypass/daypass/test/pgtest"
)

// revocations is a registry that tests can change.
type revocations struct {
	mu     sync.Mutex
	match  func(*credential.Grant) bool
	broken error
	asked  int
}

func (r *revocations) revoked(g *credential.Grant) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	return r.match != nil && r.match(g), r.broken
}

func (r *revocations) set(match func(*credential.Grant) bool, broken error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.match, r.broken = match, broken
}

// endsWith waits until the gateway ends conn, and checks the final error message.
func endsWith(t *testing.T, conn *pgx.Conn, state, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := conn.PgConn().WaitForNotification(ctx)
	if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Code != state || !strings.Contains(pg.Message, text) || pg.Severity != "FATAL" {
		t.Errorf("the session ended with %v, want FATAL %s %q", err, state, text)
	}
}

func TestRevokedLogon(t *testing.T) {
	registry := &revocations{}
	f := newFixture(t, func(c *gateway.Config) { c.Revoked = registry.revoked })
	pg := pgtest.Start(t)
	f.real(pg)
	good, bad := f.grant(pg.Name("alice")), f.grant(pg.Name("alice"))
	registry.set(func(g *credential.Grant) bool { return g.ID == bad.ID }, nil)

	_, err := f.try(bad.LogonName(), f.mint(bad), "")
	f.refused(err, "28000", "IAM Authentication token has been revoked")
	if r := f.audit.lastLogon(t); r.CredentialID != bad.ID || r.SQLState != "28000" || !strings.Contains(r.Reason, "revoked") {
		t.Errorf("recorded %+v", r)
	}
	f.connect(good, "")

	// The answer to a forged credential does not reveal whether it is revoked.
	_, err = f.try("IAMA:somebody", f.mint(bad), "")
	f.refused(err, "28000", "IAM authentication failed")

	registry.set(nil, errors.New("broken disk"))
	_, err = f.try(good.LogonName(), f.mint(good), "")
	refused := f.refused(err, "57P03", "registry of revocations cannot be read")
	if strings.Contains(refused.Message+refused.Hint, "broken disk") {
		t.Errorf("the client is told the cause: %+v", refused)
	}
	if r := f.audit.lastLogon(t); !strings.Contains(r.Reason, "broken disk") {
		t.Errorf("recorded %+v", r)
	}
	registry.set(nil, nil)
	f.connect(good, "")
}

// TestRevokedSessions: sessions that are idle, in a transaction, running a query or streaming
// end within five seconds, and are told why. Others go on, and an unreadable registry ends no
// session.
func TestRevokedSessions(t *testing.T) {
	registry := &revocations{}
	f := newFixture(t, func(c *gateway.Config) { c.Revoked = registry.revoked })
	pg := pgtest.Start(t)
	f.real(pg)
	ctx := context.Background()
	g := f.grant(pg.Name("alice"))
	idle, block, running := f.connect(g, ""), f.connect(g, ""), f.connect(g, "")
	other := f.connect(f.grant(pg.Name("bob")), "")
	if _, err := block.Exec(ctx, "BEGIN"); err != nil {
		t.Fatal(err)
	}
	query := make(chan error, 1)
	go func() {
		_, err := running.Exec(ctx, "SELECT pg_sleep(60)")
		query <- err
	}()
	streaming := f.session(g, "verify-full")
	streaming.send(typed('Q', []byte("SELECT repeat('x', 1000), generate_series(1, 100000000)\x00")))
	streaming.until('D')
	pgtest.Eventually(t, "the query runs", func() bool { return sleeping(t, pg, g.DBUser) == 1 })
	ids := map[string]gateway.Session{}
	for _, s := range f.server.Sessions() {
		ids[s.ID] = s
	}

	registry.set(func(*credential.Grant) bool { return true }, errors.New("broken disk"))
	f.server.Recheck()
	if got := value[int](t, idle, "SELECT 1"); got != 1 || len(f.server.Sessions()) != 5 {
		t.Error("an unreadable registry ended sessions")
	}

	registry.set(func(r *credential.Grant) bool {
		return r.ID == g.ID && r.Principal == principal && r.DBUser == g.DBUser && r.Cluster == "examplecluster" && r.IssuedAt.Equal(g.IssuedAt)
	}, nil)
	began := time.Now()
	f.server.Recheck()
	endsWith(t, idle, "57P01", "the credential was revoked")
	endsWith(t, block, "57P01", "the credential was revoked")
	// A running query gets the error of the cancellation or the final error.
	if err := <-query; !pgIs(err, "57014") && !pgIs(err, "57P01") {
		t.Errorf("the running query ended with %v", err)
	}
	var last map[byte]string
	for {
		kind, body := streaming.message()
		if kind == 'E' {
			if last = errorFields(body); last['S'] == "FATAL" {
				break
			}
		}
	}
	if last['C'] != "57P01" || !strings.Contains(last['M'], "revoked") {
		t.Errorf("streaming ended with %q", last)
	}
	pgtest.Eventually(t, "all sessions are over", func() bool { return len(f.server.Sessions()) == 1 })
	took := time.Since(began)
	t.Logf("all ended after %v", took)
	if took > 5*time.Second+patience {
		t.Errorf("it took %v, want 5 s at most", took)
	}
	pgtest.Eventually(t, "the database has none left", func() bool { return sessionsOf(t, pg, g.DBUser) == 0 })
	for id, s := range ids {
		if s.CredentialID != g.ID {
			continue
		}
		if r := f.audit.end(t, id); r.Reason != "credential revoked" {
			t.Errorf("recorded %+v", r)
		}
	}
	if got := value[int](t, other, "SELECT 1"); got != 1 {
		t.Error("another credential's session ended")
	}
}

func pgIs(err error, state string) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.Code == state
}

// TestRevokedMeanwhile: a revocation between the check and the start of a session still ends the
// session.
func TestRevokedMeanwhile(t *testing.T) {
	registry := &revocations{}
	asked := 0
	registry.match = func(*credential.Grant) bool { asked++; return asked > 1 }
	f := newFixture(t, func(c *gateway.Config) { c.Revoked = registry.revoked })
	pg := pgtest.Start(t)
	f.real(pg)
	g := f.grant(pg.Name("alice"))
	conn, err := f.try(g.LogonName(), f.mint(g), "")
	if err == nil {
		endsWith(t, conn, "57P01", "revoked")
	} else if !pgIs(err, "57P01") {
		t.Errorf("logging on = %v", err)
	}
	pgtest.Eventually(t, "no session", func() bool { return len(f.server.Sessions()) == 0 })
}

// limited returns a fixture whose cluster has limits, and a session in the raw protocol. look
// makes the gateway check its sessions again.
func limited(t *testing.T, limits session.Limits, sslmode string) (f *fixture, c *client, look func()) {
	t.Helper()
	registry := &revocations{}
	f = newFixture(t, func(c *gateway.Config) { c.Revoked = registry.revoked })
	pg := pgtest.Start(t)
	cluster := *f.real(pg)
	cluster.SessionLimits = limits
	f.add(&cluster)
	look = func() {
		asked := func() int { registry.mu.Lock(); defer registry.mu.Unlock(); return registry.asked }
		before := asked()
		// Checks do not overlap: once the second has begun, the first has ended.
		pgtest.Eventually(t, "the gateway looks", func() bool { f.server.Recheck(); return asked() >= before+2 })
	}
	return f, f.session(f.grant(pg.Name("alice")), sslmode), look
}

func (f *fixture) forward(d time.Duration) { f.ahead.Add(int64(d)) }

// query runs a query that returns one row, and returns the types of the answer's messages.
func (c *client) query(sql string) string {
	c.t.Helper()
	c.send(typed('Q', []byte(sql+"\x00")))
	kinds := ""
	for {
		kind, body := c.message()
		if kinds += string(kind); kind == 'Z' {
			return kinds
		}
		if kind == 'E' {
			c.t.Fatalf("%s: %q", sql, errorFields(body))
		}
	}
}

func (c *client) wantFatal(state, text string) {
	c.t.Helper()
	fields := c.fatal()
	if fields['S'] != "FATAL" || fields['C'] != state || !strings.Contains(fields['M'], text) {
		c.t.Errorf("the session ended with %q, want %s %q", fields, state, text)
	}
	if rest := c.rest(); rest != "" {
		c.t.Errorf("after the end: %q", rest)
	}
}

func (f *fixture) wantEnd(id, reason, state string) {
	f.t.Helper()
	if r := f.audit.end(f.t, id); r.Reason != reason || r.SQLState != state {
		f.t.Errorf("recorded %q %q, want %q %q", r.Reason, r.SQLState, reason, state)
	}
}

// TestEndAtExpiry: the notice comes once, between the server's messages, and the session ends on
// time.
func TestEndAtExpiry(t *testing.T) {
	both(t, func(t *testing.T, sslmode string) {
		f, c, look := limited(t, session.Limits{AtExpiry: true, Total: time.Hour, Notice: 5 * time.Minute}, sslmode)
		id := f.server.Sessions()[0].ID
		f.forward(9 * time.Minute)
		look()
		if got := c.query("SELECT 1"); got != "TDCZ" {
			t.Errorf("six minutes ahead: %s", got)
		}
		f.forward(90 * time.Second)
		look()
		kind, body := c.message()
		if notice := errorFields(body); kind != 'N' || notice['S'] != "NOTICE" || notice['C'] != "00000" ||
			!strings.Contains(notice['M'], "this session ends in 4m") || !strings.Contains(notice['M'], "when its credential expires") {
			t.Errorf("message %q %q", kind, notice)
		}
		look()
		for range 100 { // no second notice comes
			if got := c.query("SELECT 1"); got != "TDCZ" {
				t.Fatalf("after the notice: %s", got)
			}
		}
		f.forward(5 * time.Minute)
		f.server.Recheck()
		c.wantFatal("57P01", "the credential has expired")
		f.wantEnd(id, "credential expired", "57P01")
	})
}

// TestNoticeUnderLoad: the stream stays intact wherever the notice is inserted, and even a
// client that is never idle for long gets it.
func TestNoticeUnderLoad(t *testing.T) {
	both(t, func(t *testing.T, sslmode string) {
		f, c, _ := limited(t, session.Limits{Total: time.Hour, Notice: 30 * time.Minute}, sslmode)
		f.forward(45 * time.Minute)
		notices := 0
		for end := time.Now().Add(time.Minute); notices == 0 && time.Now().Before(end); {
			f.server.Recheck()
			switch got := c.query("SELECT repeat('x', 5000) FROM generate_series(1, 40)"); strings.Count(got, "D") {
			case 40:
				notices += strings.Count(got, "N")
			default:
				t.Fatalf("messages %s", got)
			}
		}
		if notices != 1 {
			t.Fatalf("%d notices", notices)
		}
		for range 50 {
			f.server.Recheck()
			if got := c.query("SELECT 1"); got != "TDCZ" {
				t.Fatalf("after the notice: %s", got)
			}
		}
	})
}

// TestTotalLimit: a running query is cancelled, and the client is told.
func TestTotalLimit(t *testing.T) {
	f, c, _ := limited(t, session.Limits{Total: time.Hour}, "verify-full")
	id := f.server.Sessions()[0].ID
	c.send(sleep)
	pgtest.Eventually(t, "the query runs", func() bool { return f.server.Sessions()[0].State == "active" })
	f.forward(time.Hour)
	f.server.Recheck()
	fields := errorFields(c.until('E'))
	if fields['C'] == "57014" { // the server's own answer to the cancel
		fields = errorFields(c.until('E'))
	}
	if fields['C'] != "57P01" || !strings.Contains(fields['M'], "limit of 1h0m0s") {
		t.Errorf("the session ended with %q", fields)
	}
	f.wantEnd(id, "session limit", "57P01")
}

func TestIdleLimit(t *testing.T) {
	for _, row := range []struct{ begin, state, text string }{
		{"SELECT 1", "57P05", "idle-session timeout"},
		{"BEGIN", "25P03", "idle-in-transaction timeout"},
	} {
		f, c, look := limited(t, session.Limits{Idle: 10 * time.Minute}, "verify-full")
		id := f.server.Sessions()[0].ID
		for range 5 { // a client that is active now and then is not idle
			look()
			f.forward(6 * time.Minute)
			c.query(row.begin)
		}
		look()
		f.forward(9 * time.Minute)
		look()
		f.forward(2 * time.Minute)
		f.server.Recheck()
		c.wantFatal(row.state, row.text)
		f.wantEnd(id, "idle limit", row.state)
	}

	// A session that waits for a slow query is not idle.
	f, c, look := limited(t, session.Limits{Idle: 10 * time.Minute}, "verify-full")
	c.send(sleep)
	pgtest.Eventually(t, "the query runs", func() bool { return f.server.Sessions()[0].State == "active" })
	for range 3 {
		look()
		f.forward(time.Hour)
	}
	look()
	if list := f.server.Sessions(); len(list) != 1 || list[0].State != "active" {
		t.Errorf("sessions %+v", list)
	}
}

// TestLimitsOfReload: new limits apply to running sessions, and removing a cluster from the
// configuration does not end its sessions.
func TestLimitsOfReload(t *testing.T) {
	f, c, look := limited(t, session.Limits{Total: time.Hour}, "verify-full")
	old, _ := f.cluster("examplecluster")
	f.mu.Lock()
	delete(f.clusters, "examplecluster")
	f.mu.Unlock()
	f.forward(2 * time.Hour)
	look()
	if got := c.query("SELECT 1"); got != "TDCZ" {
		t.Errorf("cluster gone: %s", got)
	}
	longer := *old
	longer.SessionLimits.Total = 3 * time.Hour
	f.add(&longer)
	look()
	if got := c.query("SELECT 1"); got != "TDCZ" {
		t.Errorf("longer limit: %s", got)
	}
	f.add(old)
	f.server.Recheck()
	c.wantFatal("57P01", "limit of 1h0m0s")
}

// TestRevokedRebel: a statement that catches its cancellation does not outlive its session, even
// if the server would not notice by itself.
func TestRevokedRebel(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, pg *pgtest.Server) {
		t.Parallel() // the test mostly waits
		registry := &revocations{}
		f := newFixture(t, func(c *gateway.Config) { c.Revoked = registry.revoked })
		f.real(pg)
		g := f.grant(pg.Name("alice"))
		c := f.dial()
		start := startup(version30, "user", g.LogonName())
		if pg.Major() >= 14 {
			start = startup(version30, "user", g.LogonName(), "client_connection_check_interval", "0")
		}
		c.send(start)
		c.read(len(askPassword))
		c.send(passwordMessage(f.mint(g)))
		c.until('Z')
		c.send(typed('Q', []byte("do $$ begin loop begin perform pg_sleep(60); exception when query_canceled then null; end; end loop; end $$\x00")))
		pgtest.Eventually(t, "it runs", func() bool { return sleeping(t, pg, g.DBUser) == 1 })
		registry.set(func(*credential.Grant) bool { return true }, nil)
		f.server.Recheck()
		pgtest.Eventually(t, "its backend ends", func() bool { return sessionsOf(t, pg, g.DBUser) == 0 })
		f.audit.mu.Lock()
		defer f.audit.mu.Unlock()
		if end := f.audit.ends; len(end) != 1 || end[0].Reason != "credential revoked" {
			t.Errorf("records of the end: %+v", end)
		}
	})
}

// TestRevokedServerSilent: a session ends in time even if the server has stopped answering,
// cancel requests included.
func TestRevokedServerSilent(t *testing.T) {
	registry := &revocations{}
	f := newFixture(t, func(c *gateway.Config) { c.Revoked = registry.revoked })
	first := make(chan struct{}, 1)
	first <- struct{}{}
	addr, _ := scripted(t, func(conn net.Conn) {
		select {
		case <-first:
			sends(authOK, typed('S', []byte("server_version\x0015.1\x00")), typed('K', []byte{0, 0, 0, 9, 1, 2, 3, 4}), ready)(conn)
		default: // the cancel request
		}
		_, _ = io.Copy(io.Discard, conn)
	})
	admin := &fakeAdmin{role: dbuser.SessionRole{Name: "IAM:alice", Password: "pw", ServerVersion: 150000}}
	f.add(&gateway.Cluster{Identifier: "examplecluster", Database: "dev", Admin: admin, Upstream: upstreamAt(t, addr)})
	c := f.session(f.grant("alice"), "verify-full")
	c.send(sleep)
	pgtest.Eventually(t, "the query runs", func() bool { return f.server.Sessions()[0].State == "active" })
	registry.set(func(*credential.Grant) bool { return true }, nil)
	began := time.Now()
	f.server.Recheck()
	c.wantFatal("57P01", "revoked")
	if took := time.Since(began); took > patience {
		t.Errorf("it took %v", took)
	}
}
