package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/iam"
)

// decision measures one authorization decision in this process.
func (s *stack) decision() figure {
	f := figure{key: "decision", title: "One IAM decision", unit: "per s"}
	for _, n := range []int{1, 10, 100} {
		f.targets = append(f.targets, target{name: statementCount(n), measure: func(context.Context, cpuTime) (measurement, error) {
			policies, request, err := principalWith(n)
			if err != nil {
				return measurement{}, err
			}
			result := testing.Benchmark(func(b *testing.B) {
				for b.Loop() {
					if !policies.Evaluate(request).Allowed() {
						b.Fatal("not allowed")
					}
				}
			})
			each := time.Duration(result.NsPerOp())
			return measurement{rate: 1 / each.Seconds(), cpu: each}, nil
		}})
	}
	return f
}

func statementCount(n int) string {
	if n == 1 {
		return "1 statement"
	}
	return fmt.Sprintf("%d statements", n)
}

// principalWith returns a principal with n statements and a request that needs all of them: each
// statement matches the action, and only the last one matches the resource and its condition.
func principalWith(n int) (*iam.Policies, *iam.Request, error) {
	statements := make([]string, n)
	for i := range statements {
		user := fmt.Sprintf("user%d", i)
		if i == n-1 {
			user = "${aws:username}"
		}
		statements[i] = `{"Effect":"Allow","Action":"redshift:Get*","Resource":"arn:aws:redshift:us-east-1:123456789012:dbuser:bench/` + user +
			`","Condition":{"IpAddress":{"aws:SourceIp":"192.0.2.0/24"}}}`
	}
	policy, err := iam.ParsePolicy(iam.IdentityPolicy, "bench", []byte(`{"Version":"2012-10-17","Statement":[`+strings.Join(statements, ",")+"]}"))
	if err != nil {
		return nil, nil, err
	}
	known := iam.NewContext()
	known.Set("aws:username", "ana")
	known.Set("aws:SourceIp", "192.0.2.7")
	return &iam.Policies{Identity: []*iam.Policy{policy}}, &iam.Request{
		Principal: iam.Principal{Type: iam.UserPrincipal, ARN: "arn:aws:iam::123456789012:user/ana", Account: "123456789012"},
		Action:    "redshift:GetClusterCredentials",
		Resource:  "arn:aws:redshift:us-east-1:123456789012:dbuser:bench/ana",
		Context:   known,
	}, nil
}
