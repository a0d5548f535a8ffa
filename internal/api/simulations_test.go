package api_test

import (
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/throttle"

	"github.com/daypass/daypass/test/pgtest"
)

// TestSimulationsTakeTurns: simulations that wait for their turn keep no other call from work, and one
// principal has a bounded number of them.
func TestSimulationsTakeTurns(t *testing.T) {
	p := newPressed(t)
	const share = 3
	gate := throttle.NewGate(1, share, time.Minute)
	p.handler.SetSimulations(gate, share)
	simulate := func() answer {
		return p.do(p.signed("root", "iam", "POST", query("2010-05-08", "Action", "SimulateCustomPolicy",
			"PolicyInputList.member.1", `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"sts:*","Resource":"*"}]}`, "ActionNames.member.1", "redshift:DescribeClusters")))
	}
	if !gate.Enter(t.Context()) { // a simulation that takes long
		t.Fatal("a gate with a free place is shut")
	}
	answers := make(chan answer, share)
	for range share {
		go func() { answers <- simulate() }()
	}
	pgtest.Eventually(t, "they wait", func() bool { return p.handler.Pressure().Simulations.Waiting == share })
	if busy := p.handler.Pressure().Work.Busy; busy != 0 {
		t.Errorf("%d of them are at work, want none", busy)
	}
	if a := simulate(); a.status != 400 || a.fault(t).Code != "Throttling" {
		t.Errorf("one more of the same principal: %d %s, want Throttling", a.status, a.body)
	}
	if a := p.do(p.signed("root", "redshift", "POST", query("2012-12-01", "Action", "DescribeClusters"))); a.status != 200 {
		t.Errorf("another call: %d %s", a.status, a.body)
	}
	gate.Leave()
	for range share {
		if a := <-answers; a.status != 200 || !strings.Contains(string(a.body), "<EvalDecision>implicitDeny</EvalDecision>") {
			t.Errorf("once it was its turn: %d %s", a.status, a.body)
		}
	}
	pgtest.Eventually(t, "one more once they have their answers", func() bool { return simulate().status == 200 })
}
