package api_test

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdkiam "github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/redshift"

	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/directory"
)

func TestGetClusterCredentialsWithIAM(t *testing.T) {
	spec := withRoles(t)
	spec.Users = append(spec.Users,
		user("dev", policy(t, "p", `{"Effect":"Allow","Action":"redshift:GetClusterCredentialsWithIAM","Resource":"`+arn+`dbname:examplecluster/dev"}`)),
		user("bad", policy(t, "p", `{"Effect":"Allow","Action":"redshift:*","Resource":"*"}`)))
	spec.Users[0].Tags = map[string]string{"redshiftdbgroups": "analysts:finance:analysts"}
	spec.Users[len(spec.Users)-1].Tags = map[string]string{"RedshiftDbGroups": "Analysts"}
	s := newServer(t, spec)
	etl := s.stsCall(longTerm("ana"), assume("jobs/etl", "ab", "Tags.member.1.Key", "RedshiftDbGroups", "Tags.member.1.Value", "loaders")...).assumed(t)

	ask := func(keys aws.Credentials, form ...string) answer {
		return s.redshiftAs(keys, append([]string{"Action", "GetClusterCredentialsWithIAM", "ClusterIdentifier", "examplecluster"}, form...)...)
	}
	for _, row := range []struct {
		name   string
		keys   aws.Credentials
		user   string
		groups []string
	}{
		{"a user", longTerm("root"), "IAM:root", []string{"analysts", "finance"}},
		{"a role session", etl.keys(), "IAMR:etl", []string{"loaders"}},
	} {
		a := ask(row.keys, "DbName", "dev", "DurationSeconds", "1800")
		if !strings.Contains(a.body, "<DbUser>"+row.user+"</DbUser>") || !strings.Contains(a.body, "<Expiration>2026-01-02T03:34:05.000Z</Expiration>"+
			"<NextRefreshTime>2026-01-02T03:33:05.000Z</NextRefreshTime></GetClusterCredentialsWithIAMResult>") {
			t.Errorf("%s: got %d %s", row.name, a.status, a.body)
			continue
		}
		_, password, _ := strings.Cut(a.body, "<DbPassword>")
		password, _, _ = strings.Cut(password, "</DbPassword>")
		grant, err := credential.Check(s.keyring.Verifier(), password, start)
		if err != nil || grant.Kind != credential.Identity || grant.DBUser != row.user || !grant.AutoCreate || grant.Database != "dev" ||
			!reflect.DeepEqual(grant.DBGroups, row.groups) {
			t.Errorf("%s: the credential is %+v, %v", row.name, grant, err)
		}
	}
	for _, row := range []struct {
		name, user string
		form       []string
		code, want string
	}{
		{"his database", "dev", []string{"DbName", "dev"}, "", ""},
		{"another database", "dev", []string{"DbName", "prod"}, "AccessDenied", "dbname:examplecluster/prod because"},
		{"every database", "dev", nil, "AccessDenied", "dbname:examplecluster/* because"},
		{"no database with that name", "root", []string{"DbName", "a b"}, "InvalidParameterValue", "DbName"},
		{"too short", "root", []string{"DurationSeconds", "899"}, "InvalidParameterValue", "DurationSeconds"},
		{"no such cluster", "root", []string{"ClusterIdentifier", "nosuch"}, "ClusterNotFound", "nosuch"},
		{"a group that cannot be", "bad", nil, "InvalidParameterValue", "RedshiftDbGroups"},
	} {
		form := []string{"Action", "GetClusterCredentialsWithIAM", "ClusterIdentifier", "examplecluster"}
		for i := 0; i < len(row.form); i += 2 {
			form = with(form, row.form[i], row.form[i+1])
		}
		a := s.redshiftCall(row.user, form...)
		if row.code == "" {
			if a.status != 200 {
				t.Errorf("%s: got %d %s, want 200", row.name, a.status, a.body)
			}
			continue
		}
		if f := a.fault(t); f.Code != row.code || !strings.Contains(f.Message, row.want) {
			t.Errorf("%s: got %s %q, want %s about %s", row.name, f.Code, f.Message, row.code, row.want)
		}
	}
	got, err := s.redshift("root").GetClusterCredentialsWithIAM(context.Background(), &redshift.GetClusterCredentialsWithIAMInput{
		CustomDomainName: aws.String("warehouse.example.com")})
	if err != nil || *got.DbUser != "IAM:root" || !got.NextRefreshTime.Before(*got.Expiration) {
		t.Errorf("the SDK: got %v, %v", got, err)
	}
}

func (s *server) iam(user string) *sdkiam.Client {
	return sdkiam.New(sdkiam.Options{
		Region: region, BaseEndpoint: &s.url, Retryer: aws.NopRetryer{}, HTTPClient: wholeBody{},
		Credentials: credentials.NewStaticCredentialsProvider(keyOf(user), secret, ""),
	})
}

func TestSimulateCustomPolicy(t *testing.T) {
	ctx := context.Background()
	s := newServer(t, example(t))
	s.setRealTime()
	allow := `{"Version":"2012-10-17","Statement":[{"Sid":"Own","Effect":"Allow","Action":"redshift:*","Resource":"` + arn + `dbuser:*/${aws:username}"},
		{"Effect":"Deny","Action":"redshift:CreateClusterUser","Resource":"*"}]}`
	got, err := s.iam("root").SimulateCustomPolicy(ctx, &sdkiam.SimulateCustomPolicyInput{
		PolicyInputList: []string{allow},
		ActionNames:     []string{"redshift:GetClusterCredentials", "redshift:CreateClusterUser"},
		ResourceArns:    []string{arn + "dbuser:c/ana", arn + "dbuser:c/bob"},
		ContextEntries: []types.ContextEntry{{ContextKeyName: aws.String("aws:username"), ContextKeyType: types.ContextKeyTypeEnumString,
			ContextKeyValues: []string{"ana"}}},
	})
	if err != nil {
		t.Fatalf("SimulateCustomPolicy: %v", err)
	}
	var decisions []string
	for _, r := range got.EvaluationResults {
		decisions = append(decisions, string(r.EvalDecision))
	}
	if want := []string{"allowed", "implicitDeny", "explicitDeny", "explicitDeny"}; !reflect.DeepEqual(decisions, want) || got.IsTruncated {
		t.Errorf("the decisions are %v, want %v", decisions, want)
	}
	if m := got.EvaluationResults[0].MatchedStatements; len(m) != 1 || *m[0].SourcePolicyId != "PolicyInputList.1" || m[0].StartPosition.Line != 1 ||
		m[0].StartPosition.Column != int32(strings.Index(allow, `{"Sid"`))+2 || m[0].EndPosition.Column <= m[0].StartPosition.Column {
		t.Errorf("the matched statements are %+v", m)
	}

	// Boundary, missing key, a trust policy, a page.
	got, err = s.iam("root").SimulateCustomPolicy(ctx, &sdkiam.SimulateCustomPolicyInput{
		PolicyInputList: []string{allow}, ActionNames: []string{"redshift:JoinGroup"}, MaxItems: aws.Int32(1),
		PermissionsBoundaryPolicyInputList: []string{`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}`},
	})
	if err != nil || got.EvaluationResults[0].EvalDecision != "implicitDeny" || *got.EvaluationResults[0].EvalResourceName != "*" ||
		got.EvaluationResults[0].PermissionsBoundaryDecisionDetail.AllowedByPermissionsBoundary ||
		!reflect.DeepEqual(got.EvaluationResults[0].MissingContextValues, []string{"aws:username"}) {
		t.Errorf("with a boundary: got %+v, %v", got, err)
	}
	got, err = s.iam("root").SimulateCustomPolicy(ctx, &sdkiam.SimulateCustomPolicyInput{
		PolicyInputList: []string{`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:*","Resource":"*"}]}`},
		ActionNames:     []string{"sts:AssumeRole"}, ResourceArns: []string{roleARN + "etl"},
		CallerArn:      aws.String("arn:aws:iam::123456789012:user/ana"),
		ResourcePolicy: aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:user/bob"},"Action":"sts:AssumeRole"}]}`),
	})
	if err != nil || got.EvaluationResults[0].EvalDecision != "implicitDeny" {
		t.Errorf("with another's trust policy: got %+v, %v", got, err)
	}

	var pages, results int
	list := sdkiam.NewSimulateCustomPolicyPaginator(s.iam("root"), &sdkiam.SimulateCustomPolicyInput{PolicyInputList: []string{allow},
		ActionNames: []string{"a:b", "a:c", "a:d"}, ResourceArns: []string{"*", arn + "cluster:x"}, MaxItems: aws.Int32(4)})
	for list.HasMorePages() {
		page, err := list.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		pages, results = pages+1, results+len(page.EvaluationResults)
	}
	if pages != 2 || results != 6 {
		t.Errorf("got %d results on %d pages, want 6 on 2", results, pages)
	}

	for name, input := range map[string]*sdkiam.SimulateCustomPolicyInput{
		"a bad document": {PolicyInputList: []string{`{"Statement":[]`}, ActionNames: []string{"a:b"}},
		"a bad caller":   {PolicyInputList: []string{allow}, ActionNames: []string{"a:b"}, CallerArn: aws.String("ana")},
		"no caller":      {PolicyInputList: []string{allow}, ActionNames: []string{"a:b"}, ResourcePolicy: aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole"}]}`)},
	} {
		var bad *types.InvalidInputException
		if _, err := s.iam("root").SimulateCustomPolicy(ctx, input); !errors.As(err, &bad) {
			t.Errorf("%s: got %v, want InvalidInput", name, err)
		}
	}
	if _, err := s.iam("ana").SimulateCustomPolicy(ctx, &sdkiam.SimulateCustomPolicyInput{PolicyInputList: []string{allow}, ActionNames: []string{"a:b"}}); err == nil ||
		!strings.Contains(err.Error(), "is not authorized to perform: iam:SimulateCustomPolicy on resource: *") {
		t.Errorf("without permission: got %v, want AccessDenied", err)
	}
}

func TestSimulatePrincipalPolicy(t *testing.T) {
	ctx := context.Background()
	s := newServer(t, withRoles(t))
	s.setRealTime()
	got, err := s.iam("root").SimulatePrincipalPolicy(ctx, &sdkiam.SimulatePrincipalPolicyInput{
		PolicySourceArn: aws.String("arn:aws:iam::123456789012:user/ana"),
		ActionNames:     []string{"redshift:GetClusterCredentials"},
		ResourceArns:    []string{arn + "dbuser:examplecluster/ana", arn + "dbuser:examplecluster/bob"},
	})
	if err != nil || got.EvaluationResults[0].EvalDecision != "allowed" || got.EvaluationResults[1].EvalDecision != "implicitDeny" {
		t.Fatalf("SimulatePrincipalPolicy = %+v, %v", got, err)
	}
	if m := got.EvaluationResults[0].MatchedStatements[0]; *m.SourcePolicyId != "own" || m.SourcePolicyType != "user" {
		t.Errorf("the matched statement is %+v", m)
	}
	got, err = s.iam("root").SimulatePrincipalPolicy(ctx, &sdkiam.SimulatePrincipalPolicyInput{
		PolicySourceArn: aws.String(roleARN + "jobs/etl"), ActionNames: []string{"redshift:JoinGroup", "s3:GetObject"}})
	if err != nil || got.EvaluationResults[0].EvalDecision != "allowed" || got.EvaluationResults[1].EvalDecision != "implicitDeny" {
		t.Errorf("of a role: %+v, %v", got, err)
	}
	var none *types.NoSuchEntityException
	if _, err := s.iam("root").SimulatePrincipalPolicy(ctx, &sdkiam.SimulatePrincipalPolicyInput{
		PolicySourceArn: aws.String("arn:aws:iam::123456789012:user/eve"), ActionNames: []string{"a:b"}}); !errors.As(err, &none) {
		t.Errorf("of nobody: got %v, want NoSuchEntity", err)
	}
}

// A refusal carries a sealed message with the reason, which only callers with the
// permission can decode.
func TestDecodeAuthorizationMessage(t *testing.T) {
	s := newServer(t, example(t))
	a := s.redshiftCall("ana", valid("DbUser", "bob")...)
	encoded := a.header.Get("X-Daypass-Authorization-Message")
	if a.status != 403 || encoded == "" || strings.Contains(encoded, "bob") {
		t.Fatalf("got %d with the message %q", a.status, encoded)
	}
	decode := func(user, encoded string) answer {
		return s.do(s.signed(user, "sts", "POST", query("2011-06-15", "Action", "DecodeAuthorizationMessage", "EncodedMessage", encoded)))
	}
	got := decode("root", encoded)
	_, text, _ := strings.Cut(got.body, "<DecodedMessage>")
	text, _, _ = strings.Cut(text, "</DecodedMessage>")
	var message struct {
		Allowed, ExplicitDeny bool
		Context               struct {
			Principal        struct{ ARN string }
			Action, Resource string
			Conditions       struct {
				Items []struct {
					Key    string
					Values struct{ Items []struct{ Value string } }
				}
			}
		}
	}
	text = strings.ReplaceAll(text, "&#34;", `"`)
	if err := json.Unmarshal([]byte(text), &message); err != nil || message.Allowed || message.ExplicitDeny ||
		message.Context.Action != "redshift:GetClusterCredentials" || message.Context.Resource != arn+"dbuser:examplecluster/bob" ||
		message.Context.Principal.ARN != "arn:aws:iam::123456789012:user/ana" || len(message.Context.Conditions.Items) != 1 ||
		message.Context.Conditions.Items[0].Key != "aws:username" || message.Context.Conditions.Items[0].Values.Items[0].Value != "ana" {
		t.Errorf("the message is %s (%v)", text, err)
	}
	if f := decode("ana", encoded).fault(t); f.Code != "AccessDenied" {
		t.Errorf("without permission: got %s, want AccessDenied", f.Code)
	}
	for name, bad := range map[string]string{"changed": encoded[1:2] + encoded[0:1] + encoded[2:] + "AAAA", "cut": encoded[:40], "rubbish": "**"} {
		if f := decode("root", bad).fault(t); f.Code != "InvalidAuthorizationMessageException" {
			t.Errorf("%s: got %s, want InvalidAuthorizationMessageException", name, f.Code)
		}
	}
}

// The length of the message reveals nothing, and any message fits into a header.
func TestAuthorizationMessageSize(t *testing.T) {
	spec := withRoles(t, directory.RoleSpec{Name: "conditional", Trust: trust(t, `{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:user/bob"},"Action":"sts:AssumeRole",
		"Condition":{"StringEquals":{"sts:ExternalId":"x","aws:RequestTag/a":"b","aws:ResourceTag/secret":"c"},"Bool":{"aws:SecureTransport":"true"}}}`),
		Tags: map[string]string{"secret": strings.Repeat("s", 200)}})
	spec.Users[1].Inline = append(spec.Users[1].Inline, policy(t, "tags", `{"Effect":"Allow","Action":"redshift:*","Resource":"*",
		"Condition":{"StringEquals":{"aws:ResourceTag/env":"none","redshift:DbUser":"none","redshift:DbName":"none"}}},
		{"Sid":"Never","Effect":"Deny","Action":"redshift:*","Resource":"`+arn+`dbuser:*/denied*"}`))
	s := newServer(t, spec)
	const header = "X-Daypass-Authorization-Message"
	want := len(s.redshiftCall("bob", valid()...).header.Get(header))
	if want < 1000 || want > 3000 {
		t.Errorf("the message has %d characters, want at most 3000", want)
	}
	long := strings.Repeat("\x01<é", 5000)
	for name, a := range map[string]answer{
		"no such role":           s.stsCall(longTerm("bob"), assume("none", "session", "ExternalId", "secret")...),
		"a role":                 s.stsCall(longTerm("bob"), assume("jobs/etl", "session", "ExternalId", "secret")...),
		"a role with conditions": s.stsCall(longTerm("bob"), assume("conditional", "session", "ExternalId", "secret", "Tags.member.1.Key", "a", "Tags.member.1.Value", "b")...),
		"a long role":            s.stsCall(longTerm("bob"), assume(strings.Repeat("x", 2000), "session")...),
		"a cluster with tags":    s.redshiftCall("ana", valid("DbUser", "x")...),
		"no such cluster":        s.redshiftCall("ana", valid("DbUser", "x", "ClusterIdentifier", "none")...),
		"a long user":            s.redshiftCall("bob", valid("DbUser", long)...),
		"a long database":        s.redshiftCall("ana", valid("DbUser", "ana", "DbName", long)...),
		"a long denied one":      s.redshiftCall("ana", valid("DbUser", "denied"+long)...),
	} {
		encoded := a.header.Get(header)
		if a.status != 403 || len(encoded) != want {
			t.Errorf("%s: got %d and %d characters, want 403 and %d", name, a.status, len(encoded), want)
			continue
		}
		got := s.stsCall(longTerm("root"), "Action", "DecodeAuthorizationMessage", "EncodedMessage", encoded)
		var body struct {
			Message string `xml:"DecodeAuthorizationMessageResult>DecodedMessage"`
		}
		var message struct {
			Truncated bool
			Context   struct{ Action, Resource string }
		}
		err := xml.Unmarshal([]byte(got.body), &body)
		if err == nil {
			err = json.Unmarshal([]byte(body.Message), &message)
		}
		cut := strings.Contains(name, "long")
		if err != nil || message.Truncated != cut || message.Context.Action == "" || !strings.HasPrefix(message.Context.Resource, "arn:aws:") ||
			strings.HasSuffix(body.Message, " ") {
			t.Errorf("%s: the message is %s (%v), cut %v, want cut %v", name, got.body, err, message.Truncated, cut)
		}
	}
}

func TestGetAccessKeyInfo(t *testing.T) {
	s := newServer(t, withRoles(t))
	temporary := s.stsCall(longTerm("ana"), assume("jobs/etl", "ab")...).assumed(t)
	for id, want := range map[string]string{
		keyOf("ana"):           "<Account>123456789012</Account>",
		temporary.AccessKeyID:  "<Account>123456789012</Account>",
		"AKIAIOSFODNN7EXAMPLE": "<Account>581039954779</Account>",
		"short":                "ValidationError",
		"AKIA0000000000000000": "ValidationError",
	} {
		if a := s.stsCall(longTerm("root"), "Action", "GetAccessKeyInfo", "AccessKeyId", id); !strings.Contains(a.body, want) {
			t.Errorf("%s: got %s, want %s", id, a.body, want)
		}
	}
	if f := s.stsCall(longTerm("bob"), "Action", "GetAccessKeyInfo", "AccessKeyId", keyOf("ana")).fault(t); f.Code != "AccessDenied" {
		t.Errorf("without permission: got %s", f.Code)
	}
}

// Without DbName the password is valid for every database, so a Deny for one of them
// refuses it.
func TestWithIAMWithoutDatabaseRespectsADeny(t *testing.T) {
	for name, row := range map[string]struct {
		deny   string
		status int
	}{
		"one database":              {`"Resource":"` + arn + `dbname:examplecluster/prod"`, 403},
		"one database everywhere":   {`"Resource":"` + arn + `dbname:*/prod"`, 403},
		"by its condition key":      {`"Resource":"*","Condition":{"StringEquals":{"redshift:DbName":"prod"}}`, 403},
		"of another cluster":        {`"Resource":"` + arn + `dbname:Other/prod"`, 200},
		"for long sessions":         {`"Resource":"` + arn + `dbname:*/prod","Condition":{"NumericGreaterThan":{"redshift:DurationSeconds":"900"}}`, 200},
		"a star across the colon":   {`"Resource":"` + arn + `*/prod"`, 200}, // denies nothing, and lint says so
		"all databases but one":     {`"NotResource":"` + arn + `dbname:examplecluster/dev"`, 403},
		"when no database is named": {`"Resource":"*","Condition":{"Null":{"redshift:DbName":"true"}}`, 403},
	} {
		spec := example(t)
		spec.Users = append(spec.Users, user("eve", policy(t, "p", `{"Effect":"Allow","Action":"*","Resource":"*"},
			{"Effect":"Deny","Action":"redshift:GetClusterCredentialsWithIAM",`+row.deny+`}`)))
		s := newServer(t, spec)
		form := []string{"Action", "GetClusterCredentialsWithIAM", "ClusterIdentifier", "examplecluster"}
		if a := s.redshiftCall("eve", form...); a.status != row.status {
			t.Errorf("%s: got %d %s, want %d", name, a.status, a.body, row.status)
		}
		if a := s.redshiftCall("eve", append(form, "DbName", "dev")...); a.status != 200 {
			t.Errorf("%s, with another database: got %d %s", name, a.status, a.body)
		}
	}
}
