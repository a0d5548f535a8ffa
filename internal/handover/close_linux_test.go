package handover_test

import (
	"context"
	"testing"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// TestRightsEndBeforeTheProcess: sessions end because the process stops. Their session roles lose
// their rights before it has stopped, since it may not start again.
func TestRightsEndBeforeTheProcess(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		stops, group := f.Another(), f.LentGroup("analysts")
		db := f.LabDatabase(group)
		begin := func(user string, groups ...string) (dbuser.SessionRole, *dbuser.Backend, func()) {
			t.Helper()
			role, err := stops.Ensure(t.Context(), dbuser.Need{User: f.LentUser(user, ""), Groups: groups})
			if err != nil {
				t.Fatal(err)
			}
			stops.Opened(role.Name)
			c := f.Logon(role, db)
			b := backend(t, c)
			if len(groups) > 0 {
				clustertest.Exec(t, c, "create function lab."+user+"() returns text language sql security definer as 'select current_user::text'")
			}
			return role, &b, func() { _ = c.Close(context.Background()) }
		}
		leaver, leaverBackend, leave := begin("leaver", group)
		rebel, rebelBackend, _ := begin("rebel", group) // its backend stays
		revoked, revokedBackend, leaveRevoked := begin("revoked")
		busy, busyBackend, leaveBusy := begin("busy", group)
		_ = f.Logon(busy, db) // through another gateway
		leave()
		leaveRevoked()
		leaveBusy()
		stops.SessionEnded(leaver.Name, leaverBackend)
		stops.SessionEnded(rebel.Name, rebelBackend)
		stops.SessionRevoked(revoked.Name, revokedBackend)
		stops.SessionEnded(busy.Name, busyBackend)
		stops.Close()
		for _, role := range []string{leaver.Name, rebel.Name, revoked.Name} {
			login := clustertest.One(t, f.Super, "select rolcanlogin::text from pg_roles where rolname = $1", role)
			if of := f.Memberships(role); of != dbuser.MarkerRole || login != "false" {
				t.Errorf("when the process has stopped, %s is a member of %s, and may log in: %s", role, of, login)
			}
		}
		if f.Memberships(busy.Name) == dbuser.MarkerRole {
			t.Error("a session role lost its rights while it had a session")
		}
	})
}
