package compat_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/compat"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// hostileDatabase returns a database whose owner may be lent, a session of that owner, and the
// owner's name.
func (f *fixture) hostileDatabase() (database string, mallory *pgx.Conn, name string) {
	f.T.Helper()
	database = f.Database(f.T)
	login := f.Login(f.T, "mallory", "")
	f.Run("alter database %s owner to %s", database, login.Name)
	f.Run("grant create on database %s to %s", database, f.As.Name)
	return database, pgtest.Connect(f.T, f.ConnString(login, database)), login.Name
}

// script runs what a dry run prints, as psql would.
func script(ctx context.Context, c *pgx.Conn, text string) error {
	var sql strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, `\`) {
			sql.WriteString(line)
		}
	}
	_, err := c.PgConn().Exec(ctx, sql.String()).ReadAll()
	if c.PgConn().TxStatus() == 'E' {
		_, _ = c.Exec(ctx, "rollback")
	}
	return err
}

const ownersInDaypass = `select coalesce(string_agg(distinct pg_get_userbyid(x.owner), ' '), '') from (
	select nspowner as owner from pg_namespace where nspname = 'daypass'
	union all select proowner from pg_proc p join pg_namespace n on n.oid = p.pronamespace where nspname = 'daypass'
	union all select relowner from pg_class c join pg_namespace n on n.oid = c.relnamespace where nspname = 'daypass') x`

// TestCompatBetweenLookAndDDL runs clustertest.Forgery after compat.Install has checked the
// database and before it changes anything.
func TestCompatBetweenLookAndDDL(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		for name, f := range map[string]*fixture{"plain": plain(t, s), "superuser": super(t, s)} {
			f.T = t
			database, mallory, hers := f.hostileDatabase()
			root := pgtest.Connect(t, s.Superuser(database))

			// She forges everything.
			admin := f.Another()
			clustertest.Before(admin, func(sql string, _ *pgconn.PgConn) {
				if forged := clustertest.One(t, root, ownersInDaypass); strings.HasPrefix(sql, "do $daypass$") && forged == "" {
					clustertest.ExecAll(t, mallory, clustertest.Forgery...)
				}
			})
			_, err := compat.Install(t.Context(), admin.Pool, compat.Options{Database: database})
			if !errors.Is(err, adminconn.ErrRights) || !strings.Contains(err.Error(), `"`+hers+`"`) {
				t.Errorf("%s: a schema of hers: %v, want ErrRights that names her", name, err)
			}
			if got := clustertest.One(t, root, ownersInDaypass); got != hers {
				t.Errorf("%s: it belongs to %s, want nothing changed", name, got)
			}
			clustertest.Exec(t, root, "drop schema daypass cascade")

			// She adds one object to a schema of ours, before each kind of statement.
			for before, made := range map[string]string{
				"do $daypass$": clustertest.Forgery[1], "create or replace function": "create type daypass.hers as (x int)",
				"create or replace view": "create view daypass.hers as select 1 as x", "comment on": "create sequence daypass.hers",
			} {
				clustertest.ExecAll(t, root, "create schema daypass authorization "+pgtest.Quote(f.As.Name), "grant create, usage on schema daypass to "+pgtest.Quote(hers))
				admin = f.Another()
				done := false
				clustertest.Before(admin, func(sql string, _ *pgconn.PgConn) {
					if !done && strings.HasPrefix(sql, before) {
						done = true
						clustertest.Exec(t, mallory, made)
					}
				})
				_, err = compat.Install(t.Context(), admin.Pool, compat.Options{Database: database})
				if !errors.Is(err, adminconn.ErrRights) {
					t.Errorf("%s: %q before %q: %v, want ErrRights", name, made, before, err)
				}
				if got := clustertest.One(t, root, "select count(*)::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace where nspname = 'daypass' and (proowner <> $1::regrole or prosrc not like '%boss%')", pgtest.Quote(hers)); got != "0" {
					t.Errorf("%s: %q before %q: %s functions of ours are there", name, made, before, got)
				}
				clustertest.Exec(t, root, "drop schema daypass cascade")
			}
		}
	})
}

// TestCompatRefusesCreators: nothing is installed into a schema of ours in which others may create
// objects or own a type.
func TestCompatRefusesCreators(t *testing.T) {
	s := pgtest.Start(t)
	for name, f := range map[string]*fixture{"plain": plain(t, s), "superuser": super(t, s)} {
		f.T = t
		database, mallory, hers := f.hostileDatabase()
		root := pgtest.Connect(t, s.Superuser(database))
		clustertest.Exec(t, root, "create schema daypass authorization "+pgtest.Quote(f.As.Name))
		clustertest.Exec(t, root, "grant create, usage on schema daypass to "+pgtest.Quote(hers))
		_, err := compat.Install(t.Context(), f.Admin.Pool, compat.Options{Database: database})
		if err == nil || !strings.Contains(err.Error(), "revoke create on schema daypass from "+pgtest.Quote(hers)) {
			t.Errorf("%s: she may create: %v, want the REVOKE", name, err)
		}
		clustertest.Exec(t, mallory, "create type daypass.hers as enum ('a')")
		clustertest.Exec(t, root, "revoke create on schema daypass from "+pgtest.Quote(hers))
		_, err = compat.Install(t.Context(), f.Admin.Pool, compat.Options{Database: database})
		if err == nil || !strings.Contains(err.Error(), `"hers" in it belongs to "`+hers) {
			t.Errorf("%s: a type of hers: %v, want it named", name, err)
		}
		clustertest.Exec(t, mallory, "drop type daypass.hers")
		if _, err = compat.Install(t.Context(), f.Admin.Pool, compat.Options{Database: database}); err != nil {
			t.Errorf("%s: afterwards: %v", name, err)
		}
	}
}

// TestCompatScript runs the printed script as a superuser. The owner of the database has prepared
// an attack after the script was printed.
func TestCompatScript(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		database, mallory, hers := f.hostileDatabase()
		report, err := compat.Install(t.Context(), f.Admin.Pool, compat.Options{Database: database, DryRun: true})
		if err != nil {
			t.Fatal(err)
		}
		look := pgtest.Connect(t, s.Superuser(database)) // connected before she sets the search_path
		// From now on her operators and functions come first in every session's search_path, and
		// each of them records when it is called.
		clustertest.ExecAll(t, mallory, "create schema evil",
			"create function evil.tell(name, name) returns boolean language plpgsql as $$begin raise exception 'called as %', current_user; end$$",
			"create function evil.tell(text, text) returns boolean language plpgsql as $$begin raise exception 'called as %', current_user; end$$",
			"create function evil.tell(oid, oid) returns boolean language plpgsql as $$begin raise exception 'called as %', current_user; end$$",
			"create operator evil.= (leftarg = name, rightarg = name, function = evil.tell)",
			"create operator evil.= (leftarg = text, rightarg = text, function = evil.tell)",
			"create operator evil.= (leftarg = oid, rightarg = oid, function = evil.tell)",
			"create operator evil.<> (leftarg = name, rightarg = name, function = evil.tell)",
			"create view evil.pg_roles as select evil.tell('a'::name, 'b'::name) as rolsuper, 'x'::name as rolname, 1::oid as oid",
			"alter database "+pgtest.Quote(database)+" set search_path = evil, pg_catalog",
			"alter database "+pgtest.Quote(database)+" set standard_conforming_strings = off")
		connect := func() *pgx.Conn { return pgtest.Connect(t, s.Superuser(database)) }

		clustertest.ExecAll(t, mallory, clustertest.Forgery...)
		root := connect()
		err = script(t.Context(), root, report.Script())
		clustertest.Refused(t, err, "P0D01")
		if err == nil || !strings.Contains(err.Error(), `"`+hers+`"`) {
			t.Errorf("the script says %v, want her named", err)
		}
		if got := clustertest.One(t, look, ownersInDaypass); got != hers {
			t.Errorf("the schema belongs to %s, want nothing changed", got)
		}
		clustertest.Refused(t, script(t.Context(), mallory, report.Script()), "P0D01")
		clustertest.Exec(t, mallory, "drop schema daypass cascade")
		clustertest.Refused(t, script(t.Context(), mallory, report.Script()), "P0D01")
		clustertest.Refused(t, script(t.Context(), pgtest.Connect(t, s.Superuser("postgres")), report.Script()), "P0D01")

		// A superuser owns the schema, and she owns the function in it.
		root = connect()
		clustertest.ExecAll(t, root, "create schema daypass", "grant create, usage on schema daypass to "+pgtest.Quote(hers))
		clustertest.Exec(t, mallory, clustertest.Forgery[1])
		clustertest.Exec(t, root, "revoke create on schema daypass from "+pgtest.Quote(hers))
		clustertest.Refused(t, script(t.Context(), root, report.Script()), "P0D01")
		if got := clustertest.One(t, look, "select daypass.db_user()::text"); got != "boss" {
			t.Errorf("her function was replaced, and is still hers; it says %s", got)
		}
		clustertest.Exec(t, mallory, "drop function daypass.db_user()")

		for range 2 { // the second run must succeed as well
			if err := script(t.Context(), connect(), report.Script()); err != nil {
				t.Fatalf("without anything of hers: %v", err)
			}
		}
		if got := clustertest.One(t, look, ownersInDaypass); got != "postgres" {
			t.Errorf("what the script made belongs to %s", got)
		}
		if got := clustertest.One(t, look, "select daypass.db_user()::text"); got != "postgres" {
			t.Errorf("db_user() = %s", got)
		}
		if _, err := mallory.Exec(t.Context(), "create function daypass.x() returns int language sql as 'select 1'"); err == nil {
			t.Error("she may create functions in it")
		}

		// Removal checks the owners again as well.
		removing, err := compat.Install(t.Context(), super(t, s).Admin.Pool, compat.Options{Database: database, Remove: true, DryRun: true})
		if err != nil {
			t.Fatal(err)
		}
		clustertest.Exec(t, root, "alter schema daypass owner to "+pgtest.Quote(hers))
		clustertest.Refused(t, script(t.Context(), connect(), removing.Script()), "P0D01")
		clustertest.Exec(t, root, "alter schema daypass owner to postgres")
		if err := script(t.Context(), connect(), removing.Script()); err != nil {
			t.Errorf("removing: %v", err)
		}
	})
}
