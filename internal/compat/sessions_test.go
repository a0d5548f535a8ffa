package compat_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/compat"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// signalling returns a database with the compatibility functions, whose owner may use their full
// effect: see, cancel and terminate sessions.
func (f *fixture) signalling() string {
	f.T.Helper()
	database, report := f.compatible(compat.Options{})
	for _, sql := range report.ForSuperuser {
		f.Run(sql)
	}
	report, err := compat.Install(context.Background(), f.Admin.Pool, compat.Options{Database: database})
	if err != nil || len(report.ForSuperuser) > 0 {
		f.T.Fatalf("after the printed grants: %+v, %v", report, err)
	}
	return database
}

// asleep starts a query that ends only when it is cancelled.
func asleep(t *testing.T, c *pgx.Conn) (done <-chan error) {
	t.Helper()
	result := make(chan error, 1)
	go func() {
		_, err := c.Exec(context.Background(), "select pg_sleep(600) /* mine */")
		result <- err
	}()
	return result
}

// TestOwnSessions: a user sees, cancels and terminates her own sessions, with any groups, and no
// one else's.
func TestOwnSessions(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		for name, f := range map[string]*fixture{"plain": plain(t, s), "superuser": super(t, s)} {
			t.Run(name, func(t *testing.T) {
				f.T = t
				db := f.signalling()
				alice, bob, group, other := f.LentUser("alice", ""), f.LentUser("bob", ""), f.LentGroup("analysts"), f.LentGroup("reporting")
				root := pgtest.Connect(t, s.Superuser(db))
				session := func(user string, groups ...string) *pgx.Conn {
					return f.Session(dbuser.Need{User: user, Groups: groups, Database: db})
				}
				running := func(c *pgx.Conn) func() bool {
					return func() bool {
						return clustertest.One(t, root, "select count(*)::text from pg_stat_activity where pid = $1::int and query like '%mine%'", clustertest.PID(c)) == "1"
					}
				}
				for _, groups := range [][]string{nil, {group}} {
					caller := session(alice, groups...)
					for _, targets := range [][]string{nil, {group}, {group, other}} {
						target := session(alice, targets...)
						done := asleep(t, target)
						f.Eventually("the query runs", running(target))
						const seen = "select coalesce(min(query), 'none') from daypass.my_sessions where pid = $1::int"
						if got := clustertest.One(t, caller, seen, clustertest.PID(target)); !strings.Contains(got, "mine") {
							t.Errorf("with %v: the session with %v shows %q", groups, targets, got)
						}
						if got := clustertest.One(t, caller, "select daypass.pg_cancel_backend($1::int)::text", clustertest.PID(target)); got != "true" {
							t.Errorf("with %v: cancelling %v = %s", groups, targets, got)
						}
						clustertest.Refused(t, <-done, "57014")
						if got := clustertest.One(t, caller, "select daypass.pg_terminate_backend($1::int)::text", clustertest.PID(target)); got != "true" {
							t.Errorf("with %v: terminating %v = %s", groups, targets, got)
						}
						f.Eventually("the session ends", func() bool { return !running(target)() })
					}
					// Taking a role does not change whose sessions are hers.
					target := session(alice, other)
					clustertest.Exec(t, caller, "set role none")
					if got := clustertest.One(t, caller, "select daypass.pg_terminate_backend($1::int)::text", clustertest.PID(target)); got != "true" {
						t.Errorf("after SET ROLE NONE: %s", got)
					}
				}

				// She cannot reach anyone else's sessions, whatever she tries.
				victim := session(alice, group)
				done := asleep(t, victim)
				f.Eventually("the query runs", running(victim))
				thief := session(bob, group)
				clustertest.Exec(t, root, "create function public.as_alice(int) returns boolean language sql security definer as 'select daypass.pg_cancel_backend($1)'; alter function public.as_alice(int) owner to "+alice)
				clustertest.ExecAll(t, thief,
					"create temp table pg_roles (oid oid, rolname name, rolcanlogin boolean, rolsuper boolean)",
					"create temp table pg_auth_members (roleid oid, member oid, admin_option boolean)",
					"create temp table pg_stat_activity (pid int, usesysid oid, backend_type text)",
					"insert into pg_stat_activity values ("+clustertest.PID(victim)+", (select oid from pg_catalog.pg_roles where rolname = session_user), 'client backend')",
					"create function pg_temp.left(text, int) returns text language sql as $$select 'IAM'$$",
					"set search_path = pg_temp, public, pg_catalog")
				for _, sql := range []string{
					"select daypass.pg_cancel_backend(%s)", "select daypass.pg_terminate_backend(%s)", "select public.as_alice(%s)",
				} {
					_, err := thief.Exec(context.Background(), fmt.Sprintf(sql, clustertest.PID(victim)))
					clustertest.Refused(t, err, "42501")
					_, err = thief.Exec(context.Background(), fmt.Sprintf(sql, clustertest.PID(root)))
					clustertest.Refused(t, err, "42501")
				}
				if got := clustertest.One(t, thief, "select count(*)::text from daypass.my_sessions where pid = $1::int or query like '%mine%' and usename !~ $2", clustertest.PID(victim), bob); got != "0" {
					t.Errorf("bob sees %s sessions of alice's", got)
				}
				if got := clustertest.One(t, thief, "select daypass.pg_cancel_backend(1)::text"); got != "false" {
					t.Errorf("a process that is no backend: %s", got)
				}
				if got := clustertest.One(t, thief, "select coalesce(daypass.pg_cancel_backend(null)::text, 'null')"); got != "null" {
					t.Errorf("null: %s", got)
				}
				select {
				case err := <-done:
					t.Errorf("alice's query ended: %v", err)
				default:
				}
				clustertest.Exec(t, root, "select pg_terminate_backend("+clustertest.PID(victim)+")")
				clustertest.Refused(t, <-done, "57P01")

				// A superuser among alice's session roles is not hers to end.
				boss := f.Login(t, "IAM:boss", "superuser")
				f.Run("grant %s, %s to %s", dbuser.MarkerRole, alice, boss.Name)
				c := pgtest.Connect(t, f.ConnString(boss, db))
				_, err := session(alice).Exec(context.Background(), "select daypass.pg_terminate_backend("+clustertest.PID(c)+")")
				clustertest.Refused(t, err, "42501")
				f.Run("revoke %s, %s from %s", dbuser.MarkerRole, alice, boss.Name)
			})
		}
	})
}
