package dbuser_test

import (
	"testing"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// TestUsersOwnSchema: "$user" means the same schema in both kinds of session, wherever the
// search_path is set. Without "$user" the sessions do not differ.
func TestUsersOwnSchema(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := alone(t, s, "CREATEROLE")
		alice, group := "Alice O'Neil", "analysts"
		f.Run("create role %s login", alice)
		f.Run("create role %s", group)
		f.LendAlone(alice, group)
		for _, db := range []string{"plain", "own", "other", "users", "mixed"} {
			f.Run("create database %s", db)
			f.Exec(t, db, "create schema app; create schema theirs; create schema "+pgtest.Quote(alice)+" authorization "+pgtest.Quote(alice)+
				"; create table public.t as select 'public' as x; create table app.t as select 'app' as x; create table theirs.t as select 'theirs' as x"+
				"; create table "+pgtest.Quote(alice)+".t as select 'hers' as x; grant usage on schema public, app, theirs to public; grant select on public.t, app.t, theirs.t to public; alter table "+
				pgtest.Quote(alice)+".t owner to "+pgtest.Quote(alice))
		}
		f.Run(`alter database own set search_path = app, "$user"`)
		f.Run(`alter database other set search_path = theirs, app`)
		f.Run("alter role %s in database users set search_path = theirs, app", alice)
		f.Run(`alter database mixed set search_path = app`)
		f.Run(`alter role %s in database mixed set search_path = "$user", app`, alice)
		look := func(when string) {
			t.Helper()
			f.Admin = f.Another() // a new Admin asks the server again
			for _, db := range []string{"plain", "own", "other", "users", "mixed"} {
				var sees [2]string
				for i, groups := range [][]string{nil, {group}} {
					n := dbuser.Need{User: alice, Groups: groups, Database: db}
					sees[i] = clustertest.One(t, f.Session(n), "select x from t")
					if left, err := f.Admin.TestOnlyPlan(t.Context(), n); err != nil || len(left) > 0 {
						t.Errorf("%s: left to do: %q, %v", when, left, err)
					}
				}
				if sees[0] != sees[1] {
					t.Errorf("%s: database %s: without groups alice sees %s, with groups %s", when, db, sees[0], sees[1])
				}
			}
		}
		look("as installed")
		f.Run(`alter role all set search_path = app, public`)
		look("with a path for all roles")
		f.Run(`alter role all reset search_path`)
		f.Run(`alter system set search_path = theirs, "$user"`)
		f.Run("select pg_reload_conf()")
		look("with a path in the server's configuration")
		f.Run(`alter system set search_path = theirs`)
		f.Run("select pg_reload_conf()")
		look("with a path without the user in the server's configuration")
		f.Run("alter role %s set search_path = app, \"$user\"", alice)
		look("with a path of the user's")
	})
}

// TestPathOfAHostileDatabase: the connection that reads the server's search_path cannot set its own.
// The owner of the administrative login's database can, and has operators that a statement finds there
// before PostgreSQL's.
func TestPathOfAHostileDatabase(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		mallory, db := f.Login(t, "mallory", ""), f.Database(t)
		f.Run("alter database %s owner to %s", db, mallory.Name)
		owner := pgtest.Connect(t, f.ConnString(mallory, db))
		clustertest.Exec(t, owner, `create schema evil; grant usage on schema evil to public;
			create table evil.calls (who text); grant insert on evil.calls to public;
			create function evil.same(a text, b text) returns boolean language plpgsql as $$ begin insert into evil.calls values (session_user || ' as ' || current_user); return a operator(pg_catalog.=) b; end $$;
			create operator evil.= (leftarg = text, rightarg = text, procedure = evil.same);
			alter database `+pgtest.Quote(db)+` set search_path = evil, pg_catalog`)
		admin := f.Another(func(c *dbuser.Config) { c.Conn.Database = db })
		role, err := admin.Ensure(t.Context(), dbuser.Need{User: f.LentUser("alice", ""), Groups: []string{f.LentGroup("analysts")}, Database: db})
		if err != nil {
			t.Fatal(err)
		}
		admin.Opened(role.Name)
		if got := clustertest.One(t, owner, "select coalesce(pg_catalog.string_agg(distinct who, ', '), '') from evil.calls"); got != "" {
			t.Errorf("a function of the database's owner was called by %s", got)
		}
	})
}
