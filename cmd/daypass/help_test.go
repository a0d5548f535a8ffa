package main

import (
	"strings"
	"testing"
)

func TestHelp(t *testing.T) {
	for _, test := range []struct {
		line         string
		code         int
		stdout, errs string
	}{
		{"help", 0, "Available Commands", ""},
		{"help connect", 0, "--print", ""},
		{"help sessions kill", 0, "daypass sessions kill SESSION...", ""},
		{"help redshift", 0, "SUBCOMMANDS", ""},
		{"help redshift get-cluster-credentials", 0, "--db-user", ""},
		{"help redshift bogus", 252, "", "Invalid choice"},
		{"help bogus", 2, "", "unknown command \"bogus\" for \"daypass\"\nSee \"daypass --help\".\n"},
		{"help cluster bogus", 2, "", "unknown command \"bogus\" for \"daypass cluster\""},
		{"--version", 0, "daypass " + buildVersion() + " go", ""},
		{"version", 0, "daypass " + buildVersion() + " go", ""},
	} {
		stdout, stderr, code := runDaypass(t, strings.Fields(test.line)...)
		if code != test.code || !strings.Contains(stdout, test.stdout) || !strings.Contains(stderr, test.errs) || (test.errs == "") != (stderr == "") {
			t.Errorf("daypass %s = %d\n%s%s\nwant %d, %q and %q", test.line, code, stdout, stderr, test.code, test.stdout, test.errs)
		}
	}
}
