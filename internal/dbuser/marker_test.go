package dbuser_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// TestTheMarkerAloneProvesNothing: before 16 a user with CREATEROLE can put someone else's role
// into the marker and make it a member of another role; from 16 on a careless superuser can.
// Such a role is not handed over, stripped, renamed or dropped, but it is reported.
func TestTheMarkerAloneProvesNothing(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		for _, options := range []string{"CREATEROLE", "SUPERUSER"} {
			t.Run(options, func(t *testing.T) {
				f := alone(t, s, options)
				f.Run("create role alice login")
				f.LendAlone("alice")
				f.Ensure(dbuser.Need{User: "alice"})
				for _, name := range []string{"dba", "IAM:dba", "svc", "IAM~svc", "IAM:nobody~x", "IAM:"} {
					f.Run("create role %s login valid until '2020-01-01'", name)
					f.Run("create role %s login", "cr of "+name)
					f.Run("grant daypass_session_roles to %s", name)
					f.Run("grant %s to %s", "cr of "+name, name)
					f.Run("create schema %s authorization %s", "of "+name, name)
				}
				f.Run(`alter role dba superuser; alter role "IAM:dba" superuser`)
				report, err := f.Admin.Sweep(t.Context(), handover.SweepOptions{Unused: time.Hour})
				if err != nil || len(report.HandedOver)+len(report.Stripped)+len(report.Dropped) > 0 {
					t.Errorf("Sweep = %+v, %v", report, err)
				}
				check := clustertest.Text(f.Check())
				for _, name := range []string{"dba", "IAM:dba", "svc", "IAM~svc", "IAM:nobody~x", "IAM:"} {
					if got := clustertest.One(t, f.Super, "select o.rolname::text || ' ' || o.rolcanlogin from pg_namespace n join pg_roles o on o.oid = n.nspowner where nspname = $1", "of "+name); got != name+" true" {
						t.Errorf("the schema of %s belongs to %s", name, got)
					}
					if got := f.Memberships(name); got != "cr of "+name+" daypass_session_roles" {
						t.Errorf("%s is in %q", name, got)
					}
					if !strings.Contains(fmt.Sprintf("%+v", report.Kept), "Role:"+name+" Reason:it is a member of daypass_session_roles") {
						t.Errorf("no word of %s: %+v", name, report.Kept)
					}
					if !strings.Contains(check, fmt.Sprintf(`the role \"%s\" is a member of \"daypass_session_roles\"`, name)) {
						t.Errorf("cluster check says nothing of %s", name)
					}
				}
				// A logon for alice does not touch a foreign role with the name of her session
				// role.
				f.Run(`alter role "IAM:alice" rename to x; create role "IAM:alice" superuser login password 'theirs'; grant daypass_session_roles to "IAM:alice"`)
				if role := f.Ensure(dbuser.Need{User: "alice"}); role.Name == "IAM:alice" {
					t.Error("a superuser was made a session role")
				}
				if clustertest.One(t, f.Super, "select rolsuper::text from pg_roles where rolname = 'IAM:alice'") != "true" {
					t.Error("a superuser was changed")
				}
			})
		}
	})
}

// TestUsersWithCreateRole: before 16 CREATEROLE can grant any role, so a user with CREATEROLE
// counts as a superuser. From 16 on it reaches only the roles that its holder administers; the
// attempts show that.
func TestUsersWithCreateRole(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		alice, member, analysts, bob := f.LentUser("alice", "CREATEROLE"), f.LentUser("member", ""), f.LentGroup("analysts"), f.LentUser("bob", "")
		f.Run("grant %s to %s", alice, member)
		bobs := f.Ensure(dbuser.Need{User: bob})
		attempts := []string{
			"grant pg_execute_server_program to " + pgtest.Quote(alice),
			"grant " + pgtest.Quote(analysts) + " to " + pgtest.Quote(alice),
			"grant " + dbuser.MarkerRole + " to " + pgtest.Quote(bob),
			"alter role " + pgtest.Quote(bob) + " password 'mine'",
			"alter role " + pgtest.Quote(bobs.Name) + " password 'mine'",
			"grant " + pgtest.Quote(bobs.Name) + " to " + pgtest.Quote(alice),
		}
		if f.Major() < 16 {
			for _, user := range []string{alice, member} {
				if _, err := f.Admin.Ensure(t.Context(), dbuser.Need{User: user}); !errors.Is(err, dbuser.ErrUserRefused) || !strings.Contains(err.Error(), "allow_superusers") {
					t.Errorf("Ensure(%s) = %v, want a refusal that names allow_superusers", user, err)
				}
			}
			f.Admin = f.Another(clustertest.AllowSuperusers)
		}
		c := f.Session(dbuser.Need{User: alice})
		if f.Major() >= 16 {
			// She can grant a role that she creates to anyone. That must not lock them out.
			maker := pgtest.Quote(f.Name("maker"))
			for _, sql := range []string{"create role " + maker + " createrole", "grant " + maker + " to " + pgtest.Quote(analysts) + ", " + pgtest.Quote(bob)} {
				if _, err := c.Exec(t.Context(), sql); err != nil {
					t.Errorf("%s: %v", sql, err)
				}
			}
			f.Ensure(dbuser.Need{User: bob, Groups: []string{analysts}})
		}
		for _, sql := range attempts {
			_, err := c.Exec(t.Context(), sql)
			if (err == nil) != (f.Major() < 16) {
				t.Errorf("%s: %v", sql, err)
			}
		}
	})
}

// TestTheUserFollowsFromTheName: a session role's name identifies its user, even if the name is
// not readable, and no other name does.
func TestTheUserFollowsFromTheName(t *testing.T) {
	long := strings.Repeat("x", 60)
	for _, tt := range []struct {
		user     string
		groups   []string
		identity bool
	}{
		{"alice", nil, false}, {"alice", []string{"a", "b"}, false}, {long, nil, false}, {long, []string{"a"}, false}, {"a:b", nil, false}, {"a~b", []string{"g"}, false},
		{"IAM:ana", nil, true}, {"IAMR:etl", []string{"g"}, true}, {"IAM:" + long[:59], []string{"g"}, true}, {"a", []string{"b:c"}, false}, {"IAM", []string{"x"}, false},
	} {
		preferred, fallback := dbuser.SessionRoleNames(tt.user, tt.groups, tt.identity)
		for _, name := range []string{preferred, fallback, dbuser.RetiredName(preferred, tt.user, 7)} {
			if ok, of := dbuser.RoleNameIsOf(name, tt.user); !ok || !of || len(name) > 63 {
				t.Errorf("%q is not known to be of %q", name, tt.user)
			}
			for _, other := range []string{"", "bob", "alic", "alice:a", "IAM", "IAM:ana", "ana", long[:59], "a"} {
				if _, of := dbuser.RoleNameIsOf(name, other); of && other != tt.user {
					t.Errorf("%q is taken to be of %q, not %q", name, other, tt.user)
				}
			}
		}
	}
	for _, name := range []string{"", "alice", "IAM", "IAM:", "IAMA:", "IAMA:x", "IAMA:ana:g", "IAMA:IAM:", "IAM::g", "IAM:alice:", "IAM:alice::g", "IAM:a~b", "IAM:a~h" + strings.Repeat("0", 45), "iam:alice"} {
		if ok, _ := dbuser.RoleNameIsOf(name, "alice"); ok {
			t.Errorf("%q is taken for the name of a session role", name)
		}
	}
}

// FuzzRoleName: any role name belongs to at most one user, and every name that the package gives
// belongs to its user.
func FuzzRoleName(f *testing.F) {
	f.Add("IAM:alice:analysts", "alice", "analysts", false)
	f.Add("IAMA:IAM:ana", "IAM:ana", "", true)
	f.Add("IAM:a~h", "a~b", "x", false)
	f.Fuzz(func(t *testing.T, name, user, group string, identity bool) {
		if ok, of := dbuser.RoleNameIsOf(name, user); of && ok {
			if _, other := dbuser.RoleNameIsOf(name, user+"x"); other {
				t.Errorf("%q is of two users", name)
			}
		}
		if user == "" || len(user) > 63 || len(group) > 63 {
			return
		}
		var groups []string
		if group != "" {
			groups = []string{group}
		}
		preferred, fallback := dbuser.SessionRoleNames(user, groups, identity)
		for _, own := range []string{preferred, fallback} {
			if ok, of := dbuser.RoleNameIsOf(own, user); !ok || !of {
				t.Errorf("the name %q is not of its user %q", own, user)
			}
		}
	})
}

// TestNamesThatAreSquatted: from 16 on a user with CREATEROLE can create roles with the names of
// someone else's session role. The logon then uses a name that cannot be guessed, and keeps it
// as long as the other names are taken.
func TestNamesThatAreSquatted(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		bob, group := f.LentUser("bob", ""), f.LentGroup("analysts")
		squatter := pgtest.Connect(t, f.ConnString(f.Login(t, "mallory", "CREATEROLE"), "postgres"))
		for _, groups := range [][]string{nil, {group}} {
			preferred, fallback := dbuser.SessionRoleNames(bob, groups, false)
			for _, name := range []string{preferred, fallback} {
				clustertest.Exec(t, squatter, "create role "+pgtest.Quote(name))
			}
			n := dbuser.Need{User: bob, Groups: groups}
			role := f.Ensure(n)
			c := f.Logon(role, "postgres")
			if got := clustertest.One(t, c, "select pg_has_role($1, 'member')::text", bob); got != "true" || role.Name == preferred || role.Name == fallback {
				t.Errorf("the session of %s is not bob's", role.Name)
			}
			if !strings.Contains(f.Log.String(), "run `daypass cluster check`") {
				t.Errorf("no word in the log: %s", f.Log)
			}
			if left, err := f.Admin.TestOnlyPlan(t.Context(), n); err != nil || len(left) > 0 {
				t.Errorf("left to do: %q, %v", left, err)
			}
			if f.Another(func(c *dbuser.Config) { c.Key[0]++ }).KeyedName(n) == role.Name {
				t.Error("the name does not depend on the key")
			}
			_ = c.Close(t.Context())
			f.NoSessions(role.Name)
			f.Run("alter role %s valid until '2020-01-01'", role.Name)
			f.SweepUntil(role.Name, time.Hour)
			if !f.RoleExists(role.Name) {
				t.Error("the role was dropped, and its name can be taken now")
			}
			for _, name := range []string{preferred, fallback} {
				clustertest.Exec(t, squatter, "drop role "+pgtest.Quote(name))
			}
			f.SweepUntil(role.Name, time.Hour)
			if f.RoleExists(role.Name) {
				t.Error("the role stays when its own names are free")
			}
			if got := f.Ensure(n).Name; got != preferred {
				t.Errorf("session role = %s, want %s", got, preferred)
			}
		}
	})
}
