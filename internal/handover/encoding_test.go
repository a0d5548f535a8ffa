package handover_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// TestNamesInOtherEncodings: in a cluster that has databases in several encodings, a role may have a name
// that is not valid UTF-8, which no statement can contain. It keeps no one from logging on, no rights from
// ending, and no objects from being handed over.
func TestNamesInOtherEncodings(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		for login, options := range map[string]string{"plain": "CREATEROLE", "superuser": "SUPERUSER"} {
			t.Run(login, func(t *testing.T) {
				f := alone(t, s, options)
				f.Run("create database ascii encoding 'SQL_ASCII' template template0 locale 'C'")
				alice, long, group := f.LentUser("alice", ""), f.LentUser("alice_has_a_name_that_is_too_long_to_be_readable_here", ""), f.LentGroup("analysts")
				f.LendAlone(alice, long, group)
				ascii := pgtest.Connect(t, f.Superuser("ascii"))
				clustertest.ExecAll(t, ascii, "set client_encoding = SQL_ASCII", "create role \"caf\xe9\"", "create role \"th\xe9\"",
					"grant \"caf\xe9\" to "+pgtest.Quote(alice)+" with admin option")
				oid := func(name string) string {
					return clustertest.One(t, f.Super, fmt.Sprintf("select oid::text from pg_roles where textsend(rolname::text) = '\\x%x'", name))
				}
				db := f.LabDatabase(group)

				role := f.Ensure(dbuser.Need{User: alice, Groups: []string{group}, Database: db})
				its := clustertest.One(t, f.Super, "select oid::text from pg_roles where rolname = $1", role.Name)
				c := f.Logon(role, db)
				clustertest.Exec(t, c, "create function lab.leak() returns int language sql security definer as 'select 1'")
				clustertest.Exec(t, c, fmt.Sprintf("do $$ begin execute format('grant %%I to %%I', pg_get_userbyid(%s), session_user); end $$", oid("caf\xe9")))
				if s.Major() < 15 {
					clustertest.Exec(t, c, fmt.Sprintf("do $$ begin execute format('grant %%I to %%I', session_user, pg_get_userbyid(%s)); end $$", oid("th\xe9")))
				}
				f.Ensure(dbuser.Need{User: alice, Groups: []string{group}, Database: db}) // gives the next session another role
				other := f.Ensure(dbuser.Need{User: long, Groups: []string{group}, Database: db})
				d := f.Logon(other, db)
				clustertest.Exec(t, d, "create table lab.t (x int)")
				for _, session := range []*pgx.Conn{c, d} {
					_ = session.Close(context.Background())
				}
				f.NoSessions(other.Name)
				f.Eventually("end of the session", func() bool { // of a role that has another name by now
					return clustertest.One(t, f.Super, "select count(*)::text from pg_stat_activity where usesysid = "+its) == "0"
				})
				report, err := f.Admin.Sweep(t.Context(), handover.SweepOptions{})
				if err != nil {
					t.Fatal(err)
				}
				want := dbuser.MarkerRole
				if s.Major() >= 16 && login == "plain" {
					want = "caf\xe9 " + want // only its grantor or a superuser can revoke it
				}
				if passed := clustertest.One(t, f.Super, "select count(*)::text from pg_auth_members where member = "+oid("th\xe9")); passed != "0" {
					t.Error("the session role still has a member")
				}
				got := clustertest.One(t, f.Super, "select string_agg(pg_get_userbyid(roleid), ' ' order by pg_get_userbyid(roleid)) from pg_auth_members where member = "+its)
				if got != want {
					t.Errorf("the session role is still a member of %q, want %q: %+v", got, want, report)
				}
				if n := clustertest.One(t, f.Super, "select count(*)::text from pg_shdepend where deptype = 'o' and refobjid = "+its) + f.OwnedBy(other.Name); n != "00" {
					t.Errorf("the session roles own %s objects: %+v", n, report)
				}

				// In the database itself, names are not valid UTF-8 either.
				clustertest.ExecAll(t, ascii, "create schema \"caf\xe9\"", "grant all on schema \"caf\xe9\" to "+pgtest.Quote(group))
				inside := f.Ensure(dbuser.Need{User: alice, Groups: []string{group}, Database: "ascii"})
				e := f.Logon(inside, "ascii")
				clustertest.ExecAll(t, e, "set client_encoding = SQL_ASCII", "create table \"caf\xe9\".\"caf\xe9\" (x int)")
				_ = e.Close(context.Background())
				f.SweepUntil(inside.Name, 0)
				if n := f.OwnedBy(inside.Name); n != "0" {
					t.Errorf("the session role owns %s objects in the database with another encoding", n)
				}
				f.Check()
			})
		}
	})
}
