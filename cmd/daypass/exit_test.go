package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestExitCodesAreOfCommands: every name in the table of exit codes is a command's.
func TestExitCodesAreOfCommands(t *testing.T) {
	root := newRootCommand(environment{})
	for path := range exitCodesOf {
		cmd, rest, err := root.Find(strings.Fields(path)[1:])
		if err != nil || len(rest) > 0 || cmd.CommandPath() != path {
			t.Errorf("%q is no command", path)
		}
	}
}

// TestExitCodes has the cases of the table in docs/operations.md.
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
	small := filepath.Join(t.TempDir(), "daypass.yaml")
	if err := os.WriteFile(small, []byte(stateConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	incomplete := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("<ListSessionsResponse><ListSessionsResult><Unanswered><Server>db2</Server></Unanswered></ListSessionsResult></ListSessionsResponse>"))
	}))
	t.Cleanup(incomplete.Close)
	const down = "http://127.0.0.1:1"
	none := filepath.Join(t.TempDir(), "none")
	for _, test := range []struct {
		line string
		code int
		said string // expected on standard error
	}{
		{"sessions", 0, ""},
		{"version", 0, ""},

		// The command line is wrong.
		{"bogus", 2, "daypass: bogus: is not a command of daypass\nSee \"daypass --help\".\n"},
		{"serv", 2, "did you mean serve or servers?\n"},
		{"sesions", 2, "did you mean sessions?\nSee \"daypass --help\".\n"},
		{"--bogus", 2, "--bogus: is not a flag of daypass\nSee \"daypass --help\".\n"},
		{"cluster bogus", 2, "bogus: is not a command of daypass cluster\nSee \"daypass cluster --help\".\n"},
		{"serve", 1, "daypass.yaml: does not exist: name the configuration with --config FILE"},
		{"serve -c", 2, "--config: needs a value: --config FILE\nSee \"daypass serve --help\".\n"},
		{"connect c --port x", 252, "--port x: is not a whole number"},
		{"sessions --cluste c", 252, "did you mean --cluster?"},
		{"completion tcsh", 2, "tcsh: is not a supported shell: name a shell"},
		{"keys rotate --activate-in soon", 2, "--activate-in soon: is not a time such as 90s, 15m, 1h or 2d"},
		{"version 1", 2, "See \"daypass version --help\""},
		{"keys rotate --activate-in=-1s", 2, "negative"},
		{"policy simulate x --cli-input-json {}", 2, "exclude each other"},
		{"explain --bogus", 2, "--bogus"},
		{"cluster check", 2, "name a cluster, or give --all"},
		{"cluster check c --output xml", 2, "--output"},
		{"user drop", 2, "user drop: name one database user"},
		{"policy lint", 2, "policy lint: name files"},
		{"sessions --bogus", 252, "--bogus: is not a flag of daypass sessions\nSee \"daypass sessions --help\".\n"},
		{"sessions bogus", 252, "bogus: is not a command"},
		{"sessions kill", 252, "sessions kill: name sessions"},
		{"sessions --output xml", 252, "--output"},
		{"sessions --endpoint-url localhost:8440", 252, "scheme is missing"},
		{"revoke", 252, "give one of"},
		{"revoke list --bogus", 252, "--bogus"},
		{"connect", 252, "name a cluster"},
		{"connect c --bogus", 252, "--bogus"},
		{"redshift bogus", 252, "Invalid choice"},

		// The configuration or the access key is missing or wrong.
		{"sessions --profile gone", 253, "profile \"gone\": is neither in"},
		{"connect c --user u --print uri --profile gone", 253, "profile \"gone\": is neither in"},
		{"explain --principal ana --db-user u --config " + none, 2, none},
		{"cluster check c --config " + none, 2, none},
		{"cluster clean c --config " + none, 2, none},
		{"user drop u --cluster c --config " + none, 2, none},
		{"credential inspect x --config " + none, 2, none},
		{"policy lint " + none, 2, none + ": does not exist: check the path"},
		{"policy simulate " + none, 1, none + ": does not exist: check the path"},
		{"keys list --config " + none, 1, none},
		{"keys move --config " + small, 1, "has no root_key"},
		{"config check --config " + none, 2, none},
		{"config check --config " + policy, 1, ""},
		{"doctor --config " + none, 1, ""},
		{"serve --config " + none, 1, none},

		// The API refuses.
		{"sessions --endpoint-url " + refusing.URL, 254, "AccessDenied"},
		{"revoke --all --endpoint-url " + refusing.URL, 254, "AccessDenied"},
		{"connect c --user u --print uri --endpoint-url " + refusing.URL, 254, "AccessDenied"},
		{"redshift describe-clusters --endpoint-url " + refusing.URL, 254, "AccessDenied"},
		{"credential inspect nonsense", 1, ""},
		{"policy lint " + policy, 1, ""},

		// The answer is incomplete.
		{"sessions --endpoint-url " + incomplete.URL, 1, "did not answer: db2"},

		// Nothing listens at the endpoint.
		{"sessions --endpoint-url " + down, 255, "cannot connect (connection refused)"},
		{"revoke --all --endpoint-url " + down, 255, "cannot connect (connection refused)"},
		{"connect c --user u --print uri --endpoint-url " + down, 255, "cannot connect (connection refused)"},
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
		"sessions":                                          "no Daypass server is named",
		"sessions --endpoint-url " + down:                   "no access key is configured",
		"revoke --all --endpoint-url " + down:               "no access key is configured",
		"redshift describe-clusters --endpoint-url " + down: "Unable to locate credentials",
	} {
		if _, stderr, code := runDaypass(t, strings.Fields(line)...); code != 253 || !strings.Contains(stderr, said) {
			t.Errorf("daypass %s = %d %s, want 253 and %q", line, code, stderr, said)
		}
	}
}
