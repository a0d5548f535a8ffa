package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSignedOut: without a sign-in and a terminal, commands print the next step. Signing out
// twice is not an error.
func TestSignedOut(t *testing.T) {
	dir := t.TempDir()
	ran := filepath.Join(dir, "ran")
	for name, value := range map[string]string{"HOME": dir, "AWS_CONFIG_FILE": filepath.Join(dir, "config"), "AWS_SHARED_CREDENTIALS_FILE": filepath.Join(dir, "none"),
		"AWS_LOGIN_CACHE_DIRECTORY": filepath.Join(dir, "cache"), "AWS_PROFILE": "", "AWS_DEFAULT_PROFILE": "", "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "",
		"AWS_ENDPOINT_URL": "", "AWS_REGION": "", "AWS_DEFAULT_REGION": ""} {
		t.Setenv(name, value)
	}
	if err := os.WriteFile(filepath.Join(dir, "config"), []byte(`[profile work]
region = us-east-1
endpoint_url = http://127.0.0.1:1
login_session = arn:aws:sts::123456789012:assumed-role/analyst/ana@example.com
[profile other]
region = us-east-1
endpoint_url = http://127.0.0.1:1
credential_process = touch `+ran+`
[profile chained]
region = us-east-1
endpoint_url = http://127.0.0.1:1
role_arn = arn:aws:iam::123456789012:role/x
source_profile = other
login_session = arn:aws:sts::123456789012:assumed-role/analyst/ana@example.com
`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		line string
		code int
		errs string
	}{
		{"login --profile new --endpoint-url http://127.0.0.1:1", 253, "to sign in to a new profile, name the server with --endpoint-url and --region"},
		{"credential-process --profile work", 253, "no one is signed in: run `daypass login --profile work`"},
		{"credential-process --profile other", 253, "has no sign-in of its own"},
		{"credential-process --profile chained", 253, "has no sign-in of its own"},
		{"logout --profile work", 0, "No one was signed in"},
		{"logout --profile other", 253, "has no sign-in"},
		{"logout --profile none", 253, "none"},
		{"login --profile other", 253, "has other keys already (credential_process)"},
		{"login --profile new", 253, "new"},
		{"login work", 252, "work"},
	} {
		stdout, stderr, code := runDaypass(t, strings.Fields(row.line)...)
		if code != row.code || !strings.Contains(stderr, row.errs) || stdout != "" {
			t.Errorf("daypass %s = %d\n%s%s\nwant %d and %q", row.line, code, stdout, stderr, row.code, row.errs)
		}
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("the credential_process of a profile was run, which may be this very command")
	}
}

// TestServicesOfAProfile: a services section of the person's own is left alone, and they are told
// if it leads the SDK for Go elsewhere.
func TestServicesOfAProfile(t *testing.T) {
	dir := t.TempDir()
	for name, value := range map[string]string{"HOME": dir, "AWS_CONFIG_FILE": filepath.Join(dir, "config"), "AWS_SHARED_CREDENTIALS_FILE": filepath.Join(dir, "none"),
		"AWS_PROFILE": "", "AWS_DEFAULT_PROFILE": "", "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_ENDPOINT_URL": "", "AWS_REGION": "", "AWS_DEFAULT_REGION": ""} {
		t.Setenv(name, value)
	}
	profile := func(name, services string) string {
		return "[profile " + name + "]\nregion = us-east-1\nendpoint_url = https://d.example.com\n" + services
	}
	if err := os.WriteFile(filepath.Join(dir, "config"), []byte(profile("none", "")+profile("ours", "services = daypass-ours\n")+profile("own", "services = own\n")+
		profile("other", "services = other\n")+profile("right", "services = right\n")+
		"[services own]\ns3 =\n  endpoint_url = https://s3.example.com\n[services other]\nsignin =\n  endpoint_url = https://other.example.com\n"+
		"[services daypass-ours]\nsignin =\n  endpoint_url = https://old.example.com\n[services right]\nsignin =\n  endpoint_url = https://d.example.com/\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"none": "", "ours": "", "right": "", "own": "at Amazon, because of the section [services own]", "other": "at https://other.example.com"} {
		flags := callerFlags{profile: name, endpointURL: "https://d.example.com"}
		found, err := flags.findServer(t.Context(), environment{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard, now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		if got := servicesWarning(found); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("profile %s: %q, want %q", name, got, want)
		}
	}
}
