package clustercheck_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/clustercheck"
	"github.com/daypass/daypass/internal/compat"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// TestCheckOfDatabases: if sessions can use a database and the administrative login cannot connect
// to it, the check reports an error with the remedy. A database that no one can use is not
// reported. The right to connect works the same in all versions.
func TestCheckOfDatabases(t *testing.T) {
	pgtest.Ends(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := alone(t, s, "CREATEROLE")
		alice, shut, full, internal, closed := f.LentUser("alice", ""), f.Database(t), f.Database(t), f.Database(t), f.Database(t)
		f.Run("revoke connect on database %s from public; grant connect on database %s to %s", shut, shut, alice)
		f.Run("alter database %s connection limit 0", full)
		f.Run("revoke connect on database %s from public", internal)
		f.Run("alter database %s allow_connections false", closed)
		codes := map[string]int{shut: 1, full: 1, internal: 0, closed: 0, "postgres": 0}
		if f.Major() >= 17 {
			refusing := f.Database(t)
			f.Exec(t, refusing, `create function public.no() returns event_trigger language plpgsql as 'begin raise ''not you''; end';
				create event trigger no on login execute function public.no(); alter event trigger no enable always`)
			codes[refusing] = 1
		}
		report := f.Check()
		for database, want := range codes {
			found := clustertest.Findings(report, "connect", `"`+database+`"`)
			if len(found) != want || want > 0 && found[0].Severity != clustercheck.Broken {
				t.Errorf("database %s: %+v, want %d errors", database, found, want)
			}
		}
		if sql := clustertest.Findings(report, "connect", `"`+shut+`"`)[0].SQL; !slices.Equal(sql, []string{"grant connect on database " + pgtest.Quote(shut) + " to " + pgtest.Quote(f.As.Name)}) {
			t.Errorf("SQL = %q", sql)
		}
		f.Mend(report)
		report = f.Check()
		for _, database := range []string{shut, full} {
			if found := clustertest.Findings(report, "connect", `"`+database+`"`); len(found) > 0 {
				t.Errorf("after the printed SQL: %+v", found)
			}
		}
	})
}

// TestCheckFindsForgeries: the check reports a schema daypass that a user has created, and an event
// trigger of earlier builds whose schema and function a user has created.
func TestCheckFindsForgeries(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := alone(t, s, "CREATEROLE")
		db := f.Database(t)
		mallory := f.Login(t, "mallory", "")
		f.Run("grant create on database %s to %s, %s", db, mallory.Name, f.As.Name)
		hers, root := pgtest.Connect(t, f.ConnString(mallory, db)), pgtest.Connect(t, f.Superuser(db))
		// She makes schema and function before a superuser runs what an earlier build
		// printed: create schema if not exists, create or replace function.
		clustertest.ExecAll(t, hers, "create schema daypass_private",
			"create function daypass_private.hand_over() returns event_trigger language plpgsql as 'begin end'")
		clustertest.ExecAll(t, root, "create schema if not exists daypass_private",
			"create or replace function daypass_private.hand_over() returns event_trigger language plpgsql security definer as 'begin end'",
			"create event trigger daypass_hand_over on ddl_command_end execute function daypass_private.hand_over()")
		clustertest.ExecAll(t, hers, clustertest.Forgery...)
		report := f.Check()
		for _, code := range []string{"event-trigger", "compat"} {
			if found := clustertest.Findings(report, code, `"`+db+`"`); len(found) != 1 || found[0].Severity != clustercheck.Broken {
				t.Errorf("%s: %+v, want one error", code, found)
			}
		}
		f.Mend(report)
		clustertest.Exec(t, root, "drop schema daypass cascade")
		if _, err := compat.Install(t.Context(), f.Admin.Pool, compat.Options{Database: db}); err != nil {
			t.Fatal(err)
		}
		report = f.Check()
		if found := clustertest.Findings(report, "event-trigger", db); len(found) > 0 {
			t.Errorf("after the printed SQL: %+v", found)
		}
		if found := clustertest.Findings(report, "compat", `"`+db+`"`); len(found) != 1 || found[0].Severity != clustercheck.OK {
			t.Errorf("of our own: %+v", found)
		}
		clustertest.Exec(t, root, "comment on schema daypass is 'older'")
		if found := clustertest.Findings(f.Check(), "compat", "another version"); len(found) != 1 {
			t.Errorf("of another version: %+v", found)
		}
	})
}

// TestCheckOfGivenSettings: settings that the start-up message cannot pin are reported, with the
// SQL that removes them.
func TestCheckOfGivenSettings(t *testing.T) {
	s := pgtest.Start(t)
	f := alone(t, s, "CREATEROLE")
	db := f.Database(t)
	f.Run("alter database %s set session_preload_libraries = 'auto_explain'; alter database %s set statement_timeout = '1ms'; alter database %s set log_statement = 'all'", db, db, db)
	f.Run("alter role %s set max_stack_depth = '100kB'", f.As.Name)
	found := clustertest.Findings(f.Check(), "given-setting", "")
	if len(found) != 2 {
		t.Errorf("%+v, want two", found)
	}
	f.Mend(clustercheck.Report{Findings: found})
	if found = clustertest.Findings(f.Check(), "given-setting", ""); len(found) > 0 {
		t.Errorf("after the printed SQL: %+v", found)
	}
}

// TestCheckOfPasswords: users who may have a password of their own are reported, as far as the
// login can see them.
func TestCheckOfPasswords(t *testing.T) {
	s := pgtest.Start(t)
	for _, options := range []string{"CREATEROLE", "SUPERUSER"} {
		f := alone(t, s, options)
		f.Lend(dbuser.MarkerRole)
		with, without := f.Login(t, "with", "").Name, f.Login(t, "without", "").Name
		if f.Major() >= 16 {
			f.Run("grant %s, %s to %s with admin option", with, without, f.As.Name)
		}
		f.Run("alter role %s password null", without)
		f.Ensure(dbuser.Need{User: "made", AutoCreate: true})
		found := clustertest.Findings(f.Check(), "passwords", "")
		if len(found) != 1 || !strings.Contains(found[0].Message, with) || strings.Contains(found[0].Message, "made") ||
			strings.Contains(found[0].Message, without) != (options == "CREATEROLE") {
			t.Errorf("%s: %+v", options, found)
		}
		f.Mend(clustercheck.Report{Findings: found})
		if found = clustertest.Findings(f.Check(), "passwords", ""); len(found) != 1 || found[0].Severity != clustercheck.OK {
			t.Errorf("%s, after the printed SQL: %+v", options, found)
		}
	}
}

// TestCheckFindsWhatGroupsOwn: a holder creates objects in a schema of her own and makes her group
// their owner. After the session they still lend the group's rights to her. This cannot be
// prevented, so the check names the objects.
func TestCheckFindsWhatGroupsOwn(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		alice, group, db := f.LentUser("alice", ""), f.LentGroup("analysts"), f.Database(t)
		quoted := pgtest.Quote(group)
		f.Exec(t, db, "create schema mine authorization "+pgtest.Quote(alice)+"; create table public.pay (x int); grant select on public.pay to "+quoted)
		if found := clustertest.Findings(f.Check(), "group-owns", `"`+group+`"`); len(found) > 0 {
			t.Fatalf("of a group that owns nothing: %+v", found)
		}
		c := f.Logon(f.Ensure(dbuser.Need{User: alice, Groups: []string{group}}), db)
		clustertest.Exec(t, c, "create view mine.pay as select * from public.pay")
		clustertest.Exec(t, c, "reassign owned by current_user to "+quoted)
		if f.Major() >= 15 {
			clustertest.Exec(t, c, "create view mine.harmless with (security_invoker) as select * from public.pay")
			clustertest.Exec(t, c, "reassign owned by current_user to "+quoted)
		}
		clustertest.Exec(t, c, "grant create, usage on schema mine to "+quoted)
		clustertest.Exec(t, c, "set role "+quoted)
		clustertest.Exec(t, c, "create function mine.leak() returns bigint language sql security definer as 'select count(*) from public.pay'")
		found := clustertest.Findings(f.Check(), "group-owns", `"`+group+`"`)
		if len(found) != 1 || found[0].Database != db || !strings.Contains(found[0].Message, `owns function mine.leak(), view mine.pay:`) {
			t.Errorf("%+v", found)
		}
	})
}
