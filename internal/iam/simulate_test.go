package iam_test

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/iam"
)

func simulate(t *testing.T, in *iam.SimulateInput) (*iam.SimulateOutput, error) {
	t.Helper()
	return iam.Simulate(t.Context(), in, nil)
}

// The positions are those that AWS answers for this document in the CLI reference,
// simulate-custom-policy: right after the opening and right after the closing brace.
func TestSimulatePositions(t *testing.T) {
	out, err := simulate(t, &iam.SimulateInput{
		PolicyInputList: []string{`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"dynamodb:*","Resource":"*","Condition":{"DateGreaterThan":{"aws:CurrentTime":"2018-08-16T12:00:00Z"}}}}`},
		ActionNames:     []string{"dynamodb:CreateBackup"},
		ContextEntries:  []iam.ContextEntry{{ContextKeyName: "aws:CurrentTime", ContextKeyType: "date", ContextKeyValues: []string{"2019-04-25T11:00:00Z"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := &iam.SimulateOutput{EvaluationResults: []iam.EvaluationResult{{
		EvalActionName: "dynamodb:CreateBackup", EvalResourceName: "*", EvalDecision: "allowed", MissingContextValues: []string{},
		MatchedStatements: []iam.MatchedStatement{{
			SourcePolicyId: "PolicyInputList.1", SourcePolicyType: "none",
			StartPosition: iam.Position{Line: 1, Column: 38}, EndPosition: iam.Position{Line: 1, Column: 167},
		}},
	}}}
	if !reflect.DeepEqual(out, want) {
		t.Errorf("Simulate = %+v, want %+v", out, want)
	}
}

// The JSON is what the AWS CLI reads and prints.
func TestSimulateJSON(t *testing.T) {
	var in iam.SimulateInput
	request := `{"PolicyInputList": ["{\"Version\": \"2012-10-17\", \"Statement\": [\n {\"Effect\": \"Allow\", \"Action\": \"redshift:*\", \"Resource\": \"arn:aws:redshift:*:*:dbuser:*/${aws:username}\"},\n {\"Sid\": \"No\", \"Effect\": \"Deny\", \"Action\": \"redshift:CreateClusterUser\", \"Resource\": \"*\"}]}"],
		"PermissionsBoundaryPolicyInputList": ["{\"Statement\": {\"Effect\": \"Allow\", \"Action\": \"redshift:G*\", \"Resource\": \"*\"}}"],
		"ActionNames": ["redshift:GetClusterCredentials", "redshift:CreateClusterUser"],
		"ResourceArns": ["arn:aws:redshift:us-east-1:123456789012:dbuser:c/ana", "arn:aws:redshift:us-east-1:123456789012:dbuser:c/bo"],
		"ContextEntries": [{"ContextKeyName": "aws:username", "ContextKeyType": "string", "ContextKeyValues": ["ana"]}]}`
	if err := json.Unmarshal([]byte(request), &in); err != nil {
		t.Fatal(err)
	}
	out, err := simulate(t, &in)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.MarshalIndent(out, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	deny := `   "MatchedStatements": [
    {
     "SourcePolicyId": "PolicyInputList.1",
     "SourcePolicyType": "none",
     "StartPosition": {
      "Line": 3,
      "Column": 3
     },
     "EndPosition": {
      "Line": 3,
      "Column": 90
     }
    }
   ],`
	for _, part := range []string{
		`"EvalActionName": "redshift:GetClusterCredentials",
   "EvalResourceName": "arn:aws:redshift:us-east-1:123456789012:dbuser:c/ana",
   "EvalDecision": "allowed"`,
		`"EvalResourceName": "arn:aws:redshift:us-east-1:123456789012:dbuser:c/bo",
   "EvalDecision": "implicitDeny",
   "MatchedStatements": [`,
		`"EvalActionName": "redshift:CreateClusterUser",
   "EvalResourceName": "arn:aws:redshift:us-east-1:123456789012:dbuser:c/bo",
   "EvalDecision": "explicitDeny",
` + deny + `
   "MissingContextValues": [],
   "PermissionsBoundaryDecisionDetail": {
    "AllowedByPermissionsBoundary": false
   }`,
		`"IsTruncated": false`,
	} {
		if !strings.Contains(string(got), part) {
			t.Errorf("Simulate = %s, want in it %s", got, part)
		}
	}
}

// TestSimulateMissingContextValues: the keys that the policies use and the context lacks are
// reported.
func TestSimulateMissingContextValues(t *testing.T) {
	out, err := simulate(t, &iam.SimulateInput{
		PolicyInputList: []string{identity(`"Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::b/${aws:username}","Condition":{"StringLike":{"redshift:DbUser":"${AWS:UserName}*"},"Null":{"aws:TagKeys":"true"}}`)},
		ActionNames:     []string{"redshift:JoinGroup"},
		ContextEntries:  []iam.ContextEntry{{ContextKeyName: "Redshift:DBUser", ContextKeyValues: []string{"x"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := out.EvaluationResults[0].MissingContextValues, []string{"aws:username", "aws:TagKeys"}; !reflect.DeepEqual(got, want) {
		t.Errorf("MissingContextValues = %q, want %q", got, want)
	}
}

// TestSimulateTrustAndSession: trust policies and session policies take part in the decision.
func TestSimulateTrustAndSession(t *testing.T) {
	allow := func(action string) string {
		return identity(`"Effect":"Allow","Resource":"*","Action":"` + action + `"`)
	}
	trust := identity(`"Effect":"Allow","Action":["sts:AssumeRole","sts:AssumeRoleWithWebIdentity"],"Principal":{"AWS":"123456789012","Federated":"arn:aws:iam::123456789012:oidc-provider/token.example.com"}`)
	const role = "arn:aws:iam::123456789012:role/etl"
	for name, tt := range map[string]struct {
		in   iam.SimulateInput
		want string
	}{
		"delegated":          {iam.SimulateInput{PolicyInputList: []string{allow("sts:*")}, CallerArn: defaultCaller, ResourcePolicy: trust}, "allowed"},
		"delegated in vain":  {iam.SimulateInput{PolicyInputList: []string{allow("s3:*")}, CallerArn: defaultCaller, ResourcePolicy: trust}, "implicitDeny"},
		"other account":      {iam.SimulateInput{PolicyInputList: []string{allow("sts:*")}, CallerArn: "arn:aws:iam::210987654321:user/eve", ResourcePolicy: trust}, "implicitDeny"},
		"session":            {iam.SimulateInput{PolicyInputList: []string{allow("sts:*")}, CallerArn: "arn:aws:sts::123456789012:assumed-role/web/s", ResourcePolicy: trust}, "allowed"},
		"session policy":     {iam.SimulateInput{PolicyInputList: []string{allow("sts:*")}, SessionPolicyInputList: []string{allow("s3:*")}, CallerArn: defaultCaller, ResourcePolicy: trust}, "implicitDeny"},
		"policy and session": {iam.SimulateInput{PolicyInputList: []string{allow("sts:*")}, SessionPolicyInputList: []string{allow("sts:*")}}, "allowed"},
		"web identity":       {iam.SimulateInput{ActionNames: []string{"sts:AssumeRoleWithWebIdentity"}, CallerArn: "arn:aws:iam::123456789012:oidc-provider/token.example.com", ResourcePolicy: trust}, "allowed"},
		"by its domain":      {iam.SimulateInput{ActionNames: []string{"sts:AssumeRoleWithWebIdentity"}, CallerArn: "arn:aws:iam::123456789012:oidc-provider/accounts.google.com", ResourcePolicy: identity(`"Effect":"Allow","Action":"sts:AssumeRoleWithWebIdentity","Principal":{"Federated":"accounts.google.com"}`)}, "allowed"},
		"owner by account":   {iam.SimulateInput{PolicyInputList: []string{allow("s3:*")}, CallerArn: defaultCaller, ResourceOwner: "arn:aws:iam::210987654321:root", ResourceArns: []string{"*"}, ResourcePolicy: identity(`"Effect":"Allow","Action":"sts:*","Principal":{"AWS":"` + defaultCaller + `"}`)}, "implicitDeny"},
		"owner by default":   {iam.SimulateInput{CallerArn: defaultCaller, ResourceArns: []string{"*"}, ResourcePolicy: identity(`"Effect":"Allow","Action":"sts:*","Principal":{"AWS":"` + defaultCaller + `"}`)}, "allowed"},
	} {
		in := tt.in
		if in.ActionNames == nil {
			in.ActionNames = []string{"sts:AssumeRole"}
		}
		if in.ResourceArns == nil {
			in.ResourceArns = []string{role}
		}
		out, err := simulate(t, &in)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := out.EvaluationResults[0].EvalDecision; got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}

func TestSimulateRefuses(t *testing.T) {
	document := identity(allowAll)
	entry := func(name, kind string, values ...string) []iam.ContextEntry {
		return []iam.ContextEntry{{ContextKeyName: name, ContextKeyType: kind, ContextKeyValues: values}}
	}
	for name, tt := range map[string]struct {
		in     iam.SimulateInput
		member string
	}{
		"no action":            {iam.SimulateInput{}, "ActionNames"},
		"no service":           {iam.SimulateInput{ActionNames: []string{"JoinGroup"}}, "ActionNames"},
		"wildcard action":      {iam.SimulateInput{ActionNames: []string{"redshift:*"}}, "ActionNames"},
		"all actions":          {iam.SimulateInput{ActionNames: []string{"*"}}, "ActionNames"},
		"a blank":              {iam.SimulateInput{ActionNames: []string{"s3:Get Obj"}}, "ActionNames"},
		"a long action":        {iam.SimulateInput{ActionNames: []string{"s3:" + strings.Repeat("x", 200)}}, "ActionNames"},
		"too many questions":   {iam.SimulateInput{ActionNames: slices.Repeat([]string{"a:b"}, 101), ResourceArns: slices.Repeat([]string{"*"}, 100)}, "ActionNames"},
		"a long ARN":           {iam.SimulateInput{ResourceArns: []string{"arn:aws:s3:::" + strings.Repeat("x", 2048)}}, "ResourceArns"},
		"no policy":            {iam.SimulateInput{}, "PolicyInputList"},
		"no ARN":               {iam.SimulateInput{ResourceArns: []string{"bucket"}}, "ResourceArns"},
		"bad document":         {iam.SimulateInput{PolicyInputList: []string{document, "{}"}}, "PolicyInputList"},
		"bad boundary":         {iam.SimulateInput{PermissionsBoundaryPolicyInputList: []string{"{}"}}, "PermissionsBoundaryPolicyInputList"},
		"two boundaries":       {iam.SimulateInput{PermissionsBoundaryPolicyInputList: []string{document, document}}, "PermissionsBoundaryPolicyInputList"},
		"bad session policy":   {iam.SimulateInput{SessionPolicyInputList: []string{"x"}}, "SessionPolicyInputList"},
		"bad trust policy":     {iam.SimulateInput{ResourcePolicy: document, CallerArn: defaultCaller}, "ResourcePolicy"},
		"trust, no caller":     {iam.SimulateInput{ResourcePolicy: identity(trusts)}, "CallerArn"},
		"bad caller":           {iam.SimulateInput{CallerArn: "ana"}, "CallerArn"},
		"bad owner":            {iam.SimulateInput{ResourceOwner: "me"}, "ResourceOwner"},
		"bad type":             {iam.SimulateInput{ContextEntries: entry("aws:username", "text", "a")}, "ContextEntries"},
		"a list of no type":    {iam.SimulateInput{ContextEntries: entry("aws:username", "List", "a")}, "ContextEntries"},
		"several, and no list": {iam.SimulateInput{ContextEntries: entry("aws:username", "string", "a", "b")}, "ContextEntries"},
		"a long key":           {iam.SimulateInput{ContextEntries: entry(strings.Repeat("k", 300), "string", "a")}, "ContextEntries"},
		"values made for the policy": {iam.SimulateInput{
			PolicyInputList: []string{identity(`"Effect":"Deny","Action":"*","Resource":"*","Condition":{"StringLike":{"a:b":"*` + strings.Repeat("a?", 400) + `b"}}`)},
			ContextEntries:  entry("a:b", "string", "b"+strings.Repeat("a", 50000)),
		}, "PolicyInputList"},
		"an answer too large": {iam.SimulateInput{PolicyInputList: []string{`{"Statement":[` + strings.Repeat(`{"Effect":"Allow","Action":"*","Resource":"*"},`, 2600) + `{` + allowAll + `}]}`,
			`{"Statement":[` + strings.Repeat(`{"Effect":"Allow","Action":"*","Resource":"*"},`, 2600) + `{` + allowAll + `}]}`}}, "PolicyInputList"},
		"no key":              {iam.SimulateInput{ContextEntries: entry("", "string", "a")}, "ContextEntries"},
		"not a number":        {iam.SimulateInput{ContextEntries: entry("a:b", "numeric", "x")}, "ContextEntries"},
		"not all numbers":     {iam.SimulateInput{ContextEntries: entry("a:b", "numericList", "1", "x")}, "ContextEntries"},
		"not a boolean":       {iam.SimulateInput{ContextEntries: entry("a:b", "boolean", "1")}, "ContextEntries"},
		"not an address":      {iam.SimulateInput{ContextEntries: entry("a:b", "ip", "x")}, "ContextEntries"},
		"not base64":          {iam.SimulateInput{ContextEntries: entry("a:b", "binary", "x")}, "ContextEntries"},
		"not a date":          {iam.SimulateInput{ContextEntries: entry("a:b", "date", "x")}, "ContextEntries"},
		"too many items":      {iam.SimulateInput{MaxItems: 1001}, "MaxItems"},
		"a marker of another": {iam.SimulateInput{Marker: "x"}, "Marker"},
		"a marker too far":    {iam.SimulateInput{Marker: "5"}, "Marker"},
	} {
		in := tt.in
		if in.ActionNames == nil && tt.member != "ActionNames" {
			in.ActionNames = []string{"redshift:JoinGroup"}
		}
		if in.PolicyInputList == nil && name != "no policy" {
			in.PolicyInputList = []string{document}
		}
		_, err := simulate(t, &in)
		if bad, ok := errors.AsType[*iam.InputError](err); !ok || bad.Member != tt.member {
			t.Errorf("%s: %v, want an InputError for %s", name, err, tt.member)
		} else if len(bad.Error()) > 1000 {
			t.Errorf("%s: the error has %d bytes", name, len(bad.Error()))
		}
	}
}

// TestSimulatePages: a page ends after MaxItems, and its marker leads to the rest.
func TestSimulatePages(t *testing.T) {
	in := &iam.SimulateInput{PolicyInputList: []string{identity(allowAll)}, ActionNames: []string{"a:b", "a:c", "a:d"}, MaxItems: 2}
	first, err := simulate(t, in)
	if err != nil || !first.IsTruncated || len(first.EvaluationResults) != 2 {
		t.Fatalf("first page = %+v, %v", first, err)
	}
	in.Marker = first.Marker
	second, err := simulate(t, in)
	if err != nil || second.IsTruncated || second.Marker != "" || len(second.EvaluationResults) != 1 || second.EvaluationResults[0].EvalActionName != "a:d" {
		t.Fatalf("second page = %+v, %v", second, err)
	}
}

// A page ends before it is too large, and pages together are the whole answer.
func TestSimulatePagesBySize(t *testing.T) {
	in := &iam.SimulateInput{
		PolicyInputList: []string{`{"Statement":[` + strings.Repeat(`{"Effect":"Allow","Action":"*","Resource":"*"},`, 1000) + `{` + allowAll + `}]}`},
		MaxItems:        1000,
	}
	for i := range 20 {
		in.ActionNames = append(in.ActionNames, "s3:a"+base36(i))
	}
	var got []string
	for pages := 1; ; pages++ {
		out, err := simulate(t, in)
		if err != nil || len(out.EvaluationResults) == 0 {
			t.Fatalf("page %d = %+v, %v", pages, out, err)
		}
		for _, r := range out.EvaluationResults {
			got = append(got, r.EvalActionName)
		}
		if in.Marker = out.Marker; !out.IsTruncated {
			if pages < 4 {
				t.Errorf("%d pages, want more: a result has a thousand statements", pages)
			}
			break
		}
	}
	if !slices.Equal(got, in.ActionNames) {
		t.Errorf("results for %q, want %q", got, in.ActionNames)
	}
}

// A page also ends after a limited amount of work.
func TestSimulatePagesByWork(t *testing.T) {
	in := &iam.SimulateInput{
		PolicyInputList: []string{`{"Statement":[` + strings.Repeat(`{"Effect":"Allow","Action":"a:*b","Resource":"*"},`, 2400) + `{` + allowAll + `}]}`},
		ActionNames:     []string{"s3:a"},
		ResourceArns:    slices.Repeat([]string{"*"}, 10_000),
		MaxItems:        1000,
	}
	in.PolicyInputList = slices.Repeat(in.PolicyInputList, 7)
	out, err := simulate(t, in)
	if err != nil || !out.IsTruncated || len(out.EvaluationResults) >= 1000 {
		t.Fatalf("%d results, %v, want fewer than the thousand that were asked for", len(out.EvaluationResults), err)
	}
}

// canceled is a context that is canceled after a number of calls of Err.
type canceled struct {
	context.Context
	asked, after int
}

func (c *canceled) Err() error {
	if c.asked++; c.asked > c.after {
		return context.Canceled
	}
	return nil
}

// TestSimulateEndsWithItsCaller: a simulation ends at the next decision when its context does.
func TestSimulateEndsWithItsCaller(t *testing.T) {
	ctx := &canceled{Context: t.Context(), after: 3}
	in := &iam.SimulateInput{PolicyInputList: []string{identity(allowAll)}, ActionNames: []string{"a:b", "a:c", "a:d", "a:e", "a:f"}}
	if out, err := iam.Simulate(ctx, in, nil); !errors.Is(err, context.Canceled) || out != nil || ctx.asked != 4 {
		t.Errorf("Simulate = %+v, %v after %d decisions, want %v after 3", out, err, ctx.asked-1, context.Canceled)
	}
}

// With a source, the source's own policies come first, and the input adds to them.
func TestSimulateSource(t *testing.T) {
	own, err := iam.ParsePolicy(iam.IdentityPolicy, "PolicyInputList.1", []byte(identity(`"Effect":"Allow","Action":"a:*","Resource":"arn:aws:s3:::${aws:username}"`)))
	if err != nil {
		t.Fatal(err)
	}
	boundary, err := iam.ParsePolicy(iam.IdentityPolicy, "limit", []byte(identity(`"Effect":"Deny","Action":"a:c","Resource":"*"`)))
	if err != nil {
		t.Fatal(err)
	}
	source := &iam.PolicySource{Type: "user", Policies: &iam.Policies{Identity: []*iam.Policy{own}, Boundary: boundary}, Context: iam.NewContext()}
	source.Context.Set("aws:username", "ana")
	in := &iam.SimulateInput{ActionNames: []string{"a:b", "a:c"}, ResourceArns: []string{"arn:aws:s3:::ana"},
		PolicyInputList:                    []string{identity(`"Effect":"Deny","Action":"a:c","Resource":"*"`)},
		PermissionsBoundaryPolicyInputList: []string{identity(`"Effect":"Allow","Action":"a:b","Resource":"*"`)}}
	for name, tt := range map[string]struct {
		change  func()
		want    string
		sources []string
	}{
		"the input's boundary": {func() {}, "allowed explicitDeny", []string{"user none", "none"}},
		"its own boundary":     {func() { in.PermissionsBoundaryPolicyInputList = nil }, "implicitDeny explicitDeny", []string{"user", "none user"}},
		"another username": {func() {
			in.ContextEntries = []iam.ContextEntry{{ContextKeyName: "aws:UserName", ContextKeyValues: []string{"bob"}}}
		},
			"implicitDeny explicitDeny", []string{"none", "none"}},
	} {
		saved := *in
		tt.change()
		out, err := iam.Simulate(t.Context(), in, source)
		*in = saved
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var decisions, sources []string
		for _, r := range out.EvaluationResults {
			decisions = append(decisions, r.EvalDecision)
			var types []string
			for _, m := range r.MatchedStatements {
				types = append(types, m.SourcePolicyType)
			}
			sources = append(sources, strings.Join(types, " "))
		}
		if got := strings.Join(decisions, " "); got != tt.want || !slices.Equal(sources, tt.sources) {
			t.Errorf("%s: %s by %q, want %s by %q", name, got, sources, tt.want, tt.sources)
		}
	}
	if source.Context.Lookup("aws:username")[0] != "ana" || len(source.Policies.Identity) != 1 {
		t.Error("the source was changed")
	}
}
