package handover_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// crashAt returns an Admin whose connection breaks for good before the nth statement that
// changes something, as if its process were killed there.
func (f *fixture) crashAt(n int) (admin *handover.Admin, reached *bool) {
	admin, reached = f.Another(func(c *dbuser.Config) { c.Timeout = 2 * time.Second }), new(bool)
	count := 0
	clustertest.Before(admin, func(sql string, c *pgconn.PgConn) {
		if count++; count >= n {
			*reached = true
			_ = c.Conn().Close()
		}
	})
	return admin, reached
}

// TestKilledBetweenStatements kills a logon that creates everything, before each of its
// statements. The next logon must have nothing to repair beyond what it would create anyway. One
// version below 16 and one from 16 on are enough: what differs is that memberships have options.
func TestKilledBetweenStatements(t *testing.T) {
	pgtest.Ends(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		group, template := f.LentGroup("analysts"), f.LentUser("template", "")
		f.Run("alter role %s set work_mem = '5MB'", template)
		for n := 1; ; n++ {
			if n > 40 {
				t.Fatal("no end of statements")
			}
			fresh := f.Name("fresh")
			for _, need := range []dbuser.Need{
				{User: fresh, Groups: []string{group}, AutoCreate: true},
				{User: template, Groups: []string{group}},
			} {
				role := "IAM:" + need.User + ":" + group
				f.Run(fmt.Sprintf("drop role if exists %s", pgtest.Quote(role)))
				crashed, reached := f.crashAt(n)
				_, err := crashed.Ensure(t.Context(), need)
				crashed.Close()
				if !*reached {
					if err != nil {
						t.Fatalf("Ensure without a crash: %v", err)
					}
					if need.User == template {
						return
					}
					continue
				}
				if err == nil {
					t.Errorf("statement %d: Ensure succeeded on a broken connection", n)
				}
				if got := clustertest.One(t, f.Super, "select count(*)::text from pg_roles where rolname in ($1, $2) and rolname <> $3", role, need.User, template); got != "0" {
					t.Errorf("statement %d: %s roles are left of a transaction that did not end", n, got)
				}
				f.Logon(f.Ensure(need), "postgres")
				if left, err := f.Admin.TestOnlyPlan(t.Context(), need); err != nil || len(left) > 0 {
					t.Errorf("statement %d: left to do afterwards: %q, %v", n, left, err)
				}
			}
		}
	})
}

// TestKilledDuringHandOver kills a sweep that hands over and drops, before each of its
// statements. One version below 16 and one from 16 on are enough.
func TestKilledDuringHandOver(t *testing.T) {
	pgtest.Ends(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := alone(t, s, "CREATEROLE") // a sweep of a shared server has other work too
		alice, makers := f.LentUser("alice", ""), f.LentGroup("makers")
		f.LendAlone(alice, makers)
		db := f.LabDatabase(makers)
		for n := 1; ; n++ {
			if n > 80 {
				t.Fatal("no end of statements")
			}
			role := f.Ensure(dbuser.Need{User: alice, Groups: []string{makers}})
			c := f.Logon(role, db)
			clustertest.Exec(t, c, fmt.Sprintf("create table lab.t%d (x int)", n))
			clustertest.Exec(t, c, fmt.Sprintf("create function lab.f%d() returns int language sql as 'select 1'", n))
			clustertest.Exec(t, c, "alter default privileges in schema lab grant select on tables to public")
			_ = c.Close(t.Context())
			f.Eventually("end of the session", func() bool {
				return clustertest.One(t, f.Super, "select count(*)::text from pg_stat_activity where usename = $1", role.Name) == "0"
			})
			f.Run("alter role %s valid until '2020-01-01'", role.Name)

			crashed, reached := f.crashAt(n)
			_, _ = crashed.Sweep(t.Context(), handover.SweepOptions{Unused: time.Hour})
			crashed.Close()
			if got := f.lentOut(alice); got != "" {
				t.Errorf("statement %d: left behind: %s", n, got)
			}
			f.SweepUntil(role.Name, time.Hour)
			if got := clustertest.One(t, f.Super, "select count(*)::text from pg_roles where rolname = $1", role.Name); got != "0" {
				t.Errorf("statement %d: the next sweep did not drop the role", n)
			}
			if !*reached {
				return
			}
		}
	})
}

// TestKilledBetweenPieces kills a sweep before each of its statements. The sweep hands objects
// over one by one, because one of them cannot be handed over.
func TestKilledBetweenPieces(t *testing.T) {
	t.Parallel()
	f := alone(t, pgtest.Start(t), "CREATEROLE")
	alice, makers := f.LentUser("alice", ""), f.LentGroup("makers")
	f.LendAlone(alice, makers)
	db := f.LabDatabase(makers)
	f.Exec(t, db, "create schema shut; grant usage on schema shut to "+pgtest.Quote(makers))
	inside := pgtest.Connect(t, f.Superuser(db))
	for n := 1; ; n++ {
		if n > 120 {
			t.Fatal("no end of statements")
		}
		role := f.Ensure(dbuser.Need{User: alice, Groups: []string{makers}})
		clustertest.Exec(t, inside, "grant create on schema shut to "+pgtest.Quote(makers))
		c := f.Logon(role, db)
		clustertest.Exec(t, c, fmt.Sprintf("create table lab.t%d (x int)", n))
		clustertest.Exec(t, c, fmt.Sprintf("create function shut.f%d() returns int language sql as 'select 1'", n))
		_ = c.Close(t.Context())
		f.NoSessions(role.Name)
		clustertest.Exec(t, inside, "revoke create on schema shut from "+pgtest.Quote(makers))

		crashed, reached := f.crashAt(n)
		_, _ = crashed.Sweep(t.Context(), handover.SweepOptions{})
		crashed.Close()
		if got := f.lentOut(alice); got != "" {
			t.Errorf("statement %d: left behind: %s", n, got)
		}
		report, err := f.Admin.Sweep(t.Context(), handover.SweepOptions{})
		if err != nil || len(report.Kept) != 1 {
			t.Errorf("statement %d: the next sweep = %+v, %v, want the function kept", n, report, err)
		}
		if got := clustertest.One(t, inside, "select tableowner from pg_tables where schemaname = 'lab' and tablename = $1", fmt.Sprintf("t%d", n)); got != alice || f.OwnedBy(role.Name) != "1" {
			t.Errorf("statement %d: after the next sweep the table belongs to %s, and %s objects to the session role", n, got, f.OwnedBy(role.Name))
		}
		clustertest.Exec(t, inside, "grant create on schema shut to "+pgtest.Quote(makers))
		if _, err := f.Admin.Sweep(t.Context(), handover.SweepOptions{}); err != nil || f.OwnedBy(role.Name) != "0" {
			t.Errorf("statement %d: the last sweep leaves %s objects, %v", n, f.OwnedBy(role.Name), err)
		}
		if !*reached {
			return
		}
	}
}
