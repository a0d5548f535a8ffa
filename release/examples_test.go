package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// example is what deploy/terraform has as outputs.
type example struct {
	policies      map[string]json.RawMessage
	configuration []byte
}

// TestTerraform evaluates the example, checks each policy with "daypass policy lint", and has the
// server's own code read the whole section. Terraform or OpenTofu runs if it is installed; Terraform's
// own library for its language always does.
func TestTerraform(t *testing.T) {
	t.Run("library", func(t *testing.T) { checkExample(t, evaluate(t, "../deploy/terraform/main.tf")) })
	for _, name := range []string{"terraform", "tofu"} {
		t.Run(name, func(t *testing.T) {
			program, err := exec.LookPath(name)
			if err != nil {
				t.Skipf("NOT TESTED with %s: it is not available", name)
			}
			checkExample(t, apply(t, program))
		})
	}
}

// apply runs the commands of the example's comment.
func apply(t *testing.T, program string) example {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../deploy/terraform")); err != nil {
		t.Fatal(err)
	}
	terraform := func(args ...string) []byte {
		t.Helper()
		cmd := exec.Command(program, args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "TF_CLI_CONFIG_FILE=/dev/null", "CHECKPOINT_DISABLE=1")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", program, args, err, out)
		}
		return out
	}
	terraform("init", "-no-color", "-input=false")
	terraform("validate", "-no-color")
	terraform("apply", "-no-color", "-input=false", "-auto-approve")
	var e example
	if err := json.Unmarshal(terraform("output", "-json", "policies"), &e.policies); err != nil {
		t.Fatal(err)
	}
	e.configuration = terraform("output", "-raw", "configuration")
	return e
}

// evaluate reads the example with HCL's library: variables have their defaults, then locals, then
// outputs. It has the functions that the example uses, so a new one has to be added here.
func evaluate(t *testing.T, path string) example {
	t.Helper()
	file, diagnostics := hclparse.NewParser().ParseHCLFile(path)
	must := func(diagnostics hcl.Diagnostics) {
		t.Helper()
		if diagnostics.HasErrors() {
			t.Fatal(diagnostics)
		}
	}
	must(diagnostics)
	content, diagnostics := file.Body.Content(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{
		{Type: "variable", LabelNames: []string{"name"}}, {Type: "output", LabelNames: []string{"name"}}, {Type: "locals"}, {Type: "terraform"}}})
	must(diagnostics)
	scope := &hcl.EvalContext{Functions: map[string]function.Function{"concat": stdlib.ConcatFunc, "flatten": stdlib.FlattenFunc, "jsonencode": stdlib.JSONEncodeFunc,
		"merge": stdlib.MergeFunc, "toset": stdlib.MakeToFunc(cty.Set(cty.DynamicPseudoType)), "values": stdlib.ValuesFunc}}
	attribute := func(block *hcl.Block, name string) hcl.Expression {
		t.Helper()
		attributes, diagnostics := block.Body.JustAttributes()
		must(diagnostics)
		if attributes[name] == nil {
			t.Fatalf("%s %v has no %s", block.Type, block.Labels, name)
		}
		return attributes[name].Expr
	}
	variables, locals, outputs := map[string]cty.Value{}, map[string]cty.Value{}, map[string]cty.Value{}
	for _, block := range content.Blocks.OfType("variable") {
		variables[block.Labels[0]], diagnostics = attribute(block, "default").Value(nil)
		must(diagnostics)
	}
	scope.Variables = map[string]cty.Value{"var": cty.ObjectVal(variables)}
	for _, block := range content.Blocks.OfType("locals") {
		waiting, diagnostics := block.Body.JustAttributes()
		must(diagnostics)
		for len(waiting) > 0 { // locals use each other in any order
			before := len(waiting)
			scope.Variables["local"] = cty.ObjectVal(locals)
			for name, local := range waiting {
				if value, unknown := local.Expr.Value(scope); !unknown.HasErrors() {
					locals[name] = value
					delete(waiting, name)
				} else {
					diagnostics = unknown
				}
			}
			if len(waiting) == before {
				t.Fatal(diagnostics)
			}
		}
	}
	scope.Variables["local"] = cty.ObjectVal(locals)
	for _, block := range content.Blocks.OfType("output") {
		outputs[block.Labels[0]], diagnostics = attribute(block, "value").Value(scope)
		must(diagnostics)
	}
	policies, err := ctyjson.Marshal(outputs["policies"], outputs["policies"].Type())
	if err != nil {
		t.Fatal(err)
	}
	e := example{configuration: []byte(outputs["configuration"].AsString())}
	if err := json.Unmarshal(policies, &e.policies); err != nil {
		t.Fatal(err)
	}
	return e
}

func checkExample(t *testing.T, e example) {
	t.Helper()
	s := released(t)
	root, _ := unpackImage(t, s)
	daypass := filepath.Join(root, "usr", "bin", "daypass")
	dir := t.TempDir()
	if len(e.policies) != 3 {
		t.Fatalf("the policies are %s, want those of people, analysts and finance", e.policies)
	}
	for name, policy := range e.policies {
		path := filepath.Join(dir, name+".json")
		if err := os.WriteFile(path, policy, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(daypass, "policy", "lint", "--strict", path).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	const base = `account: "123456789012"
region: us-east-1
data: data
api: {listen: "127.0.0.1:0"}
gateway: {listen: "127.0.0.1:0"}
clusters: [{identifier: examplecluster, upstream: "postgres://daypass@127.0.0.1/postgres?sslmode=disable"}]
`
	path := filepath.Join(dir, "daypass.yaml")
	if err := errors.Join(os.WriteFile(path, append([]byte(base), e.configuration...), 0o600), os.Mkdir(filepath.Join(dir, "secrets"), 0o700),
		os.WriteFile(filepath.Join(dir, "secrets", "ana"), []byte("a secret access key of forty characters\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(daypass, "config", "check", "--strict", "--config", path).CombinedOutput(); err != nil {
		t.Errorf("config check: %v\n%s", err, out)
	}
	for who, allowed := range map[string]bool{"bob": true, "ana": false} {
		out, err := exec.Command(daypass, "explain", "--config", path, "--principal", who, "--db-user", who, "--db-name", "dev", "--auto-create", "--groups", "finance").CombinedOutput()
		if (err == nil) != allowed {
			t.Errorf("%s in finance: %v, want allowed %t\n%s", who, err, allowed, out)
		}
	}
}
