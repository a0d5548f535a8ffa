package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// policyCommand runs one command line in this process.
func policyCommand(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errors bytes.Buffer
	code = run(context.Background(), append([]string{"policy"}, args...), environment{
		stdin: strings.NewReader(stdin), stdout: &out, stderr: &errors, now: time.Now,
	})
	return code, out.String(), errors.String()
}

func writePolicyFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPolicyLint(t *testing.T) {
	good := `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"redshift:JoinGroup","Resource":"*"}}`
	open := `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"redshift:GetClusterCredentials",
"Resource":["arn:aws:redshift:*:*:dbuser:*/*","arn:aws:redshift:*:*:dbname:*/dev"]}}`
	trust := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"123456789012"},"Action":"sts:AssumeRole"}]}`
	yaml := "Version: \"2012-10-17\"\nStatement:\n  - Effect: Allow\n    Action: redshift:JoinGruop\n    Resource: \"*\"\n"
	config := "iam:\n  policies:\n    - name: p\n      document:\n        Version: \"2012-10-17\"\n        Statement:\n          - Effect: Allow\n            Action: x\n" +
		"            Resource: \"*\"\n  roles:\n    - name: r\n      trust_policy: " + trust + "\n      policies:\n        - " + strings.ReplaceAll(open, "\n", " ") + "\n"
	statement := func(resource, more string) string {
		return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"redshift:GetClusterCredentials","Resource":"arn:aws:redshift:*:*:` + resource + `"` + more + `}]}`
	}
	users, dev, boundary := statement("dbuser:*/*", ""), statement("dbname:*/dev", ""),
		statement("*", `,"Condition":{"Null":{"redshift:DbName":"false"}}`)
	split := `{"Version":"2012-10-17","Statement":[{"Sid":"Own","Effect":"Allow","Action":"redshift:GetClusterCredentials","Resource":"arn:aws:redshift:*:*:dbuser:*/*"},
{"Effect":"Allow","Action":"redshift:GetClusterCredentials","Resource":"arn:aws:redshift:*:*:dbname:*/dev"}]}`
	principals := func(name string, policies ...string) string {
		return "iam:\n  users:\n    - name: " + name + "\n      policies: \n        [" + strings.Join(policies, ", ") + "]\n"
	}
	for name, tt := range map[string]struct {
		file, text string
		args       []string
		code       int
		want       []string
	}{
		"nothing to say":        {"p.json", good, nil, 0, nil},
		"a warning":             {"p.json", open, nil, 0, []string{"warning: ", "p.json: line 2, column 47: Statement.Resource[1]: without DbName"}},
		"a warning, strict":     {"p.json", open, []string{"--strict"}, 1, []string{"warning: "}},
		"an error":              {"p.json", "{\n}", nil, 1, []string{"error: ", "p.json: line 1, column 1: the element Statement is missing"}},
		"not JSON":              {"p.json", "{", nil, 1, []string{"not JSON"}},
		"a trust policy":        {"p.json", trust, nil, 0, nil},
		"no identity policy":    {"p.json", trust, []string{"--kind", "identity"}, 1, []string{"has no principal"}},
		"no trust policy":       {"p.json", good, []string{"--kind", "trust"}, 1, []string{"has no resource"}},
		"YAML":                  {"p.yaml", yaml, nil, 0, []string{"line 4", "is redshift:JoinGroup meant?"}},
		"broken YAML":           {"p.yaml", "a: [", nil, 1, []string{"p.yaml"}},
		"empty YAML":            {"p.yml", "", nil, 1, []string{"the file is empty"}},
		"a configuration file":  {"daypass.yaml", config, nil, 1, []string{"daypass.yaml:8: iam.policies[0].document.Statement[0].Action", "iam.roles[0].policies[0]: line 14", "without DbName"}},
		"two statements":        {"p.json", split, nil, 0, []string{"p.json: line 2, column 72: Statement[1].Resource: without DbName this is not checked: Own gives"}},
		"two policies":          {"daypass.yaml", principals("u", users, dev), nil, 0, []string{"iam.users[0].policies[1]: line 5", "Statement[0] of daypass.yaml iam.users[0].policies[0] gives"}},
		"a group's policies":    {"daypass.yaml", "iam:\n  groups:\n    - {name: g, policies: [" + users + ", " + dev + "]}\n  users:\n    - {name: u, groups: [g]}\n    - {name: v, groups: [g]}\n", nil, 0, []string{"iam.groups[0].policies[1]: line 3"}},
		"a group and its user":  {"daypass.yaml", "iam:\n  groups:\n    - {name: g, policies: [" + users + "]}\n  users:\n    - {name: u, groups: [g], policies: [" + dev + "]}\n", nil, 0, []string{"Statement[0] of daypass.yaml iam.groups[0].policies[0] gives"}},
		"attached to a role":    {"daypass.yaml", "iam:\n  policies:\n    - {name: p, document: " + users + "}\n  roles:\n    - {name: r, trust_policy: " + trust + ", attached_policies: [p, none], policies: [" + dev + "]}\n", nil, 0, []string{"of daypass.yaml iam.policies[0].document gives"}},
		"a boundary is enough":  {"daypass.yaml", principals("u", users, dev) + "      permissions_boundary: " + boundary + "\n", nil, 0, nil},
		"an unknown kind":       {"p.json", good, []string{"--kind", "bucket"}, 2, nil},
		"elsewhere":             {"daypass.yaml", "account: '123456789012'\nregion: us-east-1\niam:\n  users:\n    - name: u\n      policies: [{\"Statement\":{\"Effect\":\"Allow\",\"Action\":\"redshift:JoinGroup\",\"Resource\":\"arn:aws:redshift:us-east-1:999999999999:dbgroup:c/g\"}}]\n", nil, 0, []string{"line 6", "the account is \"999999999999\""}},
		"a configuration, fine": {"daypass.yaml", "iam:\n  users:\n    - name: u\n      policies: [" + good + "]\n", nil, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			path := writePolicyFile(t, tt.file, tt.text)
			code, stdout, stderr := policyCommand(t, "", append([]string{"lint", path}, tt.args...)...)
			if code != tt.code {
				t.Errorf("exit code %d, want %d (%s%s)", code, tt.code, stdout, stderr)
			}
			for _, part := range tt.want {
				if !strings.Contains(stdout, part) {
					t.Errorf("stdout = %q, want %q in it", stdout, part)
				}
			}
			if strings.Count(stdout, "without DbName") > 1 {
				t.Errorf("stdout = %q, want the warning once", stdout)
			}
			if tt.want == nil && stdout != "" {
				t.Errorf("stdout = %q, want nothing", stdout)
			}
		})
	}
	if code, _, stderr := policyCommand(t, "", "lint", filepath.Join(t.TempDir(), "none.json")); code != 2 || !strings.Contains(stderr, "none.json") {
		t.Errorf("lint of no file = %d, %q", code, stderr)
	}
	if code, stdout, _ := policyCommand(t, "{}", "lint", "-"); code != 1 || !strings.HasPrefix(stdout, "error: standard input: line 1, column 1") {
		t.Errorf("lint of the standard input = %d, %q", code, stdout)
	}
}

// The examples of docs/policy.md have the warnings that the document shows.
func TestPolicyLintOfTheDocuments(t *testing.T) {
	text, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for i, part := range strings.Split(string(text), "```") {
		if yaml, ok := strings.CutPrefix(part, "yaml\n"); ok && i%2 == 1 {
			blocks = append(blocks, yaml)
		}
	}
	if len(blocks) < 3 || !strings.HasPrefix(blocks[0], "groups:") {
		t.Fatalf("the document has the examples %q", blocks)
	}
	wanted := "iam:\n  " + strings.ReplaceAll(strings.TrimSpace(blocks[0]), "\n", "\n  ") + "\n"
	condition := regexp.MustCompile(`(?m)^ *Condition: .*redshift:DbName.*\n`)
	if len(condition.FindAllString(wanted, -1)) != 1 || !strings.Contains(blocks[1], "NameTheDatabase") {
		t.Fatalf("the document has the examples %q", blocks)
	}
	trap := condition.ReplaceAllString(wanted, "")
	denied := trap + "  " + strings.ReplaceAll(strings.TrimRight(blocks[1], "\n"), "\n", "\n  ") + "\n"
	for name, tt := range map[string]struct {
		config string
		want   int
	}{"as it stands": {wanted, 0}, "without the condition": {trap, 1}, "with the Deny": {denied, 0}} {
		path := writePolicyFile(t, "daypass.yaml", tt.config)
		code, stdout, stderr := policyCommand(t, "", "lint", path)
		if code != 0 || strings.Count(stdout, "without DbName this is not checked") != tt.want || strings.Count(stdout, "\n") != tt.want {
			t.Errorf("%s: lint = %d, %s%s, want %d warnings of:\n%s", name, code, stdout, stderr, tt.want, tt.config)
		}
	}
}

func TestPolicySimulate(t *testing.T) {
	request := `{"PolicyInputList": ["{\"Version\":\"2012-10-17\",\"Statement\":[{\"Effect\":\"Allow\",\"Action\":\"redshift:JoinGroup\",\"Resource\":\"*\",\"Condition\":{\"StringEquals\":{\"aws:username\":\"ana\"}}}]}"],
		"ActionNames": ["redshift:JoinGroup"], "ContextEntries": [{"ContextKeyName": "aws:username", "ContextKeyType": "string", "ContextKeyValues": ["ana"]}]}`
	path := writePolicyFile(t, "request.json", request)
	var first string
	for _, args := range [][]string{{"simulate"}, {"simulate", path}, {"simulate", "-"}, {"simulate", "--cli-input-json", request}, {"simulate", "--cli-input-json", "file://" + path}} {
		code, stdout, stderr := policyCommand(t, request, args...)
		var out struct{ EvaluationResults []map[string]any }
		if err := json.Unmarshal([]byte(stdout), &out); code != 0 || err != nil || len(out.EvaluationResults) != 1 || out.EvaluationResults[0]["EvalDecision"] != "allowed" {
			t.Errorf("policy %q = %d, %s%s", args, code, stdout, stderr)
		}
		if first == "" {
			first = stdout
		}
		if stdout != first {
			t.Errorf("policy %q = %s, want what the standard input gives", args, stdout)
		}
	}
	for stdin, want := range map[string]string{
		"":                               "it is empty",
		"{":                              "reading the request",
		"{}{}":                           "there is text after it",
		`{"Policy": []}`:                 `unknown field "Policy"`,
		`{"ActionNames": ["JoinGroup"]}`: "InvalidInput: ActionNames",
		`{"ActionNames": ["a:b"], "PolicyInputList": ["x"]}`: "InvalidInput: PolicyInputList.1: line 1, column 1: not JSON",
	} {
		if code, _, stderr := policyCommand(t, stdin, "simulate"); code != 1 || !strings.Contains(stderr, want) {
			t.Errorf("simulate of %s = %d, %q, want %q", stdin, code, stderr, want)
		}
	}
	if code, _, _ := policyCommand(t, "", "simulate", path, "--cli-input-json", "{}"); code != 2 {
		t.Error("both inputs were taken")
	}
}
