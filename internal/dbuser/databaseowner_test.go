package dbuser_test

import (
	"testing"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// TestRoleOfADatabase: the owner of a database can set a role that sessions in it begin with.
// The gateway's sessions, with and without groups, ignore it.
func TestRoleOfADatabase(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		user, group := f.LentUser("owner", ""), f.LentGroup("group")
		db := f.Database(t)
		f.Run("alter database %s owner to %s", db, user)
		f.Exec(t, db, `set role "`+user+`"; alter database "`+db+`" set role = '`+user+`'`)
		for _, n := range []dbuser.Need{{User: user, Database: db}, {User: user, Groups: []string{group}, Database: db}} {
			role := f.Ensure(n)
			want := user
			if n.Groups != nil {
				want = role.Name
			}
			c := f.Logon(role, db)
			for _, statement := range []string{"select 1", "reset role", "discard all"} {
				clustertest.Exec(t, c, statement)
				if got := clustertest.One(t, c, "select current_user::text"); got != want {
					t.Errorf("groups %v, after %q: current_user is %q, want %q", n.Groups, statement, got, want)
				}
			}
			if n.Groups != nil && clustertest.One(t, c, "select pg_has_role('"+group+"', 'usage')::text") != "true" {
				t.Error("the session has lost its group")
			}
		}
	})
}

// TestRoleOfTheUser: which role a session works as is never copied from the user's settings.
func TestRoleOfTheUser(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		user, other, group := f.LentUser("user", ""), f.LentGroup("other"), f.LentGroup("group")
		db := f.Database(t)
		f.Run("grant %s to %s", other, user)
		f.Run("alter role %s set role = %s", user, other)
		f.Run("alter role %s in database %s set role = %s", user, db, other)
		for _, n := range []dbuser.Need{{User: user, Database: db}, {User: user, Groups: []string{group}, Database: db}} {
			role := f.Ensure(n)
			want := user
			if n.Groups != nil {
				want = role.Name
			}
			if got := clustertest.One(t, f.Logon(role, db), "select current_user::text"); got != want {
				t.Errorf("groups %v: current_user is %q, want %q", n.Groups, got, want)
			}
		}
	})
}
