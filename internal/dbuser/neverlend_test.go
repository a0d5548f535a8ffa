package dbuser_test

import (
	"errors"
	"testing"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// TestNeverLend: roles that NeverLend names, with or without *, are neither lent nor asked for by
// the check.
func TestNeverLend(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := alone(t, s, "CREATEROLE")
		app, svc, alice, powers := f.LentUser("app", ""), f.LentUser("svc", ""), f.LentUser("alice", ""), f.LentGroup("powers")
		if f.Major() >= 16 {
			f.Run("grant %s to %s with admin true, inherit false, set false", alice, f.As.Name)
		}
		f.Admin = f.Another(func(c *dbuser.Config) { c.NeverLend = []string{app, "svc*", "*owers*", "none_*_such"} })
		for _, tt := range []struct {
			need dbuser.Need
			want error
		}{
			{dbuser.Need{User: alice}, nil},
			{dbuser.Need{User: app}, dbuser.ErrUserRefused},
			{dbuser.Need{User: svc}, dbuser.ErrUserRefused},
			{dbuser.Need{User: "svc_new", AutoCreate: true}, dbuser.ErrUserRefused},
			{dbuser.Need{User: alice, Groups: []string{powers}}, dbuser.ErrGroupRefused},
		} {
			if _, err := f.Admin.Ensure(t.Context(), tt.need); !errors.Is(err, tt.want) {
				t.Errorf("Ensure(%+v) = %v, want %v", tt.need, err, tt.want)
			}
		}
		if found := clustertest.Findings(f.Check(), "admin-option", ""); len(found) > 0 {
			t.Errorf("the check asks for rights on what is never lent: %+v", found)
		}
	})
}

func TestMatchesName(t *testing.T) {
	for _, tt := range []struct {
		pattern, name string
		want          bool
	}{
		{"a", "a", true}, {"a", "ab", false}, {"a", "", false}, {"*", "", true}, {"*", "x", true}, {"a*", "a", true}, {"a*", "ba", false},
		{"*a", "ba", true}, {"*a", "ab", false}, {"a*a", "a", false}, {"a*a", "aa", true}, {"a*b*c", "a1b2c", true}, {"a*b*c", "ab", false},
		{"a*b*c", "acb", false}, {"**", "x", true}, {"a**b", "ab", true}, {"*b*b*", "b", false}, {"*b*b*", "bb", true}, {"a.c", "abc", false},
	} {
		if got := dbuser.MatchesName(tt.pattern, tt.name); got != tt.want {
			t.Errorf("matchesName(%q, %q) = %v, want %v", tt.pattern, tt.name, got, tt.want)
		}
	}
}
