package iam_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/iam"
)

// identity puts one statement into a document, so that its faults are at a known position.
func identity(elements string) string {
	return `{"Version":"2012-10-17","Statement":[{` + elements + `}]}`
}

const (
	allowAll = `"Effect":"Allow","Action":"*","Resource":"*"`
	trusts   = `"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole"`
)

func TestParsePolicyRefuses(t *testing.T) {
	when := func(condition string) string { return identity(allowAll + `,"Condition":` + condition) }
	action := func(a string) string { return identity(`"Effect":"Allow","Resource":"*","Action":` + a) }
	resource := func(r string) string { return identity(`"Effect":"Allow","Action":"*","Resource":` + r) }
	principal := func(p string) string {
		return identity(`"Effect":"Allow","Action":"sts:AssumeRole","Principal":` + p)
	}
	tests := []struct {
		document string
		kind     iam.Kind
		path     string
		reason   string // expected in the reason
	}{
		// JSON.
		{``, 0, "", "not JSON: the document ends where a value should be"},
		{`{`, 0, "", "not JSON: the document ends where a quoted name should be"},
		{`{"Version"}`, 0, "Version", "a colon"},
		{`{"Version":"2012-10-17",}`, 0, "", "found '}' where a quoted name"},
		{`{"Version":"2012-10-17" "Id":""}`, 0, "", "a comma or }"},
		{`{'Version':1}`, 0, "", `a quoted name`},
		{`{"Version":2012-10-17}`, 0, "", "a comma or }"},
		{`{"Statement":[{},]}`, 0, "Statement[1]", "a value"},
		{`{"Statement":[{}}`, 0, "Statement", "a comma or ]"},
		{`{"Version":"2012-10-17"`, 0, "", "the document ends"},
		{`{"Version":"2012-10-17`, 0, "Version", "the end of a string"},
		{`{"Id":"a` + "\n" + `"}`, 0, "Id", "inside a string"},
		{`{"Id":"\x"}`, 0, "Id", "unknown escape"},
		{`{"Id":"\u12"}`, 0, "Id", "unknown escape"},
		{`{"Id":"\u+123"}`, 0, "Id", "unknown escape"},
		{`{"Id":01}`, 0, "", "a comma or }"},
		{`{"Id":-}`, 0, "Id", "a digit"},
		{`{"Id":1.}`, 0, "Id", "a digit"},
		{`{"Id":1e}`, 0, "Id", "a digit"},
		{`{"Id":tru}`, 0, "Id", "a value"},
		{`{"Id":NaN}`, 0, "Id", "a value"},
		{`// comment` + "\n{}", 0, "", "a value"},
		{identity(allowAll) + `{}`, 0, "", "something follows"},
		{`[]`, 0, "", "has to be an object, not a list"},
		{`"text"`, 0, "", "has to be an object, not a string"},
		{`null`, 0, "", "has to be an object, not null"},
		{strings.Repeat("[", 100), 0, "", "nested"},
		{`{"Statement":` + strings.Repeat("[", 100) + "}", 0, "", "nested"},
		{strings.Repeat(" ", 131073), 0, "", "longer than 131072"},
		// Characters.
		{"{\"Id\":\"\xff\"}", 0, "", "not UTF-8"},
		{`{"Id":"…"}`, 0, "", "U+2026 is not allowed"},
		{"\ufeff{}", 0, "", "U+FEFF is not allowed"},
		{"{\"Id\":\"\x00\"}", 0, "", "U+0000 is not allowed"},
		{`{"Id":"\u2026"}`, 0, "Id", "U+2026 is not allowed"},
		{`{"Id":"\ud83d\ude00"}`, 0, "Id", "is not allowed"},
		{`{"Id":"\b"}`, 0, "Id", "U+0008 is not allowed"},
		{`{"Id":"\u0000"}`, 0, "Id", "U+0000 is not allowed"},
		// Duplicates and unknown elements.
		{`{"Version":"2012-10-17","Version":"2012-10-17"}`, 0, "Version", "given twice"},
		{identity(`"Effect":"Deny",` + allowAll), 0, "Statement[0].Effect", "given twice"},
		{when(`{"StringEquals":{"aws:username":"a"},"StringEquals":{"aws:userid":"b"}}`), 0, "Statement[0].Condition.StringEquals", "given twice"},
		{when(`{"StringEquals":{"aws:username":"a","aws:username":"b"}}`), 0, "Statement[0].Condition.StringEquals.aws:username", "given twice"},
		{when(`{"StringEquals":{"aws:username":"a","AWS:UserName":"b"}}`), 0, "Statement[0].Condition.StringEquals.AWS:UserName", "given twice"},
		{`{"Ver\u0073ion":"2012-10-17","Version":"2012-10-17"}`, 0, "Version", "given twice"},
		{`{"version":"2012-10-17"}`, 0, "version", "unknown element"},
		{`{"Statements":[]}`, 0, "Statements", "unknown element"},
		{identity(allowAll + `,"effect":"Deny"`), 0, "Statement[0].effect", "unknown element"},
		{identity(allowAll + `,"Conditions":{}`), 0, "Statement[0].Conditions", "unknown element"},
		// Document.
		{`{"Version":"2012-10-18","Statement":[]}`, 0, "Version", "2012-10-17"},
		{`{"Version":20121017,"Statement":[]}`, 0, "Version", "2012-10-17"},
		{`{"Id":5,"Statement":[]}`, 0, "Id", "has to be a string"},
		{`{}`, 0, "", "Statement is missing"},
		{`{"Version":"2012-10-17"}`, 0, "", "Statement is missing"},
		{`{"Statement":[]}`, 0, "Statement", "there has to be a statement"},
		{`{"Statement":"x"}`, 0, "Statement", "has to be an object"},
		{`{"Statement":[[]]}`, 0, "Statement[0]", "has to be an object"},
		{`{"Statement":null}`, 0, "Statement", "has to be an object"},
		// Sid.
		{identity(allowAll + `,"Sid":"a b"`), 0, "Statement[0].Sid", "letters"},
		{identity(allowAll + `,"Sid":"a-b"`), 0, "Statement[0].Sid", "letters"},
		{identity(allowAll + `,"Sid":"ü"`), 0, "Statement[0].Sid", "letters"},
		{identity(allowAll + `,"Sid":1`), 0, "Statement[0].Sid", "letters"},
		{`{"Statement":[{"Sid":"A",` + allowAll + `},{"Sid":"A",` + allowAll + `}]}`, 0, "Statement[1].Sid", "another statement"},
		// Effect.
		{identity(`"Action":"*","Resource":"*"`), 0, "Statement[0]", "Effect is missing"},
		{identity(`"Effect":"allow","Action":"*","Resource":"*"`), 0, "Statement[0].Effect", "Allow"},
		{identity(`"Effect":"DENY","Action":"*","Resource":"*"`), 0, "Statement[0].Effect", "Deny"},
		{identity(`"Effect":["Allow"],"Action":"*","Resource":"*"`), 0, "Statement[0].Effect", "Allow"},
		// Action.
		{identity(`"Effect":"Allow","Resource":"*"`), 0, "Statement[0]", "Action or NotAction"},
		{identity(allowAll + `,"NotAction":"*"`), 0, "Statement[0].NotAction", "exclude each other"},
		{action(`[]`), 0, "Statement[0].Action", "an action"},
		{action(`""`), 0, "Statement[0].Action", "service:name"},
		{action(`"GetClusterCredentials"`), 0, "Statement[0].Action", "service:name"},
		{action(`["redshift:*","x"]`), 0, "Statement[0].Action[1]", "service:name"},
		{action(`"redshift:"`), 0, "Statement[0].Action", "service:name"},
		{action(`":JoinGroup"`), 0, "Statement[0].Action", "service:name"},
		{action(`"red*:JoinGroup"`), 0, "Statement[0].Action", "wildcards"},
		{action(`"*:*"`), 0, "Statement[0].Action", "wildcards"},
		{action(`"redshif?:JoinGroup"`), 0, "Statement[0].Action", "wildcards"},
		{action(`"**"`), 0, "Statement[0].Action", "service:name"},
		{action(`"redshift :JoinGroup"`), 0, "Statement[0].Action", "letters, digits and hyphens"},
		{action(`"redshift:Join Group"`), 0, "Statement[0].Action", "letters, digits and wildcards"},
		{action(`"redshift:${aws:username}"`), 0, "Statement[0].Action", "letters, digits and wildcards"},
		{action(`"redshift:Join:Group"`), 0, "Statement[0].Action", "letters, digits and wildcards"},
		{action(`5`), 0, "Statement[0].Action", "not a number"},
		{action(`[["redshift:*"]]`), 0, "Statement[0].Action[0]", "not a list"},
		{action(`{"a":"b"}`), 0, "Statement[0].Action", "not an object"},
		// Resource.
		{identity(`"Effect":"Allow","Action":"*"`), 0, "Statement[0]", "Resource or NotResource"},
		{identity(allowAll + `,"NotResource":"*"`), 0, "Statement[0].NotResource", "exclude each other"},
		{resource(`[]`), 0, "Statement[0].Resource", "a resource"},
		{resource(`""`), 0, "Statement[0].Resource", "an ARN"},
		{resource(`"bucket"`), 0, "Statement[0].Resource", "an ARN"},
		{resource(`"ARN:aws:s3:::b"`), 0, "Statement[0].Resource", "an ARN"},
		{resource(`"arn:*"`), 0, "Statement[0].Resource", "an ARN"},
		{resource(`"arn:aws"`), 0, "Statement[0].Resource", "an ARN"},
		{resource(`"arn:aws:redshift:us-east-1:123456789012"`), 0, "Statement[0].Resource", "six parts"},
		{resource(`"arn:aws:redshift:us-east-1:12345:dbuser:c/u"`), 0, "Statement[0].Resource", "not made of twelve digits"},
		{resource(`"arn:aws:s3:::"`), 0, "Statement[0].Resource", "six parts"},
		{resource(`"arn::s3:::b"`), 0, "Statement[0].Resource", "partition or service"},
		{resource(`"arn:aws::::b"`), 0, "Statement[0].Resource", "partition or service"},
		{resource(`"arn:aws:*:us-east-1:123456789012:x"`), 0, "Statement[0].Resource", "wildcards"},
		{resource(`"arn:aws:red*:us-east-1:123456789012:x"`), 0, "Statement[0].Resource", "wildcards"},
		{resource(`["*","x"]`), 0, "Statement[0].Resource[1]", "an ARN"},
		{resource(`true`), 0, "Statement[0].Resource", "not a boolean"},
		{resource(`"arn:aws:s3:::b/${aws:username"`), 0, "Statement[0].Resource", "no closing brace"},
		{resource(`"arn:aws:s3:::b/${}"`), 0, "Statement[0].Resource", "no name"},
		{resource(`"arn:aws:s3:::b/${aws: username}"`), 0, "Statement[0].Resource", "blank"},
		{resource(`"arn:aws:s3:::b/${aws:username, x}"`), 0, "Statement[0].Resource", "single quotes"},
		{resource(`"arn:aws:s3:::b/${aws:username, 'x}"`), 0, "Statement[0].Resource", "quotes"},
		{resource(`"arn:aws:s3:::b/${a:${b:c}}"`), 0, "Statement[0].Resource", "brace"},
		{resource(`"arn:aws:s3:::` + strings.Repeat("a*", 600) + `"`), 0, "Statement[0].Resource", "too many"},
		// Principal.
		{identity(allowAll + `,"Principal":"*"`), 0, "Statement[0].Principal", "has no principal"},
		{identity(allowAll + `,"NotPrincipal":"*"`), 0, "Statement[0].NotPrincipal", "has no principal"},
		{identity(trusts + `,"Resource":"*"`), iam.TrustPolicy, "Statement[0].Resource", "has no resource"},
		{identity(trusts + `,"NotResource":"*"`), iam.TrustPolicy, "Statement[0].NotResource", "has no resource"},
		{identity(`"Effect":"Allow","Action":"sts:AssumeRole"`), iam.TrustPolicy, "Statement[0]", "Principal or NotPrincipal"},
		{identity(trusts + `,"NotPrincipal":{"AWS":"*"}`), iam.TrustPolicy, "Statement[0].NotPrincipal", "exclude"},
		{identity(`"Effect":"Allow","Principal":"*","Action":"*"`), iam.TrustPolicy, "Statement[0].Action", "actions of sts"},
		{identity(`"Effect":"Allow","Principal":"*","Action":"redshift:*"`), iam.TrustPolicy, "Statement[0].Action", "actions of sts"},
		{principal(`"arn:aws:iam::123456789012:root"`), iam.TrustPolicy, "Statement[0].Principal", `"*" or an object`},
		{principal(`["*"]`), iam.TrustPolicy, "Statement[0].Principal", `"*" or an object`},
		{principal(`{}`), iam.TrustPolicy, "Statement[0].Principal", `"*" or an object`},
		{principal(`{"AWS":[]}`), iam.TrustPolicy, "Statement[0].Principal.AWS", "a principal"},
		{principal(`{"Aws":"*"}`), iam.TrustPolicy, "Statement[0].Principal.Aws", "unknown kind"},
		{principal(`{"CanonicalUser":"79a59df900b949e55d96a1e698fbacedfd6e09d98eacf8f8d5218e7cd47ef2be"}`), iam.TrustPolicy, "Statement[0].Principal.CanonicalUser", "Amazon S3"},
		{principal(`{"AWS":"12345678901"}`), iam.TrustPolicy, "Statement[0].Principal.AWS", "not an account"},
		{principal(`{"AWS":"arn:aws:iam::123456789012:user/*"}`), iam.TrustPolicy, "Statement[0].Principal.AWS", "wildcard"},
		{principal(`{"AWS":"arn:aws:iam::*:root"}`), iam.TrustPolicy, "Statement[0].Principal.AWS", "wildcard"},
		{principal(`{"AWS":"arn:aws:iam::123456789012:group/g"}`), iam.TrustPolicy, "Statement[0].Principal.AWS", "not an account"},
		{principal(`{"AWS":"arn:aws:iam::123456789012:oidc-provider/x.example.com"}`), iam.TrustPolicy, "Statement[0].Principal.AWS", "not an account"},
		{principal(`{"AWS":"arn:aws:sts::123456789012:assumed-role/web"}`), iam.TrustPolicy, "Statement[0].Principal.AWS", "not an account"},
		{principal(`{"AWS":["*",5]}`), iam.TrustPolicy, "Statement[0].Principal.AWS[1]", "not a number"},
		{principal(`{"Service":"*"}`), iam.TrustPolicy, "Statement[0].Principal.Service", "name of a service"},
		{principal(`{"Service":"ecs"}`), iam.TrustPolicy, "Statement[0].Principal.Service", "name of a service"},
		{principal(`{"Federated":"*"}`), iam.TrustPolicy, "Statement[0].Principal.Federated", "identity provider"},
		{principal(`{"Federated":"arn:aws:iam::123456789012:user/ana"}`), iam.TrustPolicy, "Statement[0].Principal.Federated", "identity provider"},
		{principal(`{"Federated":"google"}`), iam.TrustPolicy, "Statement[0].Principal.Federated", "identity provider"},
		// Condition.
		{when(`[]`), 0, "Statement[0].Condition", "has to be an object"},
		{when(`{"StringEquals":"x"}`), 0, "Statement[0].Condition.StringEquals", "object of condition keys"},
		{when(`{"StringEqual":{"aws:username":"a"}}`), 0, "Statement[0].Condition.StringEqual", "unknown condition operator"},
		{when(`{"stringequals":{"aws:username":"a"}}`), 0, "Statement[0].Condition.stringequals", "unknown condition operator"},
		{when(`{"NumericLike":{"aws:username":"a"}}`), 0, "Statement[0].Condition.NumericLike", "unknown condition operator"},
		{when(`{"Not":{"aws:username":"a"}}`), 0, "Statement[0].Condition.Not", "unknown condition operator"},
		{when(`{"BinaryNotEquals":{"aws:username":"AAE="}}`), 0, "Statement[0].Condition.BinaryNotEquals", "unknown condition operator"},
		{when(`{"StringEqualsIfExistsIfExists":{"aws:username":"a"}}`), 0, "Statement[0].Condition.StringEqualsIfExistsIfExists", "unknown condition operator"},
		{when(`{"ForSomeValue:StringEquals":{"aws:username":"a"}}`), 0, "Statement[0].Condition.ForSomeValue:StringEquals", "unknown set operator"},
		{when(`{"foranyvalue:StringEquals":{"aws:username":"a"}}`), 0, "Statement[0].Condition.foranyvalue:StringEquals", "unknown set operator"},
		{when(`{"ForAnyValue:":{"aws:username":"a"}}`), 0, "Statement[0].Condition.ForAnyValue:", "unknown condition operator"},
		{when(`{"NullIfExists":{"aws:username":"true"}}`), 0, "Statement[0].Condition.NullIfExists", "IfExists"},
		{when(`{"StringEquals":{"username":"a"}}`), 0, "Statement[0].Condition.StringEquals.username", "service:name"},
		{when(`{"StringEquals":{"aws:":"a"}}`), 0, "Statement[0].Condition.StringEquals.aws:", "service:name"},
		{when(`{"StringEquals":{"":"a"}}`), 0, "Statement[0].Condition.StringEquals.", "service:name"},
		{when(`{"StringEquals":{"aws:username":null}}`), 0, "Statement[0].Condition.StringEquals.aws:username", "not null"},
		{when(`{"StringEquals":{"aws:username":{"a":1}}}`), 0, "Statement[0].Condition.StringEquals.aws:username", "not an object"},
		{when(`{"StringEquals":{"aws:username":["a",["b"]]}}`), 0, "Statement[0].Condition.StringEquals.aws:username[1]", "not a list"},
		{when(`{"StringLike":{"aws:username":"${aws:userid"}}`), 0, "Statement[0].Condition.StringLike.aws:username", "closing brace"},
		{when(`{"ArnLike":{"aws:SourceArn":"arn:aws:iam::${:role/x"}}`), 0, "Statement[0].Condition.ArnLike.aws:SourceArn", "closing brace"},
		{when(`{"NumericEquals":{"aws:MultiFactorAuthAge":"abc"}}`), 0, "Statement[0].Condition.NumericEquals.aws:MultiFactorAuthAge", "not a number"},
		{when(`{"NumericEquals":{"aws:MultiFactorAuthAge":"1e999"}}`), 0, "Statement[0].Condition.NumericEquals.aws:MultiFactorAuthAge", "not a number"},
		{when(`{"NumericEquals":{"aws:MultiFactorAuthAge":true}}`), 0, "Statement[0].Condition.NumericEquals.aws:MultiFactorAuthAge", "not a number"},
		{when(`{"NumericEquals":{"aws:MultiFactorAuthAge":"${aws:EpochTime}"}}`), 0, "Statement[0].Condition.NumericEquals.aws:MultiFactorAuthAge", "policy variables"},
		{when(`{"DateLessThan":{"aws:CurrentTime":"tomorrow"}}`), 0, "Statement[0].Condition.DateLessThan.aws:CurrentTime", "not a date"},
		{when(`{"DateLessThan":{"aws:CurrentTime":"2026-02-29"}}`), 0, "Statement[0].Condition.DateLessThan.aws:CurrentTime", "not a date"},
		{when(`{"DateLessThan":{"aws:CurrentTime":"2026-01-01T00:00:00"}}`), 0, "Statement[0].Condition.DateLessThan.aws:CurrentTime", "not a date"},
		{when(`{"DateLessThan":{"aws:CurrentTime":"2026-01-*"}}`), 0, "Statement[0].Condition.DateLessThan.aws:CurrentTime", "not a date"},
		{when(`{"Bool":{"aws:SecureTransport":"yes"}}`), 0, "Statement[0].Condition.Bool.aws:SecureTransport", "not true or false"},
		{when(`{"Bool":{"aws:SecureTransport":1}}`), 0, "Statement[0].Condition.Bool.aws:SecureTransport", "not true or false"},
		{when(`{"Null":{"aws:username":"maybe"}}`), 0, "Statement[0].Condition.Null.aws:username", "not true or false"},
		{when(`{"IpAddress":{"aws:SourceIp":"203.0.113.0/33"}}`), 0, "Statement[0].Condition.IpAddress.aws:SourceIp", "not an IP address"},
		{when(`{"IpAddress":{"aws:SourceIp":["203.0.113.0/24","localhost"]}}`), 0, "Statement[0].Condition.IpAddress.aws:SourceIp[1]", "not an IP address"},
		{when(`{"NotIpAddress":{"aws:SourceIp":"fe80::1%eth0"}}`), 0, "Statement[0].Condition.NotIpAddress.aws:SourceIp", "not an IP address"},
		{when(`{"BinaryEquals":{"daypass:blob":"AAE"}}`), 0, "Statement[0].Condition.BinaryEquals.daypass:blob", "not base64"},
		{when(`{"BinaryEquals":{"daypass:blob":"AAF="}}`), 0, "Statement[0].Condition.BinaryEquals.daypass:blob", "not base64"},
	}
	for _, tt := range tests {
		_, err := iam.ParsePolicy(tt.kind, "p", []byte(tt.document))
		bad, ok := errors.AsType[*iam.PolicyError](err)
		if !ok {
			t.Errorf("ParsePolicy(%.200s) = %v, want a PolicyError (%s)", tt.document, err, tt.reason)
			continue
		}
		if bad.Policy != "p" || bad.Line < 1 || bad.Column < 1 || !strings.Contains(bad.Reason, tt.reason) ||
			bad.Path != tt.path && !strings.Contains(tt.reason, "nested") {
			t.Errorf("ParsePolicy(%.200s) = %v, want %s: %s", tt.document, err, tt.path, tt.reason)
		}
	}
}

// TestPolicyErrorPosition: an error has the policy's name, line and column, and lines and columns
// are counted in characters.
func TestPolicyErrorPosition(t *testing.T) {
	document := "{\n  \"Version\": \"2012-10-17\",\r\n\t\"Statement\": [\n    {\"Sid\": \"Aüß\",\n     \"Effect\": \"ü\", \"Action\": \"x\"}]}"
	_, err := iam.ParsePolicy(iam.IdentityPolicy, "ana/inline", []byte(strings.Replace(document, "Aüß", "A", 1)))
	want := `ana/inline: line 5, column 16: Statement[0].Effect: the effect has to be "Allow" or "Deny", in this spelling`
	if err == nil || err.Error() != want {
		t.Errorf("ParsePolicy = %v, want %s", err, want)
	}
	_, err = iam.ParsePolicy(iam.IdentityPolicy, "p", []byte(`{"Id":"üüü", "Nope":1}`))
	if err == nil || !strings.Contains(err.Error(), "column 14") {
		t.Errorf("ParsePolicy = %v, want it at column 14: columns are characters", err)
	}
}

func TestParsePolicyAccepts(t *testing.T) {
	for _, tt := range []struct {
		kind     iam.Kind
		document string
	}{
		{0, identity(allowAll)},
		{0, `{"Statement":{` + allowAll + `}}`},
		{0, `{"Version":"2008-10-17","Id":"any thing ü","Statement":[{` + allowAll + `}]}`},
		{0, "\t\r\n" + identity(`"Sid":"",`+allowAll) + "\n"},
		{0, `{"Statement":[{"Sid":"",` + allowAll + `},{"Sid":"",` + allowAll + `}]}`},
		{0, identity(`"Effect":"Deny","NotAction":["redshift:*"],"NotResource":["arn:aws:s3:::b"]`)},
		{0, identity(`"Eff\u0065ct":"Allow","Action":"\u002a","Resource":"*"`)},
		{0, identity(allowAll + `,"Condition":{}`)},
		{0, identity(allowAll + `,"Condition":{"StringEquals":{}}`)},
		{0, identity(`"Effect":"Allow","Action":"*","Resource":["arn:*:redshift:*:*:*","arn:aws:redshift:*","arn:aws-us-gov:iam::123456789012:user/a b/ü"]`)},
		{0, identity(`"Effect":"Allow","Action":"aws-marketplace:*","Resource":"arn:aws:s3:::b/${aws:username, 'a}b, c'}${$}{x}"`)},
		{iam.TrustPolicy, identity(trusts)},
		{iam.TrustPolicy, identity(`"Effect":"Allow","Principal":{"AWS":["*","123456789012"],"Service":"ecs.amazonaws.com","Federated":["cognito-identity.amazonaws.com","arn:aws:iam::123456789012:oidc-provider/h/p"]},"NotAction":"sts:TagSession"`)},
		{iam.TrustPolicy, identity(`"Effect":"Deny","NotPrincipal":{"AWS":"arn:aws:sts::123456789012:federated-user/x"},"Action":["STS:AssumeRole","sts:Set*"]`)},
	} {
		if _, err := iam.ParsePolicy(tt.kind, "p", []byte(tt.document)); err != nil {
			t.Errorf("ParsePolicy(%s) = %v", tt.document, err)
		}
	}
}

// TestPolicySize: white space outside of strings does not count towards the size of a policy.
func TestPolicySize(t *testing.T) {
	p := mustParse(t, iam.IdentityPolicy, "{ \"Version\" :\n\t\"2012-10-17\", \"Id\":\"a b ü\",\"Statement\":[ {"+allowAll+"} ] }  ")
	compact := `{"Version":"2012-10-17","Id":"a b ü","Statement":[{` + allowAll + `}]}`
	if want := len([]rune(compact)); p.Size() != want {
		t.Errorf("Size = %d, want %d", p.Size(), want)
	}
}

// TestContextKeys: ContextKeys lists the keys of conditions and variables, each once. A policy
// without a version has no variables.
func TestContextKeys(t *testing.T) {
	p := mustParse(t, iam.IdentityPolicy, identity(`"Effect":"Allow","Action":"*","Resource":["arn:aws:s3:::b/${aws:username}","arn:aws:s3:::c/${AWS:UserName, 'x'}/${*}"],
		"Condition":{"StringLike":{"redshift:DbUser":["${aws:PrincipalTag/team}*"]},"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::${aws:PrincipalAccount}:*"},"Null":{"redshift:dbuser":"false"}}`))
	want := []string{"aws:username", "redshift:DbUser", "aws:PrincipalTag/team", "aws:PrincipalArn", "aws:PrincipalAccount"}
	if got := p.ContextKeys(); !reflect.DeepEqual(got, want) {
		t.Errorf("ContextKeys = %q, want %q", got, want)
	}
	old := mustParse(t, iam.IdentityPolicy, `{"Statement":{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::b/${aws:username}"}}`)
	if got := old.ContextKeys(); got != nil {
		t.Errorf("ContextKeys without a version = %q, want none", got)
	}
}

func mustParse(t testing.TB, kind iam.Kind, document string) *iam.Policy {
	t.Helper()
	p, err := iam.ParsePolicy(kind, "p", []byte(document))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestDenialMessage: the message says which kind of policy denied the request, or did not allow
// it, in AWS's words.
func TestDenialMessage(t *testing.T) {
	const user = "arn:aws:iam::123456789012:user/ana"
	const group = "arn:aws:redshift:us-east-1:123456789012:dbgroup:c/g"
	said := "User: " + user + " is not authorized to perform: redshift:JoinGroup on resource: " + group
	for _, tt := range []struct {
		d    iam.Decision
		want string
	}{
		{iam.Decision{}, said + " because no identity-based policy allows the redshift:JoinGroup action"},
		{iam.Decision{Layer: iam.BoundaryLayer}, said + " because no permissions boundary allows the redshift:JoinGroup action"},
		{iam.Decision{Layer: iam.SessionLayer}, said + " because no session policy allows the redshift:JoinGroup action"},
		{iam.Decision{Layer: iam.TrustLayer}, said + " because no role trust policy allows the redshift:JoinGroup action"},
		{iam.Decision{Effect: iam.ExplicitDeny}, said + " with an explicit deny in an identity-based policy"},
		{iam.Decision{Effect: iam.ExplicitDeny, Layer: iam.BoundaryLayer}, said + " with an explicit deny in a permissions boundary"},
		{iam.Decision{Effect: iam.ExplicitDeny, Layer: iam.SessionLayer}, said + " with an explicit deny in a session policy"},
		{iam.Decision{Effect: iam.ExplicitDeny, Layer: iam.TrustLayer}, said + " with an explicit deny in the role trust policy"},
	} {
		if got := iam.DenialMessage(user, "redshift:JoinGroup", group, tt.d); got != tt.want {
			t.Errorf("DenialMessage(%v, %v) = %q, want %q", tt.d.Effect, tt.d.Layer, got, tt.want)
		}
	}
	if got, want := iam.DenialMessage("", "sts:AssumeRoleWithWebIdentity", "arn:aws:iam::123456789012:role/etl", iam.Decision{}), "Not authorized to perform sts:AssumeRoleWithWebIdentity"; got != want {
		t.Errorf("DenialMessage without a caller = %q, want %q", got, want)
	}
}

func TestParseARN(t *testing.T) {
	for _, s := range []string{
		"arn:aws:redshift:us-east-1:123456789012:dbuser:c/u",
		"arn:aws:iam::123456789012:role/path/etl",
		"arn:aws:s3:::bucket/a:b",
		"arn:aws-cn:sts::123456789012:assumed-role/r/s",
	} {
		arn, err := iam.ParseARN(s)
		if err != nil || arn.String() != s {
			t.Errorf("ParseARN(%q) = %+v, %v", s, arn, err)
		}
	}
	want := iam.ARN{Partition: "aws", Service: "redshift", Region: "us-east-1", Account: "123456789012", Resource: "dbuser:c/u:v"}
	if arn, err := iam.ParseARN("arn:aws:redshift:us-east-1:123456789012:dbuser:c/u:v"); err != nil || arn != want {
		t.Errorf("ParseARN = %+v, %v, want %+v", arn, err, want)
	}
	for _, s := range []string{"", "arn", "arn:aws", "arn:aws:s3:::", "arn::s3:::b", "arn:aws::::b", "ARN:aws:s3:::b", "arn:aws:s3::b", "xarn:aws:s3:::b", "*"} {
		if arn, err := iam.ParseARN(s); !errors.Is(err, iam.ErrBadARN) {
			t.Errorf("ParseARN(%q) = %+v, %v, want ErrBadARN", s, arn, err)
		}
	}
}

func TestPrincipalFromARN(t *testing.T) {
	for arn, want := range map[string]iam.Principal{
		"arn:aws:iam::123456789012:user/path/ana":                 {Type: iam.UserPrincipal},
		"arn:aws:iam::123456789012:root":                          {Type: iam.AccountPrincipal},
		"arn:aws:sts::123456789012:assumed-role/etl/s":            {Type: iam.RoleSessionPrincipal, RoleARN: "arn:aws:iam::123456789012:role/etl"},
		"arn:aws:iam::123456789012:role/path/etl":                 {Type: iam.RoleSessionPrincipal, RoleARN: "arn:aws:iam::123456789012:role/path/etl"},
		"arn:aws:sts::123456789012:federated-user/bo":             {Type: iam.FederatedUserPrincipal},
		"arn:aws:iam::123456789012:oidc-provider/h.example.com/p": {Type: iam.WebIdentityPrincipal},
		"arn:aws:iam::123456789012:saml-provider/ADFS":            {Type: iam.SAMLPrincipal},
	} {
		want.ARN, want.Account = arn, "123456789012"
		if got, err := iam.PrincipalFromARN(arn); err != nil || got != want {
			t.Errorf("PrincipalFromARN(%q) = %+v, %v, want %+v", arn, got, err, want)
		}
	}
	for _, arn := range []string{
		"", "ana", "arn:aws:iam::123456789012:group/g", "arn:aws:iam::1234:user/ana", "arn:aws:iam::123456789012:user/", "arn:aws:iam:us-east-1:123456789012:user/ana",
		"arn:aws:sts::123456789012:assumed-role/etl", "arn:aws:sts::123456789012:assumed-role/etl/", "arn:aws:sts::123456789012:assumed-role/p/etl/s", "arn:aws:s3:::user/ana",
	} {
		if got, err := iam.PrincipalFromARN(arn); !errors.Is(err, iam.ErrNotAPrincipal) {
			t.Errorf("PrincipalFromARN(%q) = %+v, %v, want ErrNotAPrincipal", arn, got, err)
		}
	}
}

// TestContext: keys ignore case, a clone is independent, and a nil Context is empty.
func TestContext(t *testing.T) {
	ctx := iam.NewContext()
	ctx.Set("aws:username", "ana")
	ctx.SetList("aws:TagKeys", []string{"a", "b"})
	clone := ctx.Clone()
	clone.Set("AWS:UserName", "bo")
	clone.SetList("aws:tagkeys", nil)
	if got := ctx.Lookup("aws:UserName"); !reflect.DeepEqual(got, []string{"ana"}) {
		t.Errorf("Lookup = %q after a change of the clone, want ana", got)
	}
	if got := clone.Lookup("aws:username"); !reflect.DeepEqual(got, []string{"bo"}) || clone.Len() != 1 {
		t.Errorf("clone: Lookup = %q, Len = %d, want bo and 1", got, clone.Len())
	}
	var none *iam.Context
	if none.Lookup("aws:username") != nil || none.Len() != 0 || none.Clone().Len() != 0 {
		t.Error("a nil Context is not empty")
	}
}

// Nil and empty policies deny.
func TestEvaluateNothing(t *testing.T) {
	for _, p := range []iam.Policies{{}, {Session: []*iam.Policy{}}, {Boundary: mustParse(t, 0, identity(allowAll))}} {
		if d := p.Evaluate(&iam.Request{Action: "redshift:JoinGroup", Resource: "*"}); d.Allowed() || d.Index != -1 {
			t.Errorf("Evaluate = %+v, want an implicit deny", d)
		}
	}
	if fmt.Sprint(iam.Decision{}.Effect) != "implicitDeny" {
		t.Error("the zero Decision does not deny")
	}
}

// The suggested statement allows exactly the refused request, whatever characters its resource
// contains.
func TestAllowStatement(t *testing.T) {
	for _, name := range []string{"ana", "a*", "a?", "a$", "${aws:username}", `a"b\`, "ü<>&", "${*}", "a:b"} {
		resource := "arn:aws:redshift:us-east-1:123456789012:dbuser:c/" + name
		p := mustParse(t, iam.IdentityPolicy, `{"Version":"2012-10-17","Statement":`+iam.AllowStatement("redshift:CreateClusterUser", resource, nil, nil, nil)+`}`)
		policies := iam.Policies{Identity: []*iam.Policy{p}}
		ctx := iam.NewContext()
		ctx.Set("aws:username", "ana")
		request := &iam.Request{Action: "redshift:CreateClusterUser", Resource: resource, Context: ctx}
		if !policies.Evaluate(request).Allowed() {
			t.Errorf("AllowStatement(%q) does not allow it", resource)
		}
		request.Resource = "arn:aws:redshift:us-east-1:123456789012:dbuser:c/" + strings.NewReplacer("*", "x", "?", "x", "$", "x", "ana", "anab").Replace(name) + "y"
		if policies.Evaluate(request).Allowed() {
			t.Errorf("AllowStatement(%q) also allows %q", resource, request.Resource)
		}
	}
}

// A caller who may choose tag keys must not be able to choose two that are different to a
// condition on aws:TagKeys and the same to the evaluator.
func TestContextKeysFoldWithinLatin1(t *testing.T) {
	ctx := iam.NewContext()
	ctx.Set("aws:PrincipalTag/kind", "reader")
	ctx.Set("aws:PrincipalTag/\u212aind", "admin")
	if got := ctx.Lookup("AWS:PRINCIPALTAG/KIND"); !reflect.DeepEqual(got, []string{"reader"}) {
		t.Errorf("Lookup = %q, want reader: the Kelvin sign is no k", got)
	}
	for a, b := range map[string]string{"s": "\u017f", "k": "\u212a", "å": "\u212b", "ÿ": "\u0178", "µ": "\u03bc", "ß": "\u1e9e", "i": "\u0130",
		"aws:RequestTag/σ": "aws:RequestTag/ς", "Δ": "δ"} {
		if iam.FoldKey(a) == iam.FoldKey(b) {
			t.Errorf("FoldKey takes %q for %q", a, b)
		}
	}
	for a, b := range map[string]string{"RedshiftDbGroups": "REDSHIFTDBGROUPS", "ÅØÞ": "åøþ", "": ""} {
		if iam.FoldKey(a) != iam.FoldKey(b) {
			t.Errorf("FoldKey tells %q and %q apart", a, b)
		}
	}
	ctx.Set("aws:PrincipalTag/BÜRO", "a")
	if got := ctx.Lookup("aws:principaltag/büro"); !reflect.DeepEqual(got, []string{"a"}) {
		t.Errorf("Lookup = %q, want a", got)
	}
}

// An element that is null or empty was meant to be filled in. That is an error everywhere, and
// not the same as an absent element.
func TestNullAndEmptyAreRefused(t *testing.T) {
	const identityRest, trustRest = `"Effect":"Allow","Action":"redshift:*","Resource":"*"`, `"Effect":"Allow","Action":"sts:AssumeRole","Principal":"*"`
	without := func(rest, element string) string {
		var kept []string
		for one := range strings.SplitSeq(rest, ",") {
			if !strings.HasPrefix(one, `"`+element+`"`) {
				kept = append(kept, one)
			}
		}
		return strings.Join(kept, ",")
	}
	documents := []string{`null`, `[]`, `""`, `{}`, ``, ` `, `{"Version":"2012-10-17"}`, `{"Version":"2012-10-17","Statement":null}`,
		`{"Version":"2012-10-17","Statement":[]}`, `{"Version":"2012-10-17","Statement":{}}`, `{"Version":"2012-10-17","Statement":[null]}`,
		`{"Version":"2012-10-17","Statement":[{}]}`}
	for _, value := range []string{`null`, `""`, `[]`, `{}`, `[null]`, `[""]`} {
		documents = append(documents, `{"Version":`+value+`,"Statement":{`+identityRest+`}}`)
		if value != `""` {
			documents = append(documents, `{"Id":`+value+`,"Statement":{`+identityRest+`}}`)
		}
	}
	for kind, tt := range map[iam.Kind]struct{ rest, elements string }{
		iam.IdentityPolicy: {identityRest, "Sid Effect Action NotAction Resource NotResource Condition"},
		iam.TrustPolicy:    {trustRest, "Sid Effect Action NotAction Principal NotPrincipal Condition"},
	} {
		if _, err := iam.ParsePolicy(kind, "p", []byte(identity(tt.rest))); err != nil {
			t.Fatal(err)
		}
		list := documents
		for element := range strings.FieldsSeq(tt.elements) {
			rest := without(tt.rest, strings.TrimPrefix(element, "Not"))
			for _, value := range []string{`null`, `""`, `[]`, `{}`, `[null]`, `[""]`} {
				if element == "Condition" && value == `{}` || element == "Sid" && value == `""` {
					continue // a warning; AWS's own console writes it
				}
				list = append(list, identity(rest+`,"`+element+`":`+value))
			}
		}
		if kind == iam.TrustPolicy {
			for _, value := range []string{`{"AWS":null}`, `{"AWS":[]}`, `{"AWS":""}`, `{"AWS":[null]}`, `{"AWS":[""]}`, `{"Federated":null}`, `{"AWS":"*","Federated":null}`} {
				list = append(list, identity(without(trustRest, "Principal")+`,"Principal":`+value))
			}
		}
		for _, value := range []string{`{"StringEquals":null}`, `{"StringEquals":""}`, `{"StringEquals":[]}`, `{"StringEquals":{"aws:username":null}}`,
			`{"StringEquals":{"aws:username":[null]}}`, `{"StringEquals":{"aws:username":{}}}`, `{"StringEquals":{"":"x"}}`, `{"":{"aws:username":"x"}}`,
			`{"Bool":{"aws:MultiFactorAuthPresent":""}}`, `{"IpAddress":{"aws:SourceIp":""}}`} {
			list = append(list, identity(tt.rest+`,"Condition":`+value))
		}
		for _, document := range list {
			if _, err := iam.ParsePolicy(kind, "p", []byte(document)); err == nil {
				t.Errorf("%s: %s was taken", kind, document)
			}
		}
	}
}
