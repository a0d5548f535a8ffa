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

// TestSessionRolesOfAnotherLogin: from 16 on a login may change only the roles that it created.
// After an upgrade from 15, a restore, a change of login or the loss of superuser, the session
// roles belong to another login. With the grants that `cluster check` demands, logons work at
// once, under other names. With the other statements that it prints, everything is as before and
// no old role remains.
func TestSessionRolesOfAnotherLogin(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		for name, before := range map[string]func(f *fixture){
			"upgrade, or a dump by pg_dumpall of 16 or later": func(f *fixture) { f.Run(dumped + grants("")) },
			"a dump by pg_dumpall of 15 or before":            loseMemberships,
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
				if name == "loss of superuser" || name == "another login" {
					f.Run("create role alice login; create role analysts")
				}
				before(f)
				db := f.Database(t)
				f.Exec(t, db, `create schema lab authorization alice; create table lab.payments (x int); grant usage on schema lab to public; grant select on lab.payments to analysts;
					set role "IAM:alice:analysts";
					create function lab.leak() returns bigint language sql security definer as 'select count(*) from lab.payments'`)
				needs := []dbuser.Need{{User: "alice"}, {User: "alice", Groups: []string{"analysts"}}}
				report := f.Check()
				for _, x := range report.Findings { // first the statements that logons need
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
				f.Mend(report) // then the other statements
				for _, n := range needs {
					preferred, _ := dbuser.SessionRoleNames(n.User, n.Groups, false)
					role := f.Ensure(n)
					if role.Name != preferred {
						t.Errorf("session role = %s, want %s", role.Name, preferred)
					}
					_ = f.Logon(role, "postgres").Close(t.Context())
				}
				// The retired roles are dropped. By then a superuser's grants to them, which
				// cannot be revoked, are not worth reporting.
				f.Eventually("the end of sessions", func() bool {
					return clustertest.One(t, f.Super, "select count(*)::text from pg_stat_activity where usename ~ '^IAM'") == "0"
				})
				if sweep, err = f.Another().Sweep(t.Context(), handover.SweepOptions{Unused: 24 * time.Hour}); err != nil ||
					strings.Contains(strings.Join(reasons(sweep), ""), "may not take back") {
					t.Errorf("Sweep = %+v, %v", sweep, err)
				}
				for range 2 { // the first round may rename some
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

// dumped is what pg_dumpall prints for the roles on 13 and on 15. pg_upgrade runs these statements
// on the new server as a superuser. The grants that make a login an administrator of its roles are
// missing.
const dumped = `
CREATE ROLE "IAM:alice";
ALTER ROLE "IAM:alice" WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB LOGIN NOREPLICATION NOBYPASSRLS PASSWORD 'SCRAM-SHA-256$1:cKcKlxe7OcXnh28nXFR3Yw==$3Ks0tJd7vUzXwYxqjQGm6OOmW2bVZ8kRr8ZsVn3w0pE=:pVq6Vq0dY1cCkq7Ue5tEo6cT9bXQWm3tE7mYpQ4n5rA=' VALID UNTIL '2020-01-01 00:00:00+00';
CREATE ROLE "IAM:alice:analysts";
ALTER ROLE "IAM:alice:analysts" WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB LOGIN NOREPLICATION NOBYPASSRLS VALID UNTIL '2020-01-01 00:00:00+00';
CREATE ROLE alice;
ALTER ROLE alice WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB LOGIN NOREPLICATION NOBYPASSRLS;
CREATE ROLE analysts;
ALTER ROLE analysts WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB NOLOGIN NOREPLICATION NOBYPASSRLS;
CREATE ROLE daypass_session_roles;
ALTER ROLE daypass_session_roles WITH NOSUPERUSER NOINHERIT NOCREATEROLE NOCREATEDB NOLOGIN NOREPLICATION NOBYPASSRLS;
ALTER ROLE "IAM:alice" SET role TO 'alice';
ALTER ROLE "IAM:alice:analysts" SET search_path TO 'alice', 'public';
ALTER ROLE "IAM:alice:analysts" SET role TO 'none';
`

// grants returns the memberships as pg_dumpall prints them. Up to 15 it names the grantor, the
// administrative login; from 16 on it leaves the grantor out for older servers.
func grants(grantor string) string {
	if grantor != "" {
		grantor = " GRANTED BY " + grantor
	}
	var b strings.Builder
	for _, g := range []string{`alice TO "IAM:alice"`, `alice TO "IAM:alice:analysts"`, `analysts TO "IAM:alice:analysts"`,
		`daypass_session_roles TO "IAM:alice"`, `daypass_session_roles TO "IAM:alice:analysts"`} {
		b.WriteString("GRANT " + g + grantor + ";\n")
	}
	return b.String()
}

// loseMemberships restores a dump by an older pg_dumpall. From 16 on each of its grants is refused,
// because the administrative login may not administer the roles. The check must report this, and
// must not advise adopting roles because of their names. Then loseMemberships runs the grants of
// docs/upgrade-postgresql.md.
func loseMemberships(f *fixture) {
	f.Run(dumped)
	var failed int
	for line := range strings.Lines(grants(f.As.Name)) {
		if _, err := f.Super.Exec(f.T.Context(), line); err != nil {
			failed++
		}
	}
	if all := strings.Count(grants(""), "\n"); failed != all && f.Major() >= 16 || failed != 0 && f.Major() < 16 {
		f.T.Errorf("%d of %d grants failed", failed, all)
	}
	if f.Major() < 16 {
		return
	}
	report := f.Check()
	var lost bool
	for _, x := range report.Findings {
		if strings.Contains(strings.Join(x.SQL, ";"), "IAM:alice") {
			f.T.Errorf("the check advises %q", x.SQL)
		}
		lost = lost || x.Code == "session-role-lost" && x.Severity == clustercheck.Warning &&
			strings.Contains(x.Message, `"IAM:alice", "IAM:alice:analysts"`)
	}
	if !lost {
		f.T.Errorf("Check = %s, want it to name the roles that were session roles", clustertest.Text(report))
	}
	f.Run(grants(""))
}

func reasons(r handover.SweepReport) (all []string) {
	for _, k := range r.Kept {
		all = append(all, k.Reason)
	}
	return all
}
