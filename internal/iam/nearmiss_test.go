package iam_test

import (
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/iam"
)

// TestNearMissesAreBounded: the search for near misses takes limited work, even if each statement
// is slow to compare. A decision skips the conditions of these statements, because their resource
// does not match.
func TestNearMissesAreBounded(t *testing.T) {
	const slow = `{"Effect": "Allow", "Action": "redshift:JoinGroup", "Resource": "*", "Condition": {"StringLike": {"aws:PrincipalTag/x": "*aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"}}}`
	find := func(value string) int {
		p := policies(t, `{"Version": "2012-10-17", "Statement": [`+strings.Repeat(slow+",", 199)+slow+`]}`)
		ctx := iam.NewContext()
		ctx.Set("aws:PrincipalTag/x", value)
		return len(p.NearMisses(iam.IdentityLayer, &iam.Request{Action: "redshift:JoinGroup", Resource: users + "alice", Context: ctx}))
	}
	if got := find("short"); got != 200 {
		t.Errorf("%d near misses with a short value, want 200", got)
	}
	if got := find(strings.Repeat("a", 60_000)); got > 100 {
		t.Errorf("%d statements were compared with a long value", got)
	}
}
