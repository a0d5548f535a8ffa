package dbuser_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/test/pgtest"
)

// TestRolesMadeInSessions: a user with CREATEROLE makes roles in sessions; the
// session role can be dropped afterwards, and the user administers them.
func TestRolesMadeInSessions(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		for name, f := range map[string]*fixture{"plain": plain(t, s, allowSuperusers), "superuser": super(t, s, allowSuperusers)} {
			t.Run(name, func(t *testing.T) {
				f.t = t
				alice, group := f.user("alice", "createrole"), f.group("analysts")
				made := []string{f.Name("made"), f.Name("made"), f.Name("made")}
				bare := f.ensure(dbuser.Need{User: alice})
				c := f.logon(bare, "postgres")
				run(t, c, "create role "+made[0])
				_ = c.Close(context.Background())

				role := f.ensure(dbuser.Need{User: alice, Groups: []string{group}})
				c = f.logon(role, "postgres")
				_, err := c.Exec(t.Context(), "create role "+made[1])
				if (err == nil) != (f.Major() < 16) {
					t.Errorf("CREATE ROLE in a session with groups: %v", err)
				}
				run(t, c, "set role "+pgtest.Quote(alice))
				run(t, c, "create role "+made[2])
				_ = c.Close(context.Background())
				f.noSessions(bare.Name, role.Name)

				for _, r := range []dbuser.SessionRole{bare, role} {
					f.exec("alter role %s valid until '2020-01-01'", r.Name)
				}
				f.sweepUntil(role.Name, time.Hour)
				if f.roleExists(bare.Name) || f.roleExists(role.Name) {
					t.Error("a session role was not dropped")
				}
				c = f.session(dbuser.Need{User: alice})
				run(t, c, "drop role "+made[0])
				_ = c.Close(context.Background())
				f.noSessions(bare.Name)
				plan, err := f.admin.DropUser(t.Context(), alice, dbuser.DropOptions{})
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

// TestRolesOfASessionRole: a role that a session role made all the same does not
// keep it from handing over; a superuser passes its administration on.
func TestRolesOfASessionRole(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		if s.Major() < 16 {
			return // who makes a role has no part in it there
		}
		for name, f := range map[string]*fixture{"plain": plain(t, s), "superuser": super(t, s)} {
			t.Run(name, func(t *testing.T) { f.t = t; rolesOfASessionRole(t, f, name == "plain") })
		}
	})
}

func rolesOfASessionRole(t *testing.T, f *fixture, plain bool) {
	alice, makers := f.user("alice", "createrole"), f.group("makers")
	db := f.database(makers)
	role := f.ensure(dbuser.Need{User: alice, Groups: []string{makers}})
	made := f.Name("made")
	f.exec("alter role %s createrole", role.Name)
	c := f.logon(role, db)
	run(t, c, "create role "+made+" login")
	run(t, c, "create table lab.t (x int)")
	_ = c.Close(context.Background())
	f.noSessions(role.Name)
	f.exec("alter role %s valid until '2020-01-01'", role.Name)
	report, err := f.admin.Sweep(t.Context(), dbuser.SweepOptions{Unused: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if got := f.ownedBy(role.Name); got != "0" {
		t.Errorf("the session role still owns %s objects: %+v", got, report.Kept)
	}
	if plain {
		for _, k := range report.Kept {
			if k.Role == role.Name {
				_, sql, _ := strings.Cut(k.Reason, "as a superuser: ")
				f.exec(sql)
			}
		}
		return
	}
	if f.roleExists(role.Name) {
		t.Errorf("the session role is still there: %+v", report.Kept)
	}
	run(t, f.session(dbuser.Need{User: alice}), "drop role "+made)
}
