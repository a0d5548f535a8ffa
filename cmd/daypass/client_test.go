package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// runDaypass runs a command line in this process.
func runDaypass(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandTime)
	defer cancel()
	var out, errs bytes.Buffer
	code = run(ctx, args, environment{stdin: strings.NewReader(""), stdout: &out, stderr: &errs, now: time.Now})
	if ctx.Err() != nil {
		t.Errorf("daypass %s did not end within %v", strings.Join(args, " "), commandTime)
	}
	return out.String(), errs.String(), code
}

// commandTime is how long a command may take. It bounds tests in which a command waits for a sign-in
// at a browser that does not work.
const commandTime = 2 * time.Minute

// awsSettings sets up the environment and the AWS configuration of a test. In both, STUB stands
// for the URL of a fake API without sessions and clusters, and OTHER for a URL at which nothing
// listens. It returns the URL of the fake API.
func awsSettings(t *testing.T, config string, env map[string]string) (api string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		action := r.PostFormValue("Action")
		list := strings.TrimPrefix(strings.TrimPrefix(action, "Describe"), "List")
		fmt.Fprintf(w, "<%[1]sResponse><%[1]sResult><%[2]s></%[2]s></%[1]sResult></%[1]sResponse>", action, list)
	}))
	t.Cleanup(server.Close)
	fill := strings.NewReplacer("STUB", server.URL, "OTHER", "http://127.0.0.1:1")
	home := t.TempDir()
	path := filepath.Join(home, "config")
	if err := os.WriteFile(path, []byte(fill.Replace(config)), 0o600); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{
		"HOME": home, "APPDATA": home, "AWS_CONFIG_FILE": path, "AWS_SHARED_CREDENTIALS_FILE": filepath.Join(home, "none"), "AWS_MAX_ATTEMPTS": "1",
		"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_PROFILE": "", "AWS_DEFAULT_PROFILE": "", "AWS_SESSION_TOKEN": "", "AWS_CA_BUNDLE": "", "AWS_ENDPOINT_URL_DAYPASS": "", "AWS_ENDPOINT_URL_REDSHIFT": "",
		// An empty value counts as not set.
		"AWS_ENDPOINT_URL": "",
	}
	for name, value := range env {
		all[name] = fill.Replace(value)
	}
	for name, value := range all {
		t.Setenv(name, value)
	}
	return server.URL
}

// TestEndpoint: all commands find the API in the same place.
func TestEndpoint(t *testing.T) {
	const section = "[profile svc]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = secret\nservices = s\nendpoint_url = OTHER\n[services s]\nredshift =\n  endpoint_url = STUB\n"
	for _, test := range []struct {
		name, config string
		env          map[string]string
		args         []string
		ownOnly      bool // the expected output is about Daypass's own actions only
	}{
		{name: "option", env: map[string]string{"AWS_ENDPOINT_URL": "OTHER"}, args: []string{"--endpoint-url", "STUB"}},
		{name: "for all services", env: map[string]string{"AWS_ENDPOINT_URL": "STUB"}},
		{name: "Redshift's", env: map[string]string{"AWS_ENDPOINT_URL": "OTHER", "AWS_ENDPOINT_URL_REDSHIFT": "STUB"}},
		{name: "Daypass's", env: map[string]string{"AWS_ENDPOINT_URL": "OTHER", "AWS_ENDPOINT_URL_REDSHIFT": "OTHER", "AWS_ENDPOINT_URL_DAYPASS": "STUB"}, ownOnly: true},
		{name: "profile", config: "[default]\nendpoint_url = STUB\n"},
		{name: "services section", config: section, args: []string{"--profile", "svc"}},
		{name: "services section of Daypass", config: "[default]\nservices = s\n[services s]\nredshift =\n  endpoint_url = OTHER\ndaypass =\n  endpoint_url = STUB\n", ownOnly: true},
		{name: "environment before section", config: "[default]\nservices = s\n[services s]\nredshift =\n  endpoint_url = OTHER\n", env: map[string]string{"AWS_ENDPOINT_URL": "STUB"}},
	} {
		for _, command := range [][]string{{"sessions"}, {"revoke", "list"}, {"redshift", "describe-clusters"}} {
			t.Run(test.name+"/"+command[0], func(t *testing.T) {
				if test.ownOnly && command[0] == "redshift" {
					return
				}
				api := awsSettings(t, test.config, test.env)
				args := slices.Concat(command, test.args)
				for i := range args {
					args[i] = strings.ReplaceAll(args[i], "STUB", api)
				}
				if _, stderr, code := runDaypass(t, args...); code != 0 {
					t.Errorf("daypass %s = %d %s", strings.Join(args, " "), code, stderr)
				}
			})
		}
	}
}
