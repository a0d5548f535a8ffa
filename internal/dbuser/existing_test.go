package dbuser_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// node is a part of a plan, as EXPLAIN describes it.
type node struct {
	Kind  string  `json:"Node Type"`
	Rows  float64 `json:"Actual Rows"`
	Loops float64 `json:"Actual Loops"`
	Plans []node
}

func (n node) walk(f func(node)) {
	f(n)
	for _, part := range n.Plans {
		part.walk(f)
	}
}

// TestExistingDoesNotGrow: a query for one session role does not read the others, and a query for
// all of them reads the sessions only once.
func TestExistingDoesNotGrow(t *testing.T) {
	s := pgtest.Start(t)
	f := alone(t, s, "CREATEROLE")
	ended := f.Ensure(dbuser.Need{User: f.LentUser("ended", "")}).Name
	const others = 300
	clustertest.Exec(t, f.Super, fmt.Sprintf(`do $$ begin for i in 1..%d loop
			execute format('create role "IAM:%s_%%s"', i); execute format('grant %s to "IAM:%s_%%s"', i); end loop; end $$`,
		others, ended[4:], dbuser.MarkerRole, ended[4:]))
	for name, row := range map[string]struct {
		roles []string
		rows  float64 // of one step of the plan, at most
		loops float64 // of a function, at most
	}{"of one role": {[]string{ended}, others / 2, 1}, "of all": {nil, 1e9, 1}} {
		var text []byte
		err := f.Super.QueryRow(t.Context(), "explain (analyze, format json) "+dbuser.ExistingQuery(s.Major()*10000), pgx.QueryExecModeExec,
			row.roles, []int32{}, []int64{}).Scan(&text)
		var plans []struct{ Plan node }
		if err == nil {
			err = json.Unmarshal(text, &plans)
		}
		if err != nil || len(plans) != 1 {
			t.Fatalf("%s: %v", text, err)
		}
		plans[0].Plan.walk(func(n node) {
			if n.Rows*n.Loops > row.rows {
				t.Errorf("%s: a %s reads %.0f rows in %.0f loops", name, n.Kind, n.Rows, n.Loops)
			}
			if n.Kind == "Function Scan" && n.Loops > row.loops {
				t.Errorf("%s: a function is called %.0f times", name, n.Loops)
			}
		})
	}
}
