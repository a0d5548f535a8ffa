package dbuser_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/test/pgtest"
)

// makeThings makes one object of many kinds in a session.
func makeThings(t testing.TB, c *pgx.Conn, schema string) {
	t.Helper()
	for _, sql := range []string{
		"create table " + schema + ".t (id bigserial primary key, x text)",
		"create table " + schema + ".p (x int) partition by range (x)",
		"create table " + schema + ".p1 partition of " + schema + ".p for values from (0) to (9)",
		"create view " + schema + ".v as select * from " + schema + ".t",
		"create materialized view " + schema + ".m as select 1 as one",
		"create function " + schema + ".f() returns int language sql as 'select 1'",
		"create procedure " + schema + ".pr() language sql as 'select 1'",
		"create type " + schema + ".e as enum ('a', 'b')",
		"create domain " + schema + ".d as int",
		"create sequence " + schema + ".s",
		"create schema inner_" + schema,
	} {
		run(t, c, sql)
	}
}

// ownedBy counts what a role owns, by the catalogue.
func (f *fixture) ownedBy(role string) string {
	f.t.Helper()
	return one(f.t, f.super, `select count(*)::text from pg_shdepend s join pg_roles r on r.oid = s.refobjid
		where s.refclassid = 'pg_authid'::regclass and s.deptype = 'o' and r.rolname = $1`, role)
}

// database makes a database in which a group may make schemas and objects.
func (f *fixture) database(group string) string {
	f.t.Helper()
	name := f.Database(f.t)
	f.exec("grant create on database %s to %s", name, group)
	f.Exec(f.t, name, "create schema lab; grant create, usage on schema lab to "+pgtest.Quote(group))
	return name
}

func (f *fixture) eventually(what string, ok func() bool) {
	f.t.Helper()
	pgtest.Eventually(f.t, what, ok, f.log)
}

func TestHandOverWhenTheSessionEnds(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		for name, f := range map[string]*fixture{"plain": plain(t, s), "superuser": super(t, s)} {
			t.Run(name, func(t *testing.T) {
				f.t = t
				alice, makers := f.user("alice", ""), f.group("makers")
				db := f.database(makers)
				role := f.ensure(dbuser.Need{User: alice, Groups: []string{makers}})
				c := f.logon(role, db)
				makeThings(t, c, "lab")
				run(t, c, "select lo_create(0)")
				if name == "plain" && f.ownedBy(role.Name) == "0" {
					t.Fatal("the session role owns nothing to hand over")
				}
				_ = c.Close(context.Background())
				f.admin.SessionEnded(role.Name, db, nil)
				f.eventually("hand-over", func() bool { return f.ownedBy(role.Name) == "0" })
				if got := f.ownedBy(alice); got == "0" {
					t.Error("the user owns nothing")
				}
				if got := f.memberships(alice); got != "" {
					t.Errorf("the user is a member of %q afterwards", got)
				}
				if got := one(t, f.super, `select count(*)::text from pg_auth_members m join pg_roles r on r.oid = m.roleid
					join pg_roles x on x.oid = m.member where x.rolname = $1 and r.rolname = $2 and `+f.usable(), f.login.Name, alice); got != "0" {
					t.Error("the administrative login stays a member of the user")
				}
			})
		}
	})
}

// usable is true of memberships that give or allow something.
func (f *fixture) usable() string {
	if f.Major() >= 16 {
		return "(m.inherit_option or m.set_option)"
	}
	return "true"
}

// lentOut is what a clean-up has left lent: memberships of the administrative login
// and of the user; empty when there is nothing.
func (f *fixture) lentOut(user string) string {
	f.t.Helper()
	left := f.memberships(user)
	if n := one(f.t, f.super, `select count(*)::text from pg_auth_members m join pg_roles x on x.oid = m.member join pg_roles r on r.oid = m.roleid
		where x.rolname = $1 and r.rolname !~ '^pg_' and `+f.usable(), f.login.Name); n != "0" {
		left += " and " + n + " memberships of the administrative login"
	}
	return left
}

func TestSetRoleNoneIsHandedOverToo(t *testing.T) {
	s := pgtest.Start(t)
	f := plain(t, s)
	alice, makers := f.user("alice", ""), f.group("makers")
	f.exec("grant %s to %s", makers, alice)
	db := f.database(makers)
	role := f.ensure(dbuser.Need{User: alice})
	c := f.logon(role, db)
	run(t, c, "set role none")
	run(t, c, "create table lab.mine (x int)")
	_ = c.Close(context.Background())
	if f.ownedBy(role.Name) == "0" {
		t.Fatal("nothing to hand over")
	}
	f.admin.SessionEnded(role.Name, db, nil)
	f.eventually("hand-over", func() bool { return f.ownedBy(role.Name) == "0" })
}

func TestSweepAfterACrash(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		alice, makers := f.user("alice", ""), f.group("makers")
		one1, two := f.database(makers), f.database(makers)
		role := f.ensure(dbuser.Need{User: alice, Groups: []string{makers}})
		for _, db := range []string{one1, two} {
			c := f.logon(role, db)
			makeThings(t, c, "lab")
			_ = c.Close(context.Background())
		}
		f.sweepUntil(role.Name, 0)
		if got := f.ownedBy(role.Name); got != "0" {
			t.Errorf("after a sweep the session role owns %s objects", got)
		}
	})
}

// TestNothingChangesHandsUnderASession: what one of two sessions has made works in
// the other as long as that lasts, and is handed over at its end, by whichever
// gateway.
func TestNothingChangesHandsUnderASession(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		alice, makers := f.user("alice", ""), f.group("makers")
		db := f.database(makers)
		f.Exec(t, db, "create table lab.sales (x int); grant select on lab.sales to "+pgtest.Quote(makers))
		role := f.ensure(dbuser.Need{User: alice, Groups: []string{makers}})
		c, goesOn := f.logon(role, db), f.logon(role, db)
		makeThings(t, c, "lab")
		run(t, c, "create view lab.ours as select * from lab.sales")
		_ = c.Close(t.Context())
		f.admin.SessionEnded(role.Name, db, nil)
		next := f.another() // after a crash
		if report, err := next.Sweep(t.Context(), dbuser.SweepOptions{}); err != nil || report.InUse == 0 {
			t.Errorf("Sweep = %+v, %v", report, err)
		}
		run(t, goesOn, "select * from lab.ours") // with the group's rights, which alice does not have
		run(t, goesOn, "alter sequence lab.s owned by lab.t.id")
		if got := f.ownedBy(alice); got != "0" {
			t.Errorf("%s objects have changed hands under the session", got)
		}
		_ = goesOn.Close(t.Context())
		f.admin.SessionEnded(role.Name, db, nil)
		f.eventually("hand-over", func() bool { return f.ownedBy(role.Name) == "0" })
	})
}

// TestHandOverPieces: a table in use and a schema that the user may not create in
// any more keep nothing but what is in them.
func TestHandOverPieces(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		alice, makers := f.user("alice", ""), f.group("makers")
		db := f.database(makers)
		f.Exec(t, db, "create schema shut; grant create, usage on schema shut to "+pgtest.Quote(makers))
		role := f.ensure(dbuser.Need{User: alice, Groups: []string{makers}})
		c := f.logon(role, db)
		makeThings(t, c, "lab")
		run(t, c, "create table lab.busy (id serial primary key)")
		run(t, c, "create function shut.f() returns int language sql as 'select 1'")
		_ = c.Close(t.Context())
		f.eventually("end of the session", func() bool {
			return one(t, f.super, "select count(*)::text from pg_stat_activity where usename = $1", role.Name) == "0"
		})
		user := pgtest.Connect(t, s.Superuser(db))
		run(t, user, "begin")
		run(t, user, "lock table lab.busy in access share mode")
		f.Exec(t, db, "revoke create on schema shut from "+pgtest.Quote(makers))

		left := func() string {
			return one(t, user, `select string_agg(o.identity, ' ' order by o.identity) from pg_shdepend d cross join lateral pg_identify_object(d.classid, d.objid, 0) o
				where d.refclassid = 'pg_authid'::regclass and d.refobjid = $1::regrole and d.deptype = 'o' and d.dbid = (select oid from pg_database where datname = current_database())`, pgtest.Quote(role.Name))
		}
		report, err := f.another().Sweep(t.Context(), dbuser.SweepOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := left(), "lab.busy lab.busy_id_seq shut.f()"; got != want {
			t.Errorf("left with the session role: %s, want %s", got, want)
		}
		kept := ""
		for _, k := range report.Kept {
			if k.Role == role.Name {
				kept += k.Reason
			}
		}
		if !strings.Contains(kept, "routine shut.f(): ") && !strings.Contains(kept, "table lab.busy: ") {
			t.Errorf("kept because %q, want the name of an object", kept)
		}
		run(t, user, "rollback")
		f.Exec(t, db, "grant create on schema shut to "+pgtest.Quote(makers))
		f.sweepUntil(role.Name, 0)
		if got := f.ownedBy(role.Name); got != "0" {
			t.Errorf("the session role owns %s objects", got)
		}
	})
}

// TestManyTables: thousands of tables change hands without taking the locks that
// everybody shares, when the session role is swept and when the user is dropped.
func TestManyTables(t *testing.T) {
	const tables, most = 600, 300
	f := alone(t, pgtest.Start(t), "CREATEROLE")
	alice, bob, makers := f.user("alice", ""), f.user("bob", ""), f.group("makers")
	f.lendAlone(alice, bob, makers)
	f.exec("grant %s to %s", makers, bob)
	db := f.database(makers)
	role := f.ensure(dbuser.Need{User: alice, Groups: []string{makers}})
	c := f.logon(role, db)
	run(t, c, fmt.Sprintf("do $$ begin for i in 1..%d loop execute format('create table lab.t%%s (x int)', i); end loop; end $$", tables))
	_ = c.Close(t.Context())
	f.noSessions(role.Name)

	commits, locks := 0, 0
	admin := f.another()
	admin.SetBefore(func(sql string, _ *pgconn.PgConn) {
		if sql == "commit" {
			commits++
			var n int
			if err := f.super.QueryRow(t.Context(), "select count(*) from pg_locks where locktype = 'relation' and pid <> pg_backend_pid()").Scan(&n); err != nil {
				t.Error(err)
			}
			locks = max(locks, n)
		}
	})
	owner := func() string {
		return one(t, pgtest.Connect(t, f.Superuser(db)), "select string_agg(distinct tableowner, ' ') from pg_tables where schemaname = 'lab'")
	}
	bounded := func(what string) {
		t.Helper()
		if locks == 0 || locks > most {
			t.Errorf("%s: %d locks at a time on relations, want some, and %d at most", what, locks, most)
		}
		if commits < (tables-most)/32 {
			t.Errorf("%s: %d transactions", what, commits)
		}
		commits, locks = 0, 0
	}
	report, err := admin.Sweep(t.Context(), dbuser.SweepOptions{})
	if err != nil || len(report.Kept) > 0 {
		t.Fatalf("Sweep = %+v, %v", report, err)
	}
	if got := owner(); got != alice {
		t.Errorf("after the sweep the tables belong to %s, want %s", got, alice)
	}
	bounded("the sweep")
	if plan, err := admin.DropUser(t.Context(), alice, dbuser.DropOptions{ReassignTo: bob}); err != nil {
		t.Fatalf("DropUser = %+v, %v", plan.Problems, err)
	}
	if got := owner(); got != bob {
		t.Errorf("after alice was dropped the tables belong to %s, want %s", got, bob)
	}
	bounded("dropping the user")
}

// TestSweepIsInNobodysWay: while a sweep is in the middle of handing over, logons
// that change nothing do not wait for it, at its own gateway and at another.
func TestSweepIsInNobodysWay(t *testing.T) {
	f := alone(t, pgtest.Start(t), "CREATEROLE")
	alice, bob, makers := f.user("alice", ""), f.user("bob", ""), f.group("makers")
	f.lendAlone(alice, bob, makers)
	db := f.database(makers)
	known := dbuser.Need{User: bob}
	f.ensure(known)
	role := f.ensure(dbuser.Need{User: alice, Groups: []string{makers}})
	c := f.logon(role, db)
	run(t, c, "create table lab.t (x int)")
	_ = c.Close(t.Context())
	f.noSessions(role.Name)

	sweeper := f.another()
	inside, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	sweeper.SetBefore(func(sql string, _ *pgconn.PgConn) {
		if strings.HasPrefix(sql, "reassign") {
			once.Do(func() { close(inside); <-goOn })
		}
	})
	var sweep sync.WaitGroup
	sweep.Go(func() {
		if report, err := sweeper.Sweep(context.Background(), dbuser.SweepOptions{}); err != nil || len(report.HandedOver) != 1 {
			t.Errorf("Sweep = %+v, %v", report, err)
		}
	})
	<-inside
	for name, admin := range map[string]*dbuser.Admin{"its own gateway": sweeper, "another gateway": f.admin} {
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			if _, err := admin.Ensure(ctx, known); err != nil {
				t.Errorf("a logon at %s during the sweep: %v", name, err)
			}
			cancel()
		}
	}
	if f.ownedBy(role.Name) == "0" {
		t.Error("the sweep did not wait for the logons")
	}
	close(goOn)
	sweep.Wait()
}

// sweepUntil sweeps like the next start of a gateway, when the sessions are gone.
func (f *fixture) sweepUntil(role string, unused time.Duration) dbuser.SweepReport {
	f.t.Helper()
	f.eventually("end of sessions", func() bool {
		return one(f.t, f.super, "select count(*)::text from pg_stat_activity where usename = $1", role) == "0"
	})
	report, err := f.another().Sweep(context.Background(), dbuser.SweepOptions{Unused: unused})
	if err != nil {
		f.t.Fatal(err)
	}
	for _, k := range report.Kept {
		if k.Role == role {
			f.t.Errorf("kept %s: %s", k.Role, k.Reason)
		}
	}
	return report
}

func TestSweepDropsTheUnused(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		alice, makers := f.user("alice", ""), f.group("makers")
		db := f.database(makers)
		n := dbuser.Need{User: alice, Groups: []string{makers}}
		role := f.ensure(n)
		c := f.logon(role, db)
		makeThings(t, c, "lab")
		run(t, c, "alter default privileges in schema lab grant select on tables to public")
		_ = c.Close(context.Background())
		exists := func() string {
			return one(t, f.super, "select count(*)::text from pg_roles where rolname = $1", role.Name)
		}
		f.sweepUntil(role.Name, time.Hour)
		if exists() != "1" {
			t.Fatal("a role in use was dropped")
		}
		f.exec("alter role %s valid until '2020-01-01'", role.Name)
		f.sweepUntil(role.Name, time.Hour)
		if exists() != "0" {
			t.Fatal("an unused role was not dropped")
		}
		c = f.session(dbuser.Need{User: alice, Groups: []string{makers}, Database: db})
		run(t, c, "select * from lab.t")
	})
}

// TestAdministratorsAreNoSessionRoles: from 16 on whoever made the marker is
// a member of it, and is not to be swept, handed over or dropped for it.
func TestAdministratorsAreNoSessionRoles(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := alone(t, s, "CREATEROLE")
		old, ops, alice := f.Login(t, "old", "CREATEROLE").Name, f.Login(t, "ops", "").Name, f.Login(t, "alice", "").Name
		f.lendAlone(alice)
		role := f.ensure(dbuser.Need{User: alice})
		f.exec("alter role %s valid until '2020-01-01'", old)
		f.exec("grant %s to %s with admin option", dbuser.MarkerRole, old)
		f.exec("grant %s to %s with admin option", dbuser.MarkerRole, f.login.Name)
		f.exec("grant %s to %s", old, ops)
		f.exec("grant %s to %s", f.login.Name, ops)
		f.exec("grant %s to %s", alice, old)
		f.exec("create schema kept authorization %s", old)
		f.exec("alter role %s valid until '2020-01-01'", role.Name)
		report, err := f.admin.Sweep(t.Context(), dbuser.SweepOptions{Unused: time.Hour})
		if err != nil || len(report.Kept) > 0 || len(report.HandedOver) > 0 || report.Roles != 1 || len(report.Dropped) != 1 {
			t.Errorf("Sweep = %+v, %v", report, err)
		}
		if _, err := f.admin.DropUser(t.Context(), alice, dbuser.DropOptions{}); err != nil {
			t.Errorf("DropUser: %v", err)
		}
		if got := f.memberships(ops); got != f.login.Name+" "+old && got != old+" "+f.login.Name {
			t.Errorf("ops is a member of %q", got)
		}
		if !f.roleExists(old) || one(t, f.super, "select bool_and(rolcanlogin)::text from pg_roles where rolname in ($1, $2)", old, f.login.Name) != "true" {
			t.Error("an administrative login was dropped")
		}
	})
}
