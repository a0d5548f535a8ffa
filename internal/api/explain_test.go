package api_test

import (
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/api"
)

func explainParameters(form ...string) url.Values {
	values := url.Values{"Version": {"2012-12-01"}}
	for i := 0; i < len(form); i += 2 {
		values.Add(form[i], form[i+1])
	}
	return values
}

// The policies allow each row's call. Explain refuses it if the API does, with the same code and
// message.
func TestExplainRefusesWhatTheAPIRefuses(t *testing.T) {
	spec := example(t)
	spec.Users[0].Tags = map[string]string{"RedshiftDbGroups": "UPPER"}
	s := newServer(t, spec)
	plain := func(form ...string) []string {
		return append([]string{"Action", "GetClusterCredentials", "ClusterIdentifier", "examplecluster"}, form...)
	}
	long := plain("DbUser", "alice")
	for i := range 50 {
		long = append(long, "DbGroups.DbGroup."+strconv.Itoa(i+1), "g"+strings.Repeat("x", 60)+strconv.Itoa(i))
	}
	many := append(long[:len(long):len(long)], "DbGroups.DbGroup.51", "one-more")
	for name, tt := range map[string]struct {
		form []string
		code string
	}{
		"nothing wrong":         {plain("DbUser", "alice", "DbName", "dev", "DurationSeconds", "3600", "AutoCreate", "true", "DbGroups.DbGroup.1", "g"), ""},
		"PUBLIC":                {plain("DbUser", "PUBLIC"), "InvalidParameterValue"},
		"a reserved word":       {plain("DbUser", "select"), "InvalidParameterValue"},
		"a colon":               {plain("DbUser", "IAM:alice"), "InvalidParameterValue"},
		"a database":            {plain("DbUser", "alice", "DbName", "1"), "InvalidParameterValue"},
		"an empty database":     {plain("DbUser", "alice", "DbName", ""), "InvalidParameterValue"},
		"a group in upper case": {plain("DbUser", "alice", "DbGroups.DbGroup.1", "UPPER"), "InvalidParameterValue"},
		"too short":             {plain("DbUser", "alice", "DurationSeconds", "899"), "InvalidParameterValue"},
		"too long":              {plain("DbUser", "alice", "DurationSeconds", "99999"), "InvalidParameterValue"},
		"no number":             {plain("DbUser", "alice", "DurationSeconds", "x"), "InvalidParameterValue"},
		"no boolean":            {plain("DbUser", "alice", "AutoCreate", "x"), "InvalidParameterValue"},
		"no such cluster":       {[]string{"Action", "GetClusterCredentials", "ClusterIdentifier", "nope", "DbUser", "alice"}, "ClusterNotFound"},
		"no cluster":            {[]string{"Action", "GetClusterCredentials", "DbUser", "alice"}, "MissingParameter"},
		"no user":               {plain(), "MissingParameter"},
		"too many groups":       {many, "InvalidParameterValue"},
		"groups for no token":   {long, "InvalidParameterValue"},
		"a tag that is no list": {[]string{"Action", "GetClusterCredentialsWithIAM", "ClusterIdentifier", "examplecluster"}, "InvalidParameterValue"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := api.Explain(s.directory, api.ExplainInput{Principal: "arn:aws:iam::123456789012:user/root", Parameters: explainParameters(tt.form...), Now: start})
			if err != nil {
				t.Fatalf("Explain: %v", err)
			}
			answer := s.redshiftCall("root", tt.form...)
			if tt.code == "" {
				if !got.Allowed() || answer.status != 200 {
					t.Errorf("Explain = %+v, the API answers %d, want both to allow it", got, answer.status)
				}
				return
			}
			if f := answer.fault(t); got.Refusal == nil || got.Refusal.Code != tt.code || f.Code != tt.code || got.Refusal.Message != f.Message || got.Allowed() {
				t.Errorf("Explain refuses with %v, the API with %s: %s, want %s", got.Refusal, f.Code, f.Message, tt.code)
			}
			for _, c := range got.Checks {
				if !c.Decision.Allowed() {
					t.Errorf("%s on %s is %v, want allowed", c.Action, c.Resource, c.Decision.Effect)
				}
			}
		})
	}
}

// Explain reports both what the policies refuse and what the API refuses.
func TestExplainGoesOn(t *testing.T) {
	got, err := api.Explain(build(t, example(t)), api.ExplainInput{Principal: "arn:aws:iam::123456789012:user/bob",
		Parameters: explainParameters(valid("DbUser", "PUBLIC", "DbName", "dev")...), Now: start})
	if err != nil || len(got.Checks) != 3 || got.Checks[0].Decision.Allowed() || got.Refusal == nil || got.Allowed() {
		t.Errorf("Explain = %+v, %v, want three refused checks and a refusal", got, err)
	}
}

// Explain refuses a principal that could not make the call.
func TestExplainPrincipals(t *testing.T) {
	d := build(t, withRoles(t))
	const iamARN, stsARN = "arn:aws:iam::123456789012:", "arn:aws:sts::123456789012:"
	for _, tt := range []struct {
		principal string
		mfa       bool
		want      string // of the error
	}{
		{iamARN + "user/ana", false, ""},
		{iamARN + "user/ana", true, ""},
		{iamARN + "user/bob", true, "no MFA device"},
		{iamARN + "user/x/ana", false, "no IAM user"},
		{iamARN + "user/eve", false, "no IAM user"},
		{iamARN + "role/jobs/etl", false, ""},
		{iamARN + "role/etl", false, "no IAM role"},
		{iamARN + "role/jobs/etl", true, "never true in a session of an IAM role"},
		{stsARN + "assumed-role/etl/nightly", false, ""},
		{stsARN + "assumed-role/etl/nightly", true, "never true"},
		{stsARN + "assumed-role/jobs/etl/nightly", false, "not the ARN"},
		{stsARN + "assumed-role/etl", false, "not the ARN"},
		{stsARN + "assumed-role/etl/a", false, "length greater than or equal to 2"},
		{stsARN + "assumed-role/etl/a b", false, "regular expression"},
		{"arn:aws:sts:us-east-1:123456789012:assumed-role/etl/nightly", false, "not the ARN"},
		{"arn:awz:sts::123456789012:assumed-role/etl/nightly", false, "no IAM role"},
		{"arn:aws:iam::210987654321:user/ana", false, "is not this one"},
		{iamARN + "root", false, "is no IAM user"},
		{"ana", false, "not the ARN"},
	} {
		got, err := api.Explain(d, api.ExplainInput{Principal: tt.principal, MFA: tt.mfa, Parameters: explainParameters(valid("DbUser", "alice")...), Now: start})
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Explain(%s, MFA %v) = %+v, %v, want %q", tt.principal, tt.mfa, got, err, tt.want)
		}
	}
}
