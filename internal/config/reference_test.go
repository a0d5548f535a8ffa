package config

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"
)

// TestReferenceIsCurrent: docs/configuration.md is what Reference generates now.
func TestReferenceIsCurrent(t *testing.T) {
	page, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(page, Reference()) {
		t.Error("docs/configuration.md is not what the table of keys says: run make docs")
	}
	sample, err := os.ReadFile("../../docs/daypass.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for path, k := range allRows() {
		if !regexp.MustCompile(`\b` + k.name + `\b`).Match(sample) {
			t.Errorf("docs/daypass.yaml does not mention %s", path)
		}
	}
}

// compileSchema compiles the schema, which also checks it against its meta-schema.
func compileSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("daypass.schema.json", document); err != nil {
		t.Fatal(err)
	}
	compiled, err := compiler.Compile("daypass.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

// valid checks a YAML text against the schema.
func valid(t *testing.T, compiled *jsonschema.Schema, text []byte) error {
	t.Helper()
	var value any
	if err := yaml.Unmarshal(text, &value); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return compiled.Validate(instance)
}

// TestSchema: an editor accepts the files that the server accepts, and marks values whose
// form the server refuses.
func TestSchema(t *testing.T) {
	compiled := compileSchema(t)
	sample, err := os.ReadFile("../../docs/daypass.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range append([]string{string(sample), smallConfig}, variants...) {
		if err := valid(t, compiled, []byte(text)); err != nil {
			t.Errorf("%v\n%s", err, text)
		}
	}
	_, places := wholePlaces(t, whole)
	for n, p := range places {
		for _, value := range []string{"null", "[null]", "{unknown: 1}"} {
			if value[0] == '{' && p.row.value == tags {
				continue
			}
			if changed, _ := replaced(t, whole, n, value); valid(t, compiled, changed) == nil {
				t.Errorf("%s: %s is taken", p.path, value)
			}
		}
		if p.row.none {
			continue
		}
		for _, value := range []string{`""`, "{}", "[]"} {
			if changed, _ := replaced(t, whole, n, value); valid(t, compiled, changed) == nil {
				t.Errorf("%s: %s is taken", p.path, value)
			}
		}
	}
	for from, to := range map[string]string{
		"secret: wJalr":         "secret_env: A, secret: wJalr",
		", secret_file: secret": "",
		"password_env: ANA":     "password_file: a\n    password_env: ANA",
		"region: us-east-1":     "region: us-east-1\nregoin: x",
		"rate: 100":             "rate: -1",
		"notice: 1m":            "notice: soon",
		`"123456789012"`:        `"12345"`,
		"Effect: Allow":         "Effect: allow",
	} {
		if !strings.Contains(whole, from) {
			t.Fatalf("the sample has no %q", from)
		}
		if valid(t, compiled, []byte(strings.Replace(whole, from, to, 1))) == nil {
			t.Errorf("%q for %q is taken", to, from)
		}
	}
}
