package handover_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// TestRolesMadeInSessions: a user with CREATEROLE creates roles in sessions. The session role
// can be dropped afterwards, and the user administers the roles.
func TestRolesMadeInSessions(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		for name, f := range map[string]*fixture{"plain": plain(t, s, clustertest.AllowSuperusers), "superuser": super(t, s, clustertest.AllowSuperusers)} {
			t.Run(name, func(t *testing.T) {
				f.T = t
				alice, group := f.LentUser("alice", "createrole"), f.LentGroup("analysts")
				made := []string{f.Name("made"), f.Name("made"), f.Name("made")}
				bare := f.Ensure(dbuser.Need{User: alice})
				c := f.Logon(bare, "postgres")
				clustertest.Exec(t, c, "create role "+made[0])
				_ = c.Close(context.Background())

				role := f.Ensure(dbuser.Need{User: alice, Groups: []string{group}})
				c = f.Logon(role, "postgres")
				_, err := c.Exec(t.Context(), "create role "+made[1])
				if (err == nil) != (f.Major() < 16) {
					t.Errorf("CREATE ROLE in a session with groups: %v", err)
				}
				clustertest.Exec(t, c, "set role "+pgtest.Quote(alice))
				clustertest.Exec(t, c, "create role "+made[2])
				_ = c.Close(context.Background())
				f.NoSessions(bare.Name, role.Name)

				for _, r := range []dbuser.SessionRole{bare, role} {
					f.Run("alter role %s valid until '2020-01-01'", r.Name)
				}
				f.SweepUntil(role.Name, time.Hour)
				if f.RoleExists(bare.Name) || f.RoleExists(role.Name) {
					t.Error("a session role was not dropped")
				}
				c = f.Session(dbuser.Need{User: alice})
				clustertest.Exec(t, c, "drop role "+made[0])
				_ = c.Close(context.Background())
				f.NoSessions(bare.Name)
				plan, err := f.Admin.DropUser(t.Context(), alice, handover.DropOptions{})
				if err != nil {
					t.Errorf("DropUser: %+v, %v", plan.Problems, err)
				}
				if got := strings.Join(plan.Orphans, " "); f.Major() >= 16 && got != made[2] {
					t.Errorf("the plan names the orphans %q, want %q", got, made[2])
				}
			})
		}
	})
}

// TestRolesOfASessionRole: if a session role has created a role after all, its objects can still
// be handed over, and a superuser can pass the role's administration on.
func TestRolesOfASessionRole(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		if s.Major() < 16 {
			return // before 16 the creator of a role gets no membership in it
		}
		for name, f := range map[string]*fixture{"plain": plain(t, s), "superuser": super(t, s)} {
			t.Run(name, func(t *testing.T) { f.T = t; rolesOfASessionRole(t, f, name == "plain") })
		}
	})
}

func rolesOfASessionRole(t *testing.T, f *fixture, plain bool) {
	alice, makers := f.LentUser("alice", "createrole"), f.LentGroup("makers")
	db := f.LabDatabase(makers)
	role := f.Ensure(dbuser.Need{User: alice, Groups: []string{makers}})
	made := f.Name("made")
	f.Run("alter role %s createrole", role.Name)
	c := f.Logon(role, db)
	clustertest.Exec(t, c, "create role "+made+" login")
	clustertest.Exec(t, c, "create table lab.t (x int)")
	_ = c.Close(context.Background())
	f.NoSessions(role.Name)
	f.Run("alter role %s valid until '2020-01-01'", role.Name)
	report, err := f.Admin.Sweep(t.Context(), handover.SweepOptions{Unused: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if got := f.OwnedBy(role.Name); got != "0" {
		t.Errorf("the session role still owns %s objects: %+v", got, report.Kept)
	}
	if plain {
		for _, k := range report.Kept {
			if k.Role == role.Name {
				_, sql, _ := strings.Cut(k.Reason, "as a superuser: ")
				f.Run(sql)
			}
		}
		return
	}
	if f.RoleExists(role.Name) {
		t.Errorf("the session role is still there: %+v", report.Kept)
	}
	clustertest.Exec(t, f.Session(dbuser.Need{User: alice}), "drop role "+made)
}
