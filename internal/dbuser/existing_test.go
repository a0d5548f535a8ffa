package dbuser_test

import (
	"fmt"
	"testing"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// TestQueriesDoNotGrow: the queries about one session role do not read the others, on any version and
// with the plan that they have in use. The query about all of them reads the sessions only once.
func TestQueriesDoNotGrow(t *testing.T) {
	const others = 3000
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := alone(t, s, "CREATEROLE")
		f.Run("create role " + dbuser.MarkerRole)
		f.LendAlone(dbuser.MarkerRole)
		user := f.LentUser("ended", "")
		f.LendAlone(user)
		ended := f.Ensure(dbuser.Need{User: user}).Name
		f.Crowd(t, others)
		version := s.Major() * 10000
		few := func(step clustertest.PlanStep) {
			if step.Read() > others/2 {
				t.Errorf("a %s reads %.0f rows", step.Kind, step.Read())
			}
		}
		f.Plan(t, dbuser.StateQuery(version), "text[], text[], text", fmt.Sprintf("'{%s}', '{%s,none}', 'postgres'", user, ended), few)
		f.Plan(t, dbuser.ExistingQuery(version, true), "text[], int[], int8[]", fmt.Sprintf("'{%s}', '{}', '{}'", ended), few)
		f.Plan(t, dbuser.ExistingQuery(version, false), "text[], int[], int8[]", "null, '{}', '{}'", func(step clustertest.PlanStep) {
			if step.Kind == "Function Scan" && step.Loops > 1 {
				t.Errorf("a function is called %.0f times", step.Loops)
			}
		})
	})
}
