package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// TestEndedSignIn: the server rejects keys that look valid, because the sign-in was ended there.
// Commands sign in again where there is a terminal, and otherwise print the next step.
func TestEndedSignIn(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		missing(t, "curl", "apt-get install curl")
	}
	const rejected, accepted = "ASIAREJECTED", "ASIAACCEPTED"
	var opened atomic.Int64
	var ended atomic.Bool // new keys are rejected, too
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v1/authorize":
			opened.Add(1)
			q := r.URL.Query()
			http.Redirect(w, r, q.Get("redirect_uri")+"?"+url.Values{"code": {"c"}, "state": {q.Get("state")}}.Encode(), http.StatusFound)
		case r.URL.Path == "/v1/token":
			key := accepted
			if ended.Load() {
				key = rejected
			}
			claims := base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"arn:aws:sts::123456789012:assumed-role/analyst/ana"}`))
			_ = json.NewEncoder(w).Encode(map[string]any{"accessToken": map[string]any{"accessKeyId": key, "secretAccessKey": "s", "sessionToken": "t"},
				"tokenType": "aws_sigv4", "refreshToken": "r", "idToken": "e30." + claims + ".x", "expiresIn": 900})
		case strings.Contains(r.Header.Get("Authorization"), "Credential="+rejected+"/"):
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, "<ErrorResponse><Error><Type>Sender</Type><Code>InvalidClientTokenId</Code><Message>The security token included in the request is invalid.</Message></Error><RequestId>r</RequestId></ErrorResponse>")
		default:
			action := r.PostFormValue("Action")
			result := map[string]string{
				"GetClusterCredentials": "<DbUser>IAM:alice</DbUser><DbPassword>p</DbPassword><Expiration>2026-01-01T00:00:00Z</Expiration>",
				"GetCallerIdentity":     "<Arn>arn:aws:sts::123456789012:assumed-role/analyst/ana</Arn>", "DescribeClusters": "<Clusters></Clusters>"}[action]
			fmt.Fprintf(w, "<%[1]sResponse><%[1]sResult>%[2]s</%[1]sResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></%[1]sResponse>", action, result)
		}
	}))
	t.Cleanup(server.Close)
	browser := filepath.Join(t.TempDir(), "browser")
	if err := os.WriteFile(browser, []byte("#!/bin/sh\nexec curl --noproxy '*' -sSL -o /dev/null \"$1\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	awsSettings(t, "[profile work]\nregion = us-east-1\nendpoint_url = "+server.URL+"\n", map[string]string{
		"AWS_LOGIN_CACHE_DIRECTORY": t.TempDir(), "BROWSER": browser, "SSH_CONNECTION": ""})
	signIn := func(toRejected bool) {
		t.Helper()
		ended.Store(toRejected)
		if _, stderr, code := runDaypass(t, "login", "--profile", "work"); code != 0 {
			t.Fatalf("daypass login = %d\n%s", code, stderr)
		}
		opened.Store(0)
	}
	for _, command := range []string{"connect c dev --user alice --host 127.0.0.1 --port 1 --print json", "whoami", "sessions", "revoke list", "sessions kill A B",
		"redshift describe-clusters", "redshift get-cluster-credentials --cluster-identifier c --db-user alice"} {
		args := append(strings.Fields(command), "--profile", "work")
		signIn(true)
		cmd := exec.Command("daypass", args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		out, _ := cmd.CombinedOutput()
		want := 253
		if args[0] == "redshift" {
			want = 254 // as the AWS CLI
		}
		if cmd.ProcessState.ExitCode() != want || !strings.Contains(string(out), "run `daypass login --profile work`") || opened.Load() != 0 {
			t.Errorf("daypass %s without a terminal = %d, with %d sign-ins\n%s", command, cmd.ProcessState.ExitCode(), opened.Load(), out)
		}
		ended.Store(false)
		if seen, code := onTerminalWith(t, 200, "", "", args...); code != 0 || opened.Load() != 1 || !strings.Contains(seen, "You are signed in as") {
			t.Errorf("daypass %s = %d, with %d sign-ins\n%s", command, code, opened.Load(), seen)
		}
	}
	signIn(true)
	if seen, code := onTerminalWith(t, 200, "", "", "whoami", "--profile", "work"); code != 254 || opened.Load() != 1 || !strings.Contains(seen, "GetCallerIdentity: InvalidClientTokenId: ") {
		t.Errorf("with new keys that are rejected, too: %d, with %d sign-ins\n%s", code, opened.Load(), seen)
	}
}
