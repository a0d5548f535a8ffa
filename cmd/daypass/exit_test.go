package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestExitCodesAreOfCommands: a name in the table that is no command's is a slip.
func TestExitCodesAreOfCommands(t *testing.T) {
	root := newRootCommand(environment{})
	for path := range exitCodesOf {
		cmd, rest, err := root.Find(strings.Fields(path)[1:])
		if err != nil || len(rest) > 0 || cmd.CommandPath() != path {
			t.Errorf("%q is no command", path)
		}
	}
}

// TestExitCodes is the table of docs/operations.md.
func TestExitCodes(t *testing.T) {
	awsSettings(t, "", map[string]string{"AWS_ENDPOINT_URL": "STUB"})
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte("<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"))
	}))
	t.Cleanup(refusing.Close)
	policy := filepath.Join(t.TempDir(), "bad.json")
	if err := os.WriteFile(policy, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	const down = "http://127.0.0.1:1"
	none := filepath.Join(t.TempDir(), "none")
	for _, test := range []struct {
		line string
		code int
		said string // on standard error
	}{
		{"sessions", 0, ""},
		{"version", 0, ""},

		// The command line is wrong.
		{"bogus", 2, "unknown command \"bogus\" for \"daypass\"\nSee \"daypass --help\".\n"},
		{"sesions", 2, "Did you mean this?\n\tsessions\nSee \"daypass --help\".\n"},
		{"--bogus", 2, "unknown flag: --bogus\nSee \"daypass --help\".\n"},
		{"cluster bogus", 2, "unknown command \"bogus\" for \"daypass cluster\"\nSee \"daypass cluster --help\".\n"},
		{"serve", 2, "serve needs --config FILE"},
		{"version 1", 2, "See \"daypass version --help\""},
		{"keys rotate --activate-in=-1s", 2, "negative"},
		{"policy simulate x --cli-input-json {}", 2, "exclude one another"},
		{"explain --bogus", 2, "--bogus"},
		{"cluster check", 2, "name a cluster, or say --all"},
		{"cluster check c --output xml", 2, "--output"},
		{"user drop", 2, "accepts 1 arg(s)"},
		{"policy lint", 2, "requires at least 1 arg(s)"},
		{"sessions --bogus", 252, "unknown flag: --bogus\nSee \"daypass sessions --help\".\n"},
		{"sessions bogus", 252, "\"bogus\""},
		{"sessions kill", 252, "requires at least 1 arg(s)"},
		{"sessions --output xml", 252, "--output"},
		{"sessions --endpoint-url localhost:8440", 252, "scheme is missing"},
		{"revoke", 252, "give one of"},
		{"revoke list --bogus", 252, "--bogus"},
		{"connect", 252, "name of a cluster"},
		{"connect c --bogus", 252, "--bogus"},
		{"redshift bogus", 252, "Invalid choice"},

		// Configuration or access key are missing or wrong.
		{"sessions --profile gone", 253, "The config profile (gone) could not be found"},
		{"connect c --user u --print uri --profile gone", 253, "The config profile (gone) could not be found"},
		{"explain --principal ana --db-user u --config " + none, 2, none},
		{"cluster check c --config " + none, 2, none},
		{"cluster clean c --config " + none, 2, none},
		{"user drop u --cluster c --config " + none, 2, none},
		{"credential inspect x --config " + none, 2, none},
		{"policy lint " + none, 2, none},
		{"keys list --config " + none, 1, none},
		{"serve --config " + none, 1, none},

		// No.
		{"sessions --endpoint-url " + refusing.URL, 254, "AccessDenied"},
		{"revoke --all --endpoint-url " + refusing.URL, 254, "AccessDenied"},
		{"connect c --user u --print uri --endpoint-url " + refusing.URL, 254, "AccessDenied"},
		{"redshift describe-clusters --endpoint-url " + refusing.URL, 254, "AccessDenied"},
		{"credential inspect nonsense", 1, ""},
		{"policy lint " + policy, 1, ""},

		// Nobody is there.
		{"sessions --endpoint-url " + down, 255, "connection refused"},
		{"revoke --all --endpoint-url " + down, 255, "connection refused"},
		{"connect c --user u --print uri --endpoint-url " + down, 255, "Could not connect"},
		{"redshift describe-clusters --endpoint-url " + down, 255, "Could not connect"},
	} {
		_, stderr, code := runDaypass(t, strings.Fields(test.line)...)
		if code != test.code || !strings.Contains(stderr, test.said) || test.said == "" && stderr != "" {
			t.Errorf("daypass %s = %d\n%s\nwant %d and %q", test.line, code, stderr, test.code, test.said)
		}
	}
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	t.Setenv("AWS_ENDPOINT_URL", "")
	for line, said := range map[string]string{
		"sessions": "Partial credentials found in env, missing: AWS_SECRET_ACCESS_KEY",
		"connect c --user u --print uri --host h": "Partial credentials found in env, missing: AWS_SECRET_ACCESS_KEY",
		"redshift describe-clusters":              "Partial credentials found in env, missing: AWS_SECRET_ACCESS_KEY",
	} {
		if _, stderr, code := runDaypass(t, strings.Fields(line)...); code != 253 || !strings.Contains(stderr, said) {
			t.Errorf("daypass %s = %d %s, want 253 and %q", line, code, stderr, said)
		}
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	for line, said := range map[string]string{
		"sessions":                                          "No Daypass server is named",
		"sessions --endpoint-url " + down:                   "Unable to locate credentials",
		"revoke --all --endpoint-url " + down:               "Unable to locate credentials",
		"redshift describe-clusters --endpoint-url " + down: "Unable to locate credentials",
	} {
		if _, stderr, code := runDaypass(t, strings.Fields(line)...); code != 253 || !strings.Contains(stderr, said) {
			t.Errorf("daypass %s = %d %s, want 253 and %q", line, code, stderr, said)
		}
	}
}
