package config

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/ca"
	"github.com/daypass/daypass/internal/iam"
)

// testEnvironment is the environment for these tests.
func testEnvironment(name string) (string, bool) {
	value, ok := map[string]string{
		"ANA_SECRET_ACCESS_KEY":     "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
		"DAYPASS_UPSTREAM_PASSWORD": "upstream secret",
		"EMPTY":                     "",
	}[name]
	return value, ok
}

func TestConfigFileOfTheDocuments(t *testing.T) {
	data, err := os.ReadFile("../../docs/daypass.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse("../../docs/daypass.yaml", data, testEnvironment)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Warnings) > 0 {
		t.Errorf("warnings = %q, want none", c.Warnings)
	}
	if got, want := c.Data, filepath.Join(mustAbs(t, "../../docs"), "daypass-data"); got != want {
		t.Errorf("data = %q, want %q: relative to the file", got, want)
	}
	if len(c.Clusters) != 1 || c.Clusters[0].Upstream.Password != "upstream secret" || c.Clusters[0].Upstream.User != "daypass" {
		t.Errorf("clusters = %+v, want one with its administrative login", c.Clusters)
	}
	cluster, ok := c.Directory.Cluster("examplecluster")
	if !ok || cluster.Database != "dev" || cluster.Host != "127.0.0.1" || cluster.Port != 5439 {
		t.Errorf("cluster = %+v, want dev at the gateway's address", cluster)
	}
	key, ok := c.Directory.AccessKey("AKIAIOSFODNN7EXAMPLE")
	if !ok || key.Secret.Reveal() != "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY" || key.User.Tags["team"] != "data" {
		t.Fatalf("access key = %+v, want ana's", key)
	}
	decide := func(action, resource string) iam.Decision {
		context := iam.NewContext()
		context.Set("aws:username", "ana")
		context.Set("redshift:DbName", "dev")
		return key.User.Policies.Evaluate(&iam.Request{
			Action:   action,
			Resource: "arn:aws:redshift:us-east-1:123456789012:" + resource,
			Context:  context,
		})
	}
	for _, row := range []struct {
		action, resource string
		want             bool
	}{
		{"redshift:GetClusterCredentials", "dbuser:examplecluster/ana", true},
		{"redshift:GetClusterCredentials", "dbuser:examplecluster/bob", false},
		{"redshift:GetClusterCredentials", "dbname:examplecluster/dev", true},
		{"redshift:CreateClusterUser", "dbuser:examplecluster/ana", true},
		{"redshift:JoinGroup", "dbgroup:examplecluster/analysts", true},
		{"redshift:JoinGroup", "dbgroup:examplecluster/finance", false},
		{"redshift:DescribeClusters", "cluster:examplecluster", true}, // daypass connect
	} {
		if got := decide(row.action, row.resource).Allowed(); got != row.want {
			t.Errorf("%s on %s allowed = %v, want %v", row.action, row.resource, got, row.want)
		}
	}
	if d := decide("redshift:CreateClusterUser", "dbuser:examplecluster/ana"); d.Line != lineOf(string(data), `Action: "redshift:CreateClusterUser"`) {
		t.Errorf("deciding statement is on line %d, want the line of the file, %d", d.Line, lineOf(string(data), `Action: "redshift:CreateClusterUser"`))
	}
}

func mustAbs(t *testing.T, path string) string {
	t.Helper()
	absolute, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return absolute
}

func lineOf(text, part string) int {
	return 1 + strings.Count(text[:strings.Index(text, part)], "\n")
}

const smallConfig = `account: "123456789012"
region: us-east-1
data: ./data
api: {listen: "127.0.0.1:0"}
gateway: {listen: "127.0.0.1:0"}
`

// etcdAt returns a configuration that ends inside registry.etcd, so that a test can add keys.
func etcdAt(endpoint string) string {
	return smallConfig + "registry:\n  etcd:\n    endpoints: [" + strconv.Quote(endpoint) + "]\n"
}

var etcd = etcdAt("https://10.0.0.1:2379")

// TestConfigWarnings: a problem that shows only when two policies are read together gives one
// warning, however many users have both.
func TestConfigWarnings(t *testing.T) {
	const statement = `{Version: "2012-10-17", Statement: {Effect: Allow, Action: "redshift:GetClusterCredentials", Resource: "arn:aws:redshift:*:*:`
	c, err := Parse("f.yaml", []byte(smallConfig+`iam:
  groups:
    - name: g
      policies:
        - `+statement+`dbuser:*/*"}}
        - `+statement+`dbname:*/dev"}}
  users:
    - {name: ana, groups: [g]}
    - {name: bob, groups: [g]}
  roles:
    - name: etl
      trust_policy: {Version: "2012-10-17", Statement: {Effect: Allow, Principal: {AWS: "123456789012"}, Action: "sts:AssumeRole"}}
      policies:
        - `+statement+`dbname:*/etl"}}
        - `+statement+`dbuser:*/*"}}
`), testEnvironment)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"f.yaml:11: iam.groups[0].policies[1].Statement.Resource: without DbName this is not checked: Statement of f.yaml iam.groups[0].policies[0] gives",
		"f.yaml:19: iam.roles[0].policies[0].Statement.Resource: without DbName this is not checked: Statement of f.yaml iam.roles[0].policies[1] gives",
	}
	if len(c.Warnings) != len(want) {
		t.Fatalf("warnings = %q, want %q", c.Warnings, want)
	}
	for i := range want {
		if !strings.HasPrefix(c.Warnings[i], want[i]) {
			t.Errorf("warnings[%d] = %q, want %q", i, c.Warnings[i], want[i])
		}
	}
}

// TestConfigWarnsOfDeniesThatMatchNothing: reading the file gives a warning about each Deny
// that matches nothing.
func TestConfigWarnsOfDeniesThatMatchNothing(t *testing.T) {
	const deny = `{Version: "2012-10-17", Statement: {Effect: Deny, Action: "redshift:*", Resource: "arn:aws:redshift:`
	c, err := Parse("f.yaml", []byte(smallConfig+`iam:
  groups:
    - name: g
      policies:
        - `+deny+`us-east-1:123456789012:*/prod"}}
        - `+deny+`eu-west-1:123456789012:cluster:c"}}
        - `+deny+`us-east-1:123456789012:dbuser:nosuch/*"}}
        - `+deny+`us-east-1:123456789012:dbuser:*/boss"}}
`), testEnvironment)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"f.yaml:10: iam.groups[0].policies[0].Statement.Resource: this Deny can never match and denies nothing: a * or ? does not stand for a colon",
		`f.yaml:11: iam.groups[0].policies[1].Statement.Resource: this Deny can never match and denies nothing: the region is "eu-west-1"`,
		"f.yaml:12: iam.groups[0].policies[2].Statement.Resource: this Deny can never match and denies nothing: the entry is for none of the clusters",
	}
	if len(c.Warnings) != len(want) {
		t.Fatalf("warnings = %q, want %q", c.Warnings, want)
	}
	for i := range want {
		if !strings.HasPrefix(c.Warnings[i], want[i]) {
			t.Errorf("warnings[%d] = %q, want %q", i, c.Warnings[i], want[i])
		}
	}
}

// TestConfigWarnsOfAbsentClusters: reading the file and LintPolicies give the same warning about an Allow
// for a cluster that is not in the file, and none for a file without clusters.
func TestConfigWarnsOfAbsentClusters(t *testing.T) {
	const policies = `iam:
  groups:
    - name: g
      policies:
        - Version: "2012-10-17"
          Statement:
            - {Effect: Allow, Action: "redshift:GetClusterCredentials", Resource: ["arn:aws:redshift:us-east-1:123456789012:dbuser:warehouse/${redshift:DbUser}", "arn:aws:redshift:us-east-1:123456789012:dbname:warehose/*"]}
            - {Effect: Allow, Action: "redshift:JoinGroup", Resource: "arn:aws:redshift:*:*:dbgroup:${aws:PrincipalTag/cluster}/g"}
`
	const clusters = "clusters:\n  - {identifier: warehouse, upstream: \"postgres://daypass@127.0.0.1:5432/postgres?sslmode=disable\"}\n"
	const want = "iam.groups[0].policies[0].Statement[0].Resource[1]: the entry is for none of the clusters of this server (is warehouse meant?)"
	absent := func(warnings []string) (found []string) {
		for _, w := range warnings {
			if strings.Contains(w, "none of the clusters") {
				found = append(found, w)
			}
		}
		return found
	}
	lint := func(text string) (warnings []string) {
		list, _ := LintPolicies("f.yaml", []byte(text), func([]byte) iam.Kind { return iam.IdentityPolicy })
		for _, w := range list {
			warnings = append(warnings, located(w))
		}
		return absent(warnings)
	}
	c, err := Parse("f.yaml", []byte(smallConfig+clusters+policies), testEnvironment)
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string][]string{"Parse": absent(c.Warnings), "LintPolicies": lint(smallConfig + clusters + policies)} {
		if len(got) != 1 || !strings.HasSuffix(got[0], want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got := lint(smallConfig + policies); len(got) != 0 {
		t.Errorf("without clusters: %q", got)
	}
}

// TestConfigWarnsOfAbsentPrincipals: reading the file gives a warning about each principal of a trust
// policy that is not in it.
func TestConfigWarnsOfAbsentPrincipals(t *testing.T) {
	role := func(name, principals string) string {
		return "    - {name: " + name + ", path: /jobs/, trust_policy: {Statement: {Effect: Allow, Action: \"sts:*\", Principal: {" + principals + "}}}}\n"
	}
	const arn = "arn:aws:iam::123456789012:"
	c, err := Parse("f.yaml", []byte(smallConfig+"iam:\n  users:\n    - {name: ana}\n    - {name: bob, path: /staff/}\n  roles:\n"+
		role("one", `AWS: [`+arn+`user/ana, `+arn+`user/staff/bob, `+arn+`role/jobs/two, "arn:aws:sts::123456789012:assumed-role/two/x"], Federated: [token.example.com, `+arn+`oidc-provider/token.example.com]`)+
		role("two", `AWS: [`+arn+`user/bob, `+arn+`role/jobs/three, "arn:aws:sts::123456789012:assumed-role/three/x"], Federated: [accounts.example.com]`)+
		"  oidc_providers:\n    - {issuer: \"https://token.example.com\", audiences: [daypass]}\n"), testEnvironment)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range c.Warnings {
		if strings.Contains(w, "it matches no one") {
			got = append(got, w)
		}
	}
	const at = "f.yaml:12: iam.roles[1].trust_policy.Statement.Principal: the configuration does not have "
	want := []string{
		at + arn + "user/bob (is " + arn + "user/staff/bob meant?); it matches no one",
		at + "arn:aws:sts::123456789012:assumed-role/three/x; it matches no one",
		at + arn + "role/jobs/three; it matches no one",
		at + "accounts.example.com; it matches no one",
	}
	if !slices.Equal(got, want) {
		t.Errorf("warnings = %q, want %q", got, want)
	}
}

func TestConfigFaultsNameFileLineAndKey(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "bad.json"), []byte("{\n \"Version\": \"2012-10-17\",\n \"Statement\": [{\"Effect\": \"allow\", \"Action\": \"*\", \"Resource\": \"*\"}]\n}"), 0o600); err != nil {
		t.Fatal(err)
	}
	const user = smallConfig + "iam:\n  users:\n    - name: ana\n"
	const key = user + "      access_keys:\n        - id: AKIAIOSFODNN7EXAMPLE\n"
	const provider = smallConfig + "iam:\n  oidc_providers:\n    - issuer: https://token.example.com\n      audiences: [daypass]\n"
	signIn := func(text string) string {
		return smallConfig + "sign_in: {" + text + "}\niam:\n  oidc_providers:\n    - {issuer: \"https://token.example.com\", audiences: [daypass]}\n"
	}
	const signingIn = `issuer: "https://token.example.com", client_id: daypass, url: `
	rows := map[string]struct{ text, want string }{
		"sign-in, http":           {signIn(signingIn + `"http://daypass.example.com"`), `f.yaml:6: sign_in.url: is "http://daypass.example.com", want an https URL without a path`},
		"sign-in, path":           {signIn(signingIn + `"https://daypass.example.com/"`), `f.yaml:6: sign_in.url: is "https://daypass.example.com/"`},
		"sign-in, user":           {signIn(signingIn + `"https://a@daypass.example.com"`), `f.yaml:6: sign_in.url: `},
		"sign-in, capital":        {signIn(signingIn + `"HTTPS://daypass.example.com"`), `f.yaml:6: sign_in.url: `},
		"sign-in, no provider":    {signIn(`issuer: "https://other.example.com", client_id: daypass, url: "https://d.example.com"`), `f.yaml:6: sign_in.issuer: "https://other.example.com" is not an issuer of iam.oidc_providers: add it there`},
		"sign-in, audience":       {signIn(`issuer: "https://token.example.com", client_id: other, url: "https://d.example.com"`), `f.yaml:6: sign_in.client_id: "other" is not among the audiences`},
		"sign-in, scopes":         {signIn(signingIn + `"https://d.example.com", scopes: [email]`), `f.yaml:6: sign_in.scopes: has no openid`},
		"sign-in, too long":       {signIn(signingIn + `"https://d.example.com", duration: 13h`), `f.yaml:6: sign_in.duration: is "13h"`},
		"sign-in, no url":         {signIn(`issuer: "https://token.example.com", client_id: daypass`), `f.yaml:6: sign_in.url: is required`},
		"console without sign-in": {smallConfig + "console: true\n", `f.yaml:6: console: needs sign_in: people sign in to the console`},
		"empty":                   {"", "f.yaml:1: the file is empty"},
		"not yaml":                {"account: [", "f.yaml:1: account: not YAML: "},
		"not a mapping":           {"- a", "f.yaml:1: the file is a list, want a mapping"},
		"account missing":         {strings.Replace(smallConfig, `account: "123456789012"`, "", 1), "account: is required"},
		"account short":           {strings.Replace(smallConfig, "123456789012", "12345", 1), `f.yaml:1: account: is "12345", want 12 digits`},
		"region":                  {strings.Replace(smallConfig, "us-east-1", "US East", 1), `f.yaml:2: region: is "US East"`},
		"data missing":            {strings.Replace(smallConfig, "data: ./data", "", 1), "data: is required"},
		"api missing":             {strings.Replace(smallConfig, "api:", "# api:", 1), "api: is required"},
		"listen without port":     {strings.Replace(smallConfig, "127.0.0.1:0", "127.0.0.1", 1), `f.yaml:4: api.listen: is "127.0.0.1", want HOST:PORT`},
		"listen off loopback":     {strings.Replace(smallConfig, "127.0.0.1:0", "0.0.0.0:8440", 1), "f.yaml:4: api.listen: 0.0.0.0:8440 is not a loopback address: it needs api.tls"},
		"unknown key":             {smallConfig + "claster: []\n", "f.yaml:6: claster: is not a key of the configuration"},
		"unknown key, meant":      {strings.Replace(smallConfig, "api: {", "api: {trusted_proxy: [], ", 1), "f.yaml:4: api.trusted_proxy: is not a key"},
		"key twice":               {smallConfig + "data: x\n", "f.yaml:6: data: is duplicated"},
		"tls half":                {strings.Replace(smallConfig, `gateway: {`, `gateway: {tls: {certificate: x}, `, 1), "f.yaml:5: gateway.tls.key: is required"},
		"tls unreadable":          {strings.Replace(smallConfig, `gateway: {`, `gateway: {tls: {certificate: x, key: y}, `, 1), "f.yaml:5: gateway.tls.certificate: open "},
		"cluster twice":           {smallConfig + "clusters:\n  - identifier: c\n  - identifier: c\n", `f.yaml:8: clusters[1].identifier: "c" is duplicated`},
		"cluster nameless":        {smallConfig + "clusters:\n  - database: d\n", "f.yaml:7: clusters[0].identifier: is required"},
		"cluster name":            {smallConfig + "clusters:\n  - identifier: a/b\n", `f.yaml:7: clusters[0].identifier: is "a/b"`},
		"upstream":                {smallConfig + "clusters:\n  - identifier: c\n    upstream: 'postgres://u@127.0.0.1:port/'\n", "f.yaml:8: clusters[0].upstream: is not a PostgreSQL connection string"},
		"upstream with password":  {smallConfig + "clusters:\n  - identifier: c\n    upstream: 'postgres://u:hunter2@h/d'\n    upstream_password_env: X\n", "f.yaml:8: clusters[0].upstream: has a password in it"},
		"second document":         {smallConfig + "---\nregion: us-east-2\n", "a second YAML document begins here"},
		"tls not a pair":          {strings.Replace(smallConfig, `gateway: {`, `gateway: {tls: {certificate: config_test.go, key: config_test.go}, `, 1), "config_test.go are not a certificate and its key"},
		"password variable":       {smallConfig + "clusters:\n  - identifier: c\n    upstream_password_env: NOBODY_SET_THIS\n", "f.yaml:8: clusters[0].upstream_password_env: the environment variable NOBODY_SET_THIS is not set"},
		"password file":           {smallConfig + "clusters:\n  - identifier: c\n    upstream_password_file: no/such/file\n", "f.yaml:8: clusters[0].upstream_password_file: open "},
		"password both":           {smallConfig + "clusters:\n  - identifier: c\n    upstream_password_env: X\n    upstream_password_file: y\n", "only one of upstream_password_env, upstream_password_file may be given"},
		"domain twice":            {smallConfig + "clusters:\n  - identifier: c\n    custom_domains: [w.example]\n  - identifier: d\n    custom_domains: [W.example]\n", `f.yaml:10: clusters[1].custom_domains: "W.example" is duplicated`},
		"not a boolean":           {smallConfig + "clusters:\n  - identifier: c\n    allow_superusers: sometimes\n", `f.yaml:8: clusters[0].allow_superusers: is "sometimes", want true or false`},
		"user name":               {smallConfig + "iam:\n  users:\n    - name: a b\n", `f.yaml:8: iam.users[0].name: is "a b"`},
		"user twice":              {user + "    - name: Ana\n", `f.yaml:9: iam.users[1].name: user "Ana" is duplicated`},
		"unknown group":           {user + "      groups: [x]\n", `f.yaml:9: iam.users[0].groups: group "x" is not in iam.groups`},
		"unknown policy":          {user + "      attached_policies: [x]\n", `f.yaml:9: iam.users[0].attached_policies: policy "x" is not in iam.policies`},
		"tag in two cases":        {user + "      tags: {Büro: a, BÜRO: b}\n", "in case only; condition keys ignore case"},
		"key id":                  {user + "      access_keys:\n        - {id: short, secret: s}\n", `f.yaml:10: iam.users[0].access_keys[0].id: is "short"`},
		"temporary key id":        {user + "      access_keys:\n        - {id: ASIAIOSFODNN7EXAMPLE, secret: s}\n", "marks temporary access keys"},
		"no secret":               {key, "f.yaml:10: iam.users[0].access_keys[0].secret: one of secret_env, secret_file and secret is required"},
		"empty secret variable":   {key + "          secret_env: EMPTY\n", "f.yaml:11: iam.users[0].access_keys[0].secret_env: the environment variable EMPTY is not set"},
		"two secrets":             {key + "          secret_env: X\n          secret: y\n", "only one of secret_env, secret may be given"},
		"key of two users":        {key + "          secret: s\n    - name: bob\n      access_keys:\n        - {id: AKIAIOSFODNN7EXAMPLE, secret: s}\n", `f.yaml:14: iam.users[1].access_keys[0].id: "AKIAIOSFODNN7EXAMPLE" is duplicated`},
		"devices without number":  {user + "      mfa_devices:\n        - seed: JBSWY3DPEHPK3PXP\n        - seed: JBSWY3DPEHPK3PXP\n", `f.yaml:11: iam.users[0].mfa_devices[1].serial_number: is required: another device is "arn:aws:iam::123456789012:mfa/ana" already`},
		"device of two users":     {user + "      mfa_devices: [{seed: JBSWY3DPEHPK3PXP}]\n    - name: bob\n      mfa_devices:\n        - seed: JBSWY3DPEHPK3PXP\n          serial_number: arn:aws:iam::123456789012:mfa/ana\n", `f.yaml:13: iam.users[1].mfa_devices[0].serial_number: "arn:aws:iam::123456789012:mfa/ana" is duplicated`},
		"a number nobody gives":   {user + "      mfa_devices:\n        - {seed: JBSWY3DPEHPK3PXP, serial_number: a b}\n", `f.yaml:10: iam.users[0].mfa_devices[0].serial_number: is "a b"`},
		"policy, yaml":            {user + "      policies:\n        - Version: \"2012-10-17\"\n          Statement:\n            - Effect: Allow\n              Action: redshift:GetClusterCredentials\n              Resource: nonsense\n", "f.yaml:14: iam.users[0].policies[0].Statement[0].Resource"},
		"policy, flow":            {user + "      policies: [{Version: \"2012-10-17\", Statement: [{Effect: Allow, Action: \"*\"}]}]\n", "f.yaml:9: iam.users[0].policies[0].Statement[0]"},
		"policy, file":            {user + "      policies: [" + filepath.Join(dir, "bad.json") + "]\n", "bad.json:3: iam.users[0].policies[0].Statement[0].Effect"},
		"policy, no file":         {user + "      policies: [none.json]\n", "f.yaml:9: iam.users[0].policies[0]: open "},
		"policy, version date":    {user + "      policies: [{Version: 2012-10-18, Statement: []}]\n", "f.yaml:9: iam.users[0].policies[0].Version"},
		"role without trust":      {smallConfig + "iam:\n  roles:\n    - name: etl\n", "f.yaml:8: iam.roles[0].trust_policy: is required"},
		"role, duration":          {smallConfig + "iam:\n  roles:\n    - {name: etl, max_session_duration: 60}\n", `f.yaml:8: iam.roles[0].max_session_duration: is "60", want 1h0m0s to 12h0m0s`},
		"registry, nothing":       {smallConfig + "registry: {}\n", "f.yaml:6: registry: is empty"},
		"registry, unknown":       {smallConfig + "registry: {zookeeper: {}, etcd: {endpoints: [\"https://e:2379\"]}}\n", "f.yaml:6: registry.zookeeper: is not a key"},
		"etcd, unknown key":       {etcd + "    endpoint: x\n", "f.yaml:9: registry.etcd.endpoint: is not a key of the configuration; did you mean endpoints?"},
		"etcd, no endpoints":      {smallConfig + "registry:\n  etcd: {prefix: a/}\n", "f.yaml:7: registry.etcd.endpoints: is required"},
		"etcd, empty endpoints":   {smallConfig + "registry:\n  etcd: {endpoints: []}\n", "f.yaml:7: registry.etcd.endpoints: is required"},
		"etcd, a text":            {smallConfig + "registry:\n  etcd: {endpoints: \"https://e:2379\"}\n", "f.yaml:7: registry.etcd.endpoints: is a single value, want a list"},
		"etcd, no scheme":         {etcdAt("10.0.0.1:2379"), "f.yaml:8: registry.etcd.endpoints: [0] is not a URL"},
		"etcd, another scheme":    {etcdAt("unix:///run/etcd"), `f.yaml:8: registry.etcd.endpoints: [0] is "unix:///run/etcd", want a URL such as https://10.0.0.1:2379`},
		"etcd, no port":           {etcdAt("https://10.0.0.1"), `is "https://10.0.0.1", want a URL`},
		"etcd, a path":            {etcdAt("https://10.0.0.1:2379/v3"), "want a URL"},
		"etcd, a password":        {etcdAt("https://u:hunter2@10.0.0.1:2379"), "f.yaml:8: registry.etcd.endpoints: [0] is not a URL such as"},
		"etcd, http":              {etcdAt("http://10.0.0.1:2379"), `f.yaml:8: registry.etcd.endpoints: [0] is "http://10.0.0.1:2379", which is not a loopback address: it needs https`},
		"etcd, http and https":    {smallConfig + "registry:\n  etcd: {endpoints: [\"https://e:2379\", \"http://127.0.0.1:2379\"]}\n", "f.yaml:7: registry.etcd.endpoints: mixes http and https"},
		"etcd, prefix":            {etcd + "    prefix: daypass\n", `f.yaml:9: registry.etcd.prefix: is "daypass", want`},
		"etcd, prefix empty":      {etcd + "    prefix: ''\n", "f.yaml:9: registry.etcd.prefix: is empty: write a value, or leave the key out"},
		"etcd, tls over http":     {etcdAt("http://127.0.0.1:2379") + "    tls: {ca: none.crt}\n", "f.yaml:9: registry.etcd.tls: needs endpoints that begin with https://"},
		"etcd, ca unreadable":     {etcd + "    tls: {ca: none.crt}\n", "f.yaml:9: registry.etcd.tls.ca: open "},
		"etcd, ca empty":          {etcd + "    tls: {ca: config_test.go}\n", "config_test.go has no certificate in PEM form"},
		"etcd, tls half":          {etcd + "    tls: {key: x}\n", "f.yaml:9: registry.etcd.tls.certificate: is required"},
		"etcd, tls unreadable":    {etcd + "    tls: {certificate: x, key: y}\n", "f.yaml:9: registry.etcd.tls.certificate: open "},
		"etcd, no password":       {etcd + "    username: daypass\n", "f.yaml:9: registry.etcd.username: needs password_env or password_file"},
		"etcd, no username":       {etcd + "    password_env: ANA_SECRET_ACCESS_KEY\n", "registry.etcd.username: is required with a password"},
		"etcd, password unset":    {etcd + "    username: daypass\n    password_env: NOBODY_SET_THIS\n", "f.yaml:10: registry.etcd.password_env: the environment variable NOBODY_SET_THIS is not set"},
		"etcd, password inline":   {etcd + "    username: daypass\n    password: hunter2\n", "f.yaml:10: registry.etcd.password: is not a key"},
		"provider, http":          {smallConfig + "iam:\n  oidc_providers:\n    - {issuer: \"http://token.example.com\", audiences: [d]}\n", "f.yaml:8: iam.oidc_providers[0].issuer"},
		"provider, audience":      {smallConfig + "iam:\n  oidc_providers:\n    - {issuer: \"https://token.example.com\"}\n", "f.yaml:8: iam.oidc_providers[0].audiences: is required"},
		"api empty":               {strings.Replace(smallConfig, "api: {listen: \"127.0.0.1:0\"}", "api:\n  # nothing", 1), "f.yaml:4: api: has no value: it is required"},
		"gateway empty":           {strings.Replace(smallConfig, "gateway: {listen: \"127.0.0.1:0\"}", "gateway:", 1), "f.yaml:5: gateway: has no value: it is required"},
		"advertise":               {strings.Replace(smallConfig, "gateway: {", "gateway: {advertise: {host: db example}, ", 1), `f.yaml:5: gateway.advertise.host: is "db example", want a host name`},
		"custom domain":           {smallConfig + "clusters:\n  - {identifier: a, custom_domains: [\"http://x/y\"]}\n", `f.yaml:7: clusters[0].custom_domains: "http://x/y" is not a host name`},
		"seed":                    {user + "      mfa_devices: [{seed: \"!!\"}]\n", "f.yaml:9: iam.users[0].mfa_devices[0].seed: is not the key of an MFA device"},
		"seed, from outside":      {user + "      mfa_devices:\n        - {seed_env: ANA_SECRET_ACCESS_KEY}\n", "f.yaml:10: iam.users[0].mfa_devices[0].seed_env: is not the key of an MFA device"},
		"provider, keys":          {provider + "      jwks_file: config_test.go\n", "f.yaml:10: iam.oidc_providers[0].jwks_file: "},
		"provider, no keys":       {provider + "      jwks_file: /dev/null\n", "f.yaml:10: iam.oidc_providers[0].jwks_file: /dev/null is not a regular file: use one"},
		"provider, ca":            {provider + "      ca_file: config_test.go\n", "f.yaml:10: iam.oidc_providers[0].ca_file: "},
		"provider, audience text": {smallConfig + "iam:\n  oidc_providers:\n    - {issuer: \"https://token.example.com\", audiences: d}\n", "f.yaml:8: iam.oidc_providers[0].audiences: is a single value, want a list"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("f.yaml", []byte(row.text), testEnvironment)
			if err == nil {
				t.Fatalf("Parse = nil, want %q", row.want)
			}
			if !strings.Contains(err.Error(), row.want) {
				t.Errorf("Parse = %v, want %q", err, row.want)
			}
			if text := err.Error(); strings.Contains(text, "is not a key") && !strings.Contains(row.want, "is not a key") {
				t.Errorf("a key is called unknown for a fault elsewhere: %v", err)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error tells the password: %v", err)
			}
		})
	}
}

// TestSyntaxErrors: each error names the line that needs the fix, not the line where the
// parser noticed.
func TestSyntaxErrors(t *testing.T) {
	data, err := os.ReadFile("../../docs/daypass.yaml")
	if err != nil {
		t.Fatal(err)
	}
	sample := string(data)
	for _, row := range []struct{ from, to, want string }{
		{"groups: [analysts]", "groups: *x", "groups: not YAML: unknown anchor 'x' referenced; a value that begins with * needs quotes"},
		{"Action: redshift:GetClusterCredentials", "Action: *", `Action: not YAML: did not find expected alphabetic or numeric character; a value that begins with * needs quotes: "*"`},
		{`"redshift:JoinGroup"`, "[redshift:JoinGroup, *]", `Statement: not YAML: did not find expected alphabetic or numeric character; a value that begins with * needs quotes: "*"`},
		{"tags: {team: data}\n      policies", "tags: {team: data\n      policies", "tags: not YAML: "},
		{"    database: dev ", "   database: dev ", "database: not YAML: "},
		{`account: "123456789012"`, `account: "123456789012`, "account: not YAML: "},
		{"  listen: 127.0.0.1:8440", "  listen: '127.0.0.1:8440", "listen: not YAML: "},
		{"region: us-east-1", "region us-east-1", "not YAML: "},
		{"path: /\n", "path: \xff\n", "not YAML: "},
		{"  - identifier: examplecluster", "\t- identifier: examplecluster", "identifier: not YAML: "},
	} {
		if !strings.Contains(sample, row.from) {
			t.Fatalf("the sample has no %q", row.from)
		}
		want := fmt.Sprintf("f.yaml:%d: %s", lineOf(sample, row.from), row.want)
		_, err := Parse("f.yaml", []byte(strings.Replace(sample, row.from, row.to, 1)), testEnvironment)
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: Parse = %v, want %q", row.to, err, want)
		}
	}
}

// TestSyntaxErrorInLargeFile: the line is found in a file of any size.
func TestSyntaxErrorInLargeFile(t *testing.T) {
	const users = 20000
	var text strings.Builder
	text.WriteString(smallConfig + "iam:\n  users:\n")
	for i := range users {
		fmt.Fprintf(&text, "    - name: user%d\n", i)
	}
	text.WriteString("      tags: {team: data\n")
	for i := range users {
		fmt.Fprintf(&text, "    - name: other%d\n", i)
	}
	want := fmt.Sprintf("f.yaml:%d: tags: not YAML: ", lineOf(text.String(), "tags:"))
	if _, err := Parse("f.yaml", []byte(text.String()), testEnvironment); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("Parse = %v, want %q", err, want)
	}
}

// TestConfigRegistry: settings that are left out have their defaults.
func TestConfigRegistry(t *testing.T) {
	parse := func(text string) *Config {
		t.Helper()
		c, err := Parse("f.yaml", []byte(text), testEnvironment)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if c := parse(smallConfig); c.Registry.Etcd != nil {
		t.Errorf("without registry: %+v", c.Registry.Etcd)
	}
	plain := parse(etcdAt("http://127.0.0.1:2379/")).Registry.Etcd
	if plain.Prefix != "daypass/" || plain.TLS != nil || plain.Endpoints[0] != "http://127.0.0.1:2379" {
		t.Errorf("on loopback: %+v", plain)
	}
	if secure := parse(etcd).Registry.Etcd; secure.TLS == nil || secure.TLS.MinVersion != tls.VersionTLS12 || secure.TLS.RootCAs != nil {
		t.Errorf("with https: %+v, want TLS with the system's authorities", secure)
	}
	dir := t.TempDir()
	if _, err := ca.Open(dir, nil, time.Now); err != nil {
		t.Fatal(err)
	}
	shown := parse(fmt.Sprintf("%s    tls: {ca: %s/ca.crt, certificate: %[2]s/server.crt, key: %[2]s/server.key}\n", etcd, dir))
	if cert, err := shown.Registry.Etcd.TLS.GetClientCertificate(nil); err != nil || len(cert.Certificate) == 0 || shown.Registry.Etcd.TLS.RootCAs == nil {
		t.Errorf("with certificates: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "server.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := shown.Registry.Etcd.TLS.GetClientCertificate(nil); err == nil {
		t.Error("the client certificate is not read anew for each connection")
	}
	full := parse(etcd + "    prefix: other/\n    username: daypass\n    password_env: ANA_SECRET_ACCESS_KEY\n")
	if e := full.Registry.Etcd; e.Prefix != "other/" || e.Username != "daypass" || !strings.HasPrefix(e.Password.Reveal(), "wJalr") {
		t.Errorf("with a user: %+v", e)
	}
	for name, next := range map[string]*Config{
		`f.yaml:7: registry.etcd.prefix: cannot change from "other/" to "daypass/" while the server runs: restart it`: parse(etcd),
		"f.yaml:1: registry.etcd: cannot be taken away while":                                                         parse(smallConfig),
	} {
		if err := full.MayBecome(next); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("MayBecome = %v, want %q", err, name)
		}
	}
	same := parse(etcd + "    prefix: other/\n    username: daypass\n    password_env: DAYPASS_UPSTREAM_PASSWORD\n")
	if err := full.MayBecome(same); err != nil {
		t.Errorf("MayBecome(another password) = %v", err)
	}
	if err := full.MayBecome(full); err != nil {
		t.Errorf("MayBecome(itself) = %v", err)
	}
}

func TestConfigNamesAllFaultsAtOnce(t *testing.T) {
	_, err := Parse("f.yaml", []byte("account: x\nregion: '?'\nnonsense: 1\n"), testEnvironment)
	if err == nil {
		t.Fatal("Parse = nil, want errors")
	}
	for _, want := range []string{"f.yaml:1: account", "f.yaml:2: region", "data: is required", "api: is required", "gateway: is required", "f.yaml:3: nonsense"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("Parse = %v, want %q in it", err, want)
		}
	}
}
