package handover_test

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
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/test/clustertest"
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
		clustertest.Exec(t, c, sql)
	}
}

// TestHandOverWhenTheSessionEnds: at the end of a session its objects go to the user, and no
// membership that this took is left.
func TestHandOverWhenTheSessionEnds(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		for name, f := range map[string]*fixture{"plain": plain(t, s), "superuser": super(t, s)} {
			t.Run(name, func(t *testing.T) {
				f.T = t
				alice, makers := f.LentUser("alice", ""), f.LentGroup("makers")
				db := f.LabDatabase(makers)
				role := f.Ensure(dbuser.Need{User: alice, Groups: []string{makers}})
				c := f.Logon(role, db)
				makeThings(t, c, "lab")
				clustertest.Exec(t, c, "select lo_create(0)")
				if name == "plain" && f.OwnedBy(role.Name) == "0" {
					t.Fatal("the session role owns nothing to hand over")
				}
				_ = c.Close(context.Background())
				f.Admin.SessionEnded(role.Name, nil)
				f.Eventually("hand-over", func() bool { return f.OwnedBy(role.Name) == "0" })
				if got := f.OwnedBy(alice); got == "0" {
					t.Error("the user owns nothing")
				}
				if got := f.Memberships(alice); got != "" {
					t.Errorf("the user is a member of %q afterwards", got)
				}
				if got := clustertest.One(t, f.Super, `select count(*)::text from pg_auth_members m join pg_roles r on r.oid = m.roleid
					join pg_roles x on x.oid = m.member where x.rolname = $1 and r.rolname = $2 and `+f.usable(), f.As.Name, alice); got != "0" {
					t.Error("the administrative login stays a member of the user")
				}
			})
		}
	})
}

// usable returns the SQL condition for memberships that give the member any rights.
func (f *fixture) usable() string {
	if f.Major() >= 16 {
		return "(m.inherit_option or m.set_option)"
	}
	return "true"
}

// lentOut returns the temporary memberships, of the administrative login and of the user, that a
// clean-up has left behind; it is empty if there are none.
func (f *fixture) lentOut(user string) string {
	f.T.Helper()
	left := f.Memberships(user)
	if n := clustertest.One(f.T, f.Super, `select count(*)::text from pg_auth_members m join pg_roles x on x.oid = m.member join pg_roles r on r.oid = m.roleid
		where x.rolname = $1 and r.rolname !~ '^pg_' and `+f.usable(), f.As.Name); n != "0" {
		left += " and " + n + " memberships of the administrative login"
	}
	return left
}

func TestSetRoleNoneIsHandedOverToo(t *testing.T) {
	s := pgtest.Start(t)
	f := plain(t, s)
	alice, makers := f.LentUser("alice", ""), f.LentGroup("makers")
	f.Run("grant %s to %s", makers, alice)
	db := f.LabDatabase(makers)
	role := f.Ensure(dbuser.Need{User: alice})
	c := f.Logon(role, db)
	clustertest.Exec(t, c, "set role none")
	clustertest.Exec(t, c, "create table lab.mine (x int)")
	_ = c.Close(context.Background())
	if f.OwnedBy(role.Name) == "0" {
		t.Fatal("nothing to hand over")
	}
	f.Admin.SessionEnded(role.Name, nil)
	f.Eventually("hand-over", func() bool { return f.OwnedBy(role.Name) == "0" })
}

// TestSweepAfterACrash: a sweep hands over, in every database, the objects of sessions whose end
// was not reported.
func TestSweepAfterACrash(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		alice, makers := f.LentUser("alice", ""), f.LentGroup("makers")
		one, two := f.LabDatabase(makers), f.LabDatabase(makers)
		role := f.Ensure(dbuser.Need{User: alice, Groups: []string{makers}})
		for _, db := range []string{one, two} {
			c := f.Logon(role, db)
			makeThings(t, c, "lab")
			_ = c.Close(context.Background())
		}
		f.SweepUntil(role.Name, 0)
		if got := f.OwnedBy(role.Name); got != "0" {
			t.Errorf("after a sweep the session role owns %s objects", got)
		}
	})
}

// TestNothingChangesHandsUnderASession: an object that one of two sessions has created stays usable
// in the other one as long as that session lasts. After its end, any gateway hands the object over.
func TestNothingChangesHandsUnderASession(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		alice, makers := f.LentUser("alice", ""), f.LentGroup("makers")
		db := f.LabDatabase(makers)
		f.Exec(t, db, "create table lab.sales (x int); grant select on lab.sales to "+pgtest.Quote(makers))
		role := f.Ensure(dbuser.Need{User: alice, Groups: []string{makers}})
		c, goesOn := f.Logon(role, db), f.Logon(role, db)
		makeThings(t, c, "lab")
		clustertest.Exec(t, c, "create view lab.ours as select * from lab.sales")
		_ = c.Close(t.Context())
		f.Admin.SessionEnded(role.Name, nil)
		next := f.Another() // after a crash
		if report, err := next.Sweep(t.Context(), handover.SweepOptions{}); err != nil || report.InUse == 0 {
			t.Errorf("Sweep = %+v, %v", report, err)
		}
		clustertest.Exec(t, goesOn, "select * from lab.ours") // with the group's rights, which alice does not have
		clustertest.Exec(t, goesOn, "alter sequence lab.s owned by lab.t.id")
		if got := f.OwnedBy(alice); got != "0" {
			t.Errorf("%s objects have changed hands under the session", got)
		}
		_ = goesOn.Close(t.Context())
		f.Admin.SessionEnded(role.Name, nil)
		f.Eventually("hand-over", func() bool { return f.OwnedBy(role.Name) == "0" })
	})
}

// TestHandOverPieces: if a table is in use, and the user may no longer create objects in a
// schema, only the objects concerned stay behind.
func TestHandOverPieces(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		alice, makers := f.LentUser("alice", ""), f.LentGroup("makers")
		db := f.LabDatabase(makers)
		f.Exec(t, db, "create schema shut; grant create, usage on schema shut to "+pgtest.Quote(makers))
		role := f.Ensure(dbuser.Need{User: alice, Groups: []string{makers}})
		c := f.Logon(role, db)
		makeThings(t, c, "lab")
		clustertest.Exec(t, c, "create table lab.busy (id serial primary key)")
		clustertest.Exec(t, c, "create function shut.f() returns int language sql as 'select 1'")
		_ = c.Close(t.Context())
		f.Eventually("end of the session", func() bool {
			return clustertest.One(t, f.Super, "select count(*)::text from pg_stat_activity where usename = $1", role.Name) == "0"
		})
		user := pgtest.Connect(t, s.Superuser(db))
		clustertest.Exec(t, user, "begin")
		clustertest.Exec(t, user, "lock table lab.busy in access share mode")
		f.Exec(t, db, "revoke create on schema shut from "+pgtest.Quote(makers))

		left := func() string {
			return clustertest.One(t, user, `select string_agg(o.identity, ' ' order by o.identity) from pg_shdepend d cross join lateral pg_identify_object(d.classid, d.objid, 0) o
				where d.refclassid = 'pg_authid'::regclass and d.refobjid = $1::regrole and d.deptype = 'o' and d.dbid = (select oid from pg_database where datname = current_database())`, pgtest.Quote(role.Name))
		}
		report, err := f.Another().Sweep(t.Context(), handover.SweepOptions{})
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
		clustertest.Exec(t, user, "rollback")
		f.Exec(t, db, "grant create on schema shut to "+pgtest.Quote(makers))
		f.SweepUntil(role.Name, 0)
		if got := f.OwnedBy(role.Name); got != "0" {
			t.Errorf("the session role owns %s objects", got)
		}
	})
}

// TestManyTables: thousands of tables are handed over without using up the server's shared lock
// table, both when the session role is swept and when the user is dropped.
func TestManyTables(t *testing.T) {
	const tables, most = 600, 300
	f := alone(t, pgtest.Start(t), "CREATEROLE")
	alice, bob, makers := f.LentUser("alice", ""), f.LentUser("bob", ""), f.LentGroup("makers")
	f.LendAlone(alice, bob, makers)
	f.Run("grant %s to %s", makers, bob)
	db := f.LabDatabase(makers)
	role := f.Ensure(dbuser.Need{User: alice, Groups: []string{makers}})
	c := f.Logon(role, db)
	clustertest.Exec(t, c, fmt.Sprintf("do $$ begin for i in 1..%d loop execute format('create table lab.t%%s (x int)', i); end loop; end $$", tables))
	_ = c.Close(t.Context())
	f.NoSessions(role.Name)

	commits, locks := 0, 0
	admin := f.Another()
	clustertest.Before(admin, func(sql string, _ *pgconn.PgConn) {
		if sql == "commit" {
			commits++
			var n int
			if err := f.Super.QueryRow(t.Context(), "select count(*) from pg_locks where locktype = 'relation' and pid <> pg_backend_pid()").Scan(&n); err != nil {
				t.Error(err)
			}
			locks = max(locks, n)
		}
	})
	owner := func() string {
		return clustertest.One(t, pgtest.Connect(t, f.Superuser(db)), "select string_agg(distinct tableowner, ' ') from pg_tables where schemaname = 'lab'")
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
	report, err := admin.Sweep(t.Context(), handover.SweepOptions{})
	if err != nil || len(report.Kept) > 0 {
		t.Fatalf("Sweep = %+v, %v", report, err)
	}
	if got := owner(); got != alice {
		t.Errorf("after the sweep the tables belong to %s, want %s", got, alice)
	}
	bounded("the sweep")
	if plan, err := admin.DropUser(t.Context(), alice, handover.DropOptions{ReassignTo: bob}); err != nil {
		t.Fatalf("DropUser = %+v, %v", plan.Problems, err)
	}
	if got := owner(); got != bob {
		t.Errorf("after alice was dropped the tables belong to %s, want %s", got, bob)
	}
	bounded("dropping the user")
}

// TestSweepIsInNobodysWay: during a hand-over by a sweep, logons that change nothing do not
// wait, neither at the same gateway nor at another one.
func TestSweepIsInNobodysWay(t *testing.T) {
	f := alone(t, pgtest.Start(t), "CREATEROLE")
	alice, bob, makers := f.LentUser("alice", ""), f.LentUser("bob", ""), f.LentGroup("makers")
	f.LendAlone(alice, bob, makers)
	db := f.LabDatabase(makers)
	known := dbuser.Need{User: bob}
	f.Ensure(known)
	role := f.Ensure(dbuser.Need{User: alice, Groups: []string{makers}})
	c := f.Logon(role, db)
	clustertest.Exec(t, c, "create table lab.t (x int)")
	_ = c.Close(t.Context())
	f.NoSessions(role.Name)

	sweeper := f.Another()
	inside, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	clustertest.Before(sweeper, func(sql string, _ *pgconn.PgConn) {
		if strings.HasPrefix(sql, "reassign") {
			once.Do(func() { close(inside); <-goOn })
		}
	})
	var sweep sync.WaitGroup
	sweep.Go(func() {
		if report, err := sweeper.Sweep(context.Background(), handover.SweepOptions{}); err != nil || len(report.HandedOver) != 1 {
			t.Errorf("Sweep = %+v, %v", report, err)
		}
	})
	<-inside
	for name, admin := range map[string]*handover.Admin{"its own gateway": sweeper, "another gateway": f.Admin} {
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			if _, err := admin.Ensure(ctx, known); err != nil {
				t.Errorf("a logon at %s during the sweep: %v", name, err)
			}
			cancel()
		}
	}
	if f.OwnedBy(role.Name) == "0" {
		t.Error("the sweep did not wait for the logons")
	}
	close(goOn)
	sweep.Wait()
}

// TestSweepDropsTheUnused: a sweep drops a session role whose last logon is long ago, and no
// other. The next logon makes it again.
func TestSweepDropsTheUnused(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		alice, makers := f.LentUser("alice", ""), f.LentGroup("makers")
		db := f.LabDatabase(makers)
		n := dbuser.Need{User: alice, Groups: []string{makers}}
		role := f.Ensure(n)
		c := f.Logon(role, db)
		makeThings(t, c, "lab")
		clustertest.Exec(t, c, "alter default privileges in schema lab grant select on tables to public")
		_ = c.Close(context.Background())
		exists := func() string {
			return clustertest.One(t, f.Super, "select count(*)::text from pg_roles where rolname = $1", role.Name)
		}
		f.SweepUntil(role.Name, time.Hour)
		if exists() != "1" {
			t.Fatal("a role in use was dropped")
		}
		f.Run("alter role %s valid until '2020-01-01'", role.Name)
		f.SweepUntil(role.Name, time.Hour)
		if exists() != "0" {
			t.Fatal("an unused role was not dropped")
		}
		c = f.Session(dbuser.Need{User: alice, Groups: []string{makers}, Database: db})
		clustertest.Exec(t, c, "select * from lab.t")
	})
}

// TestAdministratorsAreNoSessionRoles: from 16 on the role that created the marker is a member
// of it. It must not be swept, handed over or dropped because of that.
func TestAdministratorsAreNoSessionRoles(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := alone(t, s, "CREATEROLE")
		old, ops, alice := f.Login(t, "old", "CREATEROLE").Name, f.Login(t, "ops", "").Name, f.Login(t, "alice", "").Name
		f.LendAlone(alice)
		role := f.Ensure(dbuser.Need{User: alice})
		f.Run("alter role %s valid until '2020-01-01'", old)
		f.Run("grant %s to %s with admin option", dbuser.MarkerRole, old)
		f.Run("grant %s to %s with admin option", dbuser.MarkerRole, f.As.Name)
		f.Run("grant %s to %s", old, ops)
		f.Run("grant %s to %s", f.As.Name, ops)
		f.Run("grant %s to %s", alice, old)
		f.Run("create schema kept authorization %s", old)
		f.Run("alter role %s valid until '2020-01-01'", role.Name)
		report, err := f.Admin.Sweep(t.Context(), handover.SweepOptions{Unused: time.Hour})
		if err != nil || len(report.Kept) > 0 || len(report.HandedOver) > 0 || report.Roles != 1 || len(report.Dropped) != 1 {
			t.Errorf("Sweep = %+v, %v", report, err)
		}
		if _, err := f.Admin.DropUser(t.Context(), alice, handover.DropOptions{}); err != nil {
			t.Errorf("DropUser: %v", err)
		}
		if got := f.Memberships(ops); got != f.As.Name+" "+old && got != old+" "+f.As.Name {
			t.Errorf("ops is a member of %q", got)
		}
		if !f.RoleExists(old) || clustertest.One(t, f.Super, "select bool_and(rolcanlogin)::text from pg_roles where rolname in ($1, $2)", old, f.As.Name) != "true" {
			t.Error("an administrative login was dropped")
		}
	})
}
