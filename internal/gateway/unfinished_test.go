package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/test/pgtest"
)

// stateOf returns the SQLSTATE of an error, or what else it is.
func stateOf(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code
	}
	return fmt.Sprint(err)
}

// TestUnfinishedLogons: the owner of a database keeps it locked, so that new sessions never begin there.
// The processes that the server has started for them count towards the limit of the user.
func TestUnfinishedLogons(t *testing.T) {
	pgtest.Ends(t, func(t *testing.T, pg *pgtest.Server) {
		t.Parallel()
		f := newFixture(t, func(c *gateway.Config) { c.Limits.LogonTimeout = 1500 * time.Millisecond })
		cluster := f.real(pg)
		cluster.MaxSessionsPerUser = 3
		mallory, db := pg.Login(t, "mallory", "CREATEDB"), pg.Name("hers")
		owner := pgtest.Connect(t, pg.ConnString(mallory, "postgres"))
		do := func(statements ...string) {
			t.Helper()
			for _, sql := range statements {
				if _, err := owner.Exec(t.Context(), sql); err != nil {
					t.Fatalf("%s: %v", sql, err)
				}
			}
		}
		do("create database "+db, "begin", "alter database "+db+" rename to "+db+"_2")
		g := f.grant(mallory.Name)
		super := pgtest.Connect(t, pg.Superuser("postgres"))
		waiting := func() int {
			return value[int](t, super, "select count(*) from pg_locks where not granted and locktype = 'object' and classid = 'pg_database'::regclass and objid = (select oid from pg_database where datname = $1)", db)
		}
		five := func() (states []string) {
			var mu sync.Mutex
			var group sync.WaitGroup
			for range 5 {
				group.Go(func() {
					_, err := f.try(g.LogonName(), f.mint(g), db)
					mu.Lock()
					defer mu.Unlock()
					states = append(states, stateOf(err))
				})
			}
			group.Wait()
			slices.Sort(states)
			return slices.Compact(states)
		}
		// On a busy machine a logon may time out before it gets to the server.
		pgtest.Eventually(t, "three processes wait for logons that have timed out", func() bool {
			if states := five(); slices.ContainsFunc(states, func(s string) bool {
				return s != "08001" && s != "08006" && s != "53300" && !strings.Contains(s, "EOF")
			}) {
				t.Errorf("logons ended with %v", states)
			}
			return waiting() >= 3
		})
		if states := five(); !slices.Equal(states, []string{"53300"}) || waiting() != 3 {
			t.Errorf("then logons ended with %v, and %d processes wait; want 53300 alone, and 3", states, waiting())
		}
		_ = f.connect(f.grant(pg.Name("bob")), "").Close(t.Context())
		do("rollback")
		pgtest.Eventually(t, "places that are free again", func() bool {
			conn, err := f.try(g.LogonName(), f.mint(g), db)
			if err != nil {
				return false
			}
			_ = conn.Close(t.Context())
			return true
		})

		do("begin", "alter database "+db+" rename to "+db+"_2")
		pgtest.Eventually(t, "a process that waits for a logon that has timed out", func() bool {
			_, err := f.try(g.LogonName(), f.mint(g), db)
			if err == nil {
				t.Fatal("logged on")
			}
			return waiting() > 0
		})
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := f.server.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown = %v, waited for a logon that was given up", err)
		}
	})
}

// startsOnly returns the script of a server that authenticates a client and does not begin the session
// before unlock is closed.
func startsOnly(unlock <-chan struct{}) func(net.Conn) {
	return func(conn net.Conn) {
		sends(authOK)(conn)
		<-unlock
	}
}

// begins is the script of a server that begins a session.
func begins(conn net.Conn) {
	sends(authOK, typed('S', []byte("server_version\x0015.1\x00")), typed('K', []byte{0, 0, 0, 9, 1, 2, 3, 4}), ready)(conn)
	_, _ = io.Copy(io.Discard, conn)
}

// TestUnfinishedAtAnotherHost: a logon gives up at the first host, where the database is locked, and gets
// its session at the second one. The process at the first host counts even when the session has ended.
func TestUnfinishedAtAnotherHost(t *testing.T) {
	unlock := make(chan struct{})
	locked, _ := scripted(t, startsOnly(unlock))
	good, _ := scripted(t, begins)
	f := newFixture(t, nil)
	f.add(&gateway.Cluster{Identifier: "examplecluster", Database: "dev", Admin: &fakeAdmin{role: dbuser.SessionRole{Name: "IAM:alice", Password: "pw"}},
		Upstream: upstreamAt(t, locked, good), MaxSessionsPerUser: 1})
	g := f.grant("alice")
	_ = f.connect(g, "").Close(t.Context())
	f.audit.end(t, f.audit.lastLogon(t).SessionID)
	if _, err := f.try(g.LogonName(), f.mint(g), ""); stateOf(err) != "53300" {
		t.Errorf("logging on = %v, while the server still has a process of the last logon", err)
	}
	close(unlock)
	pgtest.Eventually(t, "the place is free again", func() bool {
		_, err := f.try(g.LogonName(), f.mint(g), "")
		return err == nil
	})
}

// TestUnfinishedSpares: the first host does not finish a session that is started ahead. As long as it has
// the process, that takes the place of another spare.
func TestUnfinishedSpares(t *testing.T) {
	unlock := make(chan struct{})
	var n atomic.Int32
	first, _ := scripted(t, func(conn net.Conn) {
		if n.Add(1) == 2 {
			startsOnly(unlock)(conn)
		} else {
			begins(conn)
		}
	})
	second, _ := scripted(t, begins)
	f := newFixture(t, nil)
	role := dbuser.SessionRole{Name: "IAM:alice", Password: "pw", Seen: [32]byte{1}}
	f.add(&gateway.Cluster{Identifier: "examplecluster", Database: "dev", Admin: &fakeAdmin{role: role}, Upstream: upstreamAt(t, first, second), Prewarm: 1})
	g := f.grant("alice")
	logons := 0
	logon := func() { // returns when the gateway has decided whether to start a session ahead
		t.Helper()
		f.connect(g, "")
		logons++
		pgtest.Eventually(t, "the logon is over", func() bool { return strings.Count(f.log.String(), "msg=logon ") == logons })
	}
	spares := func() int { // that wait, or are being started
		waiting := 0
		for _, s := range f.server.Sessions() {
			if s.State == "prewarmed" {
				waiting++
			}
		}
		if f.server.StartsSpares() {
			waiting++
		}
		return waiting
	}
	logon()
	pgtest.Eventually(t, "a session waits that was started at the second host", func() bool { return n.Load() == 2 && !f.server.StartsSpares() && spares() == 1 })
	logon()
	if n := spares(); n != 0 {
		t.Errorf("%d sessions are started ahead: %s", n, f.log)
	}
	close(unlock)
	pgtest.Eventually(t, "the place is free again", func() bool {
		logon()
		return spares() > 0
	})
}
