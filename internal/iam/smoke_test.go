package iam_test

import (
	"testing"

	"github.com/daypass/daypass/internal/iam"
)

func TestSmoke(t *testing.T) {
	p, err := iam.ParsePolicy(iam.IdentityPolicy, "p", []byte(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"redshift:GetClusterCredentials","Resource":["arn:aws:redshift:us-east-1:123456789012:dbuser:examplecluster/${aws:username}","arn:aws:redshift:us-east-1:123456789012:dbname:*/temp_*"]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	ctx := iam.NewContext()
	ctx.Set("aws:UserName", "ana")
	ps := iam.Policies{Identity: []*iam.Policy{p}}
	for r, want := range map[string]bool{
		"arn:aws:redshift:us-east-1:123456789012:dbuser:examplecluster/ana":    true,
		"arn:aws:redshift:us-east-1:123456789012:dbuser:examplecluster/anab":   false,
		"arn:aws:redshift:us-east-1:123456789012:dbname:examplecluster/temp_x": true,
		"arn:aws:redshift:us-east-1:123456789012:dbname:examplecluster/x":      false,
	} {
		d := ps.Evaluate(&iam.Request{Action: "redshift:getclustercredentials", Resource: r, Context: ctx})
		if d.Allowed() != want {
			t.Errorf("%s: %v, want %v", r, d, want)
		}
	}
}
