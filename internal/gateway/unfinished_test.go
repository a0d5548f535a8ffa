package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
		var states []string
		var mu sync.Mutex
		for range 2 {
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
		}
		slices.Sort(states)
		if got, want := slices.Compact(slices.Clone(states)), []string{"08006", "53300"}; !slices.Equal(got, want) || waiting() != 3 {
			t.Errorf("logons ended with %v, and %d processes wait; want 3 that time out", states, waiting())
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
		if _, err := f.try(g.LogonName(), f.mint(g), db); stateOf(err) != "08006" {
			t.Errorf("logging on = %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := f.server.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown = %v, waited for a logon that was given up", err)
		}
	})
}
