package handover_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// TestMembershipsOfDroppedRoles: PostgreSQL leaves a membership behind if one of its roles is dropped
// before the transaction that grants it has committed. Nothing can revoke it. It keeps no one from
// logging on, and no right from ending.
func TestMembershipsOfDroppedRoles(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := alone(t, s, "CREATEROLE")
		alice, group := f.LentUser("alice", ""), f.LentGroup("analysts")
		f.LendAlone(alice, group)
		need := dbuser.Need{User: alice, Groups: []string{group}}
		role := f.Ensure(need)
		grants := []string{`grant "` + role.Name + `" to %s`}
		if s.Major() < 16 { // later ones lock the role that is granted
			grants = append(grants, `grant %s to "`+role.Name+`"`)
		}
		for i, grant := range grants {
			gone := fmt.Sprintf("gone%d", i)
			f.Run("create role " + gone)
			other := pgtest.Connect(t, f.Superuser("postgres"))
			clustertest.ExecAll(t, other, "begin", fmt.Sprintf(grant, gone))
			f.Run("drop role " + gone)
			clustertest.Exec(t, other, "commit")
		}
		if left := clustertest.One(t, f.Super, `select count(*)::text from pg_auth_members m
			where not exists (select from pg_roles where oid = m.roleid) or not exists (select from pg_roles where oid = m.member)`); left != fmt.Sprint(len(grants)) {
			t.Fatalf("%s memberships of dropped roles, want %d", left, len(grants))
		}
		f.Ensure(need)
		f.Run("alter role %s valid until '2020-01-01'", role.Name)
		report, err := f.Admin.Sweep(t.Context(), handover.SweepOptions{})
		if err != nil || len(report.Stripped) != 1 || len(report.Kept) != 0 {
			t.Errorf("Sweep() = %+v, %v", report, err)
		}
		if held := f.Memberships(role.Name); held != "" && held != dbuser.MarkerRole {
			t.Errorf("the session role is still a member of %s", held)
		}
		if report, err = f.Admin.Sweep(t.Context(), handover.SweepOptions{}); err != nil || len(report.Stripped)+len(report.Kept) != 0 {
			t.Errorf("the next Sweep() = %+v, %v", report, err)
		}
		f.Ensure(need)
		if report, err = f.Admin.Sweep(t.Context(), handover.SweepOptions{Unused: time.Nanosecond}); err != nil || len(report.Kept) != 0 {
			t.Errorf("a Sweep() that drops = %+v, %v", report, err)
		}
	})
}
