package main

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// loginServer is the part of a server that `daypass login` and `daypass whoami` call, with TLS from a CA of its own.
// It counts the browsers that come, and rejects the access keys of others.
type loginServer struct {
	*httptest.Server
	ca     string
	opened atomic.Int64
}

func newLoginServer(t *testing.T) *loginServer {
	if _, err := exec.LookPath("curl"); err != nil {
		missing(t, "curl", "apt-get install curl")
	}
	s := &loginServer{ca: filepath.Join(t.TempDir(), "ca.crt")}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v1/token" && r.Method == http.MethodGet:
			w.WriteHeader(http.StatusMethodNotAllowed)
		case r.URL.Path == "/v1/authorize":
			s.opened.Add(1)
			q := r.URL.Query()
			http.Redirect(w, r, q.Get("redirect_uri")+"?"+url.Values{"code": {"c"}, "state": {q.Get("state")}}.Encode(), http.StatusFound)
		case r.URL.Path == "/v1/token":
			claims := base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"arn:aws:sts::123456789012:assumed-role/analyst/ana"}`))
			_ = json.NewEncoder(w).Encode(map[string]any{"accessToken": map[string]any{"accessKeyId": "ASIASIGNEDIN", "secretAccessKey": "s", "sessionToken": "t"},
				"tokenType": "aws_sigv4", "refreshToken": "r", "idToken": "e30." + claims + ".x", "expiresIn": 900})
		case !strings.Contains(r.Header.Get("Authorization"), "Credential=ASIASIGNEDIN/"):
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, "<ErrorResponse><Error><Type>Sender</Type><Code>InvalidClientTokenId</Code><Message>The security token included in the request is invalid.</Message></Error><RequestId>r</RequestId></ErrorResponse>")
		default:
			fmt.Fprint(w, "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:sts::123456789012:assumed-role/analyst/ana</Arn></GetCallerIdentityResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></GetCallerIdentityResponse>")
		}
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that fail on purpose
	s.StartTLS()
	t.Cleanup(s.Close)
	if err := os.WriteFile(s.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestFirstTries: what a person tries first and gets wrong. The error names the next step, no browser opens in vain, and nothing
// of theirs is changed.
func TestFirstTries(t *testing.T) {
	server := newLoginServer(t)
	browser := filepath.Join(t.TempDir(), "browser")
	if err := os.WriteFile(browser, []byte("#!/bin/sh\nexec curl --noproxy '*' -ksSL -o /dev/null \"$1\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	const before = "# mine\n[default]\nregion = eu-west-1\n\n[profile mine]\nregion = eu-west-1\n# why\noutput = json\n"
	const none = "AWS_ACCESS_KEY_ID"
	noSignIn := httptest.NewServer(http.NotFoundHandler()) // as the API answers if people cannot sign in
	t.Cleanup(noSignIn.Close)
	at := " --endpoint-url " + server.URL + " --region us-east-1"
	for name, row := range map[string]struct {
		line   string
		env    map[string]string
		code   int
		says   string
		opened int64
	}{
		"the CA is not named":       {"login --profile work" + at, nil, 255, "its certificate is not accepted", 0},
		"nothing listens":           {"login --profile work --region us-east-1 --endpoint-url http://127.0.0.1:1", nil, 255, "cannot connect", 0},
		"no sign_in":                {"login --profile work --region us-east-1 --endpoint-url " + noSignIn.URL, nil, 255, "people cannot sign in at this server: check the endpoint, or ask", 0},
		"no sign_in, with a code":   {"login --device --profile work --region us-east-1 --endpoint-url " + noSignIn.URL, nil, 255, "people cannot sign in at this server: check the endpoint, or ask", 0},
		"no profile is named":       {"login --ca-bundle " + server.ca + at, nil, 253, `profile "default": is one for Amazon, because it has no endpoint_url: name another profile`, 0},
		"a profile of theirs":       {"login --profile mine --ca-bundle " + server.ca + at, nil, 253, `profile "mine": is one for Amazon`, 0},
		"the cache is not writable": {"login --profile work --ca-bundle " + server.ca + at, map[string]string{"AWS_LOGIN_CACHE_DIRECTORY": "/dev/null/x"}, 253, "name another one in AWS_LOGIN_CACHE_DIRECTORY", 0},
		"a mistyped profile":        {"whoami --profile wrok", nil, 253, "the profiles are default, mine", 0},
	} {
		all := map[string]string{none: "", "AWS_SECRET_ACCESS_KEY": "", "AWS_REGION": "", "AWS_LOGIN_CACHE_DIRECTORY": t.TempDir(), "BROWSER": browser, "SSH_CONNECTION": "", "HTTPS_PROXY": ""}
		maps.Copy(all, row.env)
		awsSettings(t, before, all)
		server.opened.Store(0)
		_, stderr, code := runDaypass(t, strings.Fields(row.line)...)
		if code != row.code || !strings.Contains(stderr, row.says) || server.opened.Load() != row.opened {
			t.Errorf("%s: daypass %s = %d, and %d browsers\n%s\nwant %d and %q", name, row.line, code, server.opened.Load(), stderr, row.code, row.says)
		}
		if after, _ := os.ReadFile(os.Getenv("AWS_CONFIG_FILE")); string(after) != before {
			t.Errorf("%s: the configuration is now\n%s", name, after)
		}
	}

	// net/http reads HTTPS_PROXY once.
	awsSettings(t, before, map[string]string{none: "", "AWS_SECRET_ACCESS_KEY": "", "HTTPS_PROXY": "http://127.0.0.1:1", "NO_PROXY": "", "AWS_LOGIN_CACHE_DIRECTORY": t.TempDir()})
	server.opened.Store(0)
	out, err := exec.Command("daypass", strings.Fields("login --profile work --region us-east-1 --endpoint-url https://d.example.com")...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "correct HTTPS_PROXY, or name the server in NO_PROXY") {
		t.Errorf("a web proxy that is gone: %v\n%s", err, out)
	}

	awsSettings(t, before, map[string]string{none: "", "AWS_SECRET_ACCESS_KEY": "", "AWS_REGION": "", "AWS_LOGIN_CACHE_DIRECTORY": t.TempDir(), "HTTPS_PROXY": "", "BROWSER": "none:" + browser + " %s", "SSH_CONNECTION": ""})
	if _, stderr, code := runDaypass(t, strings.Fields("login --profile work --ca-bundle "+server.ca+at)...); code != 0 || server.opened.Load() != 1 {
		t.Fatalf("daypass login --ca-bundle = %d\n%s", code, stderr)
	}
	// The profile names the CA, so the next command needs no flag.
	if stdout, stderr, code := runDaypass(t, "whoami", "--profile", "work"); code != 0 || !strings.Contains(stdout, "assumed-role/analyst/ana") {
		t.Errorf("daypass whoami = %d\n%s%s", code, stdout, stderr)
	}
	if after, _ := os.ReadFile(os.Getenv("AWS_CONFIG_FILE")); !strings.HasPrefix(string(after), before) || !strings.Contains(string(after), "ca_bundle = "+server.ca+"\n") {
		t.Errorf("the configuration is now\n%s", after)
	}
	// Keys in the environment take precedence over AWS_PROFILE, in every AWS client.
	t.Setenv("AWS_PROFILE", "work")
	t.Setenv(none, "AKIASTALE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "s")
	if _, stderr, code := runDaypass(t, "whoami"); code != 254 || !strings.Contains(stderr, `the access key is that of AWS_ACCESS_KEY_ID, which takes precedence over the profile "work": unset it, or give --profile work`) {
		t.Errorf("daypass whoami with AWS_ACCESS_KEY_ID = %d\n%s", code, stderr)
	}
	if _, stderr, code := runDaypass(t, "whoami", "--profile", "work"); code != 0 {
		t.Errorf("daypass whoami --profile with AWS_ACCESS_KEY_ID = %d\n%s", code, stderr)
	}
}

// TestLongCodeIsPasted: a terminal that edits lines itself keeps 4095 bytes of one on Linux, and 1023 on macOS. The code of
// `daypass login --remote` grows with the names in it.
func TestLongCodeIsPasted(t *testing.T) {
	server := newLoginServer(t)
	awsSettings(t, "", map[string]string{"AWS_LOGIN_CACHE_DIRECTORY": t.TempDir(), "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""})
	code := base64.StdEncoding.EncodeToString([]byte("state=other&code=" + strings.Repeat("x", 6000)))
	seen, exit := onTerminalWith(t, 200, "Code (it is not shown): ", "typo\x15"+code+"\x7f"+code[len(code)-1:]+"\r",
		"login", "--remote", "--profile", "work", "--ca-bundle", server.ca, "--endpoint-url", server.URL, "--region", "us-east-1")
	if exit != 255 || !strings.Contains(seen, "the browser's answer is for another sign-in") || strings.Contains(seen, code[:20]) {
		t.Errorf("daypass login --remote = %d\n%s", exit, seen)
	}
}
