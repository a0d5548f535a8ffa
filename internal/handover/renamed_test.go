package handover_test

import (
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// TestUserIsRenamed: a session role knows its user by name. What it owns when that user is renamed
// lends no rights, stays where it is, and does what the log advises: it goes to another user with
// `daypass user drop` of the earlier name, and the renamed user stays.
func TestUserIsRenamed(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := alone(t, s, "CREATEROLE")
		alice, bob, makers := f.LentUser("alice", ""), f.LentUser("bob", ""), f.LentGroup("makers")
		f.LendAlone(alice, bob, makers)
		db := f.LabDatabase(makers)
		role := f.Ensure(dbuser.Need{User: alice, Groups: []string{makers}, Database: db})
		c := f.Logon(role, db)
		clustertest.Exec(t, c, "create table lab.hers (x int)")
		f.Run("alter role %s rename to alicia", alice)
		_ = c.Close(t.Context())
		f.NoSessions(role.Name)
		report, err := f.Admin.Sweep(t.Context(), handover.SweepOptions{})
		if err != nil || len(report.Kept) != 1 || !strings.Contains(report.Kept[0].Reason, "`daypass user drop` of the earlier name, with --reassign-to") {
			t.Fatalf("Sweep = %+v, %v", report, err)
		}
		if got := clustertest.One(t, f.Super, "select count(*)::text from pg_auth_members m where m.member::regrole::text like '%IAM:%' and m.roleid::regrole::text <> '"+dbuser.MarkerRole+"'"); got != "0" {
			t.Errorf("%s memberships are left", got)
		}
		if plan, err := f.Admin.DropUser(t.Context(), alice, handover.DropOptions{ReassignTo: bob}); err != nil {
			t.Fatalf("DropUser = %+v, %v", plan.Problems, err)
		}
		super := pgtest.Connect(t, f.Superuser(db))
		if got := clustertest.One(t, super, "select tableowner::text from pg_tables where tablename = 'hers'"); got != bob {
			t.Errorf("her table belongs to %s", got)
		}
		if got := clustertest.One(t, super, "select string_agg(rolname, ' ' order by rolname) from pg_roles where rolname ~ 'IAM|alic'"); got != "alicia" {
			t.Errorf("roles: %s", got)
		}
	})
}
