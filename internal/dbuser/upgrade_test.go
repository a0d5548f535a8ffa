package dbuser_test

import (
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/clustercheck"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// TestSessionRolesOfAnotherLogin: from 16 on a login may change the roles that it has
// made. After an upgrade from 15, a restore, a change of login or the loss of
// superuser the session roles are somebody else's. With what `cluster check` demands
// logons work at once, under other names, and with the rest of what it prints
// everything is as before, and nothing is left.
func TestSessionRolesOfAnotherLogin(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		for name, before := range map[string]func(f *fixture){
			// pg_upgrade and pg_dumpall have a superuser make every role and grant, without
			// what makes a login an administrator.
			"upgrade or restore": func(f *fixture) {
				f.Run(`create role daypass_session_roles; create role "IAM:alice" login valid until '2020-01-01'; create role "IAM:alice:analysts" login valid until '2020-01-01';
					alter role "IAM:alice" set role = alice;
					grant daypass_session_roles, alice to "IAM:alice"; grant daypass_session_roles, alice, analysts to "IAM:alice:analysts"`)
			},
			"loss of superuser": func(f *fixture) {
				f.Run("alter role %s superuser", f.As.Name)
				f.Ensure(dbuser.Need{User: "alice"})
				f.Ensure(dbuser.Need{User: "alice", Groups: []string{"analysts"}})
				f.Run("alter role %s nosuperuser createrole", f.As.Name)
				f.Admin = f.Another()
			},
			"another login": func(f *fixture) {
				f.LendAlone("alice", "analysts")
				f.Ensure(dbuser.Need{User: "alice"})
				f.Ensure(dbuser.Need{User: "alice", Groups: []string{"analysts"}})
				f.As = f.NewAdmin(f.T)
				f.Admin = f.Another()
			},
		} {
			t.Run(name, func(t *testing.T) {
				f := alone(t, s, "CREATEROLE")
				f.Run("create role alice login; create role analysts")
				before(f)
				db := f.Database(t)
				f.Exec(t, db, `create schema lab authorization alice; create table lab.payments (x int); grant usage on schema lab to public; grant select on lab.payments to analysts;
					set role "IAM:alice:analysts";
					create function lab.leak() returns bigint language sql security definer as 'select count(*) from lab.payments'`)
				needs := []dbuser.Need{{User: "alice"}, {User: "alice", Groups: []string{"analysts"}}}
				report := f.Check()
				for _, x := range report.Findings { // first what logons need
					if (x.Severity == clustercheck.Broken || x.Code == "admin-option") && len(x.SQL) > 0 {
						f.Exec(t, "postgres", strings.Join(x.SQL, ";"))
					}
				}
				for _, n := range needs {
					c := f.Session(n)
					if got := clustertest.One(t, c, "select pg_has_role('alice', 'member')::text"); got != "true" {
						t.Error("the session is not alice's")
					}
					if n.Groups == nil && clustertest.One(t, c, "select current_user::text") != "alice" {
						t.Error("the session does not work as alice")
					}
					_ = c.Close(t.Context())
				}
				report = f.Check()
				if report.Broken() {
					t.Errorf("still broken: %s", clustertest.Text(report))
				}
				sweep, err := f.Admin.Sweep(t.Context(), handover.SweepOptions{})
				others := strings.Contains(clustertest.Text(report), "session-role-login")
				if err != nil || others != (f.Major() >= 16) || others != strings.Contains(strings.Join(reasons(sweep), ""), "another login made it") {
					t.Errorf("session roles of another login: Check = %s, Sweep = %+v, %v", clustertest.Text(report), sweep, err)
				}
				f.Mend(report) // then the rest
				for _, n := range needs {
					preferred, _ := dbuser.SessionRoleNames(n.User, n.Groups, false)
					role := f.Ensure(n)
					if role.Name != preferred {
						t.Errorf("session role = %s, want %s", role.Name, preferred)
					}
					_ = f.Logon(role, "postgres").Close(t.Context())
				}
				for range 2 { // some were put aside in the first
					f.Run(`do $$ declare r name; begin for r in select rolname from pg_roles where rolname ~ '^IAM' loop
						execute format('alter role %I valid until %L', r, '2020-01-01'); end loop; end $$`)
					f.Eventually("end of sessions", func() bool {
						return clustertest.One(t, f.Super, "select count(*)::text from pg_stat_activity where usename ~ '^IAM'") == "0"
					})
					if sweep, err = f.Another().Sweep(t.Context(), handover.SweepOptions{Unused: time.Hour}); err != nil {
						t.Fatal(err)
					}
				}
				if got := clustertest.One(t, f.Super, "select coalesce(string_agg(rolname, ' '), '') from pg_roles where rolname ~ '^IAM'"); got != "" || len(sweep.Kept) > 0 {
					t.Errorf("left: %s; kept: %+v", got, sweep.Kept)
				}
			})
		}
	})
}

func reasons(r handover.SweepReport) (all []string) {
	for _, k := range r.Kept {
		all = append(all, k.Reason)
	}
	return all
}
