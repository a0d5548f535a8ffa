package iam_test

import (
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/iam"
)

// Each row is one statement and the warnings it has, by a part of their text.
func TestWarnings(t *testing.T) {
	const (
		get     = `"Effect":"Allow","Action":"redshift:GetClusterCredentials",`
		join    = `"Effect":"Allow","Action":"redshift:JoinGroup",`
		prefix  = `arn:aws:redshift:us-east-1:123456789012:`
		anyUser = `"` + prefix + `dbuser:c/*"`
		dev     = `"` + prefix + `dbname:c/dev"`
		group   = `"Resource":"` + prefix + `dbgroup:c/g"`
	)
	when := func(condition string) string {
		return `"Effect":"Allow","Action":"s3:*","Resource":"*","Condition":` + condition
	}
	const s3 = "the service s3 is not served here"
	for _, tt := range []struct {
		name      string
		kind      iam.Kind
		statement string
		want      []string
	}{
		{"nothing", 0, join + group, nil},
		{"nothing on stars", 0, `"Effect":"Allow","Action":"redshift:*","Resource":"*"`, nil},
		// The call need not name a database.
		{"dbname in an Allow", 0, get + `"Resource":[` + anyUser + `,` + dev + `]`, []string{"without DbName"}},
		{"dbname, the action by wildcard", 0, `"Effect":"Allow","Action":"redshift:Get*","Resource":[` + anyUser + `,` + dev + `]`, []string{"without DbName"}},
		{"dbname, users by an open star", 0, get + `"Resource":["` + prefix + `*",` + dev + `]`, []string{"without DbName"}},
		{"every dbname", 0, get + `"Resource":[` + anyUser + `,"` + prefix + `dbname:*/*"]`, nil},
		{"dbname and no user", 0, get + `"Resource":` + dev, nil},
		{"dbname with the condition", 0, get + `"Resource":[` + anyUser + `,` + dev + `],"Condition":{"StringEquals":{"redshift:DbName":"dev"}}`, nil},
		{"dbname with Null false", 0, get + `"Resource":[` + anyUser + `,` + dev + `],"Condition":{"Null":{"redshift:DbName":"false"}}`, nil},
		{"dbname with IfExists", 0, get + `"Resource":[` + anyUser + `,` + dev + `],"Condition":{"StringEqualsIfExists":{"redshift:DbName":"dev"}}`, []string{"without DbName"}},
		{"dbname with a negated operator", 0, get + `"Resource":[` + anyUser + `,` + dev + `],"Condition":{"StringNotEquals":{"redshift:DbName":"prod"}}`, []string{"without DbName"}},
		{"dbname in a Deny", 0, `"Effect":"Deny","Action":"redshift:GetClusterCredentials","Resource":"` + prefix + `dbname:c/prod"`, []string{"without DbName"}},
		{"dbname with a Deny beside", 0, get + `"Resource":[` + anyUser + `,` + dev + `]},{"Effect":"Deny","Action":"redshift:*","Resource":"*","Condition":{"Null":{"redshift:DbName":"true"}}`, nil},
		{"dbname in another statement", 0, `"Sid":"Own",` + get + `"Resource":"` + prefix + `dbuser:c/${aws:username}"},{` + get + `"Resource":` + dev, []string{"without DbName this is not checked: Own gives credentials"}},
		{"dbname in a statement before", 0, get + `"Resource":` + dev + `},{` + get + `"Resource":` + anyUser, []string{"Statement[1] gives credentials"}},
		{"dbname in another statement, with the condition", 0, get + `"Resource":` + dev + `},{` + get + `"Resource":` + anyUser + `,"Condition":{"StringEquals":{"redshift:DbName":"dev"}}`, nil},
		{"the condition in the wrong statement", 0, get + `"Resource":` + dev + `,"Condition":{"StringEquals":{"redshift:DbName":"dev"}}},{` + get + `"Resource":` + anyUser, []string{"Statement[1] gives credentials"}},
		{"dbname in another statement, with a Deny", 0, get + `"Resource":` + dev + `},{` + get + `"Resource":` + anyUser + `},{"Effect":"Deny","Action":"redshift:*","Resource":"*","Condition":{"Null":{"redshift:DbName":"true"}}`, nil},
		{"dbname of another cluster", 0, get + `"Resource":` + dev + `},{` + get + `"Resource":"` + prefix + `dbuser:d/*"`, nil},
		{"dbname of any cluster", 0, get + `"Resource":"` + prefix + `dbname:*/dev"},{` + get + `"Resource":"` + prefix + `dbuser:d/*"`, []string{"Statement[1] gives credentials"}},
		{"a user of one action, a database of another", 0, get + `"Resource":` + dev + `},{"Effect":"Allow","Action":"redshift:CreateClusterUser","Resource":` + anyUser, nil},
		{"every database, meant", 0, get + `"Resource":` + dev + `},{"Effect":"Allow","Action":"*","Resource":"*"`, nil},
		{"every database under a condition", 0, get + `"Resource":` + dev + `},{` + get + `"Resource":[` + anyUser + `,"` + prefix + `dbname:c/*"],"Condition":{"IpAddress":{"aws:SourceIp":"192.0.2.1"}}`, nil},
		{"every database beside", 0, get + `"Resource":` + dev + `},{` + get + `"Resource":` + anyUser + `},{` + get + `"Resource":"` + prefix + `dbname:c/*"`, nil},
		{"our own dbuser", 0, get + `"Resource":` + dev + `},{"Effect":"Allow","Action":["redshift:GetClusterCredentials","daypass:RevokeCredentials"],"Resource":"arn:aws:daypass:us-east-1:123456789012:dbuser/c/*"`, []string{"no resource of the statement is for redshift:GetClusterCredentials"}},
		{"all but a dbname", 0, `"Effect":"Allow","Action":"redshift:*","NotResource":"` + prefix + `dbname:c/secret"`, []string{"without DbName"}},
		{"a Deny of all but a dbname", 0, `"Effect":"Deny","Action":"redshift:GetClusterCredentials","NotResource":[` + anyUser + `,` + dev + `]`, []string{"without DbName"}},
		{"all but an action", 0, `"Effect":"Allow","NotAction":"sts:*","Resource":[` + anyUser + `,` + dev + `]`, []string{"without DbName"}},
		// Condition keys.
		{"JoinGroup has no keys", 0, join + group + `,"Condition":{"StringEquals":{"redshift:DbUser":"ana"}}`, []string{"redshift:JoinGroup does not have the condition key redshift:DbUser; the condition never holds"}},
		{"JoinGroup, negated", 0, join + group + `,"Condition":{"StringNotEquals":{"redshift:DbUser":"ana"}}`, []string{"the condition always holds"}},
		{"CreateClusterUser has DbUser only", 0, `"Effect":"Allow","Action":"redshift:CreateClusterUser","Resource":` + anyUser + `,"Condition":{"StringEquals":{"redshift:DbUser":"a","redshift:DbName":"d"}}`, []string{"redshift:CreateClusterUser does not have the condition key redshift:DbName"}},
		{"a wildcard action", 0, `"Effect":"Allow","Action":"redshift:*","Resource":"*","Condition":{"StringEquals":{"redshift:DbUser":"ana"}}`, nil},
		{"a key that no action has", 0, join + group + `,"Condition":{"StringEquals":{"redshift:User":"ana"}}`, []string{"no action has the condition key redshift:User"}},
		{"a global key", 0, join + group + `,"Condition":{"StringEquals":{"aws:PrincipalTag/team":"x"}}`, nil},
		{"a global key that is not filled", 0, join + group + `,"Condition":{"StringEquals":{"aws:SourceVpc":"x"}}`, []string{"does not fill the key aws:SourceVpc"}},
		{"a key of a provider", 0, join + group + `,"Condition":{"StringEquals":{"token.example.com:sub":"x"}}`, nil},
		{"sts keys", 0, `"Effect":"Allow","Action":"sts:AssumeRole","Resource":"arn:aws:iam::123456789012:role/etl","Condition":{"StringEquals":{"sts:ExternalId":"x"}}`, nil},
		{"a tag without its key", 0, join + group + `,"Condition":{"StringEquals":{"aws:PrincipalTag/":"x"}}`, []string{"does not fill the key aws:PrincipalTag/; the condition never holds"}},
		{"a key misspelt", 0, join + group + `,"Condition":{"StringEquals":{"aws:usrname":"x"}}`, []string{"aws:usrname (is aws:username meant?); the condition never holds"}},
		// Variables.
		{"a variable", 0, join + `"Resource":"` + prefix + `dbgroup:c/${aws:username}"`, nil},
		{"a variable misspelt", 0, join + `"Resource":"` + prefix + `dbgroup:c/${aws:usrname}"`, []string{"aws:usrname (is aws:username meant?); the variable has no value"}},
		{"a variable misspelt, in a Deny", 0, `"Effect":"Deny","Action":"redshift:JoinGroup","Resource":"` + prefix + `dbgroup:c/${aws:usrname}"`, []string{"the variable has no value"}},
		{"a variable with a default", 0, join + `"Resource":"` + prefix + `dbgroup:c/${aws:SourceVpc, 'x'}"`, []string{"aws:SourceVpc; the variable always stands for its default"}},
		{"a variable without a service", 0, join + `"Resource":"` + prefix + `dbgroup:c/${username}"`, []string{"username is no condition key"}},
		{"a variable of a tag without its key", 0, join + `"Resource":"` + prefix + `dbgroup:c/${aws:PrincipalTag/}"`, []string{"aws:PrincipalTag/; the variable has no value"}},
		{"a variable of a provider", 0, join + `"Resource":"` + prefix + `dbgroup:c/${token.example.com:sub}"`, nil},
		{"a variable of the action", 0, get + `"Resource":"` + prefix + `dbuser:c/${redshift:DbUser}"`, nil},
		{"a variable of another action", 0, join + `"Resource":"` + prefix + `dbgroup:c/${redshift:DbUser}"`, []string{"redshift:JoinGroup does not have the condition key redshift:DbUser; the variable has no value"}},
		{"a variable of no action", 0, join + `"Resource":"` + prefix + `dbgroup:c/${redshift:User}"`, []string{"no action has the condition key redshift:User; the variable has no value"}},
		{"a literal", 0, join + `"Resource":"` + prefix + `dbgroup:c/${*}"`, nil},
		{"a variable in a condition", 0, join + group + `,"Condition":{"StringLike":{"aws:userid":"*:${aws:usrname}"},"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::123456789012:user/${aws:usrname}"}}`, []string{"the variable has no value", "is aws:username meant"}},
		// Actions.
		{"misspelt", 0, `"Effect":"Allow","Action":"redshift:GetClusterCredential","Resource":"*"`, []string{"is redshift:GetClusterCredentials meant?"}},
		{"unknown", 0, `"Effect":"Allow","Action":"redshift:CreateCluster","Resource":"*"`, []string{"no action of redshift that is served here matches CreateCluster"}},
		{"another service", 0, `"Effect":"Allow","Action":"s3:GetObject","Resource":"*"`, []string{s3}},
		{"actions of Daypass", 0, `"Effect":"Allow","Action":"daypass:Revoke*","Resource":"*"`, nil},
		{"an action of Daypass misspelt", 0, `"Effect":"Allow","Action":"daypass:RevokeCredential","Resource":"*"`, []string{"is daypass:RevokeCredentials meant?"}},
		// Resources.
		{"no resource for the action", 0, join + `"Resource":` + anyUser, []string{"no resource of the statement is for redshift:JoinGroup", "no action of the statement is about a dbuser"}},
		{"of two actions one", 0, `"Effect":"Allow","Action":["redshift:JoinGroup","redshift:CreateClusterUser"],` + group, []string{"no resource of the statement is for redshift:CreateClusterUser"}},
		{"a cluster", 0, `"Effect":"Allow","Action":"redshift:DescribeClusters","Resource":"` + prefix + `cluster:c"`, nil},
		{"a role for sts", 0, `"Effect":"Allow","Action":"sts:AssumeRole","Resource":"arn:aws:iam::123456789012:role/etl"`, nil},
		{"our own service", 0, `"Effect":"Allow","Action":"daypass:RevokeCredentials","Resource":["arn:aws:daypass:us-east-1:123456789012:principal/user/${aws:username}","arn:aws:daypass:us-east-1:123456789012:cluster/*"]`, nil},
		{"our own service, another resource", 0, `"Effect":"Allow","Action":"daypass:RevokeCredentials","Resource":"arn:aws:daypass:us-east-1:123456789012:session/east/*"`, []string{"no resource of the statement is for daypass:RevokeCredentials", "no action of the statement is about a session"}},
		{"an action without resources", 0, `"Effect":"Allow","Action":"sts:GetCallerIdentity","Resource":"arn:aws:iam::123456789012:user/ana"`, []string{`with Resource "*" only`, "no action of the statement is about a user"}},
		{"a dbgroup for credentials", 0, get + `"Resource":[` + anyUser + `,"` + prefix + `dbgroup:c/g"]`, []string{"decided by redshift:JoinGroup"}},
		{"the type by wildcard", 0, join + `"Resource":"` + prefix + `db*:c/g"`, []string{"cannot stand for the resource type"}},
		{"a slash behind the type", 0, get + `"Resource":"` + prefix + `dbuser/c/alice"`, []string{"matches nothing; the form is dbuser:CLUSTER/NAME"}},
		{"no cluster", 0, get + `"Resource":"` + prefix + `dbuser:alice"`, []string{"the form is dbuser:CLUSTER/NAME"}},
		{"no cluster, in a Deny", 0, `"Effect":"Deny","Action":"*","Resource":"` + prefix + `dbgroup:admins"`, []string{"the form is dbgroup:CLUSTER/NAME"}},
		{"no cluster, all but it", 0, `"Effect":"Deny","Action":"*","NotResource":"` + prefix + `dbgroup:admins"`, []string{"the form is dbgroup:CLUSTER/NAME"}},
		{"no cluster, with a star", 0, join + `"Resource":"` + prefix + `dbgroup:a*"`, nil},
		{"no cluster, with a variable", 0, join + `"Resource":"` + prefix + `dbgroup:${aws:PrincipalTag/group}"`, nil},
		{"a type alone", 0, join + `"Resource":"` + prefix + `dbgroup"`, []string{"the form is dbgroup:CLUSTER/NAME"}},
		{"a cluster by a slash", 0, `"Effect":"Allow","Action":"redshift:DescribeClusters","Resource":"` + prefix + `cluster/c"`, []string{"the form is cluster:NAME"}},
		{"a role by a colon", 0, `"Effect":"Allow","Action":"sts:AssumeRole","Resource":"arn:aws:iam::123456789012:role:etl"`, []string{"the form is role/NAME"}},
		{"a session without its cluster", 0, `"Effect":"Allow","Action":"daypass:TerminateSession","Resource":"arn:aws:daypass:us-east-1:123456789012:session/x"`, []string{"the form is session/CLUSTER/ID"}},
		{"another partition", 0, join + `"Resource":"arn:awz:redshift:us-east-1:123456789012:dbgroup:c/g"`, []string{"AWS has no partition awz"}},
		{"any partition", 0, join + `"Resource":"arn:aws*:redshift:us-east-1:123456789012:dbgroup:c/g"`, nil},
		{"another partition in a condition", 0, join + group + `,"Condition":{"ArnLike":{"aws:PrincipalArn":"arn:aws-cn:iam::123456789012:user/ana"}}`, nil},
		{"two stars", 0, join + `"Resource":"` + prefix + `dbgroup:c/**"`, []string{"two stars"}},
		{"every cluster", 0, join + `"Resource":"` + prefix + `dbgroup:*"`, nil},
		{"the prefix of the logon name", 0, get + `"Resource":"` + prefix + `dbuser:c/IAM:ana"`, []string{"the plain DbUser"}},
		{"a variable in the account", 0, join + `"Resource":"arn:aws:redshift:us-east-1:${aws:PrincipalAccount}:dbgroup:c/g"`, []string{"before the fifth colon"}},
		// Conditions.
		{"ForAllValues in an Allow", 0, when(`{"ForAllValues:StringEquals":{"aws:TagKeys":["a"]}}`), []string{s3, "also holds when the key is absent"}},
		{"ForAllValues with a guard", 0, when(`{"ForAllValues:StringEquals":{"aws:TagKeys":["a"]},"Null":{"aws:TagKeys":"false"}}`), []string{s3}},
		{"ForAllValues with another guard", 0, when(`{"ForAllValues:StringEquals":{"aws:TagKeys":["a"]},"ForAnyValue:StringLike":{"aws:TagKeys":"*"}}`), []string{s3}},
		{"no set operator on a list", 0, when(`{"StringEquals":{"aws:TagKeys":"a"}}`), []string{s3, "needs ForAllValues or ForAnyValue"}},
		{"a set operator on a single value", 0, when(`{"ForAnyValue:StringEquals":{"aws:username":"a"}}`), []string{s3, "single value"}},
		{"Null with set operators", 0, when(`{"ForAllValues:Null":{"aws:TagKeys":"true"},"ForAnyValue:Null":{"aws:TagKeys":"true"}}`), []string{s3, "always holds", "never holds"}},
		{"a wildcard without Like", 0, when(`{"StringEquals":{"aws:username":"a*"}}`), []string{s3, "StringEquals has no wildcards"}},
		{"literal wildcards", 0, when(`{"StringEquals":{"aws:username":"a${*}"}}`), []string{s3}},
		{"a short ARN", 0, when(`{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::*"}}`), []string{s3, "matches none"}},
		{"a short ARN, negated", 0, when(`{"ArnNotLike":{"aws:PrincipalArn":"arn:aws:iam::*"}}`), []string{s3, "as StringLike compares"}},
		{"an address as text", 0, when(`{"StringEquals":{"aws:SourceIp":"203.0.113.0/24"}}`), []string{s3, "use IpAddress"}},
		{"a date as text", 0, when(`{"StringLike":{"aws:CurrentTime":"2026"}}`), []string{s3, "use a Date operator"}},
		{"an age as text", 0, when(`{"StringEquals":{"aws:MultiFactorAuthAge":"3600"}}`), []string{s3, "use a Numeric operator"}},
		{"the epoch as a number", 0, when(`{"NumericLessThan":{"aws:EpochTime":"3600000"}}`), []string{s3}},
		{"an empty list", 0, when(`{"StringEquals":{"aws:username":[]}}`), []string{s3, "the list of values is empty"}},
		{"MFA with Bool", 0, `"Effect":"Deny","NotAction":"sts:*","Resource":"*","Condition":{"Bool":{"aws:MultiFactorAuthPresent":"false"}}`, []string{"use BoolIfExists"}},
		{"MFA with BoolIfExists", 0, `"Effect":"Deny","NotAction":"sts:*","Resource":"*","Condition":{"BoolIfExists":{"aws:MultiFactorAuthPresent":"false"}}`, nil},
		{"an empty condition", 0, join + group + `,"Condition":{}`, []string{"allows without any"}},
		{"an empty operator", 0, join + group + `,"Condition":{"StringEquals":{}}`, []string{"allows without any"}},
		{"an empty operator beside another", 0, join + group + `,"Condition":{"StringEquals":{},"Bool":{"aws:SecureTransport":"true"}}`, []string{"has no effect"}},
		{"an empty condition in a Deny", 0, `"Effect":"Deny","Action":"redshift:JoinGroup",` + group + `,"Condition":{}`, []string{"always denies"}},
		{"an empty condition in a trust policy", iam.TrustPolicy, `"Effect":"Allow","Principal":{"AWS":"123456789012"},"Action":"sts:AssumeRole","Condition":{}`, []string{"allows without any"}},
		// Trust policies.
		{"an account", iam.TrustPolicy, `"Effect":"Allow","Principal":{"AWS":"123456789012"},"Action":"sts:AssumeRole"`, nil},
		{"everybody", iam.TrustPolicy, `"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole"`, []string{"everybody in the account"}},
		{"everybody under a condition", iam.TrustPolicy, `"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole","Condition":{"StringEquals":{"sts:ExternalId":"x"}}`, nil},
		{"a user of another partition", iam.TrustPolicy, `"Effect":"Allow","Principal":{"AWS":"arn:awz:iam::123456789012:user/ana"},"Action":"sts:AssumeRole"`, []string{"AWS has no partition awz"}},
		{"NotPrincipal with Allow", iam.TrustPolicy, `"Effect":"Allow","NotPrincipal":{"AWS":"123456789012"},"Action":"sts:AssumeRole"`, []string{"lets in everybody"}},
		{"NotPrincipal without the account", iam.TrustPolicy, `"Effect":"Deny","NotPrincipal":{"AWS":"arn:aws:iam::123456789012:user/ana"},"Action":"sts:AssumeRole"`, []string{"also names the account"}},
		{"a provider without condition", iam.TrustPolicy, `"Effect":"Allow","Principal":{"Federated":"arn:aws:iam::123456789012:oidc-provider/token.example.com/Path"},"Action":"sts:AssumeRoleWithWebIdentity"`, []string{"every token of token.example.com/Path"}},
		{"a provider with one", iam.TrustPolicy, `"Effect":"Allow","Principal":{"Federated":"arn:aws:iam::123456789012:oidc-provider/token.example.com/Path"},"Action":"sts:AssumeRoleWithWebIdentity","Condition":{"StringEquals":{"token.example.com/Path:aud":"x"}}`, nil},
		{"a provider and AssumeRole", iam.TrustPolicy, `"Effect":"Allow","Principal":{"Federated":"accounts.google.com"},"Action":"sts:AssumeRole"`, []string{"use sts:AssumeRoleWithWebIdentity", "every token of accounts.google.com"}},
		{"a provider by its domain", iam.TrustPolicy, `"Effect":"Allow","Principal":{"Federated":"accounts.google.com"},"Action":"sts:AssumeRoleWithWebIdentity","Condition":{"StringEquals":{"accounts.google.com:sub":"x"}}`, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := mustParse(t, tt.kind, identity(tt.statement))
			got := p.Warnings()
			if len(got) != len(tt.want) {
				t.Fatalf("Warnings = %v, want %q", got, tt.want)
			}
			for i, w := range got {
				if !containsAny(w.Reason, tt.want) || !contains(got, tt.want[i]) {
					t.Errorf("Warnings[%d] = %v, want %q", i, w, tt.want)
				}
				if w.Policy != "p" || w.Line != 1 || w.Column < 2 || !strings.HasPrefix(w.Path, "Statement[") {
					t.Errorf("Warnings[%d] = %+v, want a place", i, w)
				}
			}
		})
	}
}

// Each row is the policies of one principal; none of them has a warning of its own.
func TestWarningsOverPolicies(t *testing.T) {
	const (
		prefix = `arn:aws:redshift:us-east-1:123456789012:`
		get    = `"Effect":"Allow","Action":"redshift:GetClusterCredentials","Resource":"` + prefix
		user   = get + `dbuser:c/*"`
		dev    = get + `dbname:c/dev"`
		wants  = `,"Condition":{"StringEquals":{"redshift:DbName":"dev"}}`
		null   = `"Effect":"Deny","Action":"redshift:*","Resource":"*","Condition":{"Null":{"redshift:DbName":"true"}}`
	)
	for name, tt := range map[string]struct {
		identity []string
		boundary string
		want     int
	}{
		"one opens":            {[]string{user, dev}, "", 1},
		"the order is nothing": {[]string{dev, user}, "", 1},
		"two restrict":         {[]string{dev, user, get + `dbname:c/test"`}, "", 2},
		"with the condition":   {[]string{user + wants, dev}, "", 0},
		"with the wrong one":   {[]string{user, dev + wants}, "", 1},
		"with a Deny":          {[]string{user, dev, null}, "", 0},
		"every database":       {[]string{user, dev, get + `dbname:c/*"`}, "", 0},
		"an administrator":     {[]string{dev, `"Effect":"Allow","Action":"*","Resource":"*"`}, "", 0},
		"of another cluster":   {[]string{get + `dbuser:d/*"`, dev}, "", 0},
		"one policy":           {[]string{user}, "", 0},
		"none":                 {nil, "", 0},
		"a boundary lets":      {[]string{user, dev}, `"Effect":"Allow","Action":"*","Resource":"*"`, 1},
		"a boundary does not":  {[]string{user, dev}, get + `dbuser:c/*"` + wants, 0},
		"a boundary denies":    {[]string{user, dev}, `"Effect":"Allow","Action":"*","Resource":"*"},{` + null, 0},
	} {
		var p iam.Policies
		for _, statement := range tt.identity {
			policy := mustParse(t, iam.IdentityPolicy, identity(statement))
			if own := policy.Warnings(); len(own) > 0 {
				t.Errorf("%s: Policy.Warnings = %v, want none", name, own)
			}
			p.Identity = append(p.Identity, policy)
		}
		if tt.boundary != "" {
			p.Boundary = mustParse(t, iam.IdentityPolicy, identity(tt.boundary))
		}
		got := p.Warnings()
		if len(got) != tt.want {
			t.Errorf("%s: Warnings = %v, want %d", name, got, tt.want)
		}
		for _, w := range got {
			if !strings.Contains(w.Reason, "Statement[0] of p gives credentials for every database") || w.Line != 1 || w.Path != "Statement[0].Resource" {
				t.Errorf("%s: Warnings = %v", name, w)
			}
		}
	}
}

func containsAny(s string, parts []string) bool {
	for _, part := range parts {
		if strings.Contains(s, part) {
			return true
		}
	}
	return false
}

func contains(warnings []iam.Warning, part string) bool {
	for _, w := range warnings {
		if strings.Contains(w.Reason, part) {
			return true
		}
	}
	return false
}

func TestWarningsOfVersion(t *testing.T) {
	p := mustParse(t, iam.IdentityPolicy, `{"Statement":{"Effect":"Allow","Action":"redshift:JoinGroup","Resource":"arn:aws:redshift:*:*:dbgroup:*/${aws:username}",
		"Condition":{"StringEquals":{"aws:userid":"${aws:username}"},"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::*:user/${aws:username}"}}}}`)
	got := p.Warnings()
	if len(got) != 3 {
		t.Fatalf("Warnings = %v, want three", got)
	}
	for _, w := range got {
		if !strings.Contains(w.Reason, `need "Version": "2012-10-17"`) {
			t.Errorf("Warnings = %v", w)
		}
	}
}

func TestWarningsOfSize(t *testing.T) {
	p := mustParse(t, iam.IdentityPolicy, `{"Id":"`+strings.Repeat("x", iam.MaxManagedPolicySize)+`","Statement":{"Effect":"Allow","Action":"redshift:JoinGroup","Resource":"*"}}`)
	if got := p.Warnings(); len(got) != 1 || !strings.Contains(got[0].String(), "p: line 1, column 1: the document has 6") {
		t.Errorf("Warnings = %v", got)
	}
}

// A Deny that matches nothing is a hole. Each row says whether an entry is such a Deny, and the
// evaluator agrees, for one request of every action on every kind of resource.
func TestDeniesNothing(t *testing.T) {
	const (
		prefix = `arn:aws:redshift:us-east-1:123456789012:`
		never  = "this Deny can never match and denies nothing: "
		deny   = `"Effect":"Deny",`
		all    = deny + `"Action":"redshift:*","Resource":`
		get    = deny + `"Action":"redshift:GetClusterCredentials","Resource":`
	)
	site := iam.Site{Partition: "aws", Region: "us-east-1", Account: "123456789012", Clusters: []string{"c", "d"}}
	for _, tt := range []struct {
		statement string
		want      string // a part of the reason; empty: it matches something
	}{
		{all + `"*"`, ""},
		{all + `"arn:aws:redshift:*"`, ""},
		{all + `"arn:aws:redshift:*:*:dbname:c/prod"`, ""},
		{all + `"arn:aws:redshift:*:dbname:c/prod"`, ""},
		{all + `"` + prefix + `db*:c/prod"`, ""},
		{all + `"` + prefix + `*:c/prod"`, ""},
		{all + `"` + prefix + `*"`, ""},
		{all + `"` + prefix + `dbname:*/prod"`, ""},
		{all + `"` + prefix + `dbname:*prod"`, ""},
		{all + `"` + prefix + `dbname:?/${aws:username}"`, ""},
		{all + `"arn:*:redshift:*:*:dbname:c/*"`, ""},
		// A star that would have to cross a colon.
		{all + `"` + prefix + `*/prod"`, "does not stand for a colon"},
		{all + `"` + prefix + `*prod"`, "does not stand for a colon"},
		{all + `"` + prefix + `d*/prod"`, "does not stand for a colon"},
		{all + `"arn:aws:redshift:us-east-1:*/prod*"`, "does not stand for a colon"},
		{all + `"arn:aws:redshift:*prod*"`, "does not stand for a colon"},
		{all + `"` + prefix + `dbname?c/prod"`, "does not stand for a colon"},
		{deny + `"Action":"sts:AssumeRole","Resource":"arn:aws:iam::*admin*"`, "arn:aws:iam::ACCOUNT:role/NAME"},
		// The wrong place.
		{all + `"arn:aws:redshift:eu-west-1:123456789012:dbname:c/prod"`, `the region is "eu-west-1"`},
		{all + `"arn:aws:redshift:us-east-1:999999999999:dbname:c/prod"`, `the account is "999999999999"`},
		{all + `"arn:aws-cn:redshift:us-east-1:123456789012:dbname:c/prod"`, `the partition is "aws-cn" and that of this server "aws"`},
		{all + `"arn:awz:redshift:us-east-1:123456789012:dbname:c/prod"`, "AWS has no partition awz"},
		{all + `"*","Condition":{"ArnLike":{"aws:PrincipalArn":"arn:aws-cn:iam::123456789012:user/*"}}`, "begin with arn:aws:, not arn:aws-cn:"},
		{all + `"*","Condition":{"ArnNotLike":{"aws:PrincipalArn":"arn:aws-cn:iam::123456789012:user/*"}}`, ""},
		{all + `"` + prefix + `dbname:production/dev"`, "for none of the clusters of this server (c, d)"},
		{all + `"arn:aws:redshift:*:*:dbname:production/dev"`, "for none of the clusters of this server (c, d)"},
		{all + `"arn:*:redshift:*:dbname:production/dev"`, "for none of the clusters of this server (c, d)"},
		{all + `"` + prefix + `dbname:dd/prod"`, "for none of the clusters of this server (is d meant?)"},
		{all + `"arn:*:redshift:*:dbname:d/prod"`, ""},
		{deny + `"Action":"daypass:*","Resource":"arn:aws:daypass:*:*:dbuser/c/IAM:eve"`, ""},
		{deny + `"Action":"daypass:*","Resource":"arn:aws:daypass:us-east-1:123456789012:cluster/e"`, "for none of the clusters"},
		{deny + `"Action":"daypass:*","Resource":"arn:aws:daypass:us-east-1:123456789012:cluster/d"`, ""},
		{deny + `"Action":"daypass:*","Resource":"arn:aws:daypass:us-east-1:123456789012:principal/user/eve"`, ""},
		// The wrong form.
		{all + `"` + prefix + `dbname/c/prod"`, "the form is dbname:CLUSTER/NAME"},
		{all + `"` + prefix + `dbname:prod"`, "the form is dbname:CLUSTER/NAME"},
		{all + `"` + prefix + `dbgroup"`, "the form is dbgroup:CLUSTER/NAME"},
		{all + `"` + prefix + `database:c/prod"`, "no action of the statement is about a database"},
		{all + `"` + prefix + `cluster:c/prod"`, "the entry matches nothing"},
		// The wrong kind of resource for the actions.
		{get + `"` + prefix + `dbgroup:c/admins"`, "groups are decided by redshift:JoinGroup"},
		{get + `"` + prefix + `cluster:c"`, "no action of the statement is about a cluster"},
		{get + `"arn:aws:iam::123456789012:role/admin"`, "no action of the statement is about a role"},
		{get + `"arn:aws:s3:::bucket"`, "the statement's actions are about dbuser or dbname"},
		{deny + `"Action":"sts:GetAccessKeyInfo","Resource":"arn:aws:iam::123456789012:user/ana"`, "no action of the statement is about a user"},
		{deny + `"NotAction":"redshift:GetClusterCredentials","Resource":"` + prefix + `dbname:c/*"`, ""},
		{deny + `"NotAction":["redshift:*","sts:*","iam:*"],"Resource":"` + prefix + `dbname:c/*"`, "actions are about"},
		// Actions.
		{deny + `"Action":"redshift:GetClusterCredential","Resource":"*"`, "is redshift:GetClusterCredentials meant?"},
		{deny + `"Action":"redshift:Getclustercredentials","Resource":"*"`, ""},
		{deny + `"Action":"redshift-data:*","Resource":"*"`, "is not served here"},
		{deny + `"NotAction":"*","Resource":"*"`, "NotAction leaves no action"},
		{deny + `"NotAction":["redshift:*","sts:*","iam:*","daypass:*"],"Resource":"*"`, "NotAction leaves no action"},
		// NotResource.
		{deny + `"Action":"redshift:*","NotResource":"*"`, `NotResource "*" leaves no resource`},
		{deny + `"Action":"redshift:*","NotResource":"` + prefix + `dbname:c/dev"`, ""},
		// Conditions.
		{all + `"*","Condition":{"StringEquals":{"aws:usrname":"eve"}}`, "denies nothing there"},
		{all + `"*","Condition":{"StringEquals":{"redshift:Database":"prod"}}`, "denies nothing there"},
		{deny + `"Action":"redshift:JoinGroup","Resource":"*","Condition":{"StringEquals":{"redshift:DbUser":"eve"}}`, "denies nothing there"},
		{all + `"*","Condition":{"StringEquals":{"aws:username":[]}}`, "the list of values is empty"},
		{all + `"*","Condition":{"ForAnyValue:Null":{"aws:TagKeys":"true"}}`, "never holds"},
		{all + `"*","Condition":{"StringEquals":{"redshift:DbUser":"IAM:eve"}}`, "the prefix is part of the name that logs on"},
		{all + `"*","Condition":{"StringLike":{"redshift:DbUser":["IAMA:*","eve"]}}`, ""},
		{all + `"*","Condition":{"StringEquals":{"aws:username":"eve"}}`, ""},
		{all + `"*","Condition":{"StringNotEquals":{"aws:usrname":"eve"}}`, ""},
	} {
		p := mustParse(t, iam.IdentityPolicy, identity(tt.statement))
		var reasons []string
		for _, w := range append(p.Warnings(), p.Elsewhere(site)...) {
			reasons = append(reasons, w.Reason)
		}
		text := strings.Join(reasons, "\n")
		said := strings.Contains(text, never) || strings.Contains(text, "denies nothing there") || strings.Contains(text, "has no effect")
		if said != (tt.want != "") || !strings.Contains(text, tt.want) {
			t.Errorf("%s\n\tsaid: %q\n\twant: %q", tt.statement, reasons, tt.want)
		}
		if matches := matchesSomething(t, tt.statement, site); matches != (tt.want == "") {
			t.Errorf("%s: the evaluator denies something: %t", tt.statement, matches)
		}
	}
}

// matchesSomething evaluates one request of each action on each kind of resource, with the
// clusters and names that the rows use.
func matchesSomething(t *testing.T, statement string, site iam.Site) bool {
	t.Helper()
	policies := iam.Policies{Identity: []*iam.Policy{mustParse(t, iam.IdentityPolicy, identity(statement))}}
	names := []string{"prod", "dev", "eve", "admin", "admins", "ana", "IAM:eve", "*"}
	arn := func(service, resource string) string {
		region := site.Region
		if service == "iam" {
			region = ""
		}
		return "arn:" + site.Partition + ":" + service + ":" + region + ":" + site.Account + ":" + resource
	}
	inClusters := func(service, kind, separator string) (list []string) {
		for _, cluster := range append(site.Clusters, "*") {
			for _, name := range names {
				list = append(list, arn(service, kind+separator+cluster+"/"+name))
			}
		}
		return list
	}
	named := func(service, kind string) (list []string) {
		for _, name := range append(append(names, "user/eve", "role/eve"), site.Clusters...) {
			list = append(list, arn(service, kind+name))
		}
		return list
	}
	users, databases := inClusters("redshift", "dbuser", ":"), inClusters("redshift", "dbname", ":")
	clusters := named("daypass", "cluster/")
	requests := map[string][]string{
		"redshift:GetClusterCredentials":            append(users, databases...),
		"redshift:GetClusterCredentialsWithIAM":     databases,
		"redshift:CreateClusterUser":                users,
		"redshift:JoinGroup":                        inClusters("redshift", "dbgroup", ":"),
		"redshift:DescribeClusters":                 {arn("redshift", "cluster:c"), arn("redshift", "cluster:d"), arn("redshift", "cluster:*")},
		"redshift:DescribeCustomDomainAssociations": {"*"},
		"sts:AssumeRole":                            named("iam", "role/"),
		"sts:GetAccessKeyInfo":                      {"*"},
		"iam:SimulateCustomPolicy":                  {"*"},
		"iam:SimulatePrincipalPolicy":               append(named("iam", "role/"), named("iam", "user/")...),
		"daypass:RevokeCredentials":                 append(append(clusters, inClusters("daypass", "dbuser", "/")...), named("daypass", "principal/")...),
		"daypass:ListSessions":                      clusters,
		"daypass:ListRevocations":                   clusters,
		"daypass:TerminateSession":                  inClusters("daypass", "session", "/"),
	}
	for action, resources := range requests {
		for _, resource := range resources {
			for _, name := range names {
				if strings.Contains(name, ":") {
					continue // an identity, which no parameter can be
				}
				context := iam.NewContext()
				context.Set("aws:username", name)
				if strings.HasPrefix(action, "redshift:Get") {
					context.Set("redshift:DbName", name)
					context.Set("redshift:DurationSeconds", "900")
				}
				if action == "redshift:GetClusterCredentials" || action == "redshift:CreateClusterUser" {
					context.Set("redshift:DbUser", name)
				}
				if policies.Evaluate(&iam.Request{Action: action, Resource: resource, Context: context}).Effect == iam.ExplicitDeny {
					return true
				}
			}
		}
	}
	return false
}
