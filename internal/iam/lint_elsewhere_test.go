package iam_test

import (
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/iam"
)

// TestElsewhere: resources of another account or region than the server's are reported with the
// reason, and those with wildcards are not.
func TestElsewhere(t *testing.T) {
	for resource, want := range map[string]string{
		"arn:aws:redshift:us-east-1:123456789012:dbgroup:c/g": "",
		"arn:aws:redshift:*:*:dbgroup:c/g":                    "",
		"arn:*:redshift:us-*:12345678901?:dbgroup:c/g":        "",
		"arn:aws:redshift:*:dbgroup:c/g":                      "",
		"arn:aws:redshift:*":                                  "",
		"*":                                                   "",
		"arn:aws:s3:::bucket":                                 "",
		"arn:aws:iam::999999999999:role/etl":                  `the account is "999999999999"`,
		"arn:aws:iam::123456789012:role/etl":                  "",
		"arn:aws:iam:us-east-1:123456789012:role/etl":         `the region is "us-east-1" and that of this server ""`,
		"arn:aws:redshift:us-east-1:999999999999:dbgroup:c/g": `the account is "999999999999"`,
		"arn:aws:redshift:eu-west-1:123456789012:dbgroup:c/g": `the region is "eu-west-1" and that of this server "us-east-1"`,
		"arn:aws:daypass:us-east-1::cluster/c":                `the account is ""`,
	} {
		p, err := iam.ParsePolicy(iam.IdentityPolicy, "p", []byte(`{"Statement":{"Effect":"Allow","Action":"redshift:JoinGroup","Resource":"`+resource+`"}}`))
		if err != nil {
			t.Fatal(err)
		}
		got := p.Elsewhere(iam.Site{Partition: "aws", Region: "us-east-1", Account: "123456789012"})
		if len(got) > 1 || (len(got) == 1) != (want != "") || want != "" && !strings.Contains(got[0].Reason, want) {
			t.Errorf("%s: %v, want %q", resource, got, want)
		}
	}
}

// TestElsewhereClusters: an Allow for a cluster that the configuration does not have gets a warning with
// the nearest name. An empty text means no warning.
func TestElsewhereClusters(t *testing.T) {
	const (
		prefix = "arn:aws:redshift:us-east-1:123456789012:"
		none   = "the entry is for none of the clusters of this server "
		near   = none + "(is warehouse meant?)"
		list   = none + "(analytics, warehouse)"
	)
	site := iam.Site{Partition: "aws", Region: "us-east-1", Account: "123456789012", Clusters: []string{"analytics", "warehouse"}}
	for resource, want := range map[string]string{
		"*":                                         "",
		prefix + "*":                                "",
		prefix + "dbuser:*":                         "",
		prefix + "dbuser:*/ana":                     "",
		prefix + "dbuser:warehouse/*":               "",
		prefix + "dbuser:ware*/ana":                 "",
		prefix + "cluster:warehouse":                "",
		prefix + "cluster:*":                        "",
		prefix + "dbgroup:${aws:PrincipalTag/c}/g":  "",
		prefix + "dbgroup:x-${aws:PrincipalTag/c}":  "",
		prefix + "dbuser:warehouse/${aws:username}": "",
		"arn:aws:iam::123456789012:role/warehose":   "",
		"arn:aws:daypass:us-east-1:123456789012:principal/user/warehose":  "",
		"arn:aws:daypass:us-east-1:123456789012:dbuser/warehouse/IAM:ana": "",
		prefix + "dbname:warehose/*":                                      near,
		prefix + "dbuser:warehose/ana":                                    near,
		prefix + "dbuser:warehose/${aws:username}":                        near,
		prefix + "dbgroup:Warehouse/analysts":                             near,
		prefix + "cluster:warehose":                                       near,
		prefix + "dbname:warehose*/dev":                                   near,
		"arn:aws:redshift:*:*:dbname:warehose/dev":                        near,
		"arn:aws:redshift:*:dbname:warehose/dev":                          list, // the name stands behind a star for several parts
		"arn:aws:daypass:us-east-1:123456789012:cluster/warehose":         near,
		"arn:aws:daypass:us-east-1:123456789012:session/warehose/*":       near,
		"arn:aws:daypass:us-east-1:123456789012:dbuser/warehose/IAM:ana":  near,
		prefix + "dbname:sales/*":                                         list,
		prefix + "dbname:sales-*/*":                                       list,
		prefix + "dbname:warehouse-?/dev":                                 near,
		"arn:aws:redshift:us-east-1:999999999999:dbname:warehose/dev":     `the account is "999999999999"`,
	} {
		statement := `"Effect":"Allow","Action":"*","Resource":"` + resource + `"`
		p := mustParse(t, iam.IdentityPolicy, identity(statement))
		got := p.Elsewhere(site)
		if len(got) > 1 || (len(got) == 1) != (want != "") || want != "" && !strings.HasPrefix(got[0].Reason, want) {
			t.Errorf("%s: %v, want %q", resource, got, want)
		}
		// Where no clusters are known there is no such warning.
		for _, clusters := range [][]string{nil, {}} {
			unknown := site
			unknown.Clusters = clusters
			if got := p.Elsewhere(unknown); strings.HasPrefix(want, none) && len(got) > 0 {
				t.Errorf("%s without clusters: %v", resource, got)
			}
		}
		// An exception for a cluster that does not exist leaves out none.
		got = mustParse(t, iam.IdentityPolicy, identity(strings.Replace(statement, "Resource", "NotResource", 1))).Elsewhere(site)
		if want := strings.Replace(want, "the entry", "the exception", 1); want == "" && len(got) > 0 || strings.HasPrefix(want, "the exception") && (len(got) != 1 || !strings.HasPrefix(got[0].Reason, want)) {
			t.Errorf("NotResource %s: %v, want %q", resource, got, want)
		}
	}
	site.Clusters = nil
	for i := range 12 {
		site.Clusters = append(site.Clusters, "c"+strings.Repeat("0", i))
	}
	got := mustParse(t, iam.IdentityPolicy, identity(`"Effect":"Allow","Action":"*","Resource":"`+prefix+`dbname:warehouse/*"`)).Elsewhere(site)
	if len(got) != 1 || !strings.HasSuffix(got[0].Reason, " c000000000, …)") {
		t.Errorf("of twelve clusters: %v", got)
	}
}

// TestElsewherePrincipals: a principal of a trust policy that cannot call this server gets a warning,
// so that a misspelt one is noticed. An empty text means no warning.
func TestElsewherePrincipals(t *testing.T) {
	const here, other = "arn:aws:iam::123456789012:", "arn:aws:iam::999999999999:"
	site := iam.Site{Partition: "aws", Region: "us-east-1", Account: "123456789012", Principals: map[string]bool{
		here + "user/ana": true, here + "user/staff/bob": true, here + "role/jobs/etl": true, here + "oidc-provider/token.example.com": true,
		"arn:aws:sts::123456789012:assumed-role/etl/": true,
	}}
	const absent = "; it matches no one"
	for principal, want := range map[string]string{
		`"*"`:                                                          "",
		`{"AWS":"123456789012"}`:                                       "",
		`{"AWS":"` + here + `root"}`:                                   "",
		`{"AWS":"` + here + `user/ana"}`:                               "",
		`{"AWS":"` + here + `user/staff/bob"}`:                         "",
		`{"AWS":"` + here + `role/jobs/etl"}`:                          "",
		`{"Federated":"token.example.com"}`:                            "",
		`{"Federated":"` + here + `oidc-provider/token.example.com"}`:  "",
		`{"AWS":"arn:aws:sts::123456789012:assumed-role/etl/nightly"}`: "",
		`{"Service":"redshift.amazonaws.com"}`:                         "",
		`{"AWS":"999999999999"}`:                                       "the account 999999999999 is not that of this server",
		`{"AWS":"` + other + `user/ana"}`:                              "is of another account",
		`{"AWS":"arn:aws-cn:iam::123456789012:user/ana"}`:              "is of another partition",
		`{"AWS":"` + here + `user/anna"}`:                              "does not have " + here + "user/anna" + absent,
		`{"AWS":"` + here + `user/Ana"}`:                               "(is " + here + "user/ana meant?)" + absent,
		`{"AWS":"` + here + `user/bob"}`:                               "(is " + here + "user/staff/bob meant?)" + absent,
		`{"AWS":"` + here + `role/etl"}`:                               "(is " + here + "role/jobs/etl meant?)" + absent,
		`{"AWS":"` + here + `role/ana"}`:                               "does not have " + here + "role/ana" + absent,
		`{"AWS":"arn:aws:sts::123456789012:assumed-role/elt/nightly"}`: "does not have",
		`{"AWS":"arn:aws:sts::123456789012:federated-user/ana"}`:       "does not have",
		`{"Federated":"accounts.google.com"}`:                          "does not have accounts.google.com" + absent,
		`{"Federated":"` + here + `saml-provider/token.example.com"}`:  "does not have",
	} {
		for _, element := range []string{"Principal", "NotPrincipal"} {
			p := mustParse(t, iam.TrustPolicy, `{"Statement":{"Effect":"Deny","Action":"sts:*","`+element+`":`+principal+`}}`)
			got := p.Elsewhere(site)
			if len(got) > 1 || (len(got) == 1) != (want != "") || want != "" && !strings.Contains(got[0].Reason, want) {
				t.Errorf("%s %s: %v, want %q", element, principal, got, want)
			}
			if want != "" && len(got) == 1 && strings.HasPrefix(got[0].Reason, "this Deny can never match") != (element == "Principal") {
				t.Errorf("%s %s: %v", element, principal, got)
			}
			// A site whose principals are not known: no warning that one is missing.
			unknown := site
			unknown.Principals = nil
			if got := p.Elsewhere(unknown); strings.Contains(want, absent) && len(got) > 0 {
				t.Errorf("%s %s: %v, want none", element, principal, got)
			}
		}
	}
}

// TestServicesAsPrincipals: no AWS service calls this server, so a statement of a trust policy that names
// services alone gets a warning, also without a configuration.
func TestServicesAsPrincipals(t *testing.T) {
	const (
		one, two = `"redshift.amazonaws.com"`, `["ec2.amazonaws.com","lambda.amazonaws.com"]`
		here     = "arn:aws:iam::123456789012:"
		never    = "this Deny can never match and denies nothing: "
		warning  = "no AWS service calls this server; "
	)
	site := iam.Site{Partition: "aws", Region: "us-east-1", Account: "123456789012", Principals: map[string]bool{here + "user/ana": true}}
	for _, test := range []struct{ effect, element, principal, want, elsewhere string }{
		{"Allow", "Principal", `{"Service":` + one + `}`, warning + "the statement matches no one", ""},
		{"Allow", "Principal", `{"Service":` + two + `}`, warning + "the statement matches no one", ""},
		{"Deny", "Principal", `{"Service":` + one + `}`, never + warning, ""},
		{"Deny", "NotPrincipal", `{"Service":` + one + `}`, "", ""},
		{"Allow", "Principal", `{"Service":` + one + `,"AWS":"` + here + `user/ana"}`, "", ""},
		{"Allow", "Principal", `{"Service":` + one + `,"AWS":"123456789012"}`, "", ""},
		{"Deny", "Principal", `{"Service":` + one + `,"AWS":"*"}`, "", ""},
		{"Deny", "Principal", `{"Service":` + one + `,"AWS":"` + here + `user/ana"}`, "", ""},
		{"Deny", "Principal", `{"Service":` + one + `,"AWS":"` + here + `user/eve"}`, "", never + "the configuration does not have"},
	} {
		p := mustParse(t, iam.TrustPolicy, `{"Statement":{"Effect":"`+test.effect+`","Action":"sts:AssumeRole","`+test.element+`":`+test.principal+`}}`)
		for _, part := range []struct {
			got  []iam.Warning
			want string
		}{{p.Warnings(), test.want}, {p.Elsewhere(site), test.elsewhere}} {
			if len(part.got) > 1 || (len(part.got) == 1) != (part.want != "") || part.want != "" && !strings.HasPrefix(part.got[0].Reason, part.want) {
				t.Errorf("%+v: %v, want %q", test, part.got, part.want)
			}
		}
	}
}
