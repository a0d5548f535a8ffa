package dbuser_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/test/pgtest"
)

// direct logs on past the gateway, and returns what comes of it.
func (f *fixture) direct(user, password string) error {
	c, err := pgx.Connect(context.Background(), f.ConnString(pgtest.Login{Name: user, Password: password}, "postgres"))
	if err == nil {
		_ = c.Close(context.Background())
	}
	return err
}

func removing(r dbuser.PasswordRemoval) option {
	return func(c *dbuser.Config) { c.RemovePasswords = r }
}

// TestPasswordsOfOnesOwn sets a password for the user in every kind of session,
// and tries to log on with it past the gateway.
func TestPasswordsOfOnesOwn(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		for name, f := range map[string]*fixture{"plain": plain(t, s), "superuser": super(t, s)} {
			t.Run(name, func(t *testing.T) {
				f.t = t
				group := f.group("analysts")
				made := f.Name("made")
				for _, n := range []dbuser.Need{{User: made, AutoCreate: true}, {User: made, Groups: []string{group}}} {
					c := f.session(n)
					if len(n.Groups) > 0 {
						run(t, c, "set role "+made)
					}
					run(t, c, "alter role current_user password 'mine'")
					run(t, c, "alter role "+made+" password 'mine'")
					for _, sql := range []string{
						"alter role " + made + " valid until 'infinity'", "alter role current_user valid until 'infinity' password 'mine'",
						"alter user " + made + " valid until '2100-01-01'",
					} {
						_, err := c.Exec(t.Context(), sql)
						refused(t, err, "42501")
					}
					refused(t, f.direct(made, "mine"), "28P01")
					_ = c.Close(context.Background())
					refused(t, f.direct(made, "mine"), "28P01")
				}
				// Logons through the gateway go on.
				f.session(dbuser.Need{User: made})

				// A user that somebody else made is let be, unless that is wanted.
				existing := f.user("existing", "")
				change := func() {
					run(t, f.session(dbuser.Need{User: existing}), "alter role "+existing+" password 'mine'")
				}
				change()
				if err := f.direct(existing, "mine"); err != nil {
					t.Errorf("an existing user: %v", err)
				}
				all := f.another(removing(dbuser.RemoveAllPasswords))
				for range 2 {
					if _, err := all.Ensure(t.Context(), dbuser.Need{User: existing}); err != nil {
						t.Fatal(err)
					}
					refused(t, f.direct(existing, "mine"), "28P01")
					change()
				}
				if sql, err := all.StatePlans(t.Context(), dbuser.Need{User: existing}); err != nil || len(sql) > 0 {
					t.Errorf("the next logon would run %q, %v", sql, err)
				}

				none := f.another(removing(dbuser.RemoveNoPasswords))
				open := f.Name("open")
				if _, err := none.Ensure(t.Context(), dbuser.Need{User: open, AutoCreate: true}); err != nil {
					t.Fatal(err)
				}
				run(t, f.session(dbuser.Need{User: open}), "alter role "+open+" password 'mine'")
				if err := f.direct(open, "mine"); err != nil {
					t.Errorf("with none: %v", err)
				}
			})
		}
	})
}

// TestPasswordsOfSuperusers: nobody is locked out of the server by an option that
// is about users.
func TestPasswordsOfSuperusers(t *testing.T) {
	s := pgtest.Start(t)
	f := super(t, s, allowSuperusers, removing(dbuser.RemoveAllPasswords))
	boss := f.Login(t, "boss", "superuser")
	f.ensure(dbuser.Need{User: boss.Name})
	if err := f.direct(boss.Name, boss.Password); err != nil {
		t.Error(err)
	}
}
