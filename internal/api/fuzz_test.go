package api_test

import (
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/directory"
)

// FuzzCall signs its input and sends it as a call of each service. Each call gets an answer in
// AWS XML and a record, and never an error that blames the server.
func FuzzCall(f *testing.F) {
	for _, form := range [][]string{valid(), {"Action", "DescribeClusters", "MaxRecords", "20", "TagKeys.TagKey.1", "env"},
		{"Action", "DescribeCustomDomainAssociations", "CustomDomainName", "x"}, {"Action", "GetClusterCredentialsWithIAM", "ClusterIdentifier", "x"}} {
		f.Add(query("2012-12-01", form...))
	}
	for _, form := range [][]string{{"Action", "GetCallerIdentity"}, {"Action", "GetSessionToken", "DurationSeconds", "900"},
		assume("jobs/etl", "ab", "Tags.member.1.Key", "a", "Tags.member.1.Value", "b", "TransitiveTagKeys.member.1", "a", "Policy", "{}"),
		{"Action", "AssumeRoleWithWebIdentity", "RoleArn", roleARN + "etl", "RoleSessionName", "ab", "WebIdentityToken", "a.b.c"},
		{"Action", "DecodeAuthorizationMessage", "EncodedMessage", "AAAA"}, {"Action", "GetAccessKeyInfo", "AccessKeyId", keyOf("ana")}} {
		f.Add(query("2011-06-15", form...))
	}
	f.Add(query("2010-05-08", "Action", "SimulateCustomPolicy", "PolicyInputList.member.1", "{}", "ActionNames.member.1", "a:b",
		"ContextEntries.member.1.ContextKeyName", "a", "ContextEntries.member.1.ContextKeyType", "string", "Marker", "MQ"))
	s := newServer(f, withRoles(f, directory.RoleSpec{Name: "x", Trust: trust(f, `{"Effect":"Allow","Principal":"*","Action":"sts:*"}`)}))
	s.silent = true
	f.Fuzz(func(t *testing.T, body string) {
		s := &server{t: t, url: s.url, now: s.now} // a failure is this input's
		for _, service := range []string{"redshift", "sts", "iam"} {
			a := s.do(s.signed("root", service, "POST", body))
			switch {
			case a.status >= 500:
				t.Errorf("%s: %q: got %d %s", service, body, a.status, a.body)
			case a.status >= 400:
				if f := a.fault(t); f.Code == "" || f.RequestID == "" {
					t.Errorf("%s: %q: got %s", service, body, a.body)
				}
			case !strings.HasSuffix(a.body, "Response>"):
				t.Errorf("%s: %q: got %s", service, body, a.body)
			}
		}
	})
}
