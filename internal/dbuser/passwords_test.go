package dbuser_test

import (
	"context"
	"testing"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// TestPasswordsOfOnesOwn sets a password for the user in every kind of session, and tries to
// bypass the gateway with it.
func TestPasswordsOfOnesOwn(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		for name, f := range map[string]*fixture{"plain": plain(t, s), "superuser": super(t, s)} {
			t.Run(name, func(t *testing.T) {
				f.T = t
				group := f.LentGroup("analysts")
				made := f.Name("made")
				for _, n := range []dbuser.Need{{User: made, AutoCreate: true}, {User: made, Groups: []string{group}}} {
					c := f.Session(n)
					if len(n.Groups) > 0 {
						clustertest.Exec(t, c, "set role "+made)
					}
					clustertest.Exec(t, c, "alter role current_user password 'mine'")
					clustertest.Exec(t, c, "alter role "+made+" password 'mine'")
					for _, sql := range []string{
						"alter role " + made + " valid until 'infinity'", "alter role current_user valid until 'infinity' password 'mine'",
						"alter user " + made + " valid until '2100-01-01'",
					} {
						_, err := c.Exec(t.Context(), sql)
						clustertest.Refused(t, err, "42501")
					}
					clustertest.Refused(t, f.Direct(made, "mine"), "28P01")
					_ = c.Close(context.Background())
					clustertest.Refused(t, f.Direct(made, "mine"), "28P01")
				}
				// Logons through the gateway go on.
				f.Session(dbuser.Need{User: made})

				// A user that someone else created is left alone, unless the setting includes
				// it.
				existing := f.LentUser("existing", "")
				change := func() {
					clustertest.Exec(t, f.Session(dbuser.Need{User: existing}), "alter role "+existing+" password 'mine'")
				}
				change()
				if err := f.Direct(existing, "mine"); err != nil {
					t.Errorf("an existing user: %v", err)
				}
				all := f.Another(clustertest.Removing(dbuser.RemoveAllPasswords))
				for range 2 {
					if _, err := all.Ensure(t.Context(), dbuser.Need{User: existing}); err != nil {
						t.Fatal(err)
					}
					clustertest.Refused(t, f.Direct(existing, "mine"), "28P01")
					change()
				}
				if sql, err := all.TestOnlyPlan(t.Context(), dbuser.Need{User: existing}); err != nil || len(sql) > 0 {
					t.Errorf("the next logon would run %q, %v", sql, err)
				}

				none := f.Another(clustertest.Removing(dbuser.RemoveNoPasswords))
				open := f.Name("open")
				if _, err := none.Ensure(t.Context(), dbuser.Need{User: open, AutoCreate: true}); err != nil {
					t.Fatal(err)
				}
				clustertest.Exec(t, f.Session(dbuser.Need{User: open}), "alter role "+open+" password 'mine'")
				if err := f.Direct(open, "mine"); err != nil {
					t.Errorf("with none: %v", err)
				}
			})
		}
	})
}

// TestPasswordsOfSuperusers: the option never locks a superuser out of the server.
func TestPasswordsOfSuperusers(t *testing.T) {
	s := pgtest.Start(t)
	f := super(t, s, clustertest.AllowSuperusers, clustertest.Removing(dbuser.RemoveAllPasswords))
	boss := f.Login(t, "boss", "superuser")
	f.Ensure(dbuser.Need{User: boss.Name})
	if err := f.Direct(boss.Name, boss.Password); err != nil {
		t.Error(err)
	}
}
