package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/test/pgtest"
)

// both runs a test with TLS and without.
func both(t *testing.T, test func(t *testing.T, sslmode string)) {
	for _, sslmode := range []string{"verify-full", "disable"} {
		t.Run(sslmode, func(t *testing.T) { test(t, sslmode) })
	}
}

func TestCopy(t *testing.T) {
	both(t, func(t *testing.T, sslmode string) {
		f := newFixture(t, nil)
		pg := pgtest.Start(t)
		f.real(pg)
		conn := f.connect(f.grant(pg.Name("alice")), "", "sslmode", sslmode)
		ctx := context.Background()

		out := sha256.New()
		const rows = 20000
		if _, err := conn.PgConn().CopyTo(ctx, out, fmt.Sprintf("COPY (SELECT i, repeat(md5(i::text), 31) FROM generate_series(1, %d) i) TO STDOUT", rows)); err != nil {
			t.Fatal(err)
		}
		direct := sha256.New()
		if _, err := pgtest.Connect(t, pg.Superuser("postgres")).PgConn().CopyTo(ctx, direct, fmt.Sprintf("COPY (SELECT i, repeat(md5(i::text), 31) FROM generate_series(1, %d) i) TO STDOUT", rows)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out.Sum(nil), direct.Sum(nil)) {
			t.Error("COPY OUT through the gateway differs from a direct one")
		}

		if _, err := conn.Exec(ctx, "CREATE TEMP TABLE t (line text)"); err != nil {
			t.Fatal(err)
		}
		var in bytes.Buffer
		for i := range rows {
			fmt.Fprintf(&in, "%d %s\n", i, strings.Repeat("x", i%1500))
		}
		size, sum := in.Len(), sha256.Sum256(in.Bytes())
		if _, err := conn.PgConn().CopyFrom(ctx, &in, "COPY t FROM STDIN"); err != nil {
			t.Fatal(err)
		}
		back := sha256.New()
		if _, err := conn.PgConn().CopyTo(ctx, back, "COPY (SELECT line FROM t ORDER BY split_part(line, ' ', 1)::int) TO STDOUT"); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(back.Sum(nil), sum[:]) {
			t.Error("what was copied in does not come out")
		}
		session := f.server.Sessions()[0]
		if session.BytesFromClient < uint64(size) || session.BytesToClient < uint64(size) {
			t.Errorf("bytes %d and %d, want more than %d", session.BytesFromClient, session.BytesToClient, size)
		}
	})
}

// TestBackpressure: a client that does not read makes the server wait, and still receives
// everything.
func TestBackpressure(t *testing.T) {
	both(t, func(t *testing.T, sslmode string) {
		f := newFixture(t, nil)
		pg := pgtest.Start(t)
		f.real(pg)
		c := f.session(f.grant(pg.Name("alice")), sslmode)
		c.send(typed('Q', []byte("SELECT repeat('x', 1000) FROM generate_series(1, 60000)\x00")))
		kind, _ := c.message() // then wait until the sockets are full
		if kind != 'T' {
			t.Fatalf("message %q", kind)
		}
		var before uint64
		pgtest.Eventually(t, "the relay stands still", func() bool {
			time.Sleep(100 * time.Millisecond)
			now := f.server.Sessions()[0].BytesToClient
			still := now == before && now > 100000
			before = now
			return still
		})
		if before > 60000*1000 {
			t.Fatal("the gateway holds the whole result")
		}
		rows := 0
		for kind != 'C' {
			if kind, _ = c.message(); kind == 'D' {
				rows++
			}
		}
		if rows != 60000 {
			t.Errorf("%d rows, want 60000", rows)
		}
	})
}

// session logs on with the raw protocol, up to ReadyForQuery.
func (f *fixture) session(g grant, sslmode string) *client {
	f.t.Helper()
	c, _, _ := f.sessionVersion(g, sslmode, version30)
	return c
}

func (f *fixture) sessionVersion(g grant, sslmode string, version uint32) (c *client, pid uint32, key []byte) {
	f.t.Helper()
	if sslmode == "disable" {
		c = f.dial()
	} else {
		c = f.dialTLS()
	}
	c.send(startup(version, "user", g.LogonName()))
	for {
		kind, body := c.message()
		switch {
		case kind == 'R' && bytes.Equal(body, []byte{0, 0, 0, 3}):
			c.send(passwordMessage(f.mint(g)))
		case kind == 'K':
			pid = uint32(body[0])<<24 | uint32(body[1])<<16 | uint32(body[2])<<8 | uint32(body[3])
			key = body[4:]
		case kind == 'E':
			f.t.Fatalf("logging on: %q", errorFields(body))
		case kind == 'Z':
			return c, pid, key
		}
	}
}

// until reads messages up to one of a kind, and returns its body.
func (c *client) until(kind byte) []byte {
	c.t.Helper()
	for {
		if got, body := c.message(); got == kind {
			return body
		}
	}
}

func sleeping(t testing.TB, pg *pgtest.Server, user string) int {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), pg.Superuser("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	return value[int](t, conn, "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'IAM:' || $1 || '%' AND state = 'active' AND query LIKE '%pg_sleep%'", user)
}

func sessionsOf(t testing.TB, pg *pgtest.Server, user string) int {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), pg.Superuser("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	return value[int](t, conn, "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'IAM:' || $1 || '%'", user)
}

// held returns a query that runs until it is released.
func held(t testing.TB, pg *pgtest.Server, database string) (query string, release func()) {
	t.Helper()
	conn := pgtest.Connect(t, pg.Superuser(database))
	run(t, conn, "SELECT pg_advisory_lock(4711)")
	return "SELECT pg_advisory_xact_lock_shared(4711), 'as long as pg_sleep'", func() { run(t, conn, "SELECT pg_advisory_unlock(4711)") }
}

var sleep = typed('Q', []byte("SELECT pg_sleep(120)\x00"))

// TestCancel runs on the oldest and the newest version only: cancel requests work the same in all
// versions.
func TestCancel(t *testing.T) {
	pgtest.Ends(t, func(t *testing.T, pg *pgtest.Server) {
		f := newFixture(t, func(c *gateway.Config) { c.Limits.FailureDelay, c.Limits.FailureDelayMax = 1, 1 })
		f.real(pg)
		for _, test := range []struct {
			version uint32
			length  int
		}{{version30, 4}, {version32, 32}} {
			g := f.grant(pg.Name("alice"))
			c, pid, key := f.sessionVersion(g, "verify-full", test.version)
			if len(key) != test.length {
				t.Fatalf("cancel key of %d bytes, want %d", len(key), test.length)
			}
			other, _, otherKey := f.sessionVersion(f.grant(pg.Name("alice")), "verify-full", test.version)
			c.send(sleep)
			pgtest.Eventually(t, "the query runs", func() bool { return sleeping(t, pg, g.DBUser) == 1 })

			wrong := bytes.Clone(key)
			wrong[len(wrong)-1] ^= 1
			for _, bad := range [][]byte{wrong, otherKey, key[:len(key)-1], append(bytes.Clone(key), 0), {}, make([]byte, 300)} {
				f.cancel(pid, bad, false)
			}
			f.cancel(pid+1, key, false)
			if sleeping(t, pg, g.DBUser) != 1 {
				t.Fatal("a wrong cancel key works")
			}
			f.cancel(pid, key, test.version == version32)
			if fields := errorFields(c.until('E')); fields['C'] != "57014" {
				t.Errorf("after the cancel request: %q", fields)
			}
			c.until('Z')
			c.send(typed('Q', []byte("SELECT 1\x00")))
			c.until('D')
			other.send(typed('Q', []byte("SELECT 1\x00")))
			other.until('D')
		}
	})
}

// cancel sends a CancelRequest and waits for the end of the connection.
func (f *fixture) cancel(pid uint32, key []byte, secure bool) {
	f.t.Helper()
	c := f.dial()
	if secure {
		c.send(sslRequest)
		c.read(1)
		c = f.secure(c, nil)
	}
	c.send(packet(80877102, be32(pid), key))
	if rest := c.rest(); rest != "" {
		f.t.Errorf("answer to a cancel request: %q", rest)
	}
}

func TestCancelByDriver(t *testing.T) {
	f := newFixture(t, nil)
	pg := pgtest.Start(t)
	f.real(pg)
	g := f.grant(pg.Name("alice"))
	conn := f.connect(g, "")
	done := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "SELECT pg_sleep(120)")
		done <- err
	}()
	pgtest.Eventually(t, "the query runs", func() bool { return sleeping(t, pg, g.DBUser) == 1 })
	if err := conn.PgConn().CancelRequest(context.Background()); err != nil {
		t.Fatal(err)
	}
	var pgErr *pgconn.PgError
	if err := <-done; !errors.As(err, &pgErr) || pgErr.Code != "57014" {
		t.Errorf("cancelled query = %v", err)
	}
}

// TestClientGone: a query ends when its client has gone.
func TestClientGone(t *testing.T) {
	both(t, func(t *testing.T, sslmode string) {
		for name, leave := range map[string]func(c *client){
			"reset": func(c *client) {
				_ = tcpOf(c).SetLinger(0)
				tcpOf(c).Close()
			},
			"closed": func(c *client) { tcpOf(c).Close() },
		} {
			t.Run(name, func(t *testing.T) {
				f := newFixture(t, func(c *gateway.Config) { c.Limits.HalfClose = 200 * time.Millisecond })
				pg := pgtest.Start(t)
				f.real(pg)
				g := f.grant(pg.Name("alice"))
				c := f.session(g, sslmode)
				c.send(sleep)
				pgtest.Eventually(t, "the query runs", func() bool { return sleeping(t, pg, g.DBUser) == 1 })
				leave(c)
				pgtest.Eventually(t, "the query ends", func() bool { return sessionsOf(t, pg, g.DBUser) == 0 })
				pgtest.Eventually(t, "the session ends", func() bool { return len(f.server.Sessions()) == 0 })
				reason := f.audit.end(t, f.audit.lastLogon(t).SessionID).Reason
				if want := map[string]string{"reset": "client gone", "closed": "client closed"}[name]; reason != want {
					t.Errorf("reason = %q, want %q", reason, want)
				}
			})
		}
	})
}

// TestClientGoneIsCancelled: the server receives a cancel request for exactly that session.
// TestClientGone cannot show this, because its queries may also end when the connection does, or
// be terminated.
func TestClientGoneIsCancelled(t *testing.T) {
	for name, leave := range map[string]func(c *client){
		"reset":  func(c *client) { _ = tcpOf(c).SetLinger(0); tcpOf(c).Close() },
		"closed": func(c *client) { tcpOf(c).Close() },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, func(c *gateway.Config) { c.Limits.HalfClose = 200 * time.Millisecond })
			packets := make(chan []byte, 2) // the start-up message, the cancel request
			addr, _ := answering(t, func(conn net.Conn, first []byte) {
				packets <- first
				if !isCancel(first) {
					sends(begun)(conn)
					<-t.Context().Done() // a running query does not notice that its client is gone
				}
			})
			admin := &fakeAdmin{role: dbuser.SessionRole{Name: "IAM:alice", Password: "pw"}}
			f.add(&gateway.Cluster{Identifier: "examplecluster", Database: "dev", Admin: admin, Upstream: upstreamAt(t, addr)})
			c := f.session(f.grant("alice"), "verify-full")
			<-packets
			c.send(sleep)
			pgtest.Eventually(t, "the query runs", func() bool { return f.server.Sessions()[0].State == "active" })
			leave(c)
			select {
			case got := <-packets:
				if want := slices.Concat(be32(80877102), be32(9), []byte{1, 2, 3, 4}); !bytes.Equal(got, want) {
					t.Errorf("the cluster was sent %x, want the cancel request %x", got, want)
				}
			case <-time.After(time.Minute):
				t.Error("the cluster was sent no cancel request")
			}
			pgtest.Eventually(t, "the session ends", func() bool { return len(f.server.Sessions()) == 0 })
		})
	}
}

// TestHalfClose: a client that closes its sending side right after its last message still gets all
// answers.
func TestHalfClose(t *testing.T) {
	both(t, func(t *testing.T, sslmode string) {
		f := newFixture(t, func(c *gateway.Config) { c.Limits.HalfClose = time.Minute })
		pg := pgtest.Start(t)
		f.real(pg)
		for range 20 {
			c := f.session(f.grant("alice"), sslmode)
			c.send(typed('Q', []byte("SELECT repeat('x', 1000) FROM generate_series(1, 3000)\x00")))
			if err := c.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got := len(c.rest()); got < 3000*1000 {
				t.Fatalf("%d bytes, want 3000 rows", got)
			}
		}
		pgtest.Eventually(t, "the sessions end", func() bool { return len(f.server.Sessions()) == 0 })
	})
}

// TestServerGone: the server ends a session, with or without an error message.
func TestServerGone(t *testing.T) {
	f := newFixture(t, nil)
	pg := pgtest.Start(t)
	f.real(pg)
	c, pid, _ := f.sessionVersion(f.grant(pg.Name("alice")), "verify-full", version30)
	pg.Exec(t, "postgres", fmt.Sprintf("SELECT pg_terminate_backend(%d)", pid))
	if fields := c.fatal(); fields['C'] != "57P01" {
		t.Errorf("after pg_terminate_backend: %q", fields)
	}
	if rest := c.rest(); rest != "" {
		t.Errorf("after the error: %q", rest)
	}
	if end := f.audit.end(t, f.audit.lastLogon(t).SessionID); end.Reason != "server closed" {
		t.Errorf("reason = %q, want server closed", end.Reason)
	}
}

func TestKill(t *testing.T) {
	both(t, func(t *testing.T, sslmode string) {
		f := newFixture(t, nil)
		pg := pgtest.Start(t)
		f.real(pg)
		g := f.grant(pg.Name("alice"))
		idle := f.session(g, sslmode)
		first := f.audit.lastLogon(t).SessionID
		busy := f.session(f.grant(g.DBUser), sslmode)
		second := f.audit.lastLogon(t).SessionID
		stays := f.session(f.grant(pg.Name("bob")), sslmode)
		busy.send(sleep)
		pgtest.Eventually(t, "the query runs", func() bool { return sleeping(t, pg, g.DBUser) == 1 })

		list := f.server.Sessions()
		if len(list) != 3 || list[0].ID != first || list[0].State != "idle" || list[1].State != "active" || list[0].CredentialID != g.ID ||
			list[0].DBUser != g.DBUser || list[0].Principal != principal || list[0].Cluster != "examplecluster" || list[0].PID == 0 || list[0].TLS != (sslmode != "disable") {
			t.Errorf("sessions = %+v", list)
		}
		if f.server.Kill("no such session") {
			t.Error("Kill() of no session = true")
		}
		if !f.server.Kill(first) {
			t.Error("Kill() = false")
		}
		if fields := idle.fatal(); fields['C'] != "57P01" {
			t.Errorf("the killed session's last message: %q", fields)
		}
		if rest := idle.rest(); rest != "" {
			t.Errorf("after the last message: %q", rest)
		}
		if n := f.server.KillWhere(func(s *gateway.Session) bool { return s.DBUser == g.DBUser && s.ID != first }); n != 1 {
			t.Errorf("KillWhere() = %d, want 1", n)
		}
		pgtest.Eventually(t, "the query ends", func() bool { return sessionsOf(t, pg, g.DBUser) == 0 })
		// The server had sent nothing since the query, so the gateway could insert an error
		// message.
		if fields := busy.fatal(); fields['C'] != "57P01" {
			t.Errorf("the busy session's last message: %q", fields)
		}
		for _, id := range []string{first, second} {
			if end := f.audit.end(t, id); end.Reason != "terminated" || end.SQLState != "57P01" {
				t.Errorf("record of the end = %+v", end)
			}
		}
		stays.send(typed('Q', []byte("SELECT 1\x00")))
		stays.until('D')
	})
}

// TestKillPipelined: a client sends two queries at once. After the answer to the first, the
// session looks idle while the second runs. Ending the session cancels the second as well; the
// server would not notice by itself.
func TestKillPipelined(t *testing.T) {
	f := newFixture(t, nil)
	pg := pgtest.Start(t)
	cluster := f.real(pg)
	for name, send := range map[string]func(c *client){
		"in one piece": func(c *client) { c.send(append(typed('Q', []byte("SELECT 1\x00")), sleep...)) },
		"in two pieces": func(c *client) {
			// The second query arrives while the server is still working on the first.
			query, release := held(t, pg, cluster.Database)
			c.send(simple(query))
			pgtest.Eventually(t, "the first query runs", func() bool { return f.server.Sessions()[0].State == "active" })
			c.send(sleep)
			release()
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := f.grant(pg.Name("alice"))
			c := f.dial()
			c.send(startup(version30, "user", g.LogonName(), "client_connection_check_interval", "0"))
			c.read(len(askPassword))
			c.send(passwordMessage(f.mint(g)))
			c.until('Z')
			send(c)
			c.until('Z')
			pgtest.Eventually(t, "the second query runs", func() bool { return sleeping(t, pg, g.DBUser) == 1 })
			f.server.KillWhere(func(*gateway.Session) bool { return true })
			pgtest.Eventually(t, "the query ends", func() bool { return sessionsOf(t, pg, g.DBUser) == 0 })
		})
	}
}

// TestKillUnderLoad: a session can be ended while data flows without a pause, and its client is
// told why after the message in progress.
func TestKillUnderLoad(t *testing.T) {
	both(t, func(t *testing.T, sslmode string) {
		f := newFixture(t, nil)
		pg := pgtest.Start(t)
		f.real(pg)
		for _, size := range []int{1, 1000, 300_000} {
			c := f.session(f.grant(pg.Name("alice")), sslmode)
			c.send(simple(fmt.Sprintf("SELECT repeat('x', %d) FROM generate_series(1, 1000) a, generate_series(1, 100000) b", size)))
			c.until('D')
			last := make(chan []byte, 1)
			go func() {
				r, m := bufio.NewReader(c), []byte(nil)
				for {
					head := make([]byte, 5)
					if _, err := io.ReadFull(r, head); err != nil {
						last <- m
						return
					}
					m = append(head, make([]byte, int(head[1])<<24+int(head[2])<<16+int(head[3])<<8+int(head[4])-4)...)
					if _, err := io.ReadFull(r, m[5:]); err != nil {
						last <- nil
						return
					}
				}
			}()
			time.Sleep(20 * time.Millisecond) // stops at an arbitrary point of the stream
			f.server.Kill(f.server.Sessions()[0].ID)
			if m := <-last; len(m) == 0 || m[0] != 'E' || errorFields(m[5:])['C'] != "57P01" {
				t.Errorf("rows of %d: the last message is %.60q", size, m)
			}
			pgtest.Eventually(t, "the session ends", func() bool { return len(f.server.Sessions()) == 0 })
		}
	})
}

// TestPipelined: a client that logs on without waiting for the server's requests gets its
// answers.
func TestPipelined(t *testing.T) {
	both(t, func(t *testing.T, sslmode string) {
		f := newFixture(t, nil)
		f.real(pgtest.Start(t))
		c := f.dial()
		if sslmode != "disable" {
			c = f.dialTLS()
		}
		g := f.grant("alice")
		c.send(slices.Concat(startup(version30, "user", g.LogonName()), passwordMessage(f.mint(g)),
			typed('Q', []byte("SELECT 'early'\x00")), []byte("X\x00\x00\x00\x04")))
		if row := c.until('D'); !bytes.HasSuffix(row, []byte("early")) {
			t.Errorf("row %q", row)
		}
		c.rest()
		if end := f.audit.end(t, f.audit.lastLogon(t).SessionID); end.Reason != "client closed" {
			t.Errorf("reason = %q", end.Reason)
		}
	})
}

// TestGoroutines: each session has two goroutines, and none are left at the end.
func TestGoroutines(t *testing.T) {
	f := newFixture(t, nil)
	pg := pgtest.Start(t)
	f.real(pg)
	g := f.grant(pg.Name("alice"))
	f.session(g, "verify-full").send([]byte("X\x00\x00\x00\x04")) // makes the administrative login connect
	pgtest.Eventually(t, "the session ends", func() bool { return len(f.server.Sessions()) == 0 })
	before := runtime.NumGoroutine()
	var clients []*client
	for i := range 20 {
		clients = append(clients, f.session(g, []string{"verify-full", "disable"}[i%2]))
	}
	pgtest.Eventually(t, "two goroutines for each session", func() bool { return runtime.NumGoroutine() <= before+2*len(clients) })
	for _, c := range clients {
		c.Close()
	}
	pgtest.Eventually(t, "no goroutines", func() bool { return runtime.NumGoroutine() <= before })
	pgtest.Eventually(t, "no half-open connections are left", func() bool { return f.server.HalfOpen() == 0 })
}

func TestSessionLimits(t *testing.T) {
	f := newFixture(t, func(c *gateway.Config) { c.Limits.MaxSessions = 4 })
	pg := pgtest.Start(t)
	cluster := f.real(pg)
	cluster.MaxSessions, cluster.MaxSessionsPerUser = 3, 2
	alice, bob := f.grant(pg.Name("alice")), f.grant(pg.Name("bob"))
	try := func(g grant) error {
		_, err := f.try(g.LogonName(), f.mint(g), "")
		return err
	}
	a := f.session(alice, "disable")
	f.session(alice, "disable")
	f.refused(try(alice), "53300", "too many sessions for user")
	f.session(bob, "disable")
	f.refused(try(bob), "53300", `too many sessions for cluster "examplecluster"`)
	a.Close()
	pgtest.Eventually(t, "there is room again", func() bool { return try(bob) == nil })

	// The client gets the error of the database's own limit unchanged.
	pg.Exec(t, "postgres", "ALTER ROLE "+alice.DBUser+" CONNECTION LIMIT 1")
	unlimited := *cluster
	unlimited.MaxSessions, unlimited.MaxSessionsPerUser = 0, 0
	f.add(&unlimited)
	f.refused(try(alice), "53300", "too many connections for role")
}

func tcpOf(c *client) *net.TCPConn {
	conn := c.Conn
	if secure, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = secure.NetConn()
	}
	return conn.(*net.TCPConn)
}
