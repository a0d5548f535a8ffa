package handover_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// TestMembershipsDoNotGrow: a strip does not read the memberships of other roles.
func TestMembershipsDoNotGrow(t *testing.T) {
	const others = 1000
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := alone(t, s, "CREATEROLE")
		f.Crowd(t, others)
		f.Plan(t, handover.MembershipsQuery(s.Major()*10000), "text[]", "'{IAM:crowd7,IAM:crowd8}'", func(step clustertest.PlanStep) {
			if step.Read() > others/2 {
				t.Errorf("a %s reads %.0f rows", step.Kind, step.Read())
			}
		})
	})
}

// TestFewChangesOfMemberships: from 16 on the server reads all memberships of a plain login for each
// statement that follows a change of one. So what needs no change comes first, and one statement
// makes several changes.
func TestFewChangesOfMemberships(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		user, one, two := f.Name("newcomer"), f.LentGroup("one"), f.LentGroup("two")
		var mu sync.Mutex
		var ran []string
		clustertest.Before(f.Admin, func(sql string, _ *pgconn.PgConn) {
			mu.Lock()
			defer mu.Unlock()
			switch verb, _, _ := strings.Cut(sql, " "); verb {
			case "create", "alter", "grant", "revoke", "reassign":
				ran = append(ran, sql)
			}
		})
		expect := func(starts ...string) {
			t.Helper()
			mu.Lock()
			defer mu.Unlock()
			if !slices.EqualFunc(ran, starts, strings.HasPrefix) {
				t.Errorf("ran\n%s\nexpected\n%s", strings.Join(ran, "\n"), strings.Join(starts, "\n"))
			}
			ran = nil
		}
		name := f.Ensure(dbuser.Need{User: user, AutoCreate: true}).Name
		expect(`create role "`+name+`"`, `create role "`+user+`"`, `alter role "`+name+`" set "role"`, `grant "`+dbuser.MarkerRole+`" to "`+name+`"`)

		role := f.Ensure(dbuser.Need{User: user, Groups: []string{one, two}})
		ran = nil
		db := f.LabDatabase(one)
		c := f.Logon(role, db)
		clustertest.Exec(t, c, "create table lab.left_behind ()")
		_ = c.Close(context.Background())
		f.Admin.SessionEnded(role.Name, nil)
		f.Eventually("hand-over", func() bool { return f.OwnedBy(role.Name) == "0" })
		f.Admin.Wait()
		revoked := []string{user, one, two}
		slices.Sort(revoked)
		expect(`alter role "`+role.Name+`" nologin`, `revoke "`+strings.Join(revoked, `", "`)+`" from "`+role.Name+`"`,
			`grant "`+role.Name+`", "`+user+`" to current_user`, `grant "`, `reassign owned by "`+role.Name+`" to "`+user+`"`, `revoke "`,
			`revoke "`+role.Name+`", "`+user+`" from current_user`)
	})
}
