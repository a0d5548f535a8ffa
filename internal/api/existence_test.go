package api_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/iam"
)

// outsiders are callers who may not learn what exists, each with their statements.
var outsiders = map[string]string{
	"nothing":      ``,
	"aclusteronly": `{"Effect":"Allow","Action":"*","Resource":["arn:aws:redshift:*:*:*:Third","arn:aws:redshift:*:*:dbuser:Third/*","arn:aws:redshift:*:*:dbname:Third/*","arn:aws:daypass:*:*:cluster/Third","arn:aws:daypass:*:*:session/Third/*"]}`,
	"deniedbyname": `{"Effect":"Allow","Action":"*","Resource":"*"},{"Effect":"Deny","Action":["redshift:*","daypass:*"],"Resource":["arn:aws:redshift:*:*:*:examplecluster*","arn:aws:redshift:*:*:*:Other*","arn:aws:daypass:*:*:*/examplecluster*","arn:aws:daypass:*:*:*/Other*","arn:aws:daypass:*:*:session/examplecluster/*","arn:aws:daypass:*:*:session/Other/*"]}`,
	"denynoallow":  `{"Effect":"Deny","Action":["redshift:*","daypass:*"],"Resource":["arn:aws:redshift:*:*:dbuser:examplecluster/*","arn:aws:redshift:*:*:dbname:examplecluster/*","arn:aws:daypass:*:*:session/examplecluster/*"]}`,
	"deniedbytag":  `{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"StringLike":{"aws:ResourceTag/env":"*"}}}`,
	"allowedbytag": `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEquals":{"aws:ResourceTag/env":"other"}}}`,
	"untagged":     `{"Effect":"Allow","Action":"*","Resource":"*"},{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"StringLike":{"aws:ResourceTag/env":"*"}}}`,
}

// The answer about something that the caller may not see is the same as about something
// that does not exist: the same status, code, text and headers, except for the name.
func TestRefusalsDoNotTellWhatExists(t *testing.T) {
	spec := operators(t)
	spec.Clusters[0].Tags = map[string]string{"env": "prod"}
	spec.Clusters[1].Tags = map[string]string{"env": "test"}
	spec.Clusters[1].CustomDomains = []string{"b.example.com"}
	spec.Clusters = append(spec.Clusters, directory.Cluster{Identifier: "Third", Database: "x", Host: "third.example.com", Port: 5439})
	for i, name := range []string{"gw1", "gw2"} { // they share an address
		spec.Clusters = append(spec.Clusters, directory.Cluster{Identifier: name, Database: "x", Host: "gw.example.com", Port: 5439 + i})
	}
	for name, statements := range outsiders {
		var policies []*iam.Policy
		if statements != "" {
			policies = append(policies, policy(t, name, statements))
		}
		spec.Users = append(spec.Users, user(name, policies...))
	}
	spec.Roles = []directory.RoleSpec{{Name: "secret", Tags: map[string]string{"env": "prod"},
		Trust: trust(t, `{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:user/root"},"Action":"sts:AssumeRole"}`)}}
	s := newSite(t, spec)

	type pair struct {
		what          string
		there, absent string
		call          func(caller, name string) answer
		// but lists the callers who may know.
		but string
	}
	redshift := func(form ...string) func(caller, name string) answer {
		return func(caller, name string) answer {
			return s.redshiftCall(caller, with(form, "CustomDomainName", name)...)
		}
	}
	own := func(parameter string, form ...string) func(caller, name string) answer {
		return func(caller, name string) answer { return s.call(caller, with(form, parameter, name)...) }
	}
	var pairs []pair
	for _, domain := range []string{"warehouse.example.com", "b.example.com", "127.0.0.1", "other.example.com", "gw.example.com"} {
		pairs = append(pairs,
			pair{"GetClusterCredentials", domain, "no.example.com", redshift("Action", "GetClusterCredentials", "DbUser", "alice"), ""},
			pair{"GetClusterCredentials with more", domain, "no.example.com", redshift("Action", "GetClusterCredentials", "DbUser", "alice",
				"DbName", "dev", "AutoCreate", "true", "DbGroups.DbGroup.1", "g"), ""},
			pair{"GetClusterCredentialsWithIAM", domain, "no.example.com", redshift("Action", "GetClusterCredentialsWithIAM", "DbName", "dev"), ""},
			pair{"GetClusterCredentialsWithIAM without DbName", domain, "no.example.com", redshift("Action", "GetClusterCredentialsWithIAM"), ""})
	}
	pairs = append(pairs,
		pair{"TerminateSession", "SESSION0", "SESSION9", own("SessionId", "Action", "TerminateSession"), ""},
		pair{"TerminateSession", "SESSION2", "SESSION9", own("SessionId", "Action", "TerminateSession"), ""},
		// The ARN contains the identifier as it was given, so a caller who is allowed that ARN
		// may learn about it. No other caller learns of a tag.
		pair{"DescribeClusters", "Other", "Nonet", func(caller, name string) answer {
			return s.redshiftCall(caller, "Action", "DescribeClusters", "ClusterIdentifier", name)
		}, "untagged deniedbyname"},
		pair{"ListSessions", "Other", "Nonet", own("ClusterIdentifier", "Action", "ListSessions"), "untagged deniedbyname"},
		pair{"RevokeCredentials", "Other", "Nonet", own("ClusterIdentifier", "Action", "RevokeCredentials"), "untagged deniedbyname"},
		pair{"RevokeCredentials of a user", "Other", "Nonet", own("ClusterIdentifier", "Action", "RevokeCredentials", "DbUser", "alice"), "untagged deniedbyname"},
		pair{"AssumeRole", "secret", "absent", func(caller, name string) answer {
			return s.stsCall(longTerm(caller), assume(name, "abc")...)
		}, ""},
	)
	for _, p := range pairs {
		for caller := range outsiders {
			if strings.Contains(p.but, caller) {
				continue
			}
			there, absent := p.call(caller, p.there), p.call(caller, p.absent)
			if there.status != 403 || absent.status != 403 {
				t.Errorf("%s by %s: got %d %s for %s and %d %s for %s, want both refused", p.what, caller, there.status, there.body, p.there, absent.status, absent.body, p.absent)
				continue
			}
			if a, b := told(t, there, p.there), told(t, absent, p.absent); a != b {
				t.Errorf("%s by %s: %s is told from what does not exist:\n%s\n%s", p.what, caller, p.there, a, b)
			}
		}
	}
	if len(s.List()) != 3 {
		t.Error("a refused call ended a session")
	}
	// A caller who may see everything learns what exists.
	if f := s.redshiftCall("root", "Action", "GetClusterCredentials", "DbUser", "alice", "CustomDomainName", "gw.example.com").fault(t); f.Code != "InvalidParameterCombination" {
		t.Errorf("an address of several clusters: got %s %s", f.Code, f.Message)
	}
	if f := s.redshiftCall("root", "Action", "GetClusterCredentials", "DbUser", "alice", "CustomDomainName", "no.example.com").fault(t); f.Code != "ClusterNotFound" {
		t.Errorf("a domain of no cluster: got %s %s", f.Code, f.Message)
	}
	// The list of domains does not reveal the clusters' names either.
	a := s.redshiftCall("deniedbyname", "Action", "DescribeCustomDomainAssociations")
	if a.status != 200 || strings.Contains(a.body, "warehouse.example.com") || strings.Contains(a.body, "examplecluster") {
		t.Errorf("DescribeCustomDomainAssociations = %d %s, want no cluster that is denied", a.status, a.body)
	}
	if a := s.redshiftCall("deniedbyname", "Action", "DescribeCustomDomainAssociations", "CustomDomainName", "warehouse.example.com"); a.status != 404 {
		t.Errorf("DescribeCustomDomainAssociations = %d %s, want it not found", a.status, a.body)
	}
	if a := s.redshiftCall("root", "Action", "DescribeCustomDomainAssociations"); !strings.Contains(a.body, "warehouse.example.com") {
		t.Errorf("DescribeCustomDomainAssociations = %d %s", a.status, a.body)
	}
}

// told returns everything that an answer reveals, without the name and what differs in
// every answer.
func told(t *testing.T, a answer, name string) string {
	t.Helper()
	f := a.fault(t)
	var headers []string
	for key, values := range a.header {
		for _, v := range values {
			switch key {
			case "Date", "X-Amzn-Requestid":
			case "Content-Length":
				headers = append(headers, fmt.Sprint("length but for the name: ", len(a.body)-strings.Count(a.body, name)*len(name)))
			case "X-Daypass-Authorization-Message":
				headers = append(headers, fmt.Sprint("sealed: ", len(v)))
			default:
				headers = append(headers, key+": "+v)
			}
		}
	}
	slices.Sort(headers)
	return fmt.Sprintln(a.status, f.Code, strings.ReplaceAll(f.Message, name, "NAME")) + strings.Join(headers, "\n")
}
