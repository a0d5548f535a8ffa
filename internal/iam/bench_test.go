package iam_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/iam"
)

// largePrincipal has 10 policies of 20 statements, all of which have to be evaluated: the Allow
// comes last, after statements that match the action and fail late, by resource or by condition.
func largePrincipal(tb testing.TB) (iam.Policies, *iam.Request) {
	tb.Helper()
	var policies iam.Policies
	for i := range 10 {
		var statements []string
		for j := range 20 {
			resource := fmt.Sprintf("arn:aws:redshift:us-east-1:123456789012:dbuser:cluster%d-%d/${aws:username}", i, j)
			condition := `"IpAddress":{"aws:SourceIp":["203.0.113.0/24","2001:db8::/32"]},"StringLike":{"redshift:DbUser":"a*"}`
			effect := "Allow"
			switch j % 4 {
			case 1:
				resource = "arn:aws:redshift:*:*:dbuser:*/temp_*"
			case 2:
				effect, resource = "Deny", "*"
				condition = `"NumericGreaterThan":{"redshift:DurationSeconds":"3600"},"DateLessThan":{"aws:CurrentTime":"2020-01-01"}`
			case 3:
				resource = "*"
				condition = `"StringEquals":{"aws:PrincipalTag/team":["x","y","${redshift:DbUser}"]},"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::*:role/*"}`
			}
			statements = append(statements, fmt.Sprintf(`{"Effect":%q,"Action":["sts:*","redshift:Get*"],"Resource":%q,"Condition":{%s}}`, effect, resource, condition))
		}
		if i == 9 {
			statements[19] = `{"Effect":"Allow","Action":"redshift:GetClusterCredentials","Resource":"arn:aws:redshift:us-east-1:123456789012:dbuser:examplecluster/${aws:username}"}`
		}
		document := `{"Version":"2012-10-17","Statement":[` + strings.Join(statements, ",") + "]}"
		policy, err := iam.ParsePolicy(iam.IdentityPolicy, fmt.Sprint("p", i), []byte(document))
		if err != nil {
			tb.Fatal(err)
		}
		policies.Identity = append(policies.Identity, policy)
	}
	ctx := iam.NewContext()
	for key, value := range map[string]string{
		"aws:username": "ana", "aws:userid": "AIDAEXAMPLE", "aws:PrincipalArn": "arn:aws:iam::123456789012:user/ana",
		"aws:PrincipalAccount": "123456789012", "aws:PrincipalType": "User", "aws:PrincipalTag/team": "data", "aws:SourceIp": "198.51.100.7",
		"aws:CurrentTime": "2026-01-02T03:04:05Z", "aws:EpochTime": "1767323045", "aws:SecureTransport": "true", "aws:RequestedRegion": "us-east-1",
		"aws:UserAgent": "aws-cli/1.45.11", "redshift:DbUser": "ana", "redshift:DurationSeconds": "900",
	} {
		ctx.Set(key, value)
	}
	return policies, &iam.Request{
		Principal: iam.Principal{Type: iam.UserPrincipal, ARN: "arn:aws:iam::123456789012:user/ana", Account: "123456789012"},
		Action:    "redshift:GetClusterCredentials",
		Resource:  "arn:aws:redshift:us-east-1:123456789012:dbuser:examplecluster/ana",
		Context:   ctx,
	}
}

// BenchmarkEvaluate measures the decision for a principal with 10 policies of 20 statements.
func BenchmarkEvaluate(b *testing.B) {
	policies, request := largePrincipal(b)
	b.ReportAllocs()
	for b.Loop() {
		if d := policies.Evaluate(request); !d.Allowed() {
			b.Fatal(d)
		}
	}
}

// BenchmarkParsePolicy measures the cost of a session policy in AssumeRole.
func BenchmarkParsePolicy(b *testing.B) {
	document := []byte(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["redshift:GetClusterCredentials","redshift:JoinGroup"],
		"Resource":["arn:aws:redshift:*:*:dbuser:*/${redshift:DbUser}","arn:aws:redshift:*:*:dbgroup:*/a*"],"Condition":{"StringEquals":{"aws:userid":"AROAEXAMPLE:${redshift:DbUser}"}}}]}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := iam.ParsePolicy(iam.IdentityPolicy, "p", document); err != nil {
			b.Fatal(err)
		}
	}
}

func TestEvaluateDoesNotAllocate(t *testing.T) {
	policies, request := largePrincipal(t)
	if allocs := testing.AllocsPerRun(100, func() { policies.Evaluate(request) }); allocs != 0 {
		t.Errorf("Evaluate allocates %v times for 200 statements, want 0", allocs)
	}
}
