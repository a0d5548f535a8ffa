package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

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
			if states := five(); slices.ContainsFunc(states, func(s string) bool { return s != "08006" && s != "53300" && !strings.Contains(s, "EOF") }) {
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
