package compat_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/compat"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// compatible returns a database in which the administrative login has installed the compatibility
// schema, and the report.
func (f *fixture) compatible(o compat.Options) (database string, report compat.Report) {
	f.T.Helper()
	database = f.Database(f.T)
	f.Run("grant create on database %s to %s", database, f.As.Name)
	o.Database = database
	for range 2 { // the second run must succeed as well
		var err error
		if report, err = compat.Install(context.Background(), f.Admin.Pool, o); err != nil {
			f.T.Fatalf("Compat: %v", err)
		}
	}
	return database, report
}

// TestCompatDBUser: row security by db_user() shows the same rows in sessions with and without
// groups, whatever the holder does.
func TestCompatDBUser(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		f := plain(t, s)
		database, _ := f.compatible(compat.Options{})
		alice, bob, group, other := f.LentUser("alice", ""), f.LentUser("bob", ""), f.LentGroup("analysts"), f.LentGroup("reporting")
		root := pgtest.Connect(t, s.Superuser(database))
		clustertest.Exec(t, root, fmt.Sprintf(`
			create table notes (owner text default daypass.db_user(), note text);
			alter table notes enable row level security;
			create policy own on notes using (owner = (select daypass.db_user()));
			create policy mine on notes for insert with check (owner = daypass.db_user());
			grant select, insert on notes to public;
			grant create on schema public to public;
			insert into notes values ('%s', 'of alice'), ('%s', 'of bob');
			create function definer() returns name language sql security definer as 'select daypass.db_user()';
			grant %s to %s`, alice, bob, pgx.Identifier{other}.Sanitize(), pgx.Identifier{alice}.Sanitize()))

		const user, notes = "select daypass.db_user()::text", "select string_agg(note, ',') from notes"
		for _, groups := range [][]string{nil, {group}} {
			c := f.Session(dbuser.Need{User: alice, Groups: groups, Database: database})
			if got := clustertest.One(t, c, user); got != alice {
				t.Errorf("db_user() with groups %v = %s, want %s", groups, got, alice)
			}
			if got := clustertest.One(t, c, notes); got != "of alice" {
				t.Errorf("rows with groups %v = %q, want hers", groups, got)
			}
			clustertest.Exec(t, c, "insert into notes (note) values ('new')")
			_, err := c.Exec(context.Background(), "insert into notes values ($1, 'forged')", bob)
			clustertest.Refused(t, err, "42501")
			clustertest.Exec(t, root, "delete from notes where note = 'new'")

			// After SET ROLE, db_user() is the new current_user.
			clustertest.Exec(t, c, "set role "+pgx.Identifier{other}.Sanitize())
			if got := clustertest.One(t, c, user); got != other {
				t.Errorf("after SET ROLE: %s, want %s", got, other)
			}
			clustertest.Exec(t, c, "set role none")
			if got := clustertest.One(t, c, user); got != alice {
				t.Errorf("after SET ROLE NONE: %s, want %s", got, alice)
			}
			if got := clustertest.One(t, c, "select definer()::text"); got != "postgres" {
				t.Errorf("in a SECURITY DEFINER function: %s, want its owner", got)
			}
			clustertest.Exec(t, c, "discard all")
		}
		// The holder creates objects with the names that db_user() uses, first in the search_path.
		for _, c := range []*pgx.Conn{
			f.Session(dbuser.Need{User: alice, Groups: []string{group}, Database: database}),
			f.Session(dbuser.Need{User: alice, Database: database}),
		} {
			for _, sql := range []string{
				"create temp table pg_roles (oid oid, rolname name, rolcanlogin boolean)",
				"create temp table pg_auth_members (roleid oid, member oid)",
				fmt.Sprintf("insert into pg_roles values (1, current_user, true), (2, '%s', true), (3, '%s', true)", dbuser.MarkerRole, bob),
				"insert into pg_auth_members values (2, 1), (3, 1)",
				"create or replace function pg_temp.count(oid) returns bigint language sql as 'select 1'",
				"create or replace function public.left(text, int) returns text language sql as $$select 'IAM'$$",
				"set search_path = pg_temp, public, pg_catalog",
			} {
				clustertest.Exec(t, c, sql)
			}
			if got := clustertest.One(t, c, user); got != alice {
				t.Errorf("with the holder's own pg_roles: %s, want %s", got, alice)
			}
			if got := clustertest.One(t, c, notes); got != "of alice" {
				t.Errorf("with the holder's own pg_roles: rows %q", got)
			}
			_, err := c.Exec(context.Background(), "create or replace function daypass.db_user() returns name language sql as 'select ''x''::name'")
			clustertest.Refused(t, err, "42501")
			c.Close(context.Background())
			clustertest.Exec(t, root, "drop function public.left(text, int)")
		}
		// Outside the gateway, db_user() is current_user.
		if got := clustertest.One(t, root, user); got != "postgres" {
			t.Errorf("db_user() of a superuser = %s", got)
		}
	})
}

// TestCompatDBUserMemberships: nothing that the holder can change about the session role makes
// db_user() return another user.
func TestCompatDBUserMemberships(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		f := super(t, s, clustertest.AllowSuperusers) // before 16 a user with CREATEROLE counts as a superuser
		database, _ := f.compatible(compat.Options{})
		alice, helper, group := f.LentUser("alice", "CREATEROLE"), f.LentUser("helper", ""), f.LentGroup("analysts")
		f.Run("grant %s to %s with admin option", helper, alice)
		need := dbuser.Need{User: alice, Groups: []string{group}, Database: database}
		c := f.Session(need)
		const user = "select daypass.db_user()::text"

		// From 16 on the creator of a role becomes a member of it, without its rights. There
		// session roles cannot create roles, unless someone allows it.
		made := s.Name("made")
		f.Run("alter role %s createrole", clustertest.One(t, c, "select session_user::text"))
		clustertest.Exec(t, c, "create role "+made+" login")
		if got := clustertest.One(t, c, user); got != alice {
			t.Errorf("after she made a role: %s, want %s", got, alice)
		}
		// With her ADMIN OPTION she gives her session role a second user's rights. She may use
		// them, but db_user() can no longer tell who she is.
		clustertest.Exec(t, c, "grant "+pgx.Identifier{helper}.Sanitize()+" to "+pgx.Identifier{clustertest.One(t, c, "select session_user::text")}.Sanitize())
		_, err := c.Exec(context.Background(), user)
		clustertest.Refused(t, err, "42501")
		if got := clustertest.One(t, f.Session(need), user); got != alice {
			t.Errorf("after the next logon: %s, want %s", got, alice)
		}
		// An identity of GetClusterCredentialsWithIAM begins like a session role.
		identity := f.Session(dbuser.Need{User: "IAM:" + s.Name("ana"), Identity: true, Groups: []string{group}, Database: database})
		if got := clustertest.One(t, identity, user); !strings.HasPrefix(got, "IAM:ana") {
			t.Errorf("db_user() of an identity with a group = %s", got)
		}
	})
}

// TestCompatViews: anyone can query the views by name alone, and sees only what they may see.
func TestCompatViews(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		f := plain(t, s)
		database := f.Database(t)
		f.Run("alter database %s owner to %s", database, f.As.Name)
		report, err := compat.Install(t.Context(), f.Admin.Pool, compat.Options{Database: database})
		if err != nil || len(report.ForOwner) > 0 {
			t.Fatalf("Compat = %+v, %v, want nothing left for the owner", report, err)
		}
		root := pgtest.Connect(t, s.Superuser(database))
		clustertest.Exec(t, root, `create table seen (id int generated always as identity, name varchar(20)); create table unseen (id int);
			comment on table seen is 'a table'; comment on column seen.name is 'a column'; grant select on seen to public`)
		alice := f.LentUser("alice", "")
		c := f.Session(dbuser.Need{User: alice, Groups: []string{f.LentGroup("analysts")}, Database: database})
		for sql, want := range map[string]string{
			"select string_agg(table_name || ' ' || table_type || ' ' || remarks, ',') from svv_tables where table_schema = 'public'":                                 "seen BASE TABLE a table",
			"select string_agg(column_name || ' ' || data_type || ' ' || is_autoincrement, ',' order by ordinal_position) from svv_columns where table_name = 'seen'": "id integer YES,name character varying NO",
			"select remarks from svv_columns where table_name = 'seen' and column_name = 'name'":                                                                      "a column",
			"select user_name from stv_sessions where process = pg_backend_pid()":                                                                                     clustertest.One(t, c, "select session_user::text"),
			"select usename::text from pg_user_info where usename = 'postgres'":                                                                                       "postgres",
			"select count(*)::text from pg_get_late_binding_view_cols() cols(view_schema name, view_name name, col_name name, col_type varchar, col_num int)":         "0",
			"select (select count(*) from svv_external_schemas) + (select count(*) from svv_external_tables) + (select count(*) from svv_external_columns) || ''":     "0",
			"show search_path": alice + ", public, daypass",
		} {
			if got := clustertest.One(t, c, sql); got != want {
				t.Errorf("%s = %q, want %q", sql, got, want)
			}
		}
		if _, err := compat.Install(t.Context(), f.Admin.Pool, compat.Options{Database: database, Remove: true}); err != nil {
			t.Fatalf("removing: %v", err)
		}
		again := pgtest.Connect(t, s.Superuser(database))
		if got := clustertest.One(t, again, "show search_path"); got != `"$user", public` {
			t.Errorf("search_path after removing = %s", got)
		}
	})
}

func TestCompatRefusals(t *testing.T) {
	s := pgtest.Start(t)
	f := plain(t, s)
	ctx := context.Background()
	admin := pgx.Identifier{f.As.Name}.Sanitize()

	database := f.Database(t)
	_, err := compat.Install(ctx, f.Admin.Pool, compat.Options{Database: database})
	if !errors.Is(err, adminconn.ErrRights) || !strings.Contains(err.Error(), "grant create on database") {
		t.Errorf("without the right to create: %v, want ErrRights and the grant", err)
	}
	if _, err = compat.Install(ctx, f.Admin.Pool, compat.Options{Database: "nowhere"}); !errors.Is(err, dbuser.ErrDatabaseMissing) {
		t.Errorf("no such database: %v, want ErrDatabaseMissing", err)
	}

	// The schema belongs to someone else, or contains someone else's object.
	root := pgtest.Connect(t, s.Superuser(database))
	mallory := f.LentUser("mallory", "")
	clustertest.Exec(t, root, "grant create on database "+database+" to "+admin)
	clustertest.Exec(t, root, "create schema daypass authorization "+mallory)
	for _, dry := range []bool{false, true} {
		if _, err = compat.Install(ctx, f.Admin.Pool, compat.Options{Database: database, DryRun: dry}); !errors.Is(err, adminconn.ErrRights) || !strings.Contains(err.Error(), mallory) {
			t.Errorf("a schema of %s's: %v, want ErrRights", mallory, err)
		}
	}
	clustertest.Exec(t, root, "create table daypass.x (); alter table daypass.x owner to "+mallory+"; alter schema daypass owner to "+admin)
	if _, err = compat.Install(ctx, f.Admin.Pool, compat.Options{Database: database}); !errors.Is(err, adminconn.ErrRights) || !strings.Contains(err.Error(), `"x"`) {
		t.Errorf("a table of %s's: %v, want ErrRights", mallory, err)
	}
	clustertest.Exec(t, root, "drop schema daypass cascade")

	// A superuser runs what a dry run prints; then there is nothing left to do.
	report, err := compat.Install(ctx, f.Admin.Pool, compat.Options{Database: database, DryRun: true})
	if err != nil || len(report.ForOwner) != 1 {
		t.Fatalf("dry run = %+v, %v, want the search path left for the owner", report, err)
	}
	if clustertest.One(t, root, "select count(*)::text from pg_namespace where nspname = 'daypass'") != "0" {
		t.Error("the dry run made the schema")
	}
	clustertest.Exec(t, root, strings.Join(append(report.SQL, report.ForOwner...), ";"))
	report, err = compat.Install(ctx, f.Admin.Pool, compat.Options{Database: database})
	if err != nil || len(report.SQL)+len(report.ForOwner) > 0 {
		t.Errorf("a superuser's: %+v, %v, want nothing to do", report, err)
	}
	clustertest.Exec(t, root, "comment on schema daypass is 'older'")
	if _, err = compat.Install(ctx, f.Admin.Pool, compat.Options{Database: database}); !errors.Is(err, adminconn.ErrRights) {
		t.Errorf("a superuser's of another version: %v, want ErrRights", err)
	}
	if _, err = compat.Install(ctx, f.Admin.Pool, compat.Options{Database: database, Remove: true}); !errors.Is(err, adminconn.ErrRights) {
		t.Errorf("removing a superuser's: %v, want ErrRights", err)
	}

	// Objects in use are not removed.
	clustertest.Exec(t, root, "drop schema daypass cascade")
	if _, err = compat.Install(ctx, f.Admin.Pool, compat.Options{Database: database}); err != nil {
		t.Fatal(err)
	}
	clustertest.Exec(t, root, "create table t (owner text); create policy own on t using (owner = daypass.db_user())")
	if _, err = compat.Install(ctx, f.Admin.Pool, compat.Options{Database: database, Remove: true}); err == nil || !strings.Contains(err.Error(), "policy own on table") {
		t.Errorf("removing what a policy uses: %v, want the policy named", err)
	}
	if got := clustertest.One(t, root, "select daypass.db_user()::text"); got != "postgres" {
		t.Errorf("after the refusal: %s", got)
	}
}
