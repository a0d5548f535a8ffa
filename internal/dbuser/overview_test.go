package dbuser_test

import (
	"fmt"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/test/pgtest"
)

// FuzzNamePattern: the pattern for PostgreSQL matches the names that ParseRoleName knows, and no others.
func FuzzNamePattern(f *testing.F) {
	hashed, fallback := dbuser.SessionRoleNames("a:b", []string{"g"}, false)
	for _, name := range []string{"IAM:alice", "IAM:alice:analysts:finance", "IAM:", "IAM::g", "IAM:a:", "IAMA:IAM:ana", "IAMA:IAMR:etl:g", "IAMA:IAM:", "IAMA:alice",
		hashed, fallback, dbuser.RetiredName("IAM:alice", "alice", 7), "IAM:a~b", "iam:alice", "IAM:a\nb", hashed + "\n"} {
		f.Add(name)
	}
	pattern := regexp.MustCompile("(?s)" + dbuser.NamePattern)
	f.Fuzz(func(t *testing.T, name string) {
		if len(name) > 63 {
			return // PostgreSQL has no such names
		}
		if ok, _ := dbuser.RoleNameIsOf(name, ""); ok != pattern.MatchString(name) {
			t.Errorf("%q: a session role's name: %v, matched: %v", name, ok, !ok)
		}
	})
}

// TestOverview: the overview counts all session roles, and names each one for which a sweep has
// something to do, and hardly any other.
func TestOverview(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := alone(t, s, "CREATEROLE")
		f.Run("create role " + dbuser.MarkerRole)
		f.LendAlone(dbuser.MarkerRole)
		f.Run("create role odd in role " + dbuser.MarkerRole + `; create role "IAM:super" superuser in role ` + dbuser.MarkerRole)
		made := func(user string, then ...string) string {
			role := f.Ensure(dbuser.Need{User: user, AutoCreate: true}).Name
			for _, sql := range then {
				f.Run(fmt.Sprintf(sql, role))
			}
			return role
		}
		const old = `alter role "%s" valid until '2001-01-01'`
		live := made("live")
		f.Logon(f.Ensure(dbuser.Need{User: "live"}), "postgres")
		made("quiet")
		expired := made("expired", old)
		revoked := made("revoked")
		retired := dbuser.RetiredName("IAM:retired", "retired", 7)
		made("retired", `alter role "%s" rename to "`+retired+`"`)
		kept := dbuser.RetiredName("IAM:kept", "kept", 7)
		made("kept", `alter role "%s" valid until 'infinity'`, `alter role "%s" rename to "`+kept+`"`)
		due := []string{
			expired, kept,
			made("owner", `create table owned (); alter table owned owner to "%s"`),
			made("elsewhere", `create database other owner "%s"`),
			made("named", `create table granted (); grant select on granted to "%s"`),
			made("lender", `create role friend; grant "%s" to friend`),
			retired,
		}
		grantor := ""
		if f.Major() >= 16 {
			grantor = " granted by " + f.As.Name
			due = append(due, "IAM:others")
		}
		stripped := made("stripped", old, `revoke stripped from "%s"`+grantor)
		f.Run(`create role "IAM:others" in role ` + dbuser.MarkerRole)
		read := func(unused time.Duration, revoked ...string) (o dbuser.Overview, all []dbuser.ExistingRole) {
			t.Helper()
			c, err := f.Admin.Pool.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer f.Admin.Pool.Release(c)
			if o, err = f.Admin.Overview(t.Context(), c, unused, revoked); err != nil {
				t.Fatal(err)
			}
			if all, err = f.Admin.Existing(t.Context(), c, nil); err != nil {
				t.Fatal(err)
			}
			slices.Sort(o.Due)
			return o, all
		}
		expect := func(what string, o dbuser.Overview, due []string) {
			t.Helper()
			if slices.Sort(due); !slices.Equal(o.Due, due) {
				t.Errorf("%s: due are %q, expected %q", what, o.Due, due)
			}
		}
		o, all := read(0)
		expect("with roles kept for ever", o, slices.Clone(due))
		if o.Standby || o.Roles != len(all) || o.InUse != 1 || !o.Members || !slices.Equal(o.Foreign, []string{"IAM:super", "odd"}) {
			t.Errorf("%+v, with %d session roles", o, len(all))
		}
		o, all = read(24*time.Hour, revoked, live)
		expect("with roles dropped after a day, and two revoked", o, append(slices.Clone(due), stripped, revoked, live))
		if o.InUse != 0 {
			t.Errorf("%d are in use and not due", o.InUse)
		}
		for _, r := range all {
			if work := !r.Alterable || len(r.Databases) > 0 || r.Mentioned || r.Members || r.Held && (r.Expired() || r.Retired()) || r.UnusedFor(24*time.Hour); work && !slices.Contains(o.Due, r.Role) {
				t.Errorf("%+v is not due", r)
			}
		}
		f.Run(`drop role friend; drop table owned, granted`)
		if o, _ := read(0); o.Members {
			t.Errorf("session roles have members: %+v", o)
		}
	})
}
