package awscli_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"testing"

	"github.com/daypass/daypass/internal/awscli"
	"github.com/daypass/daypass/internal/awscli/pyvalue"
)

// TestYAML compares the yaml format with recorded output of PyYAML, whose rules the AWS CLI's
// printer shares.
func TestYAML(t *testing.T) {
	const golden = "testdata/yaml/values.golden"
	if *update {
		cmd := exec.Command("python3", "record.py")
		cmd.Dir = "testdata/yaml"
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("recording: %v", err)
		}
		if err := os.WriteFile(golden, out, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(data) {
		var want struct{ Value, YAML string }
		if err := json.Unmarshal(line, &want); err != nil {
			t.Fatal(err)
		}
		value, err := pyvalue.ParseJSON(want.Value)
		if err != nil {
			t.Fatal(err)
		}
		// Compare single elements if possible, to show which one differs.
		if got := awscli.YAMLText(value); got != want.YAML {
			t.Errorf("%s\nis\n%s\nwant\n%s", want.Value, got, want.YAML)
		}
	}
}
