package dbuser_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/test/pgtest"
)

// forgery is what the owner of a database puts in the place of what is about to be
// installed.
var forgery = []string{
	"create schema daypass",
	"create function daypass.db_user() returns name language sql as $$select 'boss'::name$$",
	"create view daypass.svv_tables as select 'hers'::text as table_name",
	"grant usage on schema daypass to public",
}

// hostileDatabase is owned by a user that may be lent.
func (f *fixture) hostileDatabase() (database string, mallory *pgx.Conn, name string) {
	f.t.Helper()
	database = f.Database(f.t)
	login := f.Login(f.t, "mallory", "")
	f.exec("alter database %s owner to %s", database, login.Name)
	f.exec("grant create on database %s to %s", database, f.login.Name)
	return database, pgtest.Connect(f.t, f.ConnString(login, database)), login.Name
}

func all(t *testing.T, c *pgx.Conn, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		run(t, c, sql)
	}
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

// TestCompatBetweenLookAndDDL makes the forgery after Compat has looked and before
// it changes anything.
func TestCompatBetweenLookAndDDL(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		for name, f := range map[string]*fixture{"plain": plain(t, s), "superuser": super(t, s)} {
			f.t = t
			database, mallory, hers := f.hostileDatabase()
			root := pgtest.Connect(t, s.Superuser(database))

			// All of it.
			admin := f.another()
			admin.SetBefore(func(sql string, _ *pgconn.PgConn) {
				if forged := one(t, root, ownersInDaypass); strings.HasPrefix(sql, "do $daypass$") && forged == "" {
					all(t, mallory, forgery...)
				}
			})
			_, err := admin.Compat(t.Context(), dbuser.CompatOptions{Database: database})
			if !errors.Is(err, dbuser.ErrRights) || !strings.Contains(err.Error(), `"`+hers+`"`) {
				t.Errorf("%s: a schema of hers: %v, want ErrRights that names her", name, err)
			}
			if got := one(t, root, ownersInDaypass); got != hers {
				t.Errorf("%s: it belongs to %s, want nothing changed", name, got)
			}
			run(t, root, "drop schema daypass cascade")

			// Something in a schema that is ours, at every moment.
			for before, made := range map[string]string{
				"do $daypass$": forgery[1], "create or replace function": "create type daypass.hers as (x int)",
				"create or replace view": "create view daypass.hers as select 1 as x", "comment on": "create sequence daypass.hers",
			} {
				all(t, root, "create schema daypass authorization "+pgtest.Quote(f.login.Name), "grant create, usage on schema daypass to "+pgtest.Quote(hers))
				admin = f.another()
				done := false
				admin.SetBefore(func(sql string, _ *pgconn.PgConn) {
					if !done && strings.HasPrefix(sql, before) {
						done = true
						run(t, mallory, made)
					}
				})
				_, err = admin.Compat(t.Context(), dbuser.CompatOptions{Database: database})
				if !errors.Is(err, dbuser.ErrRights) {
					t.Errorf("%s: %q before %q: %v, want ErrRights", name, made, before, err)
				}
				if got := one(t, root, "select count(*)::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace where nspname = 'daypass' and (proowner <> $1::regrole or prosrc not like '%boss%')", pgtest.Quote(hers)); got != "0" {
					t.Errorf("%s: %q before %q: %s functions of ours are there", name, made, before, got)
				}
				run(t, root, "drop schema daypass cascade")
			}
		}
	})
}

// TestCompatRefusesCreators: a schema of ours in which others may create, or own a
// type, is not installed into.
func TestCompatRefusesCreators(t *testing.T) {
	s := pgtest.Start(t)
	for name, f := range map[string]*fixture{"plain": plain(t, s), "superuser": super(t, s)} {
		f.t = t
		database, mallory, hers := f.hostileDatabase()
		root := pgtest.Connect(t, s.Superuser(database))
		run(t, root, "create schema daypass authorization "+pgtest.Quote(f.login.Name))
		run(t, root, "grant create, usage on schema daypass to "+pgtest.Quote(hers))
		_, err := f.admin.Compat(t.Context(), dbuser.CompatOptions{Database: database})
		if err == nil || !strings.Contains(err.Error(), "revoke create on schema daypass from "+pgtest.Quote(hers)) {
			t.Errorf("%s: she may create: %v, want the REVOKE", name, err)
		}
		run(t, mallory, "create type daypass.hers as enum ('a')")
		run(t, root, "revoke create on schema daypass from "+pgtest.Quote(hers))
		_, err = f.admin.Compat(t.Context(), dbuser.CompatOptions{Database: database})
		if err == nil || !strings.Contains(err.Error(), `"hers" in it belongs to "`+hers) {
			t.Errorf("%s: a type of hers: %v, want it named", name, err)
		}
		run(t, mallory, "drop type daypass.hers")
		if _, err = f.admin.Compat(t.Context(), dbuser.CompatOptions{Database: database}); err != nil {
			t.Errorf("%s: afterwards: %v", name, err)
		}
	}
}

// TestCompatScript runs the printed script as a superuser in a database whose owner
// has prepared for it since it was printed.
func TestCompatScript(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		database, mallory, hers := f.hostileDatabase()
		report, err := f.admin.Compat(t.Context(), dbuser.CompatOptions{Database: database, DryRun: true})
		if err != nil {
			t.Fatal(err)
		}
		look := pgtest.Connect(t, s.Superuser(database)) // before her search_path
		// Her operators and functions come first for all who log on from now on, and
		// every one of them tells.
		all(t, mallory, "create schema evil",
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

		all(t, mallory, forgery...)
		root := connect()
		err = script(t.Context(), root, report.Script())
		refused(t, err, "P0D01")
		if err == nil || !strings.Contains(err.Error(), `"`+hers+`"`) {
			t.Errorf("the script says %v, want her named", err)
		}
		if got := one(t, look, ownersInDaypass); got != hers {
			t.Errorf("the schema belongs to %s, want nothing changed", got)
		}
		refused(t, script(t.Context(), mallory, report.Script()), "P0D01")
		run(t, mallory, "drop schema daypass cascade")
		refused(t, script(t.Context(), mallory, report.Script()), "P0D01")
		refused(t, script(t.Context(), pgtest.Connect(t, s.Superuser("postgres")), report.Script()), "P0D01")

		// A schema of a superuser's in which she owns the function.
		root = connect()
		all(t, root, "create schema daypass", "grant create, usage on schema daypass to "+pgtest.Quote(hers))
		run(t, mallory, forgery[1])
		run(t, root, "revoke create on schema daypass from "+pgtest.Quote(hers))
		refused(t, script(t.Context(), root, report.Script()), "P0D01")
		if got := one(t, look, "select daypass.db_user()::text"); got != "boss" {
			t.Errorf("her function was replaced, and is still hers; it says %s", got)
		}
		run(t, mallory, "drop function daypass.db_user()")

		for range 2 { // again is the same
			if err := script(t.Context(), connect(), report.Script()); err != nil {
				t.Fatalf("without anything of hers: %v", err)
			}
		}
		if got := one(t, look, ownersInDaypass); got != "postgres" {
			t.Errorf("what the script made belongs to %s", got)
		}
		if got := one(t, look, "select daypass.db_user()::text"); got != "postgres" {
			t.Errorf("db_user() = %s", got)
		}
		if _, err := mallory.Exec(t.Context(), "create function daypass.x() returns int language sql as 'select 1'"); err == nil {
			t.Error("she may create functions in it")
		}

		// Removing looks again as well.
		removing, err := super(t, s).admin.Compat(t.Context(), dbuser.CompatOptions{Database: database, Remove: true, DryRun: true})
		if err != nil {
			t.Fatal(err)
		}
		run(t, root, "alter schema daypass owner to "+pgtest.Quote(hers))
		refused(t, script(t.Context(), connect(), removing.Script()), "P0D01")
		run(t, root, "alter schema daypass owner to postgres")
		if err := script(t.Context(), connect(), removing.Script()); err != nil {
			t.Errorf("removing: %v", err)
		}
	})
}
