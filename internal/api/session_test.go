package api_test

import (
	"encoding/base32"
	"encoding/xml"
	"fmt"
	"io"
	"net/http/httptest"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/daypass/daypass/internal/api"
	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/iam"
	"github.com/daypass/daypass/internal/sts"
)

const (
	roleARN = "arn:aws:iam::123456789012:role/"
	mfaSeed = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
)

// withRoles is the example with IAM roles: ana may assume etl, and etl may assume
// next.
func withRoles(t testing.TB, roles ...directory.RoleSpec) directory.Spec {
	spec := example(t)
	spec.Policies = []directory.NamedPolicy{
		{Name: "only-dev", Policy: policy(t, "only-dev", `{"Effect":"Allow","Action":"redshift:*","Resource":"`+arn+`dbuser:examplecluster/dev*"}`)}}
	ana := &spec.Users[1]
	ana.Inline = append(ana.Inline, policy(t, "sts", `{"Effect":"Allow","Action":"sts:*","Resource":"*"}`))
	ana.MFASeeds = []directory.MFADevice{{Seed: mfaSeed}}
	everything := policy(t, "etl", `{"Effect":"Allow","Action":["redshift:*","sts:*"],"Resource":"*"}`)
	spec.Roles = append([]directory.RoleSpec{
		{Name: "etl", Path: "/jobs/", Inline: []*iam.Policy{everything}, Tags: map[string]string{"Team": "etl", "Stage": "test"},
			MaxSessionDuration: 2 * time.Hour,
			Trust:              trust(t, `{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:user/ana"},"Action":["sts:AssumeRole","sts:TagSession","sts:SetSourceIdentity"]}`)},
		{Name: "next", Inline: []*iam.Policy{everything}, Tags: map[string]string{"Team": "next"}, MaxSessionDuration: 12 * time.Hour,
			Trust: trust(t, `{"Effect":"Allow","Principal":{"AWS":"`+roleARN+`jobs/etl"},"Action":["sts:AssumeRole","sts:TagSession","sts:SetSourceIdentity"]}`)},
	}, roles...)
	return spec
}

func trust(t testing.TB, statements string) *iam.Policy {
	t.Helper()
	p, err := iam.ParsePolicy(iam.TrustPolicy, "trust", []byte(`{"Version":"2012-10-17","Statement":[`+statements+`]}`))
	if err != nil {
		t.Fatalf("iam.ParsePolicy: %v", err)
	}
	return p
}

// assumed is an answer with credentials in it.
type assumed struct {
	AccessKeyID string    `xml:"Credentials>AccessKeyId"`
	Secret      string    `xml:"Credentials>SecretAccessKey"`
	Token       string    `xml:"Credentials>SessionToken"`
	Expiration  time.Time `xml:"Credentials>Expiration"`
	RoleID      string    `xml:"AssumedRoleUser>AssumedRoleId"`
	ARN         string    `xml:"AssumedRoleUser>Arn"`
	Packed      int       `xml:"PackedPolicySize"`
	Source      string    `xml:"SourceIdentity"`
	Subject     string    `xml:"SubjectFromWebIdentityToken"`
	Provider    string    `xml:"Provider"`
	Audience    string    `xml:"Audience"`
}

func (a assumed) keys() aws.Credentials {
	return aws.Credentials{AccessKeyID: a.AccessKeyID, SecretAccessKey: a.Secret, SessionToken: a.Token}
}

func longTerm(user string) aws.Credentials {
	return aws.Credentials{AccessKeyID: keyOf(user), SecretAccessKey: secret}
}

func (a answer) assumed(t testing.TB) assumed {
	t.Helper()
	var response struct {
		One   assumed `xml:"AssumeRoleResult"`
		Two   assumed `xml:"AssumeRoleWithWebIdentityResult"`
		Three assumed `xml:"GetSessionTokenResult"`
	}
	if err := xml.Unmarshal([]byte(a.body), &response); err != nil || a.status != 200 {
		t.Fatalf("got %d %s (%v), want credentials", a.status, a.body, err)
	}
	for _, r := range []assumed{response.One, response.Two, response.Three} {
		if r.AccessKeyID != "" {
			return r
		}
	}
	t.Fatalf("no credentials in %s", a.body)
	return assumed{}
}

func (s *server) stsCall(keys aws.Credentials, form ...string) answer {
	s.t.Helper()
	return s.do(s.signedWith(keys, "sts", "POST", query("2011-06-15", form...)))
}

func (s *server) redshiftAs(keys aws.Credentials, form ...string) answer {
	s.t.Helper()
	return s.do(s.signedWith(keys, "redshift", "POST", query("2012-12-01", form...)))
}

func assume(role, session string, more ...string) []string {
	return append([]string{"Action", "AssumeRole", "RoleArn", roleARN + role, "RoleSessionName", session}, more...)
}

func TestAssumeRole(t *testing.T) {
	s := newServer(t, withRoles(t))
	got := s.stsCall(longTerm("ana"), assume("jobs/etl", "nightly", "SourceIdentity", "ana")...).assumed(t)
	role, _ := s.directory.Role("etl")
	if got.ARN != "arn:aws:sts::123456789012:assumed-role/etl/nightly" || got.RoleID != role.ID+":nightly" || got.Source != "ana" ||
		!got.Expiration.Equal(start.Truncate(time.Second).Add(time.Hour)) || !strings.HasPrefix(got.AccessKeyID, "ASIA") {
		t.Errorf("AssumeRole = %+v", got)
	}
	if line := fmt.Sprintf("%+v", s.lastLine()); strings.Contains(line, got.Token) || strings.Contains(line, got.Secret) {
		t.Error("the audit record has a secret in it")
	}
	me := s.stsCall(got.keys(), "Action", "GetCallerIdentity")
	if !strings.Contains(me.body, "<Arn>"+got.ARN+"</Arn><UserId>"+got.RoleID+"</UserId><Account>123456789012</Account>") {
		t.Errorf("GetCallerIdentity = %s", me.body)
	}
	if a := s.redshiftAs(got.keys(), valid()...); a.status != 200 {
		t.Errorf("GetClusterCredentials: got %d %s", a.status, a.body)
	}
	id := s.lastLine().Identity
	if id.Type != "AssumedRole" || id.ARN != got.ARN || id.PrincipalID != got.RoleID || id.Session == nil ||
		id.Session.Issuer.ARN != roleARN+"jobs/etl" || id.Session.SourceIdentity != "ana" || !id.Session.CreationDate.Equal(start.Truncate(time.Second)) {
		t.Errorf("the audit record has the identity %+v", id)
	}

	// What ends a session.
	expect := func(what string, keys aws.Credentials, status int, code string) {
		t.Helper()
		a := s.stsCall(keys, "Action", "GetCallerIdentity")
		if f := a.fault(t); a.status != status || f.Code != code {
			t.Errorf("%s: got %d %s, want %d %s", what, a.status, a.body, status, code)
		}
	}
	other := s.stsCall(longTerm("ana"), assume("jobs/etl", "other")...).assumed(t)
	expect("another session's token", aws.Credentials{AccessKeyID: got.AccessKeyID, SecretAccessKey: got.Secret, SessionToken: other.Token},
		403, "InvalidClientTokenId")
	expect("no token", aws.Credentials{AccessKeyID: got.AccessKeyID, SecretAccessKey: got.Secret}, 403, "InvalidClientTokenId")
	expect("another secret", aws.Credentials{AccessKeyID: got.AccessKeyID, SecretAccessKey: other.Secret, SessionToken: got.Token},
		403, "SignatureDoesNotMatch")
	expect("a token on a long-term key", aws.Credentials{AccessKeyID: keyOf("ana"), SecretAccessKey: secret, SessionToken: got.Token},
		403, "InvalidClientTokenId")
	s.now = got.Expiration
	expect("at its Expiration", got.keys(), 403, "ExpiredToken")
	s.now = start
	whole := s.directory
	s.directory = build(t, example(t))
	expect("without the IAM role", got.keys(), 403, "InvalidClientTokenId")
	s.directory = whole
	if a := s.stsCall(got.keys(), "Action", "GetCallerIdentity"); a.status != 200 {
		t.Errorf("with everything as it was: got %d %s", a.status, a.body)
	}
}

func TestAssumeRoleRefusals(t *testing.T) {
	spec := withRoles(t, directory.RoleSpec{Name: "closed", Trust: trust(t, `{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:user/ana"},
		"Action":"sts:AssumeRole","Condition":{"StringEquals":{"sts:ExternalId":"x-1","sts:RoleSessionName":"good"}}}`)},
		directory.RoleSpec{Name: "account", Trust: trust(t, `{"Effect":"Allow","Principal":{"AWS":"123456789012"},"Action":"sts:AssumeRole"}`)})
	spec.Users[0].Inline = []*iam.Policy{policy(t, "deny", `{"Effect":"Allow","Action":"*","Resource":"*"},{"Effect":"Deny","Action":"sts:AssumeRole","Resource":"`+roleARN+`account"}`)}
	s := newServer(t, spec)
	long := strings.Repeat("x", 65)
	denied := func(user, role string) string {
		return "User: arn:aws:iam::123456789012:user/" + user + " is not authorized to perform: sts:AssumeRole on resource: " + roleARN + role
	}
	constraint := func(parameter, rule string) string {
		return "1 validation error detected: Value at '" + parameter + "' failed to satisfy constraint: Member must " + rule
	}
	const word = `satisfy regular expression pattern: [\w+=,.@-]*`
	rows := []struct {
		name    string
		user    string
		form    []string
		status  int
		code    string
		message string
	}{
		{"no such role", "ana", assume("nosuch", "ab"), 403, "AccessDenied", denied("ana", "nosuch")},
		{"a role without its path", "ana", assume("etl", "ab"), 403, "AccessDenied", denied("ana", "etl")},
		{"a role that does not trust", "ana", assume("next", "ab"), 403, "AccessDenied", denied("ana", "next")},
		{"a caller whom no policy allows, by a role that trusts the account", "bob", assume("account", "ab"), 403, "AccessDenied", denied("bob", "account")},
		{"a caller whom a policy denies", "root", assume("account", "ab"), 403, "AccessDenied",
			denied("root", "account") + " with an explicit deny in an identity-based policy"},
		{"no external id", "ana", assume("closed", "good"), 403, "AccessDenied", denied("ana", "closed")},
		{"another external id", "ana", assume("closed", "good", "ExternalId", "x-2"), 403, "AccessDenied", denied("ana", "closed")},
		{"another session name", "ana", assume("closed", "bad", "ExternalId", "x-1"), 403, "AccessDenied", denied("ana", "closed")},
		{"all as it should be", "ana", assume("closed", "good", "ExternalId", "x-1"), 200, "", ""},
		{"by the account's delegation", "ana", assume("account", "ab"), 200, "", ""},
		{"tags without TagSession", "ana", assume("account", "ab", "Tags.member.1.Key", "a", "Tags.member.1.Value", "b"), 403, "AccessDenied",
			"User: arn:aws:iam::123456789012:user/ana is not authorized to perform: sts:TagSession on resource: " + roleARN + "account"},
		{"source identity without SetSourceIdentity", "ana", assume("account", "ab", "SourceIdentity", "ana"), 403, "AccessDenied",
			"User: arn:aws:iam::123456789012:user/ana is not authorized to perform: sts:SetSourceIdentity on resource: " + roleARN + "account"},
		{"no role", "ana", []string{"Action", "AssumeRole", "RoleSessionName", "ab"}, 400, "ValidationError", constraint("roleArn", "not be null")},
		{"no session name", "ana", []string{"Action", "AssumeRole", "RoleArn", roleARN + "etl"}, 400, "ValidationError", constraint("roleSessionName", "not be null")},
		{"session name of one letter", "ana", assume("jobs/etl", "a"), 400, "ValidationError", constraint("roleSessionName", "have length greater than or equal to 2")},
		{"session name too long", "ana", assume("jobs/etl", long), 400, "ValidationError", constraint("roleSessionName", "have length less than or equal to 64")},
		{"session name with a blank", "ana", assume("jobs/etl", "a b"), 400, "ValidationError", constraint("roleSessionName", word)},
		{"session name with a slash", "ana", assume("jobs/etl", "a/b"), 400, "ValidationError", constraint("roleSessionName", word)},
		{"a role that is too short", "ana", []string{"Action", "AssumeRole", "RoleArn", "etl", "RoleSessionName", "ab"}, 400, "ValidationError", constraint("roleArn", "have length greater than or equal to 20")},
		{"a role that is a user", "ana", []string{"Action", "AssumeRole", "RoleArn", "arn:aws:iam::123456789012:user/ana", "RoleSessionName", "ab"}, 400, "ValidationError", "arn:aws:iam::123456789012:user/ana is invalid"},
		{"899 seconds", "ana", assume("jobs/etl", "ab", "DurationSeconds", "899"), 400, "ValidationError", constraint("durationSeconds", "have value greater than or equal to 900")},
		{"43201 seconds", "ana", assume("jobs/etl", "ab", "DurationSeconds", "43201"), 400, "ValidationError", constraint("durationSeconds", "have value less than or equal to 43200")},
		{"more than the role's maximum", "ana", assume("jobs/etl", "ab", "DurationSeconds", "7201"), 400, "ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."},
		{"the role's maximum", "ana", assume("jobs/etl", "ab", "DurationSeconds", "7200"), 200, "", ""},
		{"a session policy that is none", "ana", assume("jobs/etl", "ab", "Policy", "{"), 400, "MalformedPolicyDocument", ""},
		{"a session policy with a principal", "ana", assume("jobs/etl", "ab", "Policy", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}]}`), 400, "MalformedPolicyDocument", ""},
		{"a session policy too long", "ana", assume("jobs/etl", "ab", "Policy", strings.Repeat(" ", 2049)), 400, "ValidationError", constraint("policy", "have length less than or equal to 2048")},
		{"an empty session policy", "ana", assume("jobs/etl", "ab", "Policy", ""), 400, "ValidationError", constraint("policy", "have length greater than or equal to 1")},
		{"a managed policy that does not exist", "ana", assume("jobs/etl", "ab", "PolicyArns.member.1.arn", "arn:aws:iam::123456789012:policy/nosuch"), 400, "MalformedPolicyDocument", ""},
		{"source identity that AWS keeps", "ana", assume("jobs/etl", "ab", "SourceIdentity", "aws:x"), 400, "ValidationError", ""},
		{"a tag without a key", "ana", assume("jobs/etl", "ab", "Tags.member.1.Value", "b"), 400, "ValidationError", constraint("tags.1.member.key", "not be null")},
		{"a tag with an empty key", "ana", assume("jobs/etl", "ab", "Tags.member.1.Key", "", "Tags.member.1.Value", "b"), 400, "ValidationError", constraint("tags.1.member.key", "have length greater than or equal to 1")},
		{"a tag without a value", "ana", assume("jobs/etl", "ab", "Tags.member.1.Key", "a", "Tags.member.1.Value", "b", "Tags.member.2.Key", "c"), 400, "ValidationError", constraint("tags.2.member.value", "not be null")},
		{"a tag that AWS keeps", "ana", assume("jobs/etl", "ab", "Tags.member.1.Key", "AWS:x", "Tags.member.1.Value", "b"), 400, "InvalidParameterValue", ""},
		{"a tag twice", "ana", assume("jobs/etl", "ab", "Tags.member.1.Key", "a", "Tags.member.1.Value", "", "Tags.member.2.Key", "A", "Tags.member.2.Value", ""), 400, "InvalidParameterValue",
			"Duplicate tag keys found. Please note that Tag keys are case insensitive."},
		{"a transitive key without a tag", "ana", assume("jobs/etl", "ab", "TransitiveTagKeys.member.1", "a"), 400, "InvalidParameterValue",
			"The specified transitive tag key must be included in the requested tags."},
		{"half an MFA", "ana", assume("jobs/etl", "ab", "TokenCode", "123456"), 403, "AccessDenied", "MultiFactorAuthentication failed, must provide both MFA serial number and one time pass code."},
		{"a code of letters", "ana", assume("jobs/etl", "ab", "SerialNumber", "arn:aws:iam::123456789012:mfa/ana", "TokenCode", "12345x"), 400, "ValidationError", ""},
		{"provided contexts", "ana", assume("jobs/etl", "ab", "ProvidedContexts.member.1.ProviderArn", "x"), 400, "ValidationError", ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			a := s.stsCall(longTerm(row.user), row.form...)
			if row.code == "" {
				if a.status != 200 {
					t.Errorf("got %d %s, want 200", a.status, a.body)
				}
				return
			}
			f := a.fault(t)
			if a.status != row.status || f.Code != row.code || row.message != "" && f.Message != row.message {
				t.Errorf("got %d %s %q\nwant %d %s %q", a.status, f.Code, f.Message, row.status, row.code, row.message)
			}
		})
	}
}

// Session policies only restrict; they never grant.
func TestSessionPolicies(t *testing.T) {
	s := newServer(t, withRoles(t))
	onlyBob := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["redshift:GetClusterCredentials","iam:*"],"Resource":"` + arn + `dbuser:*/bob"}]}`
	inline := s.stsCall(longTerm("ana"), assume("jobs/etl", "ab", "Policy", onlyBob)...).assumed(t)
	managed := s.stsCall(longTerm("ana"), assume("jobs/etl", "ab", "PolicyArns.member.1.arn", "arn:aws:iam::123456789012:policy/only-dev")...).assumed(t)
	if inline.Packed < 1 || managed.Packed < 1 {
		t.Errorf("PackedPolicySize is %d and %d, want more than nothing", inline.Packed, managed.Packed)
	}
	ask := func(keys aws.Credentials, user string) answer {
		return s.redshiftAs(keys, "Action", "GetClusterCredentials", "ClusterIdentifier", "examplecluster", "DbUser", user)
	}
	for _, row := range []struct {
		name   string
		keys   assumed
		user   string
		status int
	}{
		{"inline, bob", inline, "bob", 200}, {"inline, ana", inline, "ana", 403},
		{"managed, dev-x", managed, "dev-x", 200}, {"managed, bob", managed, "bob", 403},
	} {
		if a := ask(row.keys.keys(), row.user); a.status != row.status {
			t.Errorf("%s: got %d %s, want %d", row.name, a.status, a.body, row.status)
		} else if row.status == 403 && !strings.Contains(a.body, "because no session policy allows") {
			t.Errorf("%s: got %s, want the session policy named", row.name, a.body)
		}
	}
	// A managed policy that has been removed from the configuration allows nothing.
	spec := withRoles(t)
	spec.Policies = nil
	s.directory = build(t, spec)
	if a := ask(managed.keys(), "dev-x"); a.status != 403 {
		t.Errorf("without the managed policy: got %d %s, want 403", a.status, a.body)
	}
}

func TestSessionTags(t *testing.T) {
	byTag := policy(t, "tags", `{"Effect":"Allow","Action":"redshift:GetClusterCredentials","Resource":"`+arn+`dbuser:*/${aws:PrincipalTag/team}-${aws:PrincipalTag/stage}"},
		{"Effect":"Allow","Action":"sts:*","Resource":"*"}`)
	spec := withRoles(t)
	spec.Roles[0].Inline, spec.Roles[1].Inline = []*iam.Policy{byTag}, []*iam.Policy{byTag}
	s := newServer(t, spec)
	may := func(keys aws.Credentials, user string) bool {
		return s.redshiftAs(keys, "Action", "GetClusterCredentials", "ClusterIdentifier", "examplecluster", "DbUser", user).status == 200
	}
	plain := s.stsCall(longTerm("ana"), assume("jobs/etl", "ab")...).assumed(t)
	tagged := s.stsCall(longTerm("ana"), assume("jobs/etl", "ab", "Tags.member.1.Key", "TEAM", "Tags.member.1.Value", "red",
		"Tags.member.2.Key", "x", "Tags.member.2.Value", "y", "TransitiveTagKeys.member.1", "team")...).assumed(t)
	if !may(plain.keys(), "etl-test") || may(plain.keys(), "red-test") || !may(tagged.keys(), "red-test") || may(tagged.keys(), "etl-test") {
		t.Error("a session tag has to take the place of the role's, and only there")
	}
	// In the next session of the chain, the transitive tag is kept and replaces the role's
	// tag.
	next := s.stsCall(tagged.keys(), assume("next", "ab", "Tags.member.1.Key", "stage", "Tags.member.1.Value", "prod")...).assumed(t)
	if !may(next.keys(), "red-prod") || may(next.keys(), "next-prod") {
		t.Error("a transitive tag has to be there in the next session")
	}
	a := s.stsCall(tagged.keys(), assume("next", "ab", "Tags.member.1.Key", "Team", "Tags.member.1.Value", "blue")...)
	if f := a.fault(t); f.Code != "InvalidParameterValue" || !strings.Contains(f.Message, "conflicts with a transitive tag key from the calling session") {
		t.Errorf("an inherited tag given again: got %s", a.body)
	}
}

// Policies and sessions agree on whether two tag keys are the same. Unicode has more letters
// whose other case is s or k.
func TestTagKeysFoldAsPoliciesDo(t *testing.T) {
	spec := withRoles(t, directory.RoleSpec{Name: "guarded",
		Tags: map[string]string{"restricted": "yes", "Kind": "reader"},
		Inline: []*iam.Policy{policy(t, "p", `{"Effect":"Allow","Action":"*","Resource":"*"},
			{"Effect":"Deny","Action":"redshift:GetClusterCredentials","Resource":"*","Condition":{"StringEquals":{"aws:PrincipalTag/restricted":"yes"}}},
			{"Effect":"Deny","Action":"redshift:GetClusterCredentials","Resource":"*","Condition":{"StringNotEquals":{"aws:PrincipalTag/kind":"reader"}}}`)},
		Trust: trust(t, `{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:user/ana"},"Action":"sts:AssumeRole"},
			{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:user/ana"},"Action":"sts:TagSession","Condition":{
				"Null":{"aws:RequestTag/RedshiftDbGroups":"true","aws:RequestTag/restricted":"true","aws:RequestTag/kind":"true"}}}`)})
	s := newServer(t, spec)
	tags := func(list ...string) (form []string) {
		for i := 0; i < len(list); i += 2 {
			n := strconv.Itoa(i/2 + 1)
			form = append(form, "Tags.member."+n+".Key", list[i], "Tags.member."+n+".Value", list[i+1])
		}
		return form
	}
	const withIAM = "GetClusterCredentialsWithIAM"
	for _, row := range []struct {
		key, value string
		assumed    bool
	}{
		{"restricted", "no", false},
		{"RESTRICTED", "no", false},
		{"re\u017ftricted", "no", true},
		{"kind", "admin", false},
		{"\u212aind", "admin", true},
		{"RedshiftDbGroups", "admins", false},
		{"redshiftdbgroups", "admins", false},
		{"Red\u017fhiftDbGroups", "admins", true},
		{"Red\u017fhiftDbGroup\u017f", "admins", true},
	} {
		a := s.stsCall(longTerm("ana"), assume("guarded", "ab", tags(row.key, row.value)...)...)
		if a.status == 200 != row.assumed {
			t.Errorf("%q: got %d %s, want it allowed: %t", row.key, a.status, a.body, row.assumed)
		}
		if a.status != 200 {
			continue
		}
		keys := a.assumed(t).keys()
		if a := s.redshiftAs(keys, valid()...); a.status != 403 {
			t.Errorf("%q: the role's own tag does not count any more: got %d %s", row.key, a.status, a.body)
		}
		a = s.redshiftAs(keys, "Action", withIAM, "ClusterIdentifier", "examplecluster", "DbName", "dev")
		_, password, _ := strings.Cut(a.body, "<DbPassword>")
		password, _, _ = strings.Cut(password, "</DbPassword>")
		if grant, err := credential.Check(s.keyring.Verifier(), password, start); err != nil || len(grant.DBGroups) != 0 {
			t.Errorf("%q: the credential has the groups %q, %v, want none", row.key, grant.DBGroups, err)
		}
	}
	// Keys that policies treat as equal are the same tag; all other keys are different
	// tags.
	for _, row := range []struct {
		name string
		form []string
		want string // in the refusal
	}{
		{"two cases", tags("Büro", "a", "BÜRO", "b"), "Duplicate tag keys"},
		{"a long s and an s", tags("s", "a", "\u017f", "b"), ""},
		{"a Kelvin sign and a k", tags("k", "a", "\u212a", "b"), ""},
		{"transitive in another case", append(tags("Büro", "a"), "TransitiveTagKeys.member.1", "bÜRO"), ""},
		{"transitive with a Kelvin sign", append(tags("k", "a"), "TransitiveTagKeys.member.1", "\u212a"), "must be included in the requested tags"},
		{"a key that AWS keeps", tags("aWs:x", "a"), "aws:"},
	} {
		a := s.stsCall(longTerm("ana"), assume("jobs/etl", "ab", row.form...)...)
		if row.want == "" && a.status != 200 || row.want != "" && !strings.Contains(a.body, row.want) {
			t.Errorf("%s: got %d %s, want %q", row.name, a.status, a.body, row.want)
		}
	}
	// The same holds along the chain. A transitive key that is named twice is inherited
	// once.
	first := s.stsCall(longTerm("ana"), assume("jobs/etl", "ab", append(tags("Kind", "red"),
		"TransitiveTagKeys.member.1", "kind", "TransitiveTagKeys.member.2", "KIND")...)...).assumed(t)
	if a := s.stsCall(first.keys(), assume("next", "ab", tags("KIND", "blue")...)...); !strings.Contains(a.body, "conflicts with a transitive tag key") {
		t.Errorf("an inherited tag given again: got %d %s", a.status, a.body)
	}
	next := s.stsCall(first.keys(), assume("next", "ab", tags("\u212aind", "blue")...)...).assumed(t)
	opened, err := new(sts.Opener).Open(s.keyring, start, next.AccessKeyID, next.Token)
	if want := []sts.Tag{{Key: "Kind", Value: "red"}, {Key: "\u212aind", Value: "blue"}}; err != nil || !reflect.DeepEqual(opened.Tags, want) ||
		!reflect.DeepEqual(opened.Transitive, []string{"Kind"}) {
		t.Errorf("the next session has %+v, %v, want the tags %+v", opened, err, want)
	}
}

func TestChaining(t *testing.T) {
	s := newServer(t, withRoles(t))
	first := s.stsCall(longTerm("ana"), assume("jobs/etl", "ab", "SourceIdentity", "ana")...).assumed(t)
	f := s.stsCall(first.keys(), assume("next", "cd", "DurationSeconds", "3601")...).fault(t)
	if f.Code != "ValidationError" || f.Message != "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining." {
		t.Errorf("more than an hour: got %s %q", f.Code, f.Message)
	}
	next := s.stsCall(first.keys(), assume("next", "cd", "DurationSeconds", "3600")...).assumed(t)
	if next.Source != "ana" {
		t.Errorf("the source identity of the next session is %q, want ana", next.Source)
	}
	if f := s.stsCall(first.keys(), assume("next", "cd", "SourceIdentity", "eve")...).fault(t); f.Code != "AccessDenied" ||
		f.Message != "The source identity is already set for this assume role session" {
		t.Errorf("another source identity: got %s %q", f.Code, f.Message)
	}
	if f := s.stsCall(first.keys(), "Action", "GetSessionToken").fault(t); f.Code != "AccessDenied" {
		t.Errorf("GetSessionToken of a role session: got %s, want AccessDenied", f.Code)
	}
	// A call with the user's own key is not chaining, so twelve hours are allowed.
	spec := withRoles(t)
	spec.Roles[1].Trust = trust(t, `{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}`)
	s.directory = build(t, spec)
	s.stsCall(longTerm("ana"), assume("next", "cd", "DurationSeconds", "43200")...).assumed(t)
}

func TestGetSessionToken(t *testing.T) {
	spec := withRoles(t, directory.RoleSpec{Name: "strict", Trust: trust(t, `{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:user/ana"},
		"Action":"sts:AssumeRole","Condition":{"Bool":{"aws:MultiFactorAuthPresent":"true"},"NumericLessThan":{"aws:MultiFactorAuthAge":"3600"}}}`),
		Inline: []*iam.Policy{policy(t, "p", `{"Effect":"Allow","Action":"redshift:*","Resource":"*","Condition":{"Bool":{"aws:MultiFactorAuthPresent":"false"}}}`)}})
	spec.Users[1].Inline = append(spec.Users[1].Inline, policy(t, "mfa",
		`{"Effect":"Allow","Action":"redshift:*","Resource":"*","Condition":{"Bool":{"aws:MultiFactorAuthPresent":"true"}}}`))
	s := newServer(t, spec)
	const serial = "arn:aws:iam::123456789012:mfa/ana"
	plain := s.stsCall(longTerm("ana"), "Action", "GetSessionToken").assumed(t)
	if want := start.Truncate(time.Second).Add(12 * time.Hour); !plain.Expiration.Equal(want) {
		t.Errorf("Expiration is %v, want %v", plain.Expiration, want)
	}
	longest := s.stsCall(longTerm("ana"), "Action", "GetSessionToken", "DurationSeconds", "129600").assumed(t)
	s.now = longest.Expiration.Add(-time.Second)
	if a := s.stsCall(longest.keys(), "Action", "GetCallerIdentity"); a.status != 200 || !strings.Contains(a.body, "user/ana</Arn>") {
		t.Errorf("after a day and a half: got %d %s", a.status, a.body)
	}
	s.now = start
	withMFA := s.stsCall(longTerm("ana"), "Action", "GetSessionToken", "SerialNumber", serial, "TokenCode", code(start)).assumed(t)
	if strings.Contains(fmt.Sprintf("%+v", s.lastLine()), code(start)) {
		t.Error("the audit record has the one-time password in it")
	}
	for _, row := range []struct {
		name   string
		keys   aws.Credentials
		status int
	}{
		{"a long-term key", longTerm("ana"), 403},
		{"a session without MFA", plain.keys(), 403},
		{"a session with MFA", withMFA.keys(), 200},
	} {
		if a := s.redshiftAs(row.keys, valid()...); a.status != row.status {
			t.Errorf("%s may: got %d %s, want %d", row.name, a.status, a.body, row.status)
		}
		a := s.stsCall(row.keys, assume("strict", "ab")...)
		if a.status != row.status {
			t.Errorf("%s assumes: got %d %s, want %d", row.name, a.status, a.body, row.status)
		}
	}
	// The session of the role does not carry the MFA of the session that assumed it.
	strict := s.stsCall(withMFA.keys(), assume("strict", "ab")...).assumed(t)
	if a := s.redshiftAs(strict.keys(), valid()...); a.status != 200 {
		t.Errorf("the role's session: got %d %s, want MultiFactorAuthPresent to be false", a.status, a.body)
	}
	// A code that was accepted once is refused by AssumeRole too. The next code is
	// accepted.
	if f := s.stsCall(longTerm("ana"), assume("strict", "ab", "SerialNumber", serial, "TokenCode", code(start))...).fault(t); f.Code != "AccessDenied" ||
		f.Message != "MultiFactorAuthentication failed with invalid MFA one time pass code." {
		t.Errorf("a code used again: got %s %q", f.Code, f.Message)
	}
	if f := s.stsCall(longTerm("root"), "Action", "GetSessionToken", "SerialNumber", serial, "TokenCode", "000000").fault(t); !strings.Contains(f.Message, "unable to validate MFA code") {
		t.Errorf("another user's device: got %s %q", f.Code, f.Message)
	}
	s.now = start.Add(30 * time.Second)
	s.stsCall(longTerm("ana"), assume("strict", "ab", "SerialNumber", serial, "TokenCode", code(s.now))...).assumed(t)
	for _, action := range []string{"GetSessionToken", "GetAccessKeyInfo", "DecodeAuthorizationMessage"} {
		if f := s.stsCall(withMFA.keys(), "Action", action).fault(t); f.Code != "AccessDenied" {
			t.Errorf("%s with session credentials: got %s, want AccessDenied", action, f.Code)
		}
	}
}

// code returns the one-time password that ana's device shows.
func code(now time.Time) string {
	key, _ := base32.StdEncoding.DecodeString(mfaSeed)
	return totp(key, now)
}

// The caller who assumes a role chooses both the session policy and the headers. If a
// pattern and a header take too many steps to match, the call is refused, even if the
// pattern is in a Deny and everything else would be allowed.
func TestHostileSessionPolicy(t *testing.T) {
	s := newServer(t, withRoles(t))
	for name, tt := range map[string]struct {
		pattern, agent string
		want           int
	}{
		"a run of marks, which costs nothing": {"*" + strings.Repeat("?", 1000) + "b*c", "c" + strings.Repeat("a", 50000), 200},
		"the same, and it matches":            {"*" + strings.Repeat("?", 1000) + "b*c", strings.Repeat("a", 50000) + "bc", 403},
		"letters and marks":                   {"*" + strings.Repeat("a?", 500) + "b", "b" + strings.Repeat("a", 50000), 403},
	} {
		session := s.stsCall(longTerm("ana"), assume("jobs/etl", "hostile", "Policy", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"},
			{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"StringLike":{"aws:UserAgent":"`+tt.pattern+`"}}}]}`)...).assumed(t)
		form := []string{"Action", "GetClusterCredentials", "ClusterIdentifier", "examplecluster", "DbUser", "alice"}
		for i := range 45 {
			form = append(form, fmt.Sprintf("DbGroups.DbGroup.%d", i+1), fmt.Sprintf("g%d", i))
		}
		r := s.signedWith(session.keys(), "redshift", "POST", query("2012-12-01", form...))
		r.Header.Set("User-Agent", tt.agent)
		a := s.do(r)
		if a.status != tt.want {
			t.Errorf("%s: got %d %s, want %d", name, a.status, a.body, tt.want)
		}
		if name == "letters and marks" && (!strings.Contains(a.body, "takes too many steps") || s.lastLine().Decisions[0].Layer != "limit of steps") {
			t.Errorf("%s: got %s, audited as %+v", name, a.body, s.lastLine().Decisions)
		}
	}
}

// TestSlowBody: a call is decided with the time and the configuration of the moment at which its
// body has arrived, not of that at which it began.
func TestSlowBody(t *testing.T) {
	s := newServer(t, example(t))
	for name, row := range map[string]struct {
		meanwhile func()
		code      string
	}{
		"nothing":                {func() {}, ""},
		"the access key is gone": {func() { spec := example(t); spec.Users = spec.Users[1:]; s.directory = build(t, spec) }, "InvalidClientTokenId"},
		"time has passed":        {func() { s.now = start.Add(20 * time.Second) }, ""},
	} {
		s.now, s.directory = start, build(t, example(t))
		r := s.signed("root", "redshift", "POST", query("2012-12-01", valid()...))
		r.Body = &slowBody{r.Body, row.meanwhile}
		w := httptest.NewRecorder()
		api.New(s.config()).ServeHTTP(w, r)
		if row.code == "" && w.Code != 200 || row.code != "" && !strings.Contains(w.Body.String(), "<Code>"+row.code+"</Code>") {
			t.Errorf("%s: got %d %s, want %q", name, w.Code, w.Body, row.code)
		}
		if got := s.lastLine().Time; !got.Equal(s.now) {
			t.Errorf("%s: the line is of %v, want %v", name, got, s.now)
		}
	}
}

// slowBody is a body before whose first byte something happens.
type slowBody struct {
	io.ReadCloser
	meanwhile func()
}

func (b *slowBody) Read(p []byte) (int, error) {
	if b.meanwhile != nil {
		b.meanwhile()
		b.meanwhile = nil
	}
	return b.ReadCloser.Read(p)
}
