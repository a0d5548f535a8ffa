package dbuser_test

import (
	"testing"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/test/pgtest"
)

// TestSeenWithAnyPlan: the state of a session role is the same whatever plan the server takes for the
// query. Otherwise parked sessions, and sessions started ahead, would end for nothing.
func TestSeenWithAnyPlan(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := super(t, s)
		database := s.Database(t)
		n := dbuser.Need{User: f.LentUser("often", ""), Groups: []string{f.LentGroup("b"), f.LentGroup("a")}, Database: database}
		for _, of := range []string{"role %[1]s", "role %[1]s in database %[2]s", "database %[2]s"} {
			f.Run("alter "+of+" set search_path = a, b", n.User, database)
		}
		role := f.Ensure(n)
		f.Run("alter role %s in database %s set work_mem = '8MB'", role.Name, database)
		f.Ensure(n)
		want := f.Ensure(n).Seen // this one changes nothing
		// Autovacuum does this at any time, and each of these may change the plan.
	tables:
		for _, table := range []string{"pg_db_role_setting", "pg_authid", "pg_auth_members", "pg_database"} {
			f.Run("vacuum analyze " + table)
			for range 7 { // until the server has chosen between the plans for these and for any arguments
				if got, err := f.Admin.Seen(t.Context(), n); err != nil || got != want || got == [len(got)]byte{} {
					t.Errorf("%s is analyzed: %x, %v, want %x", table, got, err, want)
					break tables
				}
			}
		}
	})
}
