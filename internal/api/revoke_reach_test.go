package api_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/registry"
)

// A wider form of revocation does not get around a Deny for something that it reaches.
func TestWiderRevocationsRespectADeny(t *testing.T) {
	const arn = "arn:aws:daypass:us-east-1:123456789012:"
	deny := func(statement string) string {
		return `{"Effect":"Allow","Action":"*","Resource":"*"},{"Effect":"Deny","Action":"daypass:RevokeCredentials",` + statement + `}`
	}
	forms := map[string][]string{
		"all":        {"All", "true"},
		"user":       {"DbUser", "alice"},
		"cluster":    {"ClusterIdentifier", "Other"},
		"user at":    {"DbUser", "alice", "ClusterIdentifier", "Other"},
		"elsewhere":  {"ClusterIdentifier", "examplecluster"},
		"user there": {"DbUser", "alice", "ClusterIdentifier", "examplecluster"},
		"principal":  {"Principal", "arn:aws:iam::123456789012:user/ana"},
		"credential": {"CredentialId", credentialID(1)},
		"role":       {"Principal", "arn:aws:iam::123456789012:role/jobs/etl"},
		"session":    {"Principal", "arn:aws:sts::123456789012:assumed-role/etl/nightly"},
		"ana's":      {"DbUser", "IAM:ana"},
		"ana's at":   {"DbUser", "IAM:ana", "ClusterIdentifier", "examplecluster"},
		"ben's":      {"DbUser", "IAM:ben"},
		"etl's":      {"DbUser", "IAMR:etl"},
	}
	for n, row := range []struct {
		name, statements string
		denied           string // the forms, with commas
	}{
		{"no Deny", `{"Effect":"Allow","Action":"*","Resource":"*"}`, ""},
		{"a cluster", deny(`"Resource":"` + arn + `cluster/Other"`), "all,user,cluster,user at,principal,credential,role,session,ana's,ben's,etl's"},
		{"a cluster and its users", deny(`"Resource":["` + arn + `cluster/Other","` + arn + `dbuser/Other/*"]`), "all,user,cluster,user at,principal,credential,role,session,ana's,ben's,etl's"},
		{"the users of a cluster", deny(`"Resource":"` + arn + `dbuser/Other/*"`), "all,user,cluster,user at,ana's,ben's,etl's"},
		{"a cluster by its tag", deny(`"Resource":"*","Condition":{"StringEquals":{"aws:ResourceTag/env":"prod"}}`), "all,user,cluster,user at,principal,credential,role,session,ana's,ben's,etl's"},
		{"all but a cluster", deny(`"NotResource":["` + arn + `cluster/examplecluster","` + arn + `dbuser/examplecluster/*"]`), "all,user,cluster,user at,principal,credential,role,session,ana's,ben's,etl's"},
		{"a user of a cluster", deny(`"Resource":"` + arn + `dbuser/Other/alice"`), "all,user,cluster,user at"},
		{"a user of a cluster, anywhere", deny(`"Resource":"arn:aws:daypass:*:*:dbuser/Other/alice"`), "all,user,cluster,user at"},
		{"an identity of a cluster", deny(`"Resource":"arn:aws:daypass:*:*:dbuser/Other/IAM:ana"`), "all,cluster,ana's"},
		{"another user of a cluster", deny(`"Resource":"` + arn + `dbuser/Other/bob"`), "all,cluster"},
		{"a user everywhere", deny(`"Resource":"` + arn + `dbuser/*/bob"`), "all,cluster,elsewhere"},
		{"a principal", deny(`"Resource":"` + arn + `principal/user/boss"`), "all,cluster,elsewhere,user,user at,user there"},
		{"the principal that an identity is", deny(`"Resource":"` + arn + `principal/user/ana"`), "all,cluster,elsewhere,principal,ana's,ana's at,user,user at,user there"},
		{"a principal with a path", deny(`"Resource":"` + arn + `principal/user/staff/ben"`), "all,cluster,elsewhere,ben's,user,user at,user there"},
		{"a credential", deny(`"Resource":"` + arn + `credential/01JG3F5D4T0A1B2C3D4E5F6999"`), "all,cluster,elsewhere,user,user at,user there"},
		{"the form for clusters", deny(`"Resource":"` + arn + `cluster/*"`), "all,cluster,elsewhere"},
		{"all users", deny(`"Resource":"` + arn + `dbuser/*"`), "all,user,cluster,user at,elsewhere,user there,ana's,ana's at,ben's,etl's"},
		{"all principals", deny(`"Resource":"` + arn + `principal/*"`), "all,principal,role,session"},
		{"a role", deny(`"Resource":"` + arn + `principal/role/jobs/etl"`), "all,cluster,elsewhere,role,session,etl's,user,user at,user there"},
		{"a session of a role", deny(`"Resource":"` + arn + `principal/assumed-role/etl/nightly"`), "all,cluster,elsewhere,role,session,etl's,user,user at,user there"},
		{"another session of a role", deny(`"Resource":"` + arn + `principal/assumed-role/etl/daily"`), "all,cluster,elsewhere,role,etl's,user,user at,user there"},
		{"a session of another role", deny(`"Resource":"` + arn + `principal/assumed-role/other/nightly"`), "all,cluster,elsewhere,user,user at,user there"},
		{"all clusters but those with a tag", deny(`"Resource":"` + arn + `cluster/*","Condition":{"StringNotEquals":{"aws:ResourceTag/env":"dev"}}`), "all,user,cluster,user at,principal,credential,role,session,ana's,ben's,etl's"},
		{"the form for all", deny(`"Resource":"` + arn + `cluster/${*}"`), "all"},
		{"an Allow by tag", `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringNotEquals":{"aws:ResourceTag/env":"prod"}}}`, "all,user,cluster,user at,ana's,ben's,etl's"},
	} {
		for name, form := range forms {
			spec := withRoles(t)
			spec.Clusters[0].Tags = map[string]string{"env": "dev"}
			spec.Clusters[1].Tags = map[string]string{"env": "prod"}
			spec.Users = append(spec.Users, user("on", policy(t, "p", row.statements)), directory.UserSpec{Name: "ben", Path: "/staff/"})
			s := newSite(t, spec)
			a := s.call("on", append([]string{"Action", "RevokeCredentials"}, form...)...)
			want := 200
			if slices.Contains(strings.Split(row.denied, ","), name) {
				want = 403
			}
			if a.status != want {
				t.Errorf("%d. %s, %s: got %d %s, want %d", n, row.name, name, a.status, a.body, want)
			}
			if a.status == 403 {
				list, err := s.registry.Revocations(t.Context())
				if err != nil || len(list) != 0 {
					t.Errorf("%s, %s: refused, and in force: %v %v", row.name, name, list, err)
				}
				if strings.Contains(a.body, "Other") && !slices.Contains(form, "Other") {
					t.Errorf("%s, %s: the refusal names a cluster: %s", row.name, name, a.body)
				}
			}
		}
	}
}

// A caller who may list revocations does not see those of a cluster that is denied to them.
func TestRevocationsOfDeniedClusters(t *testing.T) {
	s := newSite(t, operators(t))
	for _, form := range [][]string{{"ClusterIdentifier", "Other"}, {"DbUser", "alice", "ClusterIdentifier", "Other"}, {"ClusterIdentifier", "examplecluster"}, {"DbUser", "bob"}} {
		if a := s.call("root", append([]string{"Action", "RevokeCredentials"}, form...)...); a.status != 200 {
			t.Fatal(a.body)
		}
	}
	for caller, want := range map[string]int{"root": 4, "almost": 2} {
		if a := s.call(caller, "Action", "ListRevocations"); strings.Count(a.body, "<Revocation>") != want {
			t.Errorf("%s sees %s, want %d", caller, a.body, want)
		}
	}
}

// TestRevokeNames: a name that no credential can have is refused, and any other is accepted,
// however long its ARN.
func TestRevokeNames(t *testing.T) {
	s := newSite(t, operators(t))
	for _, name := range []string{"al ice", "alice\n", "älice", strings.Repeat("a", 65), "IAM:", "IAM:a b", "-alice", "a'b", "a/b"} {
		s.refused(s.call("root", "Action", "RevokeCredentials", "DbUser", name), 400, "InvalidParameterValue", "DbUser")
	}
	const user = "arn:aws:iam::123456789012:user/"
	for _, principal := range []string{user + "a b", user + "ä", user + "ana\n", user + strings.Repeat("a", 2048)} {
		if a := s.call("root", "Action", "RevokeCredentials", "Principal", principal); a.status != 400 {
			t.Errorf("%.60q: %d %s, want 400", principal, a.status, a.body)
		}
	}
	if list, err := s.registry.Revocations(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("%d revocations, %v, want none", len(list), err)
	}
	long := user + strings.Repeat("p/", 255) + "ana"
	s.mu.Lock()
	s.sessions[0].Principal = long
	s.mu.Unlock()
	if a := s.call("root", "Action", "RevokeCredentials", "Principal", long); a.status != 200 || !strings.Contains(a.body, "<Sessions>1</Sessions>") {
		t.Errorf("an ARN of %d bytes: %d %s, want one session", len(long), a.status, a.body)
	}
}

// TestRevokeLimit: a principal can record a limited number of revocations. Beyond it, the error
// names a revocation that is always accepted.
func TestRevokeLimit(t *testing.T) {
	s := newSite(t, operators(t))
	for i := range registry.MaxByOne {
		if _, err := s.registry.Revoke(t.Context(), registry.Revocation{CredentialID: credentialID(i), RevokedBy: "arn:aws:iam::123456789012:user/root"}); err != nil {
			t.Fatal(err)
		}
	}
	s.refused(s.call("root", "Action", "RevokeCredentials", "CredentialId", "01JG3F5D4T0A1B2C3D4E5F7000"), 409, "LimitExceeded", "All are always taken")
	for _, form := range [][]string{{"ClusterIdentifier", "examplecluster"}, {"All", "true"}, {"CredentialId", credentialID(1)}} {
		if a := s.call("root", append([]string{"Action", "RevokeCredentials"}, form...)...); a.status != 200 {
			t.Errorf("%v: %d %s", form, a.status, a.body)
		}
	}
	if a := s.call("self", "Action", "RevokeCredentials", "Principal", "arn:aws:iam::123456789012:user/self"); a.status != 200 {
		t.Errorf("another caller: %d %s", a.status, a.body)
	}
}

// A revocation for an unknown name brings a warning, and is in force all the same.
func TestRevokingNobodyWarns(t *testing.T) {
	spec := withRoles(t)
	spec.Users = append(spec.Users, directory.UserSpec{Name: "ben", Path: "/staff/"})
	s := newSite(t, spec)
	credentials := func(user string) {
		if a := s.redshiftCall("root", "Action", "GetClusterCredentials", "ClusterIdentifier", "examplecluster", "DbUser", user); a.status != 200 {
			t.Fatal(a.body)
		}
	}
	credentials("carol")
	const iam, sts = "arn:aws:iam::123456789012:", "arn:aws:sts::123456789012:"
	for _, row := range []struct {
		form []string
		want string // in the warning; empty: none
	}{
		{[]string{"DbUser", "alice"}, ""},                               // has a session
		{[]string{"DbUser", "alice", "ClusterIdentifier", "Other"}, ""}, // the same
		{[]string{"DbUser", "carol"}, ""},                               // has a credential
		{[]string{"DbUser", "carol", "ClusterIdentifier", "Other"}, "in cluster Other"},
		{[]string{"DbUser", "Carol"}, "DbUser Carol is not known: this server has no session and no live credential"},
		{[]string{"DbUser", "nosuchuser"}, "in any cluster"},
		{[]string{"DbUser", "IAM:ana"}, ""},
		{[]string{"DbUser", "IAM:benn"}, "no such IAM user or IAM role"},
		{[]string{"DbUser", "IAMR:etl"}, ""},
		{[]string{"DbUser", "IAMR:ana"}, "no such IAM user or IAM role"},
		{[]string{"Principal", iam + "user/ana"}, ""},
		{[]string{"Principal", iam + "user/staff/ben"}, ""},
		{[]string{"Principal", iam + "user/staff/benn"}, "no such IAM user. Check the name; is " + iam + "user/staff/ben meant?"},
		{[]string{"Principal", iam + "user/ben"}, "no such IAM user"},
		{[]string{"Principal", iam + "user/somebody"}, "no such IAM user. Check the name"},
		{[]string{"Principal", iam + "role/jobs/etl"}, ""},
		{[]string{"Principal", iam + "role/jobs/etk"}, "is " + iam + "role/jobs/etl meant?"},
		{[]string{"Principal", sts + "assumed-role/etl/any"}, ""},
		{[]string{"Principal", sts + "assumed-role/nope/any"}, "no such IAM role"},
		{[]string{"CredentialId", credentialID(99)}, ""},
		{[]string{"ClusterIdentifier", "Other"}, ""},
		{[]string{"All", "true"}, ""},
	} {
		a := s.call("root", append([]string{"Action", "RevokeCredentials"}, row.form...)...)
		if a.status != 200 || strings.Contains(a.body, "<Warning>") != (row.want != "") || !strings.Contains(a.body, row.want) {
			t.Errorf("%q: got %d %s, want the warning %q", row.form, a.status, a.body, row.want)
		}
		list, err := s.registry.Revocations(t.Context())
		if err != nil || len(list) == 0 {
			t.Errorf("%q: not in force: %v", row.form, err)
		}
	}
	// A short credential does not make the server forget one that lives longer.
	for _, seconds := range []string{"3600", "900"} {
		if a := s.redshiftCall("root", "Action", "GetClusterCredentials", "ClusterIdentifier", "examplecluster", "DbUser", "dora", "DurationSeconds", seconds); a.status != 200 {
			t.Fatal(a.body)
		}
	}
	s.now = start.Add(30 * time.Minute)
	if a := s.call("root", "Action", "RevokeCredentials", "DbUser", "dora"); a.status != 200 || strings.Contains(a.body, "<Warning>") {
		t.Errorf("half of an hour's credential later: %d %s", a.status, a.body)
	}
	// Names whose credentials have expired are no longer known.
	s.now = start.Add(time.Hour)
	if a := s.call("root", "Action", "RevokeCredentials", "DbUser", "carol"); !strings.Contains(a.body, "carol is not known") {
		t.Errorf("an hour later: %s", a.body)
	}
}
