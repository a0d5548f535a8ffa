package iam_test

import (
	"fmt"

	"github.com/daypass/daypass/internal/iam"
)

func ExamplePolicies_Evaluate() {
	own, err := iam.ParsePolicy(iam.IdentityPolicy, "own user", []byte(`{
		"Version": "2012-10-17",
		"Statement": [
			{"Sid": "Self", "Effect": "Allow", "Action": "redshift:GetClusterCredentials",
			 "Resource": "arn:aws:redshift:*:*:dbuser:*/${aws:username}"},
			{"Sid": "NameTheDatabase", "Effect": "Deny", "Action": "redshift:GetClusterCredentials",
			 "Resource": "*", "Condition": {"Null": {"redshift:DbName": "true"}}}
		]}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	policies := iam.Policies{Identity: []*iam.Policy{own}}

	ask := func(user, database string) {
		ctx := iam.NewContext()
		ctx.Set("aws:username", "ana")
		if database != "" {
			ctx.Set("redshift:DbName", database)
		}
		request := &iam.Request{
			Principal: iam.Principal{Type: iam.UserPrincipal, ARN: "arn:aws:iam::123456789012:user/ana", Account: "123456789012"},
			Action:    "redshift:GetClusterCredentials",
			Resource:  "arn:aws:redshift:us-east-1:123456789012:dbuser:c/" + user,
			Context:   ctx,
		}
		d := policies.Evaluate(request)
		if d.Allowed() {
			fmt.Printf("%s by %s, statement %s, line %d\n", d.Effect, d.Policy, d.Sid, d.Line)
			return
		}
		fmt.Println(iam.DenialMessage(request.Principal.ARN, request.Action, request.Resource, d))
	}
	ask("ana", "dev")
	ask("bo", "dev")
	ask("ana", "")
	// Output:
	// allowed by own user, statement Self, line 4
	// User: arn:aws:iam::123456789012:user/ana is not authorized to perform: redshift:GetClusterCredentials on resource: arn:aws:redshift:us-east-1:123456789012:dbuser:c/bo because no identity-based policy allows the redshift:GetClusterCredentials action
	// User: arn:aws:iam::123456789012:user/ana is not authorized to perform: redshift:GetClusterCredentials on resource: arn:aws:redshift:us-east-1:123456789012:dbuser:c/ana with an explicit deny in an identity-based policy
}

func ExampleParsePolicy() {
	_, err := iam.ParsePolicy(iam.IdentityPolicy, "analysts.json", []byte(`{
  "Version": "2012-10-17",
  "Statement": [{"Effect": "Allow", "Action": "JoinGroup", "Resource": "*"}]
}`))
	fmt.Println(err)
	// Output:
	// analysts.json: line 3, column 47: Statement[0].Action: an action is "*" or has the form service:name
}

func ExamplePolicy_Warnings() {
	p, err := iam.ParsePolicy(iam.IdentityPolicy, "dev.json", []byte(`{
  "Version": "2012-10-17",
  "Statement": [{"Effect": "Allow", "Action": "redshift:JoinGroup",
    "Resource": "arn:aws:redshift:*:*:dbgroup:*/analysts",
    "Condition": {"StringEquals": {"redshift:DbUser": "ana"}}}]
}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, w := range p.Warnings() {
		fmt.Println(w)
	}
	// Output:
	// dev.json: line 5, column 36: Statement[0].Condition.StringEquals.redshift:DbUser: redshift:JoinGroup does not have the condition key redshift:DbUser; the condition never holds
}

func ExamplePolicies_Trace() {
	p, err := iam.ParsePolicy(iam.IdentityPolicy, "p", []byte(`{"Version": "2012-10-17", "Statement": [
		{"Sid": "Groups", "Effect": "Allow", "Action": "redshift:JoinGroup", "Resource": "arn:aws:redshift:*:*:dbgroup:*/analysts"},
		{"Sid": "Office", "Effect": "Allow", "Action": "redshift:*", "Resource": "*", "Condition": {"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}}]}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	policies := iam.Policies{Identity: []*iam.Policy{p}}
	request := &iam.Request{Action: "redshift:JoinGroup", Resource: "arn:aws:redshift:us-east-1:123456789012:dbgroup:c/finance"}
	for _, m := range policies.Trace(request) {
		fmt.Printf("%s: matched %v %s\n", m.Sid, m.Matched, m.Mismatch)
	}
	fmt.Println(iam.AllowStatement(request.Action, request.Resource, nil, nil, nil))
	// Output:
	// Groups: matched false Resource
	// Office: matched false Condition.IpAddress.aws:SourceIp
	// {"Effect":"Allow","Action":"redshift:JoinGroup","Resource":"arn:aws:redshift:us-east-1:123456789012:dbgroup:c/finance"}
}
