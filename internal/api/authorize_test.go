package api_test

import (
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/directory"
)

const arn = "arn:aws:redshift:us-east-1:123456789012:"

// Each of the four checks refuses by itself and names its own resource.
func TestRefusals(t *testing.T) {
	const user = "User: arn:aws:iam::123456789012:user/ana is not authorized to perform: "
	const domainHint = ". If CustomDomainName is the address of several clusters, give ClusterIdentifier"
	none := func(action, resource string) string {
		return user + action + " on resource: " + arn + resource +
			" because no identity-based policy allows the " + action + " action"
	}
	s := newServer(t, example(t))
	base := []string{"Action", "GetClusterCredentials", "DbUser", "ana", "ClusterIdentifier", "examplecluster"}
	rows := []struct {
		name    string
		form    []string
		message string // empty: allowed
	}{
		{"her own", base, ""},
		{"with database", with(base, "DbName", "dev"), ""},
		{"with group", with(base, "DbGroups.DbGroup.1", "analysts"), ""},
		{"with AutoCreate", with(base, "AutoCreate", "true"), ""},
		{"without AutoCreate", with(base, "AutoCreate", "false"), ""},
		{"by custom domain", with(with(base, "ClusterIdentifier", absent), "CustomDomainName", "warehouse.example.com"), ""},
		{"another user", with(base, "DbUser", "bob"),
			none("redshift:GetClusterCredentials", "dbuser:examplecluster/bob")},
		{"herself in other letters", with(base, "DbUser", "Ana"),
			none("redshift:GetClusterCredentials", "dbuser:examplecluster/Ana")},
		{"a name with the prefix, refused before it is judged", with(base, "DbUser", "IAM:ana"),
			none("redshift:GetClusterCredentials", "dbuser:examplecluster/IAM:ana")},
		{"a name no database has, likewise", with(base, "DbUser", "1/2"),
			none("redshift:GetClusterCredentials", "dbuser:examplecluster/1/2")},
		{"another database", with(base, "DbName", "prod"),
			none("redshift:GetClusterCredentials", "dbname:examplecluster/prod")},
		{"a database without a name", with(base, "DbName", ""),
			none("redshift:GetClusterCredentials", "dbname:examplecluster/")},
		{"another group", with(base, "DbGroups.DbGroup.1", "finance"),
			none("redshift:JoinGroup", "dbgroup:examplecluster/finance")},
		{"one group of two", with(with(base, "DbGroups.DbGroup.1", "analysts"), "DbGroups.DbGroup.2", "finance"),
			none("redshift:JoinGroup", "dbgroup:examplecluster/finance")},
		{"another cluster", with(base, "ClusterIdentifier", "Other"),
			none("redshift:GetClusterCredentials", "dbuser:Other/ana")},
		{"a cluster that does not exist", with(base, "ClusterIdentifier", "nosuch"),
			none("redshift:GetClusterCredentials", "dbuser:nosuch/ana")},
		{"a custom domain of another cluster", with(with(base, "ClusterIdentifier", absent), "CustomDomainName", "other.example.com"),
			none("redshift:GetClusterCredentials", "dbuser:other.example.com/ana") + domainHint},
		{"a custom domain that does not exist", with(with(base, "ClusterIdentifier", absent), "CustomDomainName", "no.example.com"),
			none("redshift:GetClusterCredentials", "dbuser:no.example.com/ana") + domainHint},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			a := s.redshiftCall("ana", row.form...)
			if row.message == "" {
				if a.status != 200 {
					t.Errorf("got %d %s, want it allowed", a.status, a.body)
				}
				return
			}
			f := a.fault(t)
			if a.status != 403 || f.Code != "AccessDenied" || f.Message != row.message {
				t.Errorf("got %d %s %q\nwant 403 AccessDenied %q", a.status, f.Code, f.Message, row.message)
			}
		})
	}
}

// No spelling of a parameter gets past a statement about the value that the call uses.
func TestSpellings(t *testing.T) {
	spec := example(t)
	spec.Users = append(spec.Users, user("eve", policy(t, "p", `{"Effect":"Allow","Action":"redshift:*","Resource":"*"},
		{"Effect":"Deny","Action":"redshift:GetClusterCredentials*","Resource":"*","Condition":{"StringEquals":{"redshift:DurationSeconds":["900","3600"]}}},
		{"Effect":"Deny","Action":"redshift:*","Resource":["`+arn+`dbuser:*/admin","`+arn+`dbname:*/prod","`+arn+`dbgroup:*/owners"]},
		{"Effect":"Deny","Action":"redshift:CreateClusterUser","Resource":"*"}`)))
	s := newServer(t, spec)
	base := []string{"DbUser", "eve", "DbName", "dev", "ClusterIdentifier", "examplecluster", "DurationSeconds", "1800"}
	for _, row := range []struct {
		name, value string
		status      int // of GetClusterCredentials
		withIAM     int // 0: has no such parameter
	}{
		{"DurationSeconds", "3600", 403, 403},
		{"DurationSeconds", "03600", 403, 403},
		{"DurationSeconds", "000000000000003600", 403, 403},
		{"DurationSeconds", "0900", 403, 403},
		{"DurationSeconds", absent, 403, 403},
		{"DurationSeconds", "+3600", 400, 400},
		{"DurationSeconds", " 3600", 400, 400},
		{"DurationSeconds", "3600.0", 400, 400},
		{"DurationSeconds", "36e2", 400, 400},
		{"DurationSeconds", "0xe10", 400, 400},
		{"DurationSeconds", "3_600", 400, 400},
		{"DurationSeconds", "\u0663\u0666\u0660\u0660", 400, 400},
		{"DurationSeconds", "4294970896", 400, 400},
		{"DurationSeconds", "-0", 400, 400},
		{"DurationSeconds", "01800", 200, 200},
		{"DbUser", "admin", 403, 0},
		{"DbUser", "admin ", 400, 0},
		{"DbUser", "\u0430dmin", 400, 0},
		{"DbName", "prod", 403, 403},
		{"DbName", "prod\x00", 400, 400},
		{"DbGroups.DbGroup.1", "owners", 403, 0},
		{"DbGroups.member.1", "owners", 403, 0},
		{"DbGroups.DbGroup.1", "Owners", 400, 0},
		{"DbGroups.DbGroup.1", "owner\u017f", 400, 0},
		{"AutoCreate", "true", 403, 0},
		{"AutoCreate", "True", 403, 0},
		{"AutoCreate", "1", 403, 0},
		{"AutoCreate", "false", 200, 0},
	} {
		form := with(base, row.name, row.value)
		if a := s.redshiftCall("eve", with(form, "Action", "GetClusterCredentials")...); a.status != row.status {
			t.Errorf("GetClusterCredentials with %s=%q: got %d %s, want %d", row.name, row.value, a.status, a.body, row.status)
		}
		if row.withIAM == 0 {
			continue
		}
		if a := s.redshiftCall("eve", with(form, "Action", "GetClusterCredentialsWithIAM")...); a.status != row.withIAM {
			t.Errorf("GetClusterCredentialsWithIAM with %s=%q: got %d %s, want %d", row.name, row.value, a.status, a.body, row.withIAM)
		}
	}
}

// CreateClusterUser is required if AutoCreate is true, and also if it is neither true nor false.
func TestCreateClusterUser(t *testing.T) {
	spec := example(t)
	spec.Users = append(spec.Users, user("eve", policy(t, "p",
		`{"Effect":"Allow","Action":"redshift:GetClusterCredentials","Resource":"*"}`)))
	s := newServer(t, spec)
	base := []string{"Action", "GetClusterCredentials", "DbUser", "eve", "ClusterIdentifier", "examplecluster"}
	for value, status := range map[string]int{absent: 200, "false": 200, "true": 403, "TRUE": 403, "": 403} {
		if a := s.redshiftCall("eve", with(base, "AutoCreate", value)...); a.status != status {
			t.Errorf("AutoCreate=%q: got status %d %s, want %d", value, a.status, a.body, status)
		}
	}
}

// Condition keys of the request, one policy per row.
func TestConditionKeys(t *testing.T) {
	allow := func(condition string) string {
		return `{"Effect":"Allow","Action":"redshift:GetClusterCredentials","Resource":"*","Condition":` + condition + `},` +
			`{"Effect":"Allow","Action":["redshift:CreateClusterUser","redshift:JoinGroup"],"Resource":"*"}`
	}
	base := []string{"Action", "GetClusterCredentials", "DbUser", "eve", "ClusterIdentifier", "examplecluster"}
	rows := []struct {
		name       string
		statements string
		form       []string
		status     int
	}{
		{"DbUser", allow(`{"StringEquals":{"redshift:DbUser":"eve"}}`), base, 200},
		{"DbUser differs", allow(`{"StringEquals":{"redshift:DbUser":"ada"}}`), base, 403},
		{"DbUser is the plain name", allow(`{"StringEquals":{"redshift:DbUser":"${aws:username}"}}`), base, 200},
		{"DbName absent", allow(`{"StringEquals":{"redshift:DbName":"dev"}}`), base, 403},
		{"DbName", allow(`{"StringEquals":{"redshift:DbName":"dev"}}`), with(base, "DbName", "dev"), 200},
		{"DbName Null", allow(`{"Null":{"redshift:DbName":"true"}}`), with(base, "DbName", "dev"), 403},
		{"duration not given is 900", allow(`{"NumericLessThanEquals":{"redshift:DurationSeconds":"900"}}`), base, 200},
		{"duration", allow(`{"NumericLessThanEquals":{"redshift:DurationSeconds":"1800"}}`), with(base, "DurationSeconds", "1801"), 403},
		{"duration as text", allow(`{"StringEquals":{"redshift:DurationSeconds":"1800"}}`), with(base, "DurationSeconds", "1800"), 200},
		{"duration with a nought before it", allow(`{"StringEquals":{"redshift:DurationSeconds":"1800"}}`), with(base, "DurationSeconds", "01800"), 200},
		{"duration that is no number, refused before it is judged", allow(`{"StringEquals":{"redshift:DurationSeconds":"900"}}`), with(base, "DurationSeconds", "9e2"), 403},
		{"username", allow(`{"StringEquals":{"aws:username":"eve"}}`), base, 200},
		{"userid", allow(`{"StringLike":{"aws:userid":"AIDA*"}}`), base, 200},
		{"PrincipalArn", allow(`{"ArnEquals":{"aws:PrincipalArn":"arn:aws:iam::123456789012:user/eve"}}`), base, 200},
		{"PrincipalAccount", allow(`{"StringEquals":{"aws:PrincipalAccount":"123456789012"}}`), base, 200},
		{"PrincipalType", allow(`{"StringEquals":{"aws:PrincipalType":"User"}}`), base, 200},
		{"PrincipalTag", allow(`{"StringEquals":{"aws:PrincipalTag/Team":"data"}}`), base, 200},
		{"ResourceTag of the cluster", allow(`{"StringEquals":{"aws:ResourceTag/env":"test"}}`), base, 200},
		{"ResourceTag of another cluster", allow(`{"StringEquals":{"aws:ResourceTag/env":"test"}}`), with(base, "ClusterIdentifier", "Other"), 403},
		{"SourceIp", allow(`{"IpAddress":{"aws:SourceIp":"127.0.0.0/8"}}`), base, 200},
		{"SecureTransport", allow(`{"Bool":{"aws:SecureTransport":"true"}}`), base, 403},
		{"CurrentTime", allow(`{"DateLessThan":{"aws:CurrentTime":"2026-01-02T03:04:06Z"}}`), base, 200},
		{"CurrentTime has passed", allow(`{"DateLessThan":{"aws:CurrentTime":"2026-01-02T03:04:05Z"}}`), base, 403},
		{"EpochTime", allow(`{"NumericGreaterThanEquals":{"aws:EpochTime":"1767323045"}}`), base, 200},
		{"RequestedRegion", allow(`{"StringEquals":{"aws:RequestedRegion":"us-east-1"}}`), base, 200},
		{"UserAgent", allow(`{"StringLike":{"aws:UserAgent":"Go-http-client/*"}}`), base, 200},
		{"no token, no MultiFactorAuthPresent", allow(`{"Null":{"aws:MultiFactorAuthPresent":"true","aws:TokenIssueTime":"true"}}`), base, 200},
		{"JoinGroup has no keys of its own",
			`{"Effect":"Allow","Action":"redshift:*","Resource":"*"},
			 {"Effect":"Deny","Action":"redshift:JoinGroup","Resource":"*","Condition":{"Null":{"redshift:DbUser":"false"}}}`,
			with(base, "DbGroups.DbGroup.1", "g"), 200},
		{"CreateClusterUser has DbUser only",
			`{"Effect":"Allow","Action":"redshift:GetClusterCredentials","Resource":"*"},
			 {"Effect":"Allow","Action":"redshift:CreateClusterUser","Resource":"*","Condition":{
				"StringEquals":{"redshift:DbUser":"eve"},"Null":{"redshift:DbName":"true","redshift:DurationSeconds":"true"}}}`,
			with(with(base, "DbName", "dev"), "AutoCreate", "true"), 200},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			spec := example(t)
			spec.Users = append(spec.Users, user("eve", policy(t, "p", row.statements)))
			s := newServer(t, spec)
			if a := s.redshiftCall("eve", row.form...); a.status != row.status {
				t.Errorf("got %d %s, want %d", a.status, a.body, row.status)
			}
		})
	}
}

// TestExplicitDeny: the answer and the audit line say which policy decided: a Deny beats an Allow,
// and a boundary limits it.
func TestExplicitDeny(t *testing.T) {
	spec := example(t)
	spec.Users = append(spec.Users,
		user("eve", policy(t, "broad", `{"Effect":"Allow","Action":"redshift:*","Resource":"*"}`),
			policy(t, "not-finance", `{"Sid":"NoFinance","Effect":"Deny","Action":"redshift:JoinGroup","Resource":"`+arn+`dbgroup:*/finance"}`)))
	bounded := user("max", policy(t, "broad", `{"Effect":"Allow","Action":"redshift:*","Resource":"*"}`))
	bounded.Boundary = policy(t, "boundary", `{"Effect":"Allow","Action":"redshift:Describe*","Resource":"*"}`)
	spec.Users = append(spec.Users, bounded)
	s := newServer(t, spec)

	f := s.redshiftCall("eve", valid("DbGroups.DbGroup.2", "finance")...).fault(t)
	want := "User: arn:aws:iam::123456789012:user/eve is not authorized to perform: redshift:JoinGroup on resource: " +
		arn + "dbgroup:examplecluster/finance with an explicit deny in an identity-based policy"
	if f.Code != "AccessDenied" || f.Message != want {
		t.Errorf("got %s %q, want %q", f.Code, f.Message, want)
	}
	decisions := s.lastLine().Decisions
	last := decisions[len(decisions)-1]
	if len(decisions) != 4 || last.Effect != "Deny" || last.Policy != "not-finance" || last.Sid != "NoFinance" {
		t.Errorf("the audit line has the decisions %+v, want the fourth to be the Deny NoFinance of not-finance", decisions)
	}

	f = s.redshiftCall("max", valid()...).fault(t)
	want = "User: arn:aws:iam::123456789012:user/max is not authorized to perform: redshift:GetClusterCredentials on resource: " +
		arn + "dbuser:examplecluster/alice because no permissions boundary allows the redshift:GetClusterCredentials action"
	if f.Code != "AccessDenied" || f.Message != want {
		t.Errorf("got %s %q, want %q", f.Code, f.Message, want)
	}
}

// A caller who may list all clusters does not see those that a Deny names.
func TestDescribeClustersByPermission(t *testing.T) {
	spec := example(t)
	spec.Users = append(spec.Users,
		user("one", policy(t, "p", `{"Effect":"Allow","Action":"redshift:DescribeClusters","Resource":"`+arn+`cluster:examplecluster"}`)),
		user("most", policy(t, "p", `{"Effect":"Allow","Action":"redshift:DescribeClusters","Resource":"*"},
			{"Effect":"Deny","Action":"redshift:DescribeClusters","Resource":"`+arn+`cluster:Other"}`)))
	s := newServer(t, spec)
	rows := []struct {
		user, cluster string
		status        int
		message       string // of the refusal
	}{
		{"one", "examplecluster", 200, ""},
		{"one", absent, 403, "User: arn:aws:iam::123456789012:user/one is not authorized to perform: redshift:DescribeClusters on resource: " +
			arn + "cluster:* because no identity-based policy allows the redshift:DescribeClusters action"},
		{"one", "Other", 403, "User: arn:aws:iam::123456789012:user/one is not authorized to perform: redshift:DescribeClusters on resource: " +
			arn + "cluster:Other because no identity-based policy allows the redshift:DescribeClusters action"},
		{"root", "nosuch", 404, "Cluster nosuch not found."},
		{"most", absent, 200, ""},
	}
	for _, row := range rows {
		a := s.redshiftCall(row.user, with([]string{"Action", "DescribeClusters"}, "ClusterIdentifier", row.cluster)...)
		if a.status != row.status || row.message != "" && a.fault(t).Message != row.message {
			t.Errorf("%s asks for %q: got %d %s, want %d %s", row.user, row.cluster, a.status, a.body, row.status, row.message)
		}
		if row.status == 200 && (!contains(a.body, "examplecluster") || contains(a.body, "Other")) {
			t.Errorf("%s asks for %q: got %s, want examplecluster and not Other", row.user, row.cluster, a.body)
		}
	}
}

func contains(body, identifier string) bool {
	return strings.Contains(body, "<ClusterIdentifier>"+identifier+"</ClusterIdentifier>")
}

// GetCallerIdentity is for everyone who can sign, even against a Deny.
func TestGetCallerIdentityNeedsNoPermission(t *testing.T) {
	spec := directory.Spec{Users: []directory.UserSpec{
		user("eve", policy(t, "p", `{"Effect":"Deny","Action":"*","Resource":"*"}`))}}
	s := newServer(t, spec)
	a := s.do(s.signed("eve", "sts", "POST", query("2011-06-15", "Action", "GetCallerIdentity")))
	if a.status != 200 {
		t.Errorf("got %d %s, want 200", a.status, a.body)
	}
}
