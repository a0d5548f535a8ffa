package server

import (
	"context"
	"encoding/base64"
	"html"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/logincreds"
	"github.com/aws/aws-sdk-go-v2/service/signin"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/daypass/daypass/internal/login"
)

// TestDaypassLogin runs the client of `daypass login`, from the browser to the files that the
// SDK reads, on one machine and with a pasted code.
func TestDaypassLogin(t *testing.T) {
	s := newSignInSite(t)
	b := newBrowser(t)
	b.http.CheckRedirect = func(r *http.Request, _ []*http.Request) error { b.last = r.URL; return nil }
	through := func(address string) {
		b.open(address)
		b.send("person", "1")
		b.send("role", "analyst")
	}
	var shown string
	config := login.Config{Endpoint: s.api, HTTP: http.DefaultClient, Now: time.Now, Show: func(address string) { shown = address }, Open: through}
	for _, remote := range []bool{false, true} {
		if remote {
			config.Paste = func(context.Context) (string, error) {
				through(shown)
				_, code, _ := strings.Cut(b.page, "<textarea")
				_, code, _ = strings.Cut(code, ">")
				code, _, _ = strings.Cut(code, "<")
				return html.UnescapeString(code) + "\n", nil
			}
		}
		session, err := login.SignIn(t.Context(), config)
		if err != nil || session.ARN != anaAsAnalyst {
			t.Fatalf("remote %t: SignIn = %+v, %v, want %s\n%s", remote, session, err, anaAsAnalyst, b.page)
		}
		dir := t.TempDir()
		if err := session.Save(dir, session.ARN); err != nil {
			t.Fatal(err)
		}
		path, err := logincreds.StandardCachedTokenFilepath(session.ARN, dir)
		if err != nil {
			t.Fatal(err)
		}
		if found, _ := filepath.Glob(filepath.Join(dir, "*")); len(found) != 1 || found[0] != path {
			t.Errorf("remote %t: the cache has %v, and the SDK looks for %s", remote, found, path)
		}
		provider := logincreds.New(signin.New(signin.Options{Region: "us-east-1", BaseEndpoint: &s.api}), path)
		client := sts.New(sts.Options{Region: "us-east-1", BaseEndpoint: &s.api, Retryer: aws.NopRetryer{}, Credentials: provider})
		if answer, err := client.GetCallerIdentity(t.Context(), nil); err != nil || *answer.Arn != anaAsAnalyst {
			t.Errorf("remote %t: GetCallerIdentity = %v, %v, want %s", remote, answer, err, anaAsAnalyst)
		}
	}

	// An answer to another sign-in, as a hostile page could send it.
	config.Paste = func(context.Context) (string, error) {
		return base64.StdEncoding.EncodeToString([]byte(url.Values{"code": {"x"}, "state": {"other"}}.Encode())), nil
	}
	if _, err := login.SignIn(t.Context(), config); err == nil || !strings.Contains(err.Error(), "another sign-in") {
		t.Errorf("another state: %v, want a refusal", err)
	}
	config.Paste = func(context.Context) (string, error) { return "nonsense!", nil }
	if _, err := login.SignIn(t.Context(), config); err == nil || !strings.Contains(err.Error(), "copy the whole of it") {
		t.Errorf("no code: %v, want what to do", err)
	}
}
