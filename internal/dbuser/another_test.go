package dbuser_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/test/pgtest"
)

// TestSetsOfGroups: a holder logs on with one subset of their groups after the other. Each takes a session
// role, up to a bound. The sets that were used go on, and so do other users.
func TestSetsOfGroups(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := plain(t, s)
		const most = 5
		f.Admin.SetMostRoles(most)
		mallory, alice := f.LentUser("mallory", ""), f.LentUser("alice", "")
		groups := []string{f.LentGroup("a"), f.LentGroup("b"), f.LentGroup(strings.Repeat("long", 10))} // a set with the last one has a tagged name
		var taken []dbuser.Need
		refused := 0
		for set := 1; set < 1<<len(groups); set++ {
			n := dbuser.Need{User: mallory}
			for i, g := range groups {
				if set&(1<<i) != 0 {
					n.Groups = append(n.Groups, g)
				}
			}
			switch _, err := f.Admin.Ensure(t.Context(), n); {
			case err == nil:
				taken = append(taken, n)
			case errors.Is(err, dbuser.ErrManyRoles) && strings.Contains(err.Error(), "cluster clean "):
				refused++
			default:
				t.Fatalf("Ensure(%v) = %v", n.Groups, err)
			}
		}
		if len(taken) != most || refused != 7-most {
			t.Errorf("%d sets of groups are taken and %d refused, want %d and %d", len(taken), refused, most, 7-most)
		}
		for _, n := range append(taken, dbuser.Need{User: mallory}, dbuser.Need{User: alice, Groups: groups}, dbuser.Need{User: "IAM:" + s.Name("eve"), Identity: true, Groups: groups[:1]}) {
			if _, err := f.Admin.Ensure(t.Context(), n); err != nil {
				t.Errorf("Ensure(%+v) = %v", n, err)
			}
		}
		f.Run("drop role %s", f.Ensure(taken[0]).Name)
		if _, err := f.Admin.Ensure(t.Context(), dbuser.Need{User: mallory, Groups: groups}); err != nil {
			t.Errorf("after unused roles were dropped: %v", err)
		}
	})
}
