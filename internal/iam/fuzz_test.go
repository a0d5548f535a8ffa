package iam_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/iam"
)

// FuzzParsePolicy: encoding/json also accepts every accepted policy, and its meaning does not
// depend on white space. The linter, the evaluator and the trace never panic, and they agree.
func FuzzParsePolicy(f *testing.F) {
	for _, row := range readCorpus(f) {
		for _, document := range append(append(row.docs.identity, row.docs.session...), row.docs.boundary) {
			f.Add(document, false)
		}
		f.Add(row.docs.trust, true)
	}
	f.Fuzz(func(t *testing.T, document string, trust bool) {
		kind := iam.IdentityPolicy
		if trust {
			kind = iam.TrustPolicy
		}
		p, err := iam.ParsePolicy(kind, "p", []byte(document))
		if err != nil {
			if p != nil || err.Error() == "" {
				t.Fatalf("ParsePolicy = %v, %v", p, err)
			}
			return
		}
		if !json.Valid([]byte(document)) {
			t.Fatalf("accepted what is not JSON: %q", document)
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, []byte(document)); err != nil {
			t.Fatal(err)
		}
		again, err := iam.ParsePolicy(kind, "p", compact.Bytes())
		if err != nil || again.Size() != p.Size() || p.Size() != len([]rune(compact.String())) {
			t.Fatalf("compacted %q: %v", compact.String(), err)
		}
		p.Warnings()
		policies := iam.Policies{Identity: []*iam.Policy{p}}
		request := corpusRow{action: defaultAction, resource: defaultResource, caller: defaultCaller}.request(t)
		if trust {
			policies = iam.Policies{Resource: p}
			request.Action, request.Resource = "sts:AssumeRole", "arn:aws:iam::123456789012:role/etl"
		}
		for _, key := range p.ContextKeys() {
			request.Context.Set(key, "x")
		}
		if len(policies.MissingContextKeys(request.Context)) != 0 {
			t.Fatalf("keys are missing that were all set")
		}
		checkTrace(t, &policies, request, policies.Evaluate(request))
	})
}

// FuzzParseARN: String of a parsed ARN returns the original text.
func FuzzParseARN(f *testing.F) {
	for _, s := range append(append([]string{}, resourceWords...), callerWords...) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		arn, err := iam.ParseARN(s)
		if err == nil && arn.String() != s {
			t.Fatalf("ParseARN(%q).String() = %q", s, arn.String())
		}
		if p, err := iam.PrincipalFromARN(s); err == nil && p.ARN != s {
			t.Fatalf("PrincipalFromARN(%q) = %+v", s, p)
		}
	})
}

// FuzzCondition: the evaluator and the naive evaluator agree on a condition with fuzzed values.
func FuzzCondition(f *testing.F) {
	for base, values := range operatorWords {
		for _, v := range values {
			for _, words := range keyWords {
				f.Add(base, strings.Trim(v, `"`), words[0], false)
			}
		}
	}
	f.Fuzz(func(t *testing.T, operator, wanted, value string, deny bool) {
		docs := documents{}
		effect := "Allow"
		if deny {
			effect = "Deny"
		}
		docs.identity = []string{`{"Version":"2012-10-17","Statement":[{"Effect":"` + effect + `","Action":"*","Resource":"*","Condition":{` +
			quote(operator) + `:{"aws:username":` + quote(wanted) + `}}}]}`}
		p, err := iam.ParsePolicy(iam.IdentityPolicy, "p", []byte(docs.identity[0]))
		if err != nil || comma(wanted) || comma(value) {
			return
		}
		row := corpusRow{action: defaultAction, resource: defaultResource, caller: defaultCaller,
			context: []contextEntry{{key: "aws:username", values: []string{value}}}}
		policies := iam.Policies{Identity: []*iam.Policy{p}}
		request := row.request(t)
		if got, want := policies.Evaluate(request).Effect.String(), naiveEvaluate(docs, request, row.context); got != want {
			t.Fatalf("%s %q with %q (deny %v): %s, the naive evaluator says %s", operator, wanted, value, deny, got, want)
		}
	})
}

// comma reports texts that the naive evaluator reads differently: package time accepts a comma
// in fractions and parts of a date with any number of digits, and regular expressions need valid
// UTF-8.
func comma(s string) bool {
	return strings.ContainsAny(s, ",") || strings.ToValidUTF8(s, "") != s
}
