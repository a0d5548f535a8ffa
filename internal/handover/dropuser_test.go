package handover_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// entangled creates a user that owns objects, holds grants, and is referred to in every possible
// way.
func (f *fixture) entangled() (alice, bob string, roles []string, databases []string) {
	f.T.Helper()
	alice, bob = f.LentUser("alice", ""), f.LentUser("bob", "")
	makers, keeper, carol := f.LentGroup("makers"), f.LentGroup("keeper"), f.LentUser("carol", "")
	f.Run("grant %s to %s", makers, alice)
	f.Run("grant %s to %s", makers, bob)
	for range 2 {
		db := f.LabDatabase(makers)
		databases = append(databases, db)
		f.Run("grant create on database %s to %s", db, keeper)
		f.Exec(f.T, db, strings.NewReplacer("{alice}", pgtest.Quote(alice), "{keeper}", pgtest.Quote(keeper), "{carol}", pgtest.Quote(carol)).Replace(`
			set role {keeper};
			create schema kept;
			create table kept.a (x int, y int);
			create table kept.b (x int);
			create sequence kept.s;
			create function kept.f(int, text) returns int language sql as 'select 1';
			create type kept.e as enum ('a');
			create domain kept.d as int;
			create policy own on kept.a to {alice};
			grant usage on schema kept to {carol};
			grant usage on schema kept to {alice} with grant option;
			grant select (x), update on kept.a to {alice};
			grant usage on sequence kept.s to {alice};
			grant execute on function kept.f(int, text) to {alice};
			grant usage on type kept.e, kept.d to {alice};
			grant select on kept.b to {carol} with grant option;
			alter default privileges in schema kept grant select on tables to {alice};
			reset role;
			set role {carol};
			grant select on kept.b to {alice};
			reset role;
			set role {alice};
			grant usage on schema kept to {carol};
			reset role`))
	}
	for _, groups := range [][]string{nil, {makers}} {
		role := f.Ensure(dbuser.Need{User: alice, Groups: groups})
		roles = append(roles, role.Name)
		for i, db := range databases {
			schema := fmt.Sprintf("own%d", len(groups))
			c := f.Logon(role, db)
			clustertest.Exec(f.T, c, "create schema "+schema)
			makeThings(f.T, c, schema)
			clustertest.Exec(f.T, c, "select lo_create(0)")
			clustertest.Exec(f.T, c, "alter default privileges in schema "+schema+" grant select on tables to public")
			clustertest.Exec(f.T, c, fmt.Sprintf("create function lab.f%d_%d() returns int language sql as 'select 1'", len(groups), i))
			_ = c.Close(context.Background())
		}
	}
	return alice, bob, roles, databases
}

// TestDropUser: DropUser changes nothing while there are problems. Then it ends the sessions,
// gives every object to the heir, and drops the user and its session roles, with nothing left
// behind.
func TestDropUser(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		for name, f := range map[string]*fixture{"plain": plain(t, s), "superuser": super(t, s)} {
			t.Run(name, func(t *testing.T) {
				f.T = t
				alice, bob, roles, databases := f.entangled()
				f.NoSessions(append(roles, alice)...)

				// Without a new owner for the objects, the plan reports the problem and nothing
				// happens.
				plan, err := f.Admin.DropUser(t.Context(), alice, handover.DropOptions{})
				if !errors.Is(err, handover.ErrBlocked) || len(plan.Problems) != 1 || !strings.Contains(plan.Problems[0].Message, "--reassign-to") {
					t.Fatalf("DropUser without a heir = %+v, %v", plan.Problems, err)
				}
				if !slices.Equal(plan.SessionRoles, roles) || !plan.Exists || !plan.Owns() {
					t.Errorf("plan = %+v", plan)
				}
				if clustertest.One(t, f.Super, "select rolcanlogin::text from pg_roles where rolname = $1", alice) != "true" {
					t.Error("a plan with problems changed something")
				}

				// Sessions are a problem, unless they may be ended.
				c := f.Session(dbuser.Need{User: alice})
				o := handover.DropOptions{ReassignTo: bob}
				if plan, err = f.Admin.DropUser(t.Context(), alice, o); !errors.Is(err, handover.ErrBlocked) || !strings.Contains(plan.Problems[0].Message, "--force") {
					t.Fatalf("DropUser with a session = %+v, %v", plan.Problems, err)
				}
				o.Force = true
				var said []string
				o.Progress = func(text string) { said = append(said, text) }
				if _, err := f.Admin.DropUser(t.Context(), alice, o); err != nil {
					t.Fatalf("DropUser: %v; done: %q", err, said)
				}
				if err := c.Ping(t.Context()); err == nil {
					t.Error("the session goes on")
				}
				for _, r := range append(roles, alice) {
					if f.RoleExists(r) {
						t.Errorf("%s is still there", r)
					}
				}
				for _, db := range databases {
					c := pgtest.Connect(t, f.Superuser(db))
					for _, schema := range []string{"own0", "own1"} {
						if got := clustertest.One(t, c, "select string_agg(distinct tableowner, ' ') from pg_tables where schemaname = $1", schema); got != bob {
							t.Errorf("%s.%s belongs to %s, want %s", db, schema, got, bob)
						}
					}
					if got := clustertest.One(t, c, "select count(*)::text from pg_largeobject_metadata where lomowner = $1::text::regrole", pgtest.Quote(bob)); got != "2" {
						t.Errorf("%s has %s large objects of the heir, want 2", db, got)
					}
				}
				if got := f.Memberships(bob); strings.Contains(got, alice) || strings.Contains(got, "IAM") {
					t.Errorf("the heir is left a member of %q", got)
				}
				if got := clustertest.One(t, f.Super, `select count(*)::text from pg_auth_members m join pg_roles x on x.oid = m.member join pg_roles r on r.oid = m.roleid
					where x.rolname = $1 and r.rolname <> all ($2) and r.rolname !~ '^pg_' and `+f.usable(), f.As.Name, []string{dbuser.MarkerRole}); got != "0" {
					t.Errorf("the administrative login is left with %s memberships", got)
				}
				if plan, err := f.Admin.DropUser(t.Context(), alice, o); err != nil || !plan.Nothing() {
					t.Errorf("again: %+v, %v", plan, err)
				}
			})
		}
	})
}

// TestDropUserInterrupted kills the run before each of its statements; the next
// run finishes it.
func TestDropUserInterrupted(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t)
	f := alone(t, s, "CREATEROLE")
	for n := 1; ; n++ {
		if n > 120 {
			t.Fatal("no end of statements")
		}
		alice, bob, makers := f.LentUser("alice", ""), f.LentUser("bob", ""), f.LentGroup("makers")
		f.LendAlone(alice, bob, makers)
		db := f.LabDatabase(makers)
		role := f.Ensure(dbuser.Need{User: alice, Groups: []string{makers}})
		c := f.Logon(role, db)
		clustertest.Exec(t, c, "create table lab.t (x int)")
		clustertest.Exec(t, c, "create function lab.f() returns int language sql as 'select 1'")
		_ = c.Close(t.Context())
		f.NoSessions(role.Name)
		o := handover.DropOptions{ReassignTo: bob}
		crashed, reached := f.crashAt(n)
		_, _ = crashed.DropUser(t.Context(), alice, o)
		crashed.Close()
		if got := f.Memberships(bob); got != "" {
			t.Errorf("statement %d: the heir is left in %q", n, got)
		}
		if _, err := f.Admin.DropUser(t.Context(), alice, o); err != nil {
			t.Errorf("statement %d: the next run: %v", n, err)
		}
		if f.RoleExists(alice) || f.RoleExists(role.Name) {
			t.Errorf("statement %d: the next run left something", n)
		}
		if got := clustertest.One(t, pgtest.Connect(t, f.Superuser(db)), "select tableowner from pg_tables where tablename = 't'"); got != bob {
			t.Errorf("statement %d: the table belongs to %s", n, got)
		}
		if !*reached {
			return
		}
	}
}

// TestDropUserRefuses: roles that are no database users are not dropped, and roles that may not
// own anything cannot be heirs.
func TestDropUserRefuses(t *testing.T) {
	s := pgtest.Start(t)
	f := plain(t, s)
	boss, group, member := s.Login(t, "boss", "SUPERUSER").Name, f.LentGroup("analysts"), f.LentUser("alice", "")
	f.Run("grant %s to %s", group, member)
	role := f.Ensure(dbuser.Need{User: member})
	for _, name := range []string{f.As.Name, dbuser.MarkerRole, "pg_monitor", boss, group, role.Name} {
		if _, err := f.Admin.DropUser(t.Context(), name, handover.DropOptions{}); !errors.Is(err, dbuser.ErrUserRefused) {
			t.Errorf("DropUser(%q) = %v, want dbuser.ErrUserRefused", name, err)
		}
		if !f.RoleExists(name) {
			t.Errorf("%q is gone", name)
		}
	}
	if _, err := f.Admin.DropUser(t.Context(), strings.Repeat("x", 64), handover.DropOptions{}); !errors.Is(err, dbuser.ErrNameTooLong) {
		t.Errorf("a long name: %v", err)
	}
	for _, heir := range []string{"missing", boss, member, role.Name, "pg_monitor"} {
		plan, err := f.Admin.DropUser(t.Context(), member, handover.DropOptions{ReassignTo: heir})
		if !errors.Is(err, handover.ErrBlocked) || len(plan.Problems) == 0 {
			t.Errorf("heir %q: %+v, %v", heir, plan.Problems, err)
		}
	}
}

// TestDropUserBeyondTheLogin: statements that only a superuser may run are printed as SQL.
func TestDropUserBeyondTheLogin(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		alice := f.LentUser("alice", "")
		db := f.Database(t)
		f.Exec(t, db, strings.ReplaceAll("create table t (x int); grant select (x) on t to {a}; grant all on schema public to {a}; create sequence s; grant usage on s to {a}", "{a}", pgtest.Quote(alice)))
		f.Run("grant connect on database %s to %s", db, alice)
		plan, err := f.Admin.DropUser(t.Context(), alice, handover.DropOptions{})
		if !errors.Is(err, handover.ErrBlocked) || len(plan.Problems) == 0 {
			t.Fatalf("DropUser = %+v, %v", plan.Problems, err)
		}
		for _, p := range plan.Problems {
			for _, sql := range p.SQL {
				f.Exec(t, db, sql)
			}
		}
		if plan, err := f.Admin.DropUser(t.Context(), alice, handover.DropOptions{}); err != nil {
			t.Errorf("after the SQL was run: %+v, %v", plan, err)
		}
	})
}
