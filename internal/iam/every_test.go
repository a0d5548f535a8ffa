package iam_test

import (
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/iam"
)

// A Deny for one database of a cluster denies a request for every database of that cluster, and
// no other Deny does.
func TestEvery(t *testing.T) {
	const prefix = "arn:aws:redshift:us-east-1:123456789012:"
	context := iam.NewContext()
	context.Set("aws:username", "eve")
	for _, tt := range []struct {
		deny string // the rest of the statement after "Effect":"Deny"
		want bool
	}{
		{`"Action":"*","Resource":"` + prefix + `dbname:c/prod"`, true},
		{`"Action":"*","Resource":"` + prefix + `dbname:c/*"`, true},
		{`"Action":"*","Resource":"` + prefix + `dbname:c/prod*"`, true},
		{`"Action":"*","Resource":"` + prefix + `dbname:c/?"`, true},
		{`"Action":"*","Resource":"` + prefix + `dbname:*/prod"`, true},
		{`"Action":"*","Resource":"` + prefix + `dbname:*prod"`, true},
		{`"Action":"*","Resource":"` + prefix + `db*:c/prod"`, true},
		{`"Action":"*","Resource":"` + prefix + `dbname:c/${aws:username}"`, true},
		{`"Action":"*","Resource":"` + prefix + `dbname:c/x${aws:username}y"`, true},
		{`"Action":"*","Resource":["` + prefix + `dbname:d/prod","` + prefix + `dbname:c/a"]`, true},
		{`"Action":"*","Resource":"arn:aws:redshift:*"`, true},
		{`"Action":"*","Resource":"*"`, true},
		{`"Action":"*","NotResource":"` + prefix + `dbname:c/dev"`, true},
		{`"Action":"*","NotResource":"` + prefix + `dbname:c/d*"`, true},
		{`"Action":"*","Resource":"*","Condition":{"StringEquals":{"redshift:DbName":"prod"}}`, true},
		{`"Action":"*","Resource":"*","Condition":{"StringLike":{"REDSHIFT:dbname":"p*"}}`, true},
		{`"Action":"*","Resource":"*","Condition":{"StringEquals":{"redshift:DbName":"prod","aws:username":"eve"}}`, true},

		{`"Action":"*","Resource":"arn:aws:redshift:*:*:dbname:c/prod"`, true},
		{`"Action":"*","Resource":"arn:*:redshift:*:dbname:c/prod"`, true},
		{`"Action":"*","Resource":"` + prefix + `dbname:c/IAM:eve"`, true},
		{`"Action":"*","Resource":"arn:aws:redshift:*:*:dbname:d/prod"`, false},
		{`"Action":"*","Resource":"arn:*:redshift:*:dbname:d/prod"`, false},
		{`"Action":"*","Resource":"arn:*:redshift:*:dbuser:c/prod"`, false},
		{`"Action":"*","Resource":"` + prefix + `dbname:d/prod"`, false},
		{`"Action":"*","Resource":"` + prefix + `dbname:cc/prod"`, false},
		{`"Action":"*","Resource":"` + prefix + `dbuser:c/prod"`, false},
		{`"Action":"*","Resource":"` + prefix + `*/prod"`, false}, // the star would have to cross a colon
		{`"Action":"*","Resource":"arn:aws:redshift:us-east-1:999999999999:dbname:c/prod"`, false},
		{`"Action":"*","Resource":"` + prefix + `dbname:c/${aws:SourceIdentity}"`, false},
		{`"Action":"redshift:JoinGroup","Resource":"` + prefix + `dbname:c/prod"`, false},
		{`"Action":"*","NotResource":"` + prefix + `dbname:c/*"`, false},
		{`"Action":"*","NotResource":"` + prefix + `dbname:*"`, false},
		{`"Action":"*","NotResource":"*"`, false},
		{`"Action":"*","Resource":"` + prefix + `dbname:c/prod","Condition":{"StringEquals":{"aws:username":"ana"}}`, false},
		{`"Action":"*","Resource":"*","Condition":{"StringEquals":{"redshift:DbName":"prod","aws:username":"ana"}}`, false},
		{`"Action":"*","Resource":"*","Condition":{"StringEquals":{"redshift:DbUser":"prod"}}`, false},
	} {
		p := iam.Policies{Identity: []*iam.Policy{mustParse(t, iam.IdentityPolicy, identity(`"Effect":"Allow","Action":"*","Resource":"*"},{"Effect":"Deny",`+tt.deny))}}
		r := &iam.Request{Action: "redshift:GetClusterCredentialsWithIAM", Resource: prefix + "dbname:c/*", Context: context,
			Every: true, EveryKey: "redshift:DbName"}
		if got := p.Evaluate(r); (got.Effect == iam.ExplicitDeny) != tt.want || got.Effect == iam.ImplicitDeny {
			t.Errorf("Deny %s: got %+v, want a denial: %t", tt.deny, got, tt.want)
		}
		for layer, policies := range map[iam.Layer]*iam.Policies{
			iam.BoundaryLayer: {Identity: p.Identity[:0:0], Boundary: p.Identity[0]},
			iam.SessionLayer:  {Session: p.Identity},
		} {
			if got := policies.Evaluate(r); (got.Effect == iam.ExplicitDeny) != tt.want || tt.want && got.Layer != layer {
				t.Errorf("Deny %s, in the %v: got %+v", tt.deny, layer, got)
			}
		}
	}
	// An Allow is compared with the text only, so an Allow for one database does not allow every
	// database.
	p := iam.Policies{Identity: []*iam.Policy{mustParse(t, iam.IdentityPolicy, identity(`"Effect":"Allow","Action":"*","Resource":"`+prefix+`dbname:c/prod"`))}}
	if got := p.Evaluate(&iam.Request{Action: "redshift:GetClusterCredentialsWithIAM", Resource: prefix + "dbname:c/*", Every: true}); got.Allowed() {
		t.Errorf("an Allow for one database: got %+v", got)
	}
}

// If a Deny matches the name of one database, it also denies a request for every database.
func FuzzEvery(f *testing.F) {
	f.Add("c/*od", "prod")
	f.Add("?/p*?", "")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		document := `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":` + quote("arn:aws:redshift:r:123456789012:dbname:"+pattern) + `}]}`
		policy, err := iam.ParsePolicy(iam.IdentityPolicy, "p", []byte(document))
		if err != nil || strings.ContainsAny(name, ":*?$") {
			return
		}
		p := iam.Policies{Identity: []*iam.Policy{policy}}
		one := p.Evaluate(&iam.Request{Action: "redshift:GetClusterCredentialsWithIAM", Resource: "arn:aws:redshift:r:123456789012:dbname:c/" + name})
		every := p.Evaluate(&iam.Request{Action: "redshift:GetClusterCredentialsWithIAM", Resource: "arn:aws:redshift:r:123456789012:dbname:c/*", Every: true})
		if one.Effect == iam.ExplicitDeny && every.Effect != iam.ExplicitDeny && every.Layer != iam.LimitLayer {
			t.Errorf("%q denies the database %q and not all of them", pattern, name)
		}
	})
}

// The simulator evaluates a request for every database as the API does.
func TestSimulateEvery(t *testing.T) {
	for resource, want := range map[string]string{"dbname:c/*": "explicitDeny", "dbname:c/prod": "explicitDeny", "dbname:c/dev": "allowed", "dbname:d/*": "allowed"} {
		out, err := iam.Simulate(t.Context(), &iam.SimulateInput{
			PolicyInputList: []string{identity(`"Effect":"Allow","Action":"*","Resource":"*"},{"Effect":"Deny","Action":"redshift:*","Resource":"arn:aws:redshift:*:*:dbname:c/prod"`)},
			ActionNames:     []string{"redshift:GetClusterCredentialsWithIAM"},
			ResourceArns:    []string{"arn:aws:redshift:us-east-1:123456789012:" + resource},
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if r := out.EvaluationResults[0]; r.EvalDecision != want || len(r.MatchedStatements) != 1 {
			t.Errorf("%s: got %s by %+v, want %s by one statement", resource, r.EvalDecision, r.MatchedStatements, want)
		}
	}
}

// TestSomeKey: a request about things that each have a value of a key is allowed if it may be allowed
// for one of them. Other conditions count as ever.
func TestSomeKey(t *testing.T) {
	context := iam.NewContext()
	context.Set("aws:username", "eve")
	const allow = `"Effect":"Allow","Action":"*","Resource":"*"`
	for _, tt := range []struct {
		statements string
		want       bool
	}{
		{allow, true},
		{allow + `,"Condition":{"StringLike":{"daypass:Session-Owner-IAM-userid":"x*"}}`, true},
		{allow + `,"Condition":{"StringNotEquals":{"daypass:session-owner-iam-userid":"x"},"Null":{"daypass:session-owner-iam-userid":"false"}}`, true},
		{allow + `,"Condition":{"StringLike":{"daypass:session-owner-iam-userid":"x*","aws:username":"ana"}}`, false},
		{`"Effect":"Allow","Action":"*","Resource":"arn:aws:daypass:us-east-1:123456789012:cluster/c","Condition":{"StringLike":{"daypass:session-owner-iam-userid":"x*"}}`, false},
		{allow + `},{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"StringNotEquals":{"daypass:session-owner-iam-userid":"x"}}`, true},
		{allow + `},{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"StringEquals":{"aws:username":"eve"}}`, false},
		{allow + `},{"Effect":"Deny","Action":"*","Resource":"*"`, false},
	} {
		p := iam.Policies{Identity: []*iam.Policy{mustParse(t, iam.IdentityPolicy, identity(tt.statements))}}
		r := &iam.Request{Action: "daypass:ListSessions", Resource: "arn:aws:daypass:us-east-1:123456789012:cluster/*", Context: context,
			SomeKey: "daypass:session-owner-iam-userid"}
		if got := p.Evaluate(r); got.Allowed() != tt.want {
			t.Errorf("%s: %v, want allowed %v", tt.statements, got.Effect, tt.want)
		}
	}
}
