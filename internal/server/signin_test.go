package server

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/logincreds"
	"github.com/aws/aws-sdk-go-v2/service/signin"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

const anaAsAnalyst = "arn:aws:sts::123456789012:assumed-role/analyst/ana@example.com"

func TestSignIn(t *testing.T) {
	s := newSignInSite(t)
	for _, id := range []string{sameDevice, crossDevice} {
		d := s.device(id)
		got := d.redeem(d.signIn("1", "analyst"))
		if got.status != 200 || got.TokenType != "aws_sigv4" || got.ExpiresIn < 890 || got.ExpiresIn > 900 || got.RefreshToken == "" {
			t.Fatalf("%s: the code was exchanged for %+v, want keys of 900 seconds", id, got)
		}
		if arn, err := s.whoami(got); err != nil || arn != anaAsAnalyst {
			t.Errorf("%s: GetCallerIdentity = %s, %v, want %s", id, arn, err, anaAsAnalyst)
		}
		payload, _ := base64.RawURLEncoding.DecodeString(strings.Split(got.IDToken, ".")[1])
		if !strings.Contains(string(payload), `"sub":"`+anaAsAnalyst+`"`) {
			t.Errorf("%s: the idToken says %s", id, payload)
		}
		again := d.refresh(got.RefreshToken)
		if arn, err := s.whoami(again); err != nil || arn != anaAsAnalyst || again.AccessToken == got.AccessToken {
			t.Errorf("%s: after a refresh GetCallerIdentity = %s, %v, want %s with other keys", id, arn, err, anaAsAnalyst)
		}
		// Processes share one file, so the same token works again.
		if other := d.refresh(got.RefreshToken); other.status != 200 {
			t.Errorf("%s: the refresh token a second time: %+v", id, other)
		}
	}
	if text := s.log.String(); strings.Contains(text, "level=ERROR") {
		t.Errorf("the log has errors:\n%s", text)
	}
}

// TestSDKRefreshesASignIn: the official SDK's provider for `aws login` refreshes the keys.
func TestSDKRefreshesASignIn(t *testing.T) {
	s := newSignInSite(t)
	d := s.device(sameDevice)
	got := d.redeem(d.signIn("1", "analyst"))
	der, err := x509.MarshalECPrivateKey(d.key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "login.json")
	text, _ := json.Marshal(map[string]any{
		"accessToken": map[string]any{"accessKeyId": "ASIAEXPIRED", "secretAccessKey": "x", "sessionToken": "x", "accountId": "123456789012",
			"expiresAt": time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)},
		"tokenType": "aws_sigv4", "clientId": d.id, "refreshToken": got.RefreshToken, "idToken": got.IDToken,
		"dpopKey": string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})),
	})
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	provider := logincreds.New(signin.New(signin.Options{Region: "us-east-1", BaseEndpoint: &s.api, Retryer: aws.NopRetryer{}}), file)
	client := sts.New(sts.Options{Region: "us-east-1", BaseEndpoint: &s.api, Retryer: aws.NopRetryer{}, Credentials: provider})
	answer, err := client.GetCallerIdentity(context.Background(), nil)
	if err != nil || *answer.Arn != anaAsAnalyst {
		t.Errorf("GetCallerIdentity = %v, %v, want %s", answer, err, anaAsAnalyst)
	}
}

// TestSignInOffersWhatTrustPoliciesAllow: a role that the person may not assume is neither
// shown nor accepted, and a person who may assume none is told why.
func TestSignInOffersWhatTrustPoliciesAllow(t *testing.T) {
	s := newSignInSite(t)
	b := newBrowser(t)
	b.open(s.device(sameDevice).authorizeURL())
	b.send("person", "2")
	if !strings.Contains(b.page, ">engineer<") || strings.Contains(b.page, `value="analyst"`) || !strings.Contains(b.page, ":groups</code>") {
		t.Errorf("Bob's page offers other IAM roles than engineer, or does not say what is asked for:\n%s", b.page)
	}
	b.send("role", "analyst")
	if b.status != http.StatusForbidden || !strings.Contains(b.page, "not open to you") {
		t.Errorf("Bob as an analyst: %d %s, want a refusal", b.status, b.page)
	}
	b = newBrowser(t)
	b.open(s.device(sameDevice).authorizeURL())
	b.send("person", "3")
	for _, want := range []string{"no IAM role lets you in", "analyst", "engineer", ":groups</code>", "sales"} {
		if !strings.Contains(b.page, want) {
			t.Errorf("Eve's page lacks %q: %d\n%s", want, b.status, b.page)
		}
	}
}

// TestSignInRemembersTheChoice: the browser remembers the chosen role for the next time.
func TestSignInRemembersTheChoice(t *testing.T) {
	s := newSignInSite(t)
	b := newBrowser(t)
	checked := func(role string) bool {
		return strings.Contains(b.page, `value="`+role+`" required checked`)
	}
	b.open(s.device(sameDevice).authorizeURL())
	b.send("person", "1")
	if !checked("analyst") || checked("engineer") {
		t.Errorf("the first role is not chosen at first:\n%s", b.page)
	}
	b.send("role", "engineer")
	b.open(s.device(sameDevice).authorizeURL())
	b.send("person", "1")
	if !checked("engineer") || checked("analyst") {
		t.Errorf("the role of the last time is not chosen:\n%s", b.page)
	}
}

// TestRefreshIsDecidedAnew: each refresh is decided by the configuration at that time.
func TestRefreshIsDecidedAnew(t *testing.T) {
	s := newSignInSite(t)
	d := s.device(sameDevice)
	got := d.redeem(d.signIn("1", "analyst"))
	reload := func(more string, change func(string) string) {
		t.Helper()
		s.configure(more)
		text, _ := os.ReadFile(s.config)
		if err := os.WriteFile(s.config, []byte(change(string(text))), 0o600); err != nil {
			t.Fatal(err)
		}
		s.reload()
	}
	same := func(text string) string { return text }
	name := strings.TrimPrefix(s.idp, "http://")
	for _, row := range []struct {
		what   string
		more   string
		change func(string) string
		status int
		code   string
	}{
		{"nothing", "", same, 200, ""},
		{"the trust policy asks for another group", "", func(text string) string {
			return strings.Replace(text, name+`:groups": analysts`, name+`:groups": directors`, 1)
		}, 403, "INSUFFICIENT_PERMISSIONS"},
		{"the IAM role is gone", "", func(text string) string { return strings.Replace(text, "name: analyst\n", "name: analyzer\n", 1) }, 403, "INSUFFICIENT_PERMISSIONS"},
		{"the client is another", "", func(text string) string {
			return strings.NewReplacer("client_id: daypass", "client_id: other", "audiences: [daypass]", "audiences: [daypass, other]").Replace(text)
		}, 403, "USER_CREDENTIALS_CHANGED"},
		{"all is as it was", "", same, 200, ""},
	} {
		reload(row.more, row.change)
		if again := d.refresh(got.RefreshToken); again.status != row.status || again.Error != row.code {
			t.Errorf("%s: %d %s %s, want %d %s", row.what, again.status, again.Error, again.Message, row.status, row.code)
		}
	}
	s.offset.Store(int64(2 * time.Hour))
	if again := d.refresh(got.RefreshToken); again.status != 200 {
		t.Errorf("two hours later: %+v", again)
	}
	reload(", duration: 1h", same)
	if again := d.refresh(got.RefreshToken); again.Error != "TOKEN_EXPIRED" {
		t.Errorf("two hours after a sign-in of one: %+v", again)
	}
	reload("", same)
	s.offset.Store(int64(12*time.Hour - 2*time.Minute))
	last := d.refresh(got.RefreshToken)
	if last.status != 200 || last.ExpiresIn > 120 {
		t.Errorf("two minutes before the end: %+v, want keys for no longer", last)
	}
	s.offset.Store(int64(12 * time.Hour))
	if again := d.refresh(last.RefreshToken); again.Error != "TOKEN_EXPIRED" || again.status != 401 {
		t.Errorf("after twelve hours: %+v, want the end, however often it was refreshed", again)
	}
}

// TestRevocationEndsASignIn: a revocation of the principal ends its keys and their refreshing at
// once, and is remembered for as long as a sign-in can last. A person who signs in again
// afterwards gets new keys.
func TestRevocationEndsASignIn(t *testing.T) {
	s := newSignInSite(t)
	ana, bob := s.device(sameDevice), s.device(sameDevice)
	anas, bobs := ana.redeem(ana.signIn("1", "engineer")), bob.redeem(bob.signIn("2", "engineer"))
	s.offset.Store(int64(time.Second)) // credentials and sign-ins have whole seconds
	if err := s.revokePrincipal("arn:aws:sts::123456789012:assumed-role/engineer/ana@example.com"); err != nil {
		t.Fatal(err)
	}
	if arn, err := s.whoami(anas); err == nil {
		t.Errorf("the keys of a sign-in that was ended: GetCallerIdentity = %s, want a refusal", arn)
	}
	if again := ana.refresh(anas.RefreshToken); again.Error != "USER_CREDENTIALS_CHANGED" {
		t.Errorf("refreshing it: %+v, want a refusal", again)
	}
	if _, err := s.whoami(bobs); err != nil {
		t.Errorf("Bob's keys: %v", err)
	}
	s.offset.Store(int64(11 * time.Hour))
	if again := ana.refresh(anas.RefreshToken); again.Error != "USER_CREDENTIALS_CHANGED" {
		t.Errorf("refreshing it eleven hours later: %+v, want a refusal", again)
	}
	if again := bob.refresh(bobs.RefreshToken); again.status != 200 {
		t.Errorf("Bob eleven hours later: %+v", again)
	}
	s.offset.Store(int64(3 * time.Second))
	if got := ana.redeem(ana.signIn("1", "engineer")); got.status != 200 {
		t.Errorf("signing in again: %+v", got)
	}
}
