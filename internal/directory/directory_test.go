package directory_test

import (
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/iam"
)

func policy(t *testing.T, kind iam.Kind, name, document string) *iam.Policy {
	t.Helper()
	p, err := iam.ParsePolicy(kind, name, []byte(document))
	if err != nil {
		t.Fatalf("ParsePolicy(%s) = %v", name, err)
	}
	return p
}

func allowJoin(t *testing.T, name, group string) *iam.Policy {
	return policy(t, iam.IdentityPolicy, name, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow",
		"Action":"redshift:JoinGroup","Resource":"arn:aws:redshift:us-east-1:123456789012:dbgroup:c/`+group+`"}]}`)
}

func TestUserIsGivenWhatItsGroupsAndAttachedPoliciesAllow(t *testing.T) {
	d, err := directory.New(directory.Spec{
		Account:  "123456789012",
		Region:   "us-east-1",
		Policies: []directory.NamedPolicy{{Name: "finance", Policy: allowJoin(t, "finance", "finance")}},
		Groups:   []directory.GroupSpec{{Name: "analysts", Inline: []*iam.Policy{allowJoin(t, "analysts", "analysts")}}},
		Users: []directory.UserSpec{{
			Name:       "ana",
			Groups:     []string{"analysts"},
			Inline:     []*iam.Policy{allowJoin(t, "own", "own")},
			Attached:   []string{"finance"},
			AccessKeys: []directory.AccessKey{{ID: "AKIAIOSFODNN7EXAMPLE", Secret: "secret"}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	key, ok := d.AccessKey("AKIAIOSFODNN7EXAMPLE")
	if !ok || key.User.ARN != "arn:aws:iam::123456789012:user/ana" {
		t.Fatalf("AccessKey = %v, %v, want ana's", key, ok)
	}
	if id := key.User.ID; len(id) != 21 || !strings.HasPrefix(id, "AIDA") {
		t.Errorf("user id = %q, want AIDA and 17 characters", id)
	}
	for _, group := range []string{"analysts", "own", "finance", "other"} {
		d := key.User.Policies.Evaluate(&iam.Request{
			Action:   "redshift:JoinGroup",
			Resource: "arn:aws:redshift:us-east-1:123456789012:dbgroup:c/" + group,
			Context:  iam.NewContext(),
		})
		if got, want := d.Allowed(), group != "other"; got != want {
			t.Errorf("JoinGroup %s allowed = %v, want %v", group, got, want)
		}
	}
}

func TestReferencesThatLeadNowhere(t *testing.T) {
	for name, row := range map[string]struct {
		spec directory.Spec
		want string
	}{
		"unknown group":   {directory.Spec{Users: []directory.UserSpec{{Name: "ana", Groups: []string{"x"}}}}, `group "x" does not exist`},
		"unknown policy":  {directory.Spec{Users: []directory.UserSpec{{Name: "ana", Attached: []string{"x"}}}}, `attached policy "x" does not exist`},
		"user twice":      {directory.Spec{Users: []directory.UserSpec{{Name: "ana"}, {Name: "ana"}}}, `user "ana" is duplicated`},
		"key twice":       {directory.Spec{Users: []directory.UserSpec{{Name: "a", AccessKeys: []directory.AccessKey{{ID: "K"}}}, {Name: "b", AccessKeys: []directory.AccessKey{{ID: "K"}}}}}, `access key "K" is duplicated`},
		"device twice":    {directory.Spec{Users: []directory.UserSpec{{Name: "a", MFASeeds: []directory.MFADevice{{}, {}}}}}, `user "a": MFA device "arn:aws:iam:::mfa/a" is duplicated`},
		"device of two":   {directory.Spec{Users: []directory.UserSpec{{Name: "a", MFASeeds: []directory.MFADevice{{SerialNumber: "GAHT12345678"}}}, {Name: "b", MFASeeds: []directory.MFADevice{{SerialNumber: "GAHT12345678"}}}}}, `user "b": MFA device "GAHT12345678" is duplicated`},
		"cluster twice":   {directory.Spec{Clusters: []directory.Cluster{{Identifier: "c"}, {Identifier: "c"}}}, `cluster "c" is duplicated`},
		"domain twice":    {directory.Spec{Clusters: []directory.Cluster{{Identifier: "c", CustomDomains: []string{"w.example"}}, {Identifier: "d", CustomDomains: []string{"W.example."}}}}, `custom domain "W.example." is duplicated`},
		"role's policies": {directory.Spec{Roles: []directory.RoleSpec{{Name: "etl", Attached: []string{"x"}}}}, `role "etl": attached policy "x" does not exist`},
	} {
		if _, err := directory.New(row.spec); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: New = %v, want %q", name, err, row.want)
		}
	}
}

func TestClusterByDomain(t *testing.T) {
	d, err := directory.New(directory.Spec{Clusters: []directory.Cluster{
		{Identifier: "a", Host: "db.example.com", CustomDomains: []string{"warehouse.example.com"}},
		{Identifier: "b", Host: "db.example.com"},
		{Identifier: "c", Host: "localhost", ListenHost: "127.0.0.1"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{
		"warehouse.example.com":  "a",
		"Warehouse.Example.com.": "a",
		"127.0.0.1":              "c",
		"localhost":              "c",
		"db.example.com":         "", // two clusters: it cannot be told which
		"other.example.com":      "",
		"":                       "",
	} {
		got := ""
		if c, ok := d.ClusterByDomain(host); ok {
			got = c.Identifier
		}
		if shared := d.SharedAddress(host); shared != (host == "db.example.com") {
			t.Errorf("SharedAddress(%q) = %v", host, shared)
		}
		if got != want {
			t.Errorf("ClusterByDomain(%q) = %q, want %q", host, got, want)
		}
	}
}
