package pgsql_test

import (
	"fmt"
	"testing"

	"github.com/daypass/daypass/internal/pgsql"
)

func TestSplitList(t *testing.T) {
	for _, tt := range []struct {
		stored string
		want   []string
	}{
		{`public`, []string{"public"}},
		{`"$user", public`, []string{"$user", "public"}},
		{`"a, b", "c""d",e`, []string{"a, b", `c"d`, "e"}},
		{`""`, []string{""}},
		{``, []string{""}},
	} {
		if got := pgsql.SplitList(tt.stored); fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("SplitList(%q) = %q, want %q", tt.stored, got, tt.want)
		}
	}
}
