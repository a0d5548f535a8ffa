package iam_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/iam"
)

// The positions are those that AWS answers for this document in the CLI
// reference, simulate-custom-policy: one column behind either brace.
func TestSimulatePositions(t *testing.T) {
	out, err := iam.Simulate(&iam.SimulateInput{
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
	out, err := iam.Simulate(&in)
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

func TestSimulateMissingContextValues(t *testing.T) {
	out, err := iam.Simulate(&iam.SimulateInput{
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
		"delegated":            {iam.SimulateInput{PolicyInputList: []string{allow("sts:*")}, CallerArn: defaultCaller, ResourcePolicy: trust}, "allowed"},
		"delegated in vain":    {iam.SimulateInput{PolicyInputList: []string{allow("s3:*")}, CallerArn: defaultCaller, ResourcePolicy: trust}, "implicitDeny"},
		"other account":        {iam.SimulateInput{PolicyInputList: []string{allow("sts:*")}, CallerArn: "arn:aws:iam::210987654321:user/eve", ResourcePolicy: trust}, "implicitDeny"},
		"session":              {iam.SimulateInput{PolicyInputList: []string{allow("sts:*")}, CallerArn: "arn:aws:sts::123456789012:assumed-role/web/s", ResourcePolicy: trust}, "allowed"},
		"session policy":       {iam.SimulateInput{PolicyInputList: []string{allow("sts:*")}, SessionPolicyInputList: []string{allow("s3:*")}, CallerArn: defaultCaller, ResourcePolicy: trust}, "implicitDeny"},
		"session policy alone": {iam.SimulateInput{PolicyInputList: []string{allow("sts:*")}, SessionPolicyInputList: []string{allow("sts:*")}}, "allowed"},
		"web identity":         {iam.SimulateInput{ActionNames: []string{"sts:AssumeRoleWithWebIdentity"}, CallerArn: "arn:aws:iam::123456789012:oidc-provider/token.example.com", ResourcePolicy: trust}, "allowed"},
		"by its domain":        {iam.SimulateInput{ActionNames: []string{"sts:AssumeRoleWithWebIdentity"}, CallerArn: "arn:aws:iam::123456789012:oidc-provider/accounts.google.com", ResourcePolicy: identity(`"Effect":"Allow","Action":"sts:AssumeRoleWithWebIdentity","Principal":{"Federated":"accounts.google.com"}`)}, "allowed"},
		"owner by account":     {iam.SimulateInput{PolicyInputList: []string{allow("s3:*")}, CallerArn: defaultCaller, ResourceOwner: "arn:aws:iam::210987654321:root", ResourceArns: []string{"*"}, ResourcePolicy: identity(`"Effect":"Allow","Action":"sts:*","Principal":{"AWS":"` + defaultCaller + `"}`)}, "implicitDeny"},
		"owner by default":     {iam.SimulateInput{CallerArn: defaultCaller, ResourceArns: []string{"*"}, ResourcePolicy: identity(`"Effect":"Allow","Action":"sts:*","Principal":{"AWS":"` + defaultCaller + `"}`)}, "allowed"},
	} {
		in := tt.in
		if in.ActionNames == nil {
			in.ActionNames = []string{"sts:AssumeRole"}
		}
		if in.ResourceArns == nil {
			in.ResourceArns = []string{role}
		}
		out, err := iam.Simulate(&in)
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
		"no action":           {iam.SimulateInput{}, "ActionNames"},
		"no service":          {iam.SimulateInput{ActionNames: []string{"JoinGroup"}}, "ActionNames"},
		"wildcard action":     {iam.SimulateInput{ActionNames: []string{"redshift:*"}}, "ActionNames"},
		"all actions":         {iam.SimulateInput{ActionNames: []string{"*"}}, "ActionNames"},
		"no ARN":              {iam.SimulateInput{ResourceArns: []string{"bucket"}}, "ResourceArns"},
		"bad document":        {iam.SimulateInput{PolicyInputList: []string{document, "{}"}}, "PolicyInputList"},
		"bad boundary":        {iam.SimulateInput{PermissionsBoundaryPolicyInputList: []string{"{}"}}, "PermissionsBoundaryPolicyInputList"},
		"two boundaries":      {iam.SimulateInput{PermissionsBoundaryPolicyInputList: []string{document, document}}, "PermissionsBoundaryPolicyInputList"},
		"bad session policy":  {iam.SimulateInput{SessionPolicyInputList: []string{"x"}}, "SessionPolicyInputList"},
		"bad trust policy":    {iam.SimulateInput{ResourcePolicy: document, CallerArn: defaultCaller}, "ResourcePolicy"},
		"trust, no caller":    {iam.SimulateInput{ResourcePolicy: identity(trusts)}, "CallerArn"},
		"bad caller":          {iam.SimulateInput{CallerArn: "ana"}, "CallerArn"},
		"bad owner":           {iam.SimulateInput{ResourceOwner: "me"}, "ResourceOwner"},
		"bad type":            {iam.SimulateInput{ContextEntries: entry("aws:username", "text", "a")}, "ContextEntries"},
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
		if tt.member != "ActionNames" {
			in.ActionNames = []string{"redshift:JoinGroup"}
		}
		_, err := iam.Simulate(&in)
		var bad *iam.InputError
		if !errors.As(err, &bad) || bad.Member != tt.member {
			t.Errorf("%s: %v, want an InputError for %s", name, err, tt.member)
		}
	}
}

func TestSimulatePages(t *testing.T) {
	in := &iam.SimulateInput{PolicyInputList: []string{identity(allowAll)}, ActionNames: []string{"a:b", "a:c", "a:d"}, MaxItems: 2}
	first, err := iam.Simulate(in)
	if err != nil || !first.IsTruncated || len(first.EvaluationResults) != 2 {
		t.Fatalf("first page = %+v, %v", first, err)
	}
	in.Marker = first.Marker
	second, err := iam.Simulate(in)
	if err != nil || second.IsTruncated || second.Marker != "" || len(second.EvaluationResults) != 1 || second.EvaluationResults[0].EvalActionName != "a:d" {
		t.Fatalf("second page = %+v, %v", second, err)
	}
}
