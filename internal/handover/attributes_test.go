package handover_test

import (
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// TestAttributesThatTheUserLoses: a session with groups works as its session role, which has copies of the
// user's attributes. An attribute that is taken from the user ends in the running session, too.
func TestAttributesThatTheUserLoses(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := super(t, s, clustertest.AllowSuperusers) // before 16 a user with CREATEROLE is as good as one
		group, long := f.LentGroup("analysts"), f.LentGroup("analysts"+strings.Repeat("_", 40))
		db := f.Database(t)
		f.Exec(t, db, "create table notes (x int); alter table notes enable row level security; insert into notes values (1);"+
			"grant select on notes to "+group+", "+long)
		sweep := func() {
			t.Helper()
			if _, err := f.Admin.Sweep(t.Context(), handover.SweepOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		const options = "CREATEDB CREATEROLE BYPASSRLS"
		for name, g := range map[string]string{"a readable name": group, "a hashed name": long} {
			loses, keeps := f.LentUser("loses", options), f.LentUser("keeps", options)
			c := f.Session(dbuser.Need{User: loses, Groups: []string{g}, Database: db})
			other := f.Session(dbuser.Need{User: keeps, Groups: []string{g}, Database: db})
			const rows, mine = "select count(*)::text from notes", "select concat_ws(' ', rolcreatedb, rolcreaterole, rolbypassrls) from pg_roles where rolname = current_user"
			before := clustertest.One(t, c, mine)
			f.Run("alter role %s nobypassrls", loses)
			sweep()
			if got := clustertest.One(t, c, rows); got != "0" {
				t.Errorf("%s: the session still reads %s row without BYPASSRLS", name, got)
			}
			f.Run("alter role %s nocreatedb nocreaterole", loses)
			sweep()
			if got := clustertest.One(t, c, mine); got != "f f f" {
				t.Errorf("%s: attributes of the session role: %s", name, got)
			}
			if got := clustertest.One(t, other, mine); got != before || clustertest.One(t, other, rows) != "1" {
				t.Errorf("%s: attributes of another user's session role: %s, want %s", name, got, before)
			}
			f.Run("drop role %s", keeps)
			sweep()
			if got := clustertest.One(t, other, mine); got != "f f f" {
				t.Errorf("%s: attributes without the user: %s", name, got)
			}
		}
	})
}
