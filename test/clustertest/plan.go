package clustertest

import (
	"encoding/json"
	"strconv"
	"testing"

	"github.com/daypass/daypass/test/pgtest"
)

// PlanStep is a step of the plan of a query, after the query has run.
type PlanStep struct {
	Kind     string  `json:"Node Type"`
	Rows     float64 `json:"Actual Rows"`
	Filtered float64 `json:"Rows Removed by Filter"`
	Loops    float64 `json:"Actual Loops"`
	Plans    []PlanStep
}

// Read is how many rows the step has read, at least.
func (s PlanStep) Read() float64 { return (s.Rows + s.Filtered) * s.Loops }

func (s PlanStep) walk(f func(PlanStep)) {
	f(s)
	for _, part := range s.Plans {
		part.walk(f)
	}
}

// Plan runs a query with the plan that the administrative connections use, and calls f with each of
// its steps. types and arguments are the lists of PREPARE and EXECUTE.
func (f *Cluster) Plan(t *testing.T, query, types, arguments string, step func(PlanStep)) {
	t.Helper()
	c := pgtest.Connect(t, f.Superuser("postgres"))
	ExecAll(t, c, "set plan_cache_mode = force_generic_plan", "set enable_seqscan = off", "set jit = off", "prepare asked ("+types+") as "+query)
	var plans []struct{ Plan PlanStep }
	text := One(t, c, "explain (analyze, format json) execute asked ("+arguments+")")
	if err := json.Unmarshal([]byte(text), &plans); err != nil || len(plans) != 1 {
		t.Fatalf("%s: %v", text, err)
	}
	plans[0].Plan.walk(step)
}

// Crowd makes n session roles of users who are not there, which have not been used for a while.
func (f *Cluster) Crowd(t *testing.T, n int) {
	t.Helper()
	ExecAll(t, f.Super, `do $$ begin
		if to_regrole('daypass_session_roles') is null then create role daypass_session_roles nologin; end if;
		for i in 1..`+strconv.Itoa(n)+` loop
			execute format('create role "IAM:crowd%s" valid until %L', i, now() - interval '1 hour');
			execute format('grant daypass_session_roles to "IAM:crowd%s"', i);
		end loop; end $$`, "vacuum analyze pg_authid", "vacuum analyze pg_auth_members")
}
