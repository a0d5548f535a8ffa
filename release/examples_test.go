package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestTerraform applies the example, checks each policy with "daypass policy lint", and has the
// server's own code read the whole section.
func TestTerraform(t *testing.T) {
	program := ""
	for _, name := range []string{"terraform", "tofu"} {
		if found, err := exec.LookPath(name); err == nil {
			program = found
			break
		}
	}
	if program == "" {
		t.Skip("NOT TESTED with Terraform: neither terraform nor tofu is available")
	}
	s := released(t)
	root, _ := unpackImage(t, s)
	daypass := filepath.Join(root, "usr", "bin", "daypass")
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
			t.Fatalf("terraform %v: %v\n%s", args, err, out)
		}
		return out
	}
	terraform("init", "-no-color", "-input=false")
	terraform("validate", "-no-color")
	terraform("apply", "-no-color", "-input=false", "-auto-approve")
	var policies map[string]json.RawMessage
	if err := json.Unmarshal(terraform("output", "-json", "policies"), &policies); err != nil || len(policies) != 3 {
		t.Fatalf("the policies are %v, %v, want those of people, analysts and finance", policies, err)
	}
	for name, policy := range policies {
		path := filepath.Join(dir, name+".json")
		if err := os.WriteFile(path, policy, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(daypass, "policy", "lint", "--strict", path).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	var configuration map[string]any
	if err := json.Unmarshal(terraform("output", "-raw", "configuration"), &configuration); err != nil {
		t.Fatal(err)
	}
	configuration["account"], configuration["region"], configuration["data"] = "123456789012", "us-east-1", "data"
	configuration["api"], configuration["gateway"] = map[string]string{"listen": "127.0.0.1:0"}, map[string]string{"listen": "127.0.0.1:0"}
	configuration["clusters"] = []any{map[string]string{"identifier": "examplecluster", "upstream": "postgres://daypass@127.0.0.1/postgres?sslmode=disable"}}
	text, err := json.Marshal(configuration)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "daypass.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for who, allowed := range map[string]bool{"bob": true, "ana": false} {
		out, err := exec.Command(daypass, "explain", "--config", path, "--principal", who, "--db-user", who, "--db-name", "dev", "--auto-create", "--groups", "finance").CombinedOutput()
		if (err == nil) != allowed {
			t.Errorf("%s in finance: %v, want allowed %t\n%s", who, err, allowed, out)
		}
	}
}
