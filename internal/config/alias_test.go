package config

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/iam"
)

// laughs returns nested lists of aliases that expand to nine to the power of levels values.
func laughs(levels int) string {
	var b strings.Builder
	b.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x]\n")
	for i := range levels - 1 {
		fmt.Fprintf(&b, "a%d: &a%d [%s*a%d]\n", i+1, i+1, strings.Repeat(fmt.Sprintf("*a%d,", i), 8), i)
	}
	return b.String()
}

// nested returns lists that are nested deep times. Each is nested in the next by an alias.
func nested(levels, deep int) string {
	open, end := strings.Repeat("[", deep), strings.Repeat("]", deep)
	var b strings.Builder
	fmt.Fprintf(&b, "a0: &a0 %sx%s\n", open, end)
	for i := range levels - 1 {
		fmt.Fprintf(&b, "a%d: &a%d %s*a%d%s\n", i+1, i+1, open, i, end)
	}
	return b.String()
}

// TestAliases: aliases cannot make a small file use up much memory, neither in a running
// server's configuration nor in a linted file.
func TestAliases(t *testing.T) {
	const user = smallConfig + "iam:\n  users:\n    - name: ana\n      policies: "
	const list = "Version: \"2012-10-17\"\nStatement: "
	statement := `{Effect: Allow, Action: "*", Resource: "*"}`
	for name, tt := range map[string]struct{ text, want string }{
		"a policy in itself":    {user + "[&x {Version: \"2012-10-17\", Statement: [*x]}]\n", `:9: iam.users[0].policies[0].Statement[0]: the alias *x stands within`},
		"a list in itself":      {"a: &a [*a]\nStatement: *a\n", ":1: a[0]: the alias *a stands within"},
		"the file in itself":    {"&a\niam: *a\n", ":2: iam: the alias *a stands within"},
		"a list in the next":    {"a: &a [&b [*a], *b]\n", ":1: a[0][0]: the alias *a stands within"},
		"a mapping in itself":   {"iam: &a {roles: {trust_policy: *a}}\n", ":1: iam.roles.trust_policy: the alias *a"},
		"a merge key":           {user + "[{Version: \"2012-10-17\", Statement: [{<<: &s " + statement + "}]}]\n", "iam.users[0].policies[0].Statement[0]: has a merge key (<<)"},
		"a merge key in itself": {user + "[&x {Version: \"2012-10-17\", <<: *x}]\n", "iam.users[0].policies[0]: has a merge key (<<)"},
		"an alias as a key":     {"&iam x: 1\n*iam : {}\n", "the file: has a key that is no text"},
		"a billion laughs":      {laughs(10) + "Statement: *a9\n", "aliases make the file larger by more than"},
		"laughs in a policy":    {strings.Replace(laughs(10), "a0:", user+"[]\na0:", 1) + "Statement: *a9\n", "aliases make the file larger by more than"},
		"a long text often":     {"a: &a " + strings.Repeat("x", 10000) + "\nStatement: [" + strings.Repeat("*a,", 200) + "*a]\n", "aliases make the file larger by more than"},
		"deep by aliases":       {nested(20, 90) + "Statement: *a19\n", "nested more than 100 deep"},
		"deep":                  {"Statement: " + strings.Repeat("[", 2000) + strings.Repeat("]", 2000) + "\n", "nested more than 100 deep"},
		"statements, twice":     {list + "[&s " + statement + ", *s]\n", ""},
		"users, the same":       {user + "&p [{Version: \"2012-10-17\", Statement: " + statement + "}]\n    - name: bob\n      policies: *p\n", ""},
		"the text of a key":     {"&k Version: \"2012-10-17\"\nId: *k\nStatement: " + statement + "\n", ""},
		"a key that looks so":   {list + "[" + strings.Replace(statement, "Resource", `"<<": 1, Resource`, 1) + "]\n", "unknown element"},
	} {
		_, errs := LintPolicies("f.yaml", []byte(tt.text), func([]byte) iam.Kind { return iam.IdentityPolicy })
		if text := fmt.Sprint(errs); !strings.Contains(text, tt.want) || (len(errs) == 0) != (tt.want == "") || len(errs) > 1 || len(text) > 2000 {
			t.Errorf("%s: lint = %v, want %s", name, errs, tt.want)
		}
		_, err := Parse("f.yaml", []byte(tt.text), os.LookupEnv)
		switch {
		case strings.Contains(tt.text, "account:") && tt.want == "":
			if err != nil {
				t.Errorf("%s: the configuration: %v", name, err)
			}
		case err == nil:
			t.Errorf("%s: the configuration is taken", name)
		case tt.want != "" && tt.want != "unknown element" && !strings.Contains(err.Error(), tt.want):
			t.Errorf("%s: the configuration: %v, want %s", name, err, tt.want)
		}
	}
}
