package iam_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/iam"
)

const users = "arn:aws:redshift:us-east-1:123456789012:dbuser:sales/"

// TestNamed: the names that policies have for one cluster, with wildcards in every place.
func TestNamed(t *testing.T) {
	ctx := iam.NewContext()
	ctx.Set("aws:username", "a*na")
	for resource, want := range map[string][]iam.NamePattern{
		users + "alice":                   {{"alice", true}},
		users + "alice-*":                 {{"alice-*", false}},
		users + "team?-x":                 {{"team?-x", false}},
		users + "${aws:username}":         {{"a*na", true}},
		users + "${aws:userid}":           nil,
		users + "${*}":                    {{"*", true}},
		"*":                               {{"*", false}},
		"arn:aws:redshift:*:*:dbuser:*":   {{"*", false}},
		"arn:aws:redshift:*:*:dbuser:*/x": {{"x", true}},
		"arn:aws:redshift:us-east-1:123456789012:dbuser:sal*/bob":  {{"bob", true}},
		"arn:aws:redshift:us-east-1:123456789012:dbuser:other/bob": nil,
		"arn:aws:redshift:us-east-1:123456789012:dbname:sales/dev": nil,
	} {
		p := policies(t, fmt.Sprintf(`{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "redshift:Get*", "Resource": %q}}`, resource))
		got := p.Named("redshift:GetClusterCredentials", users, ctx)
		sortNames(got)
		sortNames(want)
		if !slices.Equal(got, want) {
			t.Errorf("Named of %s = %v, want %v", resource, got, want)
		}
	}
	p := policies(t, `{"Version": "2012-10-17", "Statement": [
		{"Effect": "Allow", "Action": "redshift:GetClusterCredentials", "Resource": "*", "Condition": {"StringEquals": {"redshift:DbName": ["dev", "${aws:username}"]}, "StringNotEquals": {"redshift:DbUser": "root"}}},
		{"Effect": "Allow", "Action": "redshift:JoinGroup", "Resource": "*", "Condition": {"StringEquals": {"redshift:DbName": "elsewhere"}}},
		{"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": {"StringLike": {"redshift:DbName": "secret*"}}}]}`)
	if got := p.ConditionNames("redshift:GetClusterCredentials", "Redshift:dbname", ctx); !slices.Equal(got, []iam.NamePattern{{"dev", true}, {"a*na", true}}) {
		t.Errorf("ConditionNames = %v", got)
	}
	if got := p.ConditionNames("redshift:GetClusterCredentials", "redshift:DbUser", ctx); got != nil {
		t.Errorf("ConditionNames of a negated condition = %v", got)
	}
}

func sortNames(list []iam.NamePattern) {
	slices.SortFunc(list, func(a, b iam.NamePattern) int { return slices.Compare([]byte(a.Text), []byte(b.Text)) })
}

func policies(t *testing.T, documents ...string) *iam.Policies {
	t.Helper()
	p := &iam.Policies{}
	for i, document := range documents {
		policy, err := iam.ParsePolicy(iam.IdentityPolicy, fmt.Sprintf("policy %d", i+1), []byte(document))
		if err != nil {
			t.Fatal(err)
		}
		p.Identity = append(p.Identity, policy)
	}
	return p
}

// FuzzNamed: a name that a policy allows has a candidate that covers it. The oracle is the
// evaluation itself.
func FuzzNamed(f *testing.F) {
	for _, resource := range []string{users + "alice", users + "a*?", "arn:aws:redshift:*:dbuser:s*/*x", "*", "arn:aws:redshift:us-east-1:*:dbuser:*s/?", users + "${aws:username}"} {
		f.Add(resource, "alice")
	}
	ctx := iam.NewContext()
	ctx.Set("aws:username", "ana*")
	f.Fuzz(func(t *testing.T, resource, name string) {
		policy, err := iam.ParsePolicy(iam.IdentityPolicy, "p", fmt.Appendf(nil, `{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "redshift:GetClusterCredentials", "Resource": %q}}`, resource))
		if err != nil || len(resource) > 300 || len(name) > 64 || strings.ContainsAny(name, ":/") {
			return
		}
		all := iam.Policies{Identity: []*iam.Policy{policy}}
		decide := func(name string) bool {
			return all.Evaluate(&iam.Request{Action: "redshift:GetClusterCredentials", Resource: users + name, Context: ctx}).Allowed()
		}
		names := all.Named("redshift:GetClusterCredentials", users, ctx)
		for _, n := range names {
			if n.Exact && !decide(n.Text) {
				t.Errorf("Named of %q has %q, which is not allowed", resource, n.Text)
			}
		}
		if decide(name) && len(names) == 0 {
			t.Errorf("Named of %q is empty, and %q is allowed", resource, name)
		}
	})
}

// TestNamesOfManyClusters: the page with the offers looks for names at each cluster, so a policy of
// many names must not cost much work at a cluster that it does not name.
func TestNamesOfManyClusters(t *testing.T) {
	resources := make([]string, 400)
	for i := range resources {
		resources[i] = fmt.Sprintf("%q", users+fmt.Sprint("n", i))
	}
	p := policies(t, `{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "redshift:Get*", "Resource": [`+strings.Join(resources, ",")+`],
		"Condition": {"StringEquals": {"redshift:DbName": ["", "dev"]}}}}`)
	ctx := iam.NewContext()
	other := strings.Replace(users, "sales", "other", 1)
	if n := testing.AllocsPerRun(1, func() { p.Named("redshift:GetClusterCredentials", other, ctx) }); n > 10 {
		t.Errorf("looking for names at another cluster takes %v allocations", n)
	}
	if got := p.ConditionNames("redshift:GetClusterCredentials", "redshift:DbName", ctx); len(got) != 2 {
		t.Errorf("ConditionNames = %v", got)
	}
}
