package config

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/daypass/daypass/internal/ca"
	"github.com/daypass/daypass/internal/iam"
)

// whole contains every key, with secrets from each of the possible sources.
const whole = `account: "123456789012"
region: us-east-1
data: data
keyring: keys/keyring.json
api:
  listen: 127.0.0.1:8440
  tls: {certificate: server.crt, key: server.key}
  trusted_proxies: [10.0.0.0/8]
  proxy_protocol: {from: [10.0.0.0/8]}
  limits: {rate: 100, burst: 200, concurrent: 10, connections: 50, per_address: 20}
gateway:
  listen: 127.0.0.1:5439
  tls: {certificate: server.crt, key: server.key}
  advertise: {host: db.example.com, port: 5440}
  proxy_protocol: {from: [10.0.0.1]}
admin: {listen: "127.0.0.1:9440", pprof: true}
metrics: {listen: "0.0.0.0:9441", tls: {certificate: server.crt, key: server.key}}
audit: {principal_bytes: 20000}
tracing: {endpoint: "http://127.0.0.1:4318"}
registry:
  etcd:
    endpoints: ["https://10.0.0.1:2379"]
    prefix: other/
    tls: {ca: ca.crt, certificate: server.crt, key: server.key}
    username: daypass
    password_env: ANA_SECRET_ACCESS_KEY
root_key: {file: root.key}
peers: {listen: "127.0.0.1:8443", advertise: "10.0.0.1:8443"}
sign_in:
  url: https://daypass.example.com
  issuer: https://token.example.com
  client_id: daypass
  client_secret_env: ANA_SECRET_ACCESS_KEY
  scopes: [openid, groups]
  session_name: preferred_username
  duration: 8h
console: true
clusters:
  - identifier: east
    database: sales
    upstream: postgres://daypass@127.0.0.1:5432/postgres?sslmode=disable
    upstream_password_env: DAYPASS_UPSTREAM_PASSWORD
    custom_domains: [warehouse.example.com]
    allow_superusers: true
    allow_predefined_roles: true
    remove_passwords: all
    never_lend: [app, "svc_*"]
    session_limits: {max: 100, per_user: 5, scope: all, idle: 30m, total: 12h, end_at_expiry: true, notice: 1m}
    prewarm: {max: 4}
    parked_sessions: {max: 20, idle: 30s, age: 10m}
    tags: {stage: production}
  - identifier: west
    upstream_password_file: secret
iam:
  policies:
    - name: reader
      document: {Version: "2012-10-17", Statement: {Effect: Allow, Action: "redshift:JoinGroup", Resource: "*"}}
  groups:
    - name: analysts
      policies: [{Version: "2012-10-17", Statement: {Effect: Allow, Action: "redshift:JoinGroup", Resource: "*"}}]
      attached_policies: [reader]
  users:
    - name: ana
      path: /data/
      access_keys:
        - {id: AKIAIOSFODNN7EXAMPLE, secret: wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY}
        - {id: AKIAI44QH8DHBEXAMPLE, secret_env: ANA_SECRET_ACCESS_KEY}
        - {id: AKIAI44QH8DHCEXAMPLE, secret_file: secret}
      mfa_devices:
        - {serial_number: "arn:aws:iam::123456789012:mfa/one", seed: JBSWY3DPEHPK3PXP}
        - {serial_number: "arn:aws:iam::123456789012:mfa/two", seed_env: SEED}
        - {serial_number: "arn:aws:iam::123456789012:mfa/three", seed_file: seed}
      groups: [analysts]
      tags: {team: data}
      policies: [{Version: "2012-10-17", Statement: {Effect: Allow, Action: "redshift:JoinGroup", Resource: "*"}}]
      attached_policies: [reader]
      permissions_boundary: {Version: "2012-10-17", Statement: {Effect: Allow, Action: "*", Resource: "*"}}
  roles:
    - name: etl
      path: /data/
      trust_policy: {Version: "2012-10-17", Statement: {Effect: Allow, Principal: {AWS: "arn:aws:iam::123456789012:user/data/ana"}, Action: "sts:AssumeRole"}}
      max_session_duration: 2h
      tags: {team: data}
      policies: [{Version: "2012-10-17", Statement: {Effect: Allow, Action: "redshift:JoinGroup", Resource: "*"}}]
      attached_policies: [reader]
      permissions_boundary: {Version: "2012-10-17", Statement: {Effect: Allow, Action: "*", Resource: "*"}}
  oidc_providers:
    - issuer: https://token.example.com
      audiences: [daypass]
      jwks_file: jwks.json
      ca_file: ca.crt
`

// variants are whole, and copies with the keys that exclude some of whole's keys.
var variants = []string{
	whole,
	strings.NewReplacer("    password_env: ANA_SECRET_ACCESS_KEY\nroot_key: {file: root.key}", "    password_file: secret\nroot_key: {command: [cat, root.key]}",
		"client_secret_env: ANA_SECRET_ACCESS_KEY", "client_secret_file: secret").Replace(whole),
	strings.Replace(whole, "client_secret_env: ANA_SECRET_ACCESS_KEY", "client_secret: a secret that is long enough", 1),
}

// wholeSite makes a directory with the files that the constant whole names, and returns the path
// of the configuration in it.
func wholeSite(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if _, err := ca.Open(dir, nil, time.Now); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"secret":      "a secret that is long enough\n",
		"othersecret": "another secret that is long enough\n",
		"root.key":    "5mrUHyeJx4KGsXXGbqZqCLpEVkGePlmkkkIAXfHlYmQ=\n",
		"seed":        "JBSWY3DPEHPK3PXPJBSWY3DP\n",
		"jwks.json":   `{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for from, to := range map[string]string{"ca.crt": "other.crt", "server.key": "other.key", "server.crt": "other-server.crt", "jwks.json": "other.json", "root.key": "root.key2"} {
		data, err := os.ReadFile(filepath.Join(dir, from))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, to), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "daypass.yaml")
}

func wholeEnvironment(name string) (string, bool) {
	if name == "SEED" {
		return "JBSWY3DPEHPK3PXP", true
	}
	if name == "OTHER" {
		return "JBSWY3DPEHPK3PXPAAAAAAAAAAAAAAAA", true
	}
	return testEnvironment(name)
}

// place is one key of whole: its row in the table and its nodes.
type place struct {
	path  string
	row   *key
	in    *yaml.Node // the mapping that contains it
	index int        // the key's position in the mapping's content
}

func (p place) value() *yaml.Node { return p.in.Content[p.index+1] }

// wholePlaces parses whole and finds every key in it.
func wholePlaces(t *testing.T, text string) (root *yaml.Node, places []place) {
	t.Helper()
	root = new(yaml.Node)
	if err := yaml.Unmarshal([]byte(text), root); err != nil {
		t.Fatal(err)
	}
	var walk func(node *yaml.Node, path string, table []key)
	walk = func(node *yaml.Node, path string, table []key) {
		for i := 0; i+1 < len(node.Content); i += 2 {
			name, value := node.Content[i].Value, node.Content[i+1]
			row := slices.IndexFunc(table, func(k key) bool { return k.name == name })
			if row < 0 {
				t.Fatalf("%s%s is not in the table of keys", path, name)
			}
			places = append(places, place{path + name, &table[row], node, i})
			switch table[row].value {
			case mapping:
				walk(value, path+name+".", table[row].keys)
			case mappings:
				for j, item := range value.Content {
					walk(item, fmt.Sprintf("%s%s[%d].", path, name, j), table[row].keys)
				}
			}
		}
	}
	walk(root.Content[0], "", fileKeys)
	return root, places
}

// allRows returns the rows of all tables by their paths, without indexes.
func allRows() map[string]*key {
	rows := map[string]*key{}
	var walk func(path string, table []key)
	walk = func(path string, table []key) {
		for i := range table {
			rows[path+table[i].name] = &table[i]
			walk(path+table[i].name+".", table[i].keys)
		}
	}
	walk("", fileKeys)
	return rows
}

// TestTableIsWhole: each key has a description, how a change takes effect, and what its absence
// means. Each is in the sample, and the program reads each.
func TestTableIsWhole(t *testing.T) {
	there := map[*key]bool{}
	for _, text := range variants {
		_, places := wholePlaces(t, text)
		for _, p := range places {
			there[p.row] = true
		}
	}
	f, err := newYAMLFile(wholeSite(t), wholeEnvironment)
	if err != nil {
		t.Fatal(err)
	}
	root, err := f.document([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	(&Config{}).read(f.open(root, "", fileKeys))
	if err := f.err(); err != nil {
		t.Fatal(err)
	}
	for path, k := range allRows() {
		if k.change == unknown {
			t.Errorf("%s does not say what it takes to change it", path)
		}
		if !there[k] {
			t.Errorf("%s is not in the sample of this test", path)
		}
		if !f.asked[k] {
			t.Errorf("%s is a key of the file that nothing reads", path)
		}
		if k.doc == "" || !strings.HasSuffix(k.doc, ".") {
			t.Errorf("%s: its description is %q, want sentences", path, k.doc)
		}
		if k.required && k.absent+k.unset != "" {
			t.Errorf("%s is required, and there is a default", path)
		}
		if k.value == integer || k.value == seconds {
			if k.most == 0 {
				t.Errorf("%s has no upper bound", path)
			}
			if k.absent != "" && !strings.Contains(normal(k, k.absent), "0") && k.value == seconds {
				t.Errorf("%s: its default %q is no duration", path, k.absent)
			}
		}
	}
}

// TestNullAndEmpty: for every key of the file, a key without a value is an error that names
// file, line and key. An unset variable in a template must not mean "none".
func TestNullAndEmpty(t *testing.T) {
	file := wholeSite(t)
	done := map[string]bool{}
	for _, text := range variants {
		_, places := wholePlaces(t, text)
		for n, p := range places {
			if done[p.path] {
				continue
			}
			done[p.path] = true
			refuse := func(value, want string) {
				t.Helper()
				changed, line := replaced(t, text, n, value)
				_, err := Parse(file, changed, wholeEnvironment)
				prefix := fmt.Sprintf("%s:%d: %s: ", file, line, p.path)
				if err == nil || !strings.Contains(err.Error(), prefix+want) {
					t.Errorf("%s: %q: %v, want %s%s", p.path, value, err, prefix, want)
				}
			}
			for _, null := range []string{"null", "~", "", "!!null x"} {
				refuse(null, "has no value")
			}
			switch p.row.value {
			case boolean, integer, seconds:
				refuse(`""`, `is ""`)
			case mapping, tags:
				if !p.row.none {
					refuse("{}", "is empty")
				}
			case texts, policies, mappings:
				if !p.row.none {
					refuse("[]", "is required")
				}
			case policy:
				refuse("{}", "is empty")
				refuse(`" "`, "is empty")
			default:
				refuse(`""`, "is empty")
			}
			if p.row.value == texts || p.row.value == policies || p.row.value == mappings {
				changed, _ := replaced(t, text, n, "[~]")
				if _, err := Parse(file, changed, wholeEnvironment); err == nil || !strings.Contains(err.Error(), ": "+p.path+"[0]: has no value") {
					t.Errorf("%s: [~]: %v", p.path, err)
				}
			}
		}
	}
}

// replaced returns the sample with another value for one key, and the line of that key.
func replaced(t *testing.T, sample string, n int, value string) (text []byte, line int) {
	t.Helper()
	const mark = "REPLACED"
	root, places := wholePlaces(t, sample)
	*places[n].value() = yaml.Node{Kind: yaml.ScalarNode, Value: mark}
	text, err := yaml.Marshal(root)
	if err != nil {
		t.Fatal(err)
	}
	f := &yamlFile{lines: map[string]int{}, files: map[string]outside{}, asked: map[*key]bool{}, path: "f.yaml", dir: t.TempDir(), getenv: wholeEnvironment}
	document, err := f.document(text)
	if err != nil {
		t.Fatal(err)
	}
	f.open(document, "", fileKeys)
	return bytes.Replace(text, []byte(mark), []byte(value), 1), f.lines[places[n].path]
}

// TestEmptyWhereNothingIsMeant: lists and mappings that may be empty grant nothing.
func TestEmptyWhereNothingIsMeant(t *testing.T) {
	for _, text := range []string{
		"clusters: []\n", "iam: {}\n", "iam: {users: []}\n",
		"iam:\n  users:\n    - {name: ana, policies: [], attached_policies: [], groups: [], access_keys: [], mfa_devices: [], tags: {}}\n",
		"iam:\n  users:\n    - {name: ana, tags: {team: \"\"}}\n",
	} {
		c, err := Parse("f.yaml", []byte(smallConfig+text), testEnvironment)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if u, ok := c.Directory.User("ana"); ok && len(u.Policies.Identity) > 0 {
			t.Errorf("%s: ana has policies", text)
		}
	}
	for _, text := range []string{
		"iam:\n  users:\n    - {name: ana, tags: {team: }}\n", "iam:\n  users:\n    - {name: ana, tags: {team: ~}}\n",
		"x: &x ~\niam:\n  users:\n    - {name: ana, permissions_boundary: *x}\n",
	} {
		if _, err := Parse("f.yaml", []byte(smallConfig+text), testEnvironment); err == nil || !strings.Contains(err.Error(), "has no value") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestLintReadsTheSame: lint and the server's reader agree about a configuration's policies,
// null and empty ones included. Only the server checks the other sections.
func TestLintReadsTheSame(t *testing.T) {
	for text, want := range map[string]string{
		"iam:\n  users:\n    - {name: ana, permissions_boundary: }\n":                    "iam.users[0].permissions_boundary: has no value",
		"iam:\n  users:\n    - {name: ana, permissions_boundary: {}}\n":                  "iam.users[0].permissions_boundary: is empty",
		"iam:\n  users:\n    - {name: ana, policies: }\n":                                "iam.users[0].policies: has no value",
		"iam:\n  users:\n    - {name: ana, policies: [null]}\n":                          "iam.users[0].policies[0]: has no value",
		"iam:\n  groups:\n    - {name: g, policies: none.json}\n":                        "iam.groups[0].policies: is a single value, want a list",
		"iam:\n  groups:\n    - {name: g, policies: [none.json]}\n":                      "iam.groups[0].policies[0]: open ",
		"iam:\n  roles:\n    - {name: r, trust_policy: ~}\n":                             "iam.roles[0].trust_policy: has no value",
		"iam:\n  policies:\n    - {name: p, document: {Statement: [], X: 1}}\n":          "iam.policies[0].document",
		"nonsense: 1\niam: {users: [{name: ana, unknown: 1, access_keys: [{id: x}]}]}\n": "",
	} {
		_, errs := LintPolicies("f.yaml", []byte(text), func([]byte) iam.Kind { return iam.IdentityPolicy })
		switch {
		case want == "" && len(errs) > 0, want != "" && (len(errs) != 1 || !strings.Contains(errs[0].Error(), want)):
			t.Errorf("%s: lint = %v, want %q", text, errs, want)
		}
	}
}

// anotherValue has a second valid value for each of these text keys.
var anotherValue = map[string]string{
	"command": "vault",
	"account": "210987654321", "region": "eu-central-1", "listen": "127.0.0.1:1234", "endpoint": "http://127.0.0.1:4319",
	"endpoints": "https://10.0.0.2:2379", "host": "db2.example.com", "trusted_proxies": "10.1.0.0/16", "prefix": "third/",
	"custom_domains": "house.example.com", "upstream": "postgres://daypass@127.0.0.1:5433/postgres?sslmode=disable",
	"id": "AKIAI44QH8DHDEXAMPLE", "path": "/other/", "issuer": "https://tokens.example.com",
	"secret": "another secret that is long enough", "secret_env": "OTHER", "secret_file": "othersecret",
	"seed": "JBSWY3DPEHPK3PXPAAAAAAAA", "seed_env": "OTHER", "seed_file": "othersecret",
	"password_env": "OTHER", "password_file": "othersecret", "upstream_password_env": "OTHER", "upstream_password_file": "othersecret",
	"remove_passwords": "none", "scope": "server", "never_lend": "other",
	"certificate": "other-server.crt", "key": "other.key", "ca": "other.crt", "ca_file": "other.crt", "jwks_file": "other.json",
}

// alter gives a key another valid value. It returns false if that would take more than one
// change, or if another key stands for the same setting.
func (p place) alter() bool {
	node := p.value()
	switch p.row.value {
	case mapping, mappings, policy, policies:
		return false
	case boolean:
		node.Value = strconv.FormatBool(node.Value != "true")
	case integer:
		n, _ := strconv.Atoi(node.Value)
		node.Value = strconv.Itoa(n + 1)
	case seconds:
		node.Value = "3601s"
	case tags:
		node.Content[1].Value += "2"
	case texts:
		value, ok := anotherValue[p.row.name]
		if !ok {
			return false
		}
		node.Content[0].Value = value
	default:
		value, ok := anotherValue[p.row.name]
		if !ok {
			value = node.Value + "2"
		}
		node.Value = value
	}
	return true
}

// TestChanges: for every key, the table decides whether a reload refuses a change, and
// whether the change makes new administrative connections. No key needs an entry in a second
// list.
func TestChanges(t *testing.T) {
	file := wholeSite(t)
	parse := func(root *yaml.Node) (*Config, error) {
		text, err := yaml.Marshal(root)
		if err != nil {
			t.Fatal(err)
		}
		return Parse(file, text, wholeEnvironment)
	}
	tried := map[*key]bool{}
	for _, text := range variants {
		root, places := wholePlaces(t, text)
		before, err := parse(root)
		if err != nil {
			t.Fatal(err)
		}
		if err := before.MayBecome(before); err != nil {
			t.Errorf("MayBecome(itself) = %v", err)
		}
		for n, p := range places {
			root, places := wholePlaces(t, text)
			if tried[p.row] || !places[n].alter() {
				continue
			}
			after, err := parse(root)
			if err != nil {
				continue // other keys refer to this one, or both files of a pair have to change
			}
			tried[p.row] = true
			err = before.MayBecome(after)
			switch {
			case p.row.change == restart && (err == nil || !strings.Contains(err.Error(), ": "+p.path+": ")):
				t.Errorf("%s needs a restart; MayBecome = %v", p.path, err)
			case p.row.change != restart && err != nil:
				t.Errorf("%s needs no restart; MayBecome = %v", p.path, err)
			case err != nil && strings.Contains(err.Error(), "secret that is long"):
				t.Errorf("the error tells a secret: %v", err)
			}
			old, now := before.Clusters[0], after.Clusters[0]
			if strings.HasPrefix(p.path, "clusters[1]") {
				old, now = before.Clusters[1], after.Clusters[1]
			}
			if changed, want := old.Connection != now.Connection, p.row.change == reconnect; changed != want {
				t.Errorf("%s: other connections = %v, want %v", p.path, changed, want)
			}
			if changed, want := old.Settings != now.Settings, strings.HasPrefix(p.path, "clusters["); changed != want {
				t.Errorf("%s: other settings = %v, want %v", p.path, changed, want)
			}
		}
	}
	for path, k := range allRows() {
		if k.change != live && !tried[k] && k.value != mapping {
			t.Errorf("%s was not changed by this test", path)
		}
	}
}

// TestChangesOfFiles: a change of a file's content counts as a change of its key, unless the
// file is read again whenever it is used.
func TestChangesOfFiles(t *testing.T) {
	for name, tt := range map[string]struct {
		file, want string
		connection bool
	}{
		"the authorities of etcd": {"ca.crt", "", false},
		"a password":              {"secret", "", true},
		"a certificate":           {"server.crt", "", false},
	} {
		file := wholeSite(t)
		before, err := Parse(file, []byte(whole), wholeEnvironment)
		if err != nil {
			t.Fatal(err)
		}
		changed := filepath.Join(filepath.Dir(file), tt.file)
		data, err := os.ReadFile(changed)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(changed, append([]byte("more\n"), data...), 0o600); err != nil {
			t.Fatal(err)
		}
		after, err := Parse(file, []byte(whole), wholeEnvironment)
		if err != nil {
			t.Fatal(err)
		}
		if err := before.MayBecome(after); err == nil && tt.want != "" || err != nil && (tt.want == "" || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: MayBecome = %v, want %q", name, err, tt.want)
		}
		if got := before.Clusters[1].Connection != after.Clusters[1].Connection; got != tt.connection {
			t.Errorf("%s: other connections = %v, want %v", name, got, tt.connection)
		}
		if SameContent(before.Files, after.Files) {
			t.Errorf("%s: the files are the same", name)
		}
	}
}

func TestSecretsHaveALength(t *testing.T) {
	for secret, want := range map[string][2]string{
		"s":                {"has 1 character, want at least 8", ""},
		"1234567":          {"has 7 characters, want at least 8", ""},
		"12345678":         {"", "has only 8 characters"},
		"123456789012345":  {"", "has only 15 characters"},
		"1234567890123456": {"", ""},
	} {
		text := smallConfig + "iam:\n  users:\n    - name: ana\n      access_keys:\n        - {id: AKIAIOSFODNN7EXAMPLE, secret_env: S}\n"
		c, err := Parse("f.yaml", []byte(text), func(string) (string, bool) { return secret, true })
		switch {
		case want[0] != "":
			if err == nil || !strings.Contains(err.Error(), "f.yaml:10: iam.users[0].access_keys[0].secret_env: "+want[0]) {
				t.Errorf("a secret of %d: %v, want %q", len(secret), err, want[0])
			}
		case err != nil:
			t.Errorf("a secret of %d: %v", len(secret), err)
		case len(c.Warnings) > 0 != (want[1] != "") || want[1] != "" && !strings.Contains(c.Warnings[0], "f.yaml:10: iam.users[0].access_keys[0].secret_env: "+want[1]):
			t.Errorf("a secret of %d: warnings = %q, want %q", len(secret), c.Warnings, want[1])
		}
	}
	for _, secret := range []string{"${ANA_SECRET}", "$ANA_SECRET_KEY", "$(ANA_SECRET)", "{{ .Values.secret }}", "<secret access key>", "${FIRST_HALF}${SECOND_HALF}",
		"%ANA_SECRET%", "@ANA_SECRET@", "__ANA_SECRET__", "                "} {
		text := smallConfig + "iam:\n  users:\n    - name: ana\n      access_keys:\n        - {id: AKIAIOSFODNN7EXAMPLE, secret_env: S}\n        - {id: AKIAI44QH8DHBEXAMPLE, secret: \"" + secret + "\"}\n"
		_, err := Parse("f.yaml", []byte(text), func(string) (string, bool) { return secret, true })
		want := "is a placeholder that no template has filled in"
		if strings.TrimSpace(secret) == "" {
			want = "empty"
		}
		if err == nil || strings.Count(err.Error(), want) != 2 || !strings.Contains(err.Error(), "f.yaml:11: iam.users[0].access_keys[1].secret: ") {
			t.Errorf("the secret %q: %v", secret, err)
		}
	}
	for key, text := range map[string]string{
		"clusters[0].upstream_password_env":    smallConfig + "clusters: [{identifier: c, database: dev, upstream: 'postgres://a@127.0.0.1/postgres', upstream_password_env: S}]\n",
		"registry.etcd.password_env":           smallConfig + "registry: {etcd: {endpoints: ['http://127.0.0.1:2379'], username: daypass, password_env: S}}\n",
		"iam.users[0].mfa_devices[0].seed_env": smallConfig + "iam:\n  users: [{name: ana, mfa_devices: [{seed_env: S}]}]\n",
	} {
		_, err := Parse("f.yaml", []byte(text), func(string) (string, bool) { return "$SECRET", true })
		if err == nil || !strings.Contains(err.Error(), key+": is a placeholder") || strings.Contains(err.Error(), "$SECRET") {
			t.Errorf("%s: %v", key, err)
		}
	}
	for seed, ok := range map[string]bool{"JBSWY3A": false, "JBSWY3DPEHPK3PXP": true} {
		text := smallConfig + "iam:\n  users:\n    - name: ana\n      mfa_devices: [{seed: " + seed + "}]\n"
		if _, err := Parse("f.yaml", []byte(text), testEnvironment); (err == nil) != ok {
			t.Errorf("a seed of %d: %v", len(seed), err)
		}
	}
}

// TestPlaceholders: a placeholder that a template left unfilled is refused as the value of
// any key, above all where a wrong value would go unnoticed.
func TestPlaceholders(t *testing.T) {
	for key, text := range map[string]string{
		"data":                                      smallConfig,
		"clusters[0].never_lend[0]":                 smallConfig + "clusters: [{identifier: c, database: dev, never_lend: [VALUE]}]\n",
		"iam.oidc_providers[0].audiences[0]":        smallConfig + "iam:\n  oidc_providers: [{issuer: 'https://id.example.com', audiences: [VALUE]}]\n",
		"iam.users[0].mfa_devices[0].serial_number": smallConfig + "iam:\n  users: [{name: ana, mfa_devices: [{serial_number: VALUE, seed: JBSWY3DPEHPK3PXP}]}]\n",
	} {
		if key == "data" {
			text = regexp.MustCompile(`(?m)^data: .*$`).ReplaceAllString(text, "data: VALUE")
		}
		for _, value := range []string{"'${NAME}'", "$NAME", "'{{ .Values.name }}'", "$(NAME)", "<name>"} {
			filled := strings.Replace(text, "VALUE", value, 1)
			if _, err := Parse("f.yaml", []byte(filled), testEnvironment); err == nil || !strings.Contains(err.Error(), ": "+key+": is ") || !strings.Contains(err.Error(), isPlaceholder) {
				t.Errorf("%s: %s: %v", key, value, err)
			}
		}
	}
}

// TestProxyNetworks: only listed networks are proxies, and IPv4 networks match in both
// spellings.
func TestProxyNetworks(t *testing.T) {
	for _, list := range []string{"0.0.0.0/0", "'::/0'", "'::ffff:0.0.0.0/96'", "0.0.0.0/1", "0.0.0.0/1, 128.0.0.0/1", "16.0.0.0/5, 24.0.0.0/5",
		"'2000::/3'", "'8000::/1', '::/1'", "'2400::/6', '2800::/6'", "20.0.0.0/4"} {
		for key, value := range map[string]string{"trusted_proxies": "[" + list + "]", "proxy_protocol": "{from: [" + list + "]}"} {
			text := regexp.MustCompile(`(?m)^api: \{`).ReplaceAllString(smallConfig, "api: {"+key+": "+value+", ")
			if _, err := Parse("f.yaml", []byte(text), testEnvironment); err == nil || !strings.Contains(err.Error(), "internet: anyone there could pass for anyone") {
				t.Errorf("%s: %s: %v", key, list, err)
			}
		}
	}
	for _, list := range []string{"10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10, 127.0.0.0/8, 'fc00::/7', 'fe80::/10', '::1'",
		"13.32.0.0/15, 13.32.0.0/15, 13.32.0.0/16, 20.0.0.0/8, '2400:cb00::/32', '2606:4700::/32', '2a00::/11'"} {
		text := regexp.MustCompile(`(?m)^api: \{`).ReplaceAllString(smallConfig, "api: {trusted_proxies: ["+list+"], ")
		if _, err := Parse("f.yaml", []byte(text), testEnvironment); err != nil {
			t.Errorf("%s: %v", list, err)
		}
	}
	for text, want := range map[string]string{"10.0.0.1": "10.0.0.1/32", "::ffff:10.0.0.1": "10.0.0.1/32", "::ffff:10.0.0.0/104": "10.0.0.0/8", "2001:db8::/32": "2001:db8::/32"} {
		if got, err := parsePrefix(text); err != nil || got.String() != want {
			t.Errorf("%s is %v, %v, want %s", text, got, err, want)
		}
	}
}
