//go:build unix

package gateway_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/test/pgtest"
)

// stalled is a client whose server takes nothing more of what it sends.
type stalled struct {
	*client
	user    string
	session string
	goOn    func()
	enough  atomic.Bool // no more blocks are written
	written chan int    // how many were
}

// rowsPerBlock and block are a message of a COPY.
const rowsPerBlock = 20

var block = typed('d', bytes.Repeat([]byte("\\N\t"+strings.Repeat("x", 1000)+"\n"), rowsPerBlock))

// stall logs on and begins a COPY, during which the server stops taking bytes: it waits for a lock,
// or its process has been stopped. goOn lets the server go on.
func stall(t *testing.T, f *fixture, pg *pgtest.Server, database, sslmode, how string) *stalled {
	t.Helper()
	table := pgtest.Quote(pg.Name("stalled"))
	pg.Exec(t, database, "create table "+table+" (id int unique, line text); grant all on "+table+" to public")
	g := f.grant(pg.Name("alice"))
	c, pid, _ := f.sessionVersion(g, sslmode, version30)
	s := &stalled{client: c, user: g.DBUser, session: f.audit.lastLogon(t).SessionID, written: make(chan int, 1)}
	holder := pgtest.Connect(t, pg.Superuser(database))
	c.send(simple("copy " + table + " from stdin"))
	c.until('G')
	switch how {
	case "lock":
		run(t, holder, "begin")
		run(t, holder, "insert into "+table+" values (1)")
		s.goOn = func() { run(t, holder, "rollback") }
		c.send(typed('d', []byte("1\tthe row that waits\n")))
	case "stopped":
		signal := func(sig syscall.Signal) {
			process, err := os.FindProcess(int(pid))
			if err == nil {
				err = process.Signal(sig)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		signal(syscall.SIGSTOP)
		s.goOn = func() { signal(syscall.SIGCONT) }
		c.send(typed('d', []byte("1\tthe row that waits\n")))
	}
	go func() {
		n := 0
		for ; !s.enough.Load(); n++ {
			if _, err := c.Write(block); err != nil {
				break
			}
		}
		s.written <- n
	}()
	var before uint64
	same := 0
	pgtest.Eventually(t, "the server takes nothing more", func() bool {
		for _, e := range f.server.Sessions() {
			if e.ID == s.session {
				if same++; e.BytesFromClient != before || before < 1<<20 {
					before, same = e.BytesFromClient, 0
				}
			}
		}
		return same >= 5
	})
	return s
}

// TestClientLeavesStalledServer: a client leaves while its server takes nothing, because it waits
// for a lock or because its process is stopped. The session ends, and so does its backend.
func TestClientLeavesStalledServer(t *testing.T) {
	t.Parallel() // the test mostly waits
	pgtest.Ends(t, func(t *testing.T, pg *pgtest.Server) {
		f := newFixture(t, func(c *gateway.Config) { c.Limits.Stall = 100 * time.Millisecond })
		cluster := f.real(pg)
		left := map[string]*stalled{
			"lock":    stall(t, f, pg, cluster.Database, "verify-full", "lock"),
			"stopped": stall(t, f, pg, cluster.Database, "disable", "stopped"),
		}
		for _, s := range left {
			tcpOf(s.client).Close() // as the system does it when the process is killed
			<-s.written
		}
		for how, s := range left {
			if end := f.audit.end(t, s.session); end.Reason != "client gone" {
				t.Errorf("%s: reason = %q, want client gone", how, end.Reason)
			}
			if how == "stopped" {
				s.goOn() // a process that is stopped cannot end
			}
			pgtest.Eventually(t, how+": the backend ends", func() bool { return sessionsOf(t, pg, s.user) == 0 })
		}
	})
}

// TestClientOutlastsStall: the same stalls with a client that stays. It is not cut, and the COPY
// succeeds when the server goes on.
func TestClientOutlastsStall(t *testing.T) {
	t.Parallel() // the test mostly waits
	pgtest.Ends(t, func(t *testing.T, pg *pgtest.Server) {
		f := newFixture(t, func(c *gateway.Config) { c.Limits.Stall = 50 * time.Millisecond })
		cluster := f.real(pg)
		for how, sslmode := range map[string]string{"lock": "disable", "stopped": "verify-full"} {
			s := stall(t, f, pg, cluster.Database, sslmode, how)
			if first := s.read(1); first != "N" {
				t.Fatalf("%s: the client got %q, want the beginning of a notice", how, first)
			}
			if n := len(f.server.Sessions()); n != 1 {
				t.Fatalf("%s: %d sessions", how, n)
			}
			s.goOn()
			head := s.read(4)
			s.read(int(head[0])<<24 + int(head[1])<<16 + int(head[2])<<8 + int(head[3]) - 4)
			s.enough.Store(true)
			want := fmt.Sprintf("COPY %d\x00", 1+rowsPerBlock*<-s.written)
			s.send(typed('c', nil))
			if tag := string(s.until('C')); tag != want {
				t.Errorf("%s: the COPY's tag is %q, want %q", how, tag, want)
			}
			s.until('Z')
			s.Close()
			pgtest.Eventually(t, "the session ends", func() bool { return len(f.server.Sessions()) == 0 })
		}
	})
}

// TestLeaveTaken: what a client sends before it takes its leave and closes runs, although it has to
// wait for longer than a client may be silent that closes without Terminate. It is so on a direct
// connection.
func TestLeaveTaken(t *testing.T) {
	t.Parallel() // the test mostly waits
	pgtest.Ends(t, func(t *testing.T, pg *pgtest.Server) {
		f := newFixture(t, func(c *gateway.Config) { c.Limits.HalfClose, c.Limits.Stall = 10*time.Millisecond, time.Minute })
		cluster := f.real(pg)
		table := pgtest.Quote(pg.Name("left"))
		pg.Exec(t, cluster.Database, "create table "+table+" (id int); grant all on "+table+" to public")
		holder := pgtest.Connect(t, pg.Superuser(cluster.Database))
		watcher := pgtest.Connect(t, pg.Superuser(cluster.Database))
		waiting := func() bool {
			return value[int](t, watcher, "select count(*) from pg_locks where not granted and relation = $1::regclass", table) > 0
		}
		direct, err := pgtest.Connect(t, pg.Superuser(cluster.Database)).PgConn().Hijack()
		if err != nil {
			t.Fatal(err)
		}
		for i, c := range []*client{{direct.Conn, t}, f.session(f.grant(pg.Name("alice")), "verify-full")} {
			run(t, holder, "begin; lock table "+table)
			c.send(append(simple("insert into "+table+" values (1)"), typed('X', nil)...))
			tcpOf(c).Close()
			pgtest.Eventually(t, "the statement waits", waiting)
			for range 20 {
				time.Sleep(10 * time.Millisecond) // many times HalfClose
				if !waiting() {
					t.Fatalf("client %d: the statement was given up", i)
				}
			}
			run(t, holder, "commit")
			pgtest.Eventually(t, "the statement has run", func() bool { return value[int](t, watcher, "select count(*) from "+table) == i+1 })
		}
	})
}
