package handover_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// TestGrantsOfOthers: grants that someone else made to a session role are revoked when it has no
// session, if the administrative login may. Otherwise they are reported, once, with the grantor
// and the statement that revokes them.
func TestGrantsOfOthers(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		for _, options := range []string{"CREATEROLE", "SUPERUSER"} {
			t.Run(options, func(t *testing.T) {
				f := alone(t, s, options)
				f.Run("create role alice login; create role bob login; create role carol login")
				f.LendAlone("alice", "bob")
				db := f.Database(t)
				role := f.Ensure(dbuser.Need{User: "alice"})
				f.Exec(t, db, `create schema bobs authorization bob; create schema carols authorization carol; create table payments (x int);
					set role bob; create table bobs.t (x int, y int); grant select (x) on bobs.t to "IAM:alice"; grant usage on schema bobs to "IAM:alice" with grant option;
					create policy p on bobs.t to "IAM:alice" using (true); create policy q on bobs.t to "IAM:alice", bob using (true);
					alter default privileges in schema bobs grant select on tables to "IAM:alice"`)
				named := func() string {
					return clustertest.One(t, f.Super, "select count(*)::text from pg_shdepend where refclassid = 'pg_authid'::regclass and refobjid = '\"IAM:alice\"'::regrole and dbid <> 0")
				}
				f.SweepUntil("IAM:alice", 0)
				if got := named(); got != "0" {
					t.Errorf("%s things still name the session role", got)
				}
				if clustertest.One(t, pgtest.Connect(t, f.Superuser(db)), "select count(*)::text from pg_policies where policyname = 'q'") != "1" {
					t.Error("a policy that names bob too is gone")
				}
				// Grants by roles that the login may not act as.
				f.Exec(t, db, `grant select on payments to "IAM:alice"; set role carol; create table carols.t (x int); grant select on carols.t to "IAM:alice"`)
				f.Run("alter role %s valid until '2020-01-01'", role.Name)
				var ddl atomic.Int32
				var now atomic.Int64
				now.Store(time.Now().UnixNano())
				admin := f.Another(func(c *dbuser.Config) { c.Now = func() time.Time { return time.Unix(0, now.Load()) } })
				reason := func() string {
					report, err := admin.Sweep(t.Context(), handover.SweepOptions{Unused: time.Hour})
					if err != nil {
						t.Fatal(err)
					}
					if options == "SUPERUSER" {
						return ""
					}
					if len(report.Kept) != 1 {
						t.Fatalf("Sweep = %+v", report)
					}
					return report.Kept[0].Reason
				}
				first := reason()
				clustertest.Before(admin, count(&ddl, "role"))
				if options == "SUPERUSER" {
					if f.RoleExists(role.Name) {
						t.Error("a superuser could not take it back")
					}
					return
				}
				for _, want := range []string{`"postgres" granted it rights on table public.payments; as "postgres" or a superuser: revoke all on table public.payments from "IAM:alice" cascade`} {
					if !strings.Contains(first, want) {
						t.Errorf("kept because %s, want %s", first, want)
					}
				}
				if f.Major() >= 16 && !strings.Contains(first, `"carol" granted it rights on table carols.t`) {
					t.Errorf("no word of carol's grant: %s", first)
				}
				if again := reason(); again != first {
					t.Errorf("a sweep later it is kept because %s", again)
				}
				if n := ddl.Load(); n != 0 {
					t.Errorf("%d statements about it in the next sweep", n)
				}
				f.Exec(t, db, `revoke all on table public.payments from "IAM:alice" cascade; revoke all on table carols.t from "IAM:alice" cascade`)
				now.Add(int64(2 * time.Hour))
				if report, err := admin.Sweep(t.Context(), handover.SweepOptions{Unused: time.Hour}); err != nil || len(report.Kept) > 0 || f.RoleExists(role.Name) {
					t.Errorf("after the statement was run: %+v, %v", report, err)
				}
			})
		}
	})
}

// count returns a hook that counts an Admin's ALTER and DROP statements for one kind of object.
func count(n *atomic.Int32, what string) func(string, *pgconn.PgConn) {
	return func(sql string, _ *pgconn.PgConn) {
		if strings.HasPrefix(sql, "alter "+what) || strings.HasPrefix(sql, "drop "+what) {
			n.Add(1)
		}
	}
}

// TestSessionRolesPassedOn: on 13 and 14 a session can grant its own session role to others. The
// grant is revoked within two seconds while the session lasts, and at its end.
func TestSessionRolesPassedOn(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		if s.Major() > 14 {
			return // from 15 on a role does not administer itself
		}
		f := plain(t, s)
		alice, group, bob := f.LentUser("alice", ""), f.LentGroup("analysts"), f.LentUser("bob", "")
		role := f.Ensure(dbuser.Need{User: alice, Groups: []string{group}})
		c := f.Logon(role, "postgres")
		self := pgtest.Quote(role.Name)
		for _, sql := range []string{
			"grant " + self + " to " + pgtest.Quote(bob),
			"grant " + self + " to " + pgtest.Quote(bob) + " with admin option",
		} {
			clustertest.Exec(t, c, sql)
			f.Eventually(sql, func() bool { return f.Memberships(bob) == "" })
		}
		clustertest.Exec(t, c, "grant "+self+" to "+pgtest.Quote(bob)+" with admin option")
		_ = c.Close(context.Background())
		f.NoSessions(role.Name)
		f.Admin.SessionEnded(role.Name, nil)
		f.Eventually("end", func() bool { return f.Memberships(bob) == "" })
	})
}

// TestAHoldersLocksAreTheirsAlone: one holder locks hundreds of tables. That delays neither the
// strip nor the hand-over of other roles.
func TestAHoldersLocksAreTheirsAlone(t *testing.T) {
	f := alone(t, pgtest.Start(t), "CREATEROLE")
	mallory, alice, makers := f.LentUser("mallory", ""), f.LentUser("alice", ""), f.LentGroup("makers")
	f.LendAlone(mallory, alice, makers)
	db := f.LabDatabase(makers)
	theirs := f.Ensure(dbuser.Need{User: mallory, Groups: []string{makers}})
	c := f.Logon(theirs, db)
	clustertest.Exec(t, c, "do $$ begin for i in 1..200 loop execute format('create table lab.t%s (x int)', i); end loop; end $$")
	_ = c.Close(t.Context())
	lock := pgtest.Connect(t, f.Superuser(db))
	clustertest.Exec(t, lock, "begin")
	clustertest.Exec(t, lock, "do $$ begin for i in 1..200 loop execute format('lock table lab.t%s in access share mode', i); end loop; end $$")
	hers := f.Ensure(dbuser.Need{User: alice, Groups: []string{makers}})
	c = f.Logon(hers, db)
	clustertest.Exec(t, c, "create table lab.hers (x int)")
	_ = c.Close(t.Context())
	f.NoSessions(theirs.Name, hers.Name)
	began := time.Now()
	f.Admin.SessionEnded(theirs.Name, nil)
	f.Admin.SessionEnded(hers.Name, nil)
	f.Eventually("strip", func() bool {
		return f.Memberships(theirs.Name) == dbuser.MarkerRole && f.Memberships(hers.Name) == dbuser.MarkerRole
	})
	f.Eventually("hand-over", func() bool { return f.OwnedBy(hers.Name) == "0" })
	if took := time.Since(began); took > time.Minute {
		t.Errorf("alice's objects took %v", took)
	}
	if got := f.OwnedBy(theirs.Name); got == "0" {
		t.Error("the tables are not locked: nothing to wait for")
	}
	report, err := f.Another().Sweep(t.Context(), handover.SweepOptions{Each: time.Second})
	if err != nil || len(report.Kept) > 0 && strings.Contains(fmt.Sprint(report.Kept), "Role:"+hers.Name) {
		t.Errorf("Sweep = %+v, %v", report, err)
	}
	clustertest.Exec(t, lock, "rollback")
	f.SweepUntil(theirs.Name, 0)
	if got := f.OwnedBy(theirs.Name); got != "0" {
		t.Errorf("%s objects are left", got)
	}
}
