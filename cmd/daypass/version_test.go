package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestVersionSaysWhatIsInIt checks the version of a test binary. The tests of the release module
// check it in a binary that was built from a commit.
func TestVersionSaysWhatIsInIt(t *testing.T) {
	stdout, stderr, code := runDaypass(t, "version", "--output", "json")
	var said buildRecord
	if err := json.Unmarshal([]byte(stdout), &said); err != nil || code != 0 {
		t.Fatalf("version --output json = %d, %v\n%s%s", code, err, stdout, stderr)
	}
	if said.Version != buildVersion() || !strings.HasPrefix(said.Go, "go1.") || len(said.Modules) < 20 {
		t.Errorf("version --output json = %s", stdout)
	}
	if stdout, _, _ := runDaypass(t, "version", "--modules"); !strings.Contains(stdout, "\nmodule github.com/jackc/pgx/v5 v") {
		t.Errorf("version --modules = %s, want pgx in it", stdout)
	}
}
