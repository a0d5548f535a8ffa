package awsconfig_test

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/awsconfig"
	"github.com/daypass/daypass/test/envtest"
)

func TestMain(m *testing.M) {
	envtest.Clear()
	m.Run()
}

// The keys of a sign-in are refreshed at the configured server, in whatever way it is
// configured, and never at Amazon, which is the SDK's default.
func TestSignInStaysHere(t *testing.T) {
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.URL.Path != "/v1/token" || r.Header.Get("DPoP") == "" {
			t.Errorf("%s %s, want a refresh with a proof", r.Method, r.URL)
		}
		w.Header().Set("X-Amzn-ErrorType", "AccessDeniedException")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(`{"error": "TOKEN_EXPIRED", "message": "The sign-in has ended."}`))
	}))
	defer server.Close()
	dir := t.TempDir()
	const session = "arn:aws:sts::123456789012:assumed-role/analyst/ana@example.com"
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cached, _ := json.Marshal(map[string]any{
		"accessToken": map[string]any{"accessKeyId": "ASIA", "secretAccessKey": "x", "sessionToken": "x", "accountId": "123456789012", "expiresAt": "2020-01-01T00:00:00Z"},
		"clientId":    "c", "refreshToken": "r", "dpopKey": string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})),
	})
	sum := sha256.Sum256([]byte(session))
	for path, data := range map[string]string{
		hex.EncodeToString(sum[:]) + ".json": string(cached),
		"config": "[profile url]\nregion = us-east-1\nlogin_session = " + session + "\nendpoint_url = " + server.URL + "\n" +
			"[profile bare]\nregion = us-east-1\nlogin_session = " + session + "\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, path), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, value := range map[string]string{"AWS_CONFIG_FILE": filepath.Join(dir, "config"), "AWS_SHARED_CREDENTIALS_FILE": filepath.Join(dir, "none"),
		"AWS_LOGIN_CACHE_DIRECTORY": dir, "AWS_PROFILE": "", "AWS_DEFAULT_PROFILE": "", "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""} {
		t.Setenv(name, value)
	}
	for name, row := range map[string]struct{ profile, option, env string }{
		"endpoint_url":     {"url", "", ""},
		"--endpoint-url":   {"bare", server.URL, ""},
		"AWS_ENDPOINT_URL": {"bare", "", server.URL},
	} {
		t.Setenv("AWS_ENDPOINT_URL", row.env)
		before := asked.Load()
		found, err := awsconfig.Load(context.Background(), awsconfig.Settings{Profile: row.profile, EndpointURL: row.option}, "redshift")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_, err = found.SDK.Credentials.Retrieve(t.Context())
		if asked.Load() == before || !awsconfig.NeedsSignIn(found.Profile, err) {
			t.Errorf("%s: the server was asked %d times, and the error %v does not ask for a sign-in", name, asked.Load()-before, err)
		}
	}
}

// TestSSOStaysHere: profiles with an sso-session get a token and keys at the configured server, in
// whatever way it is configured, and send no token to Amazon.
func TestSSOStaysHere(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.Method+" "+r.URL.Path)
		if r.URL.Path == "/token" {
			_, _ = w.Write([]byte(`{"accessToken": "new", "expiresIn": 3600, "tokenType": "Bearer"}`))
			return
		}
		if r.Header.Get("x-amz-sso_bearer_token") != "new" {
			t.Errorf("%s %s came without the token", r.Method, r.URL)
		}
		_, _ = fmt.Fprintf(w, `{"roleCredentials": {"accessKeyId": "ASIAX", "secretAccessKey": "x", "sessionToken": "x", "expiration": %d}}`, time.Now().Add(time.Hour).UnixMilli())
	}))
	defer server.Close()
	const profile = "region = us-east-1\nsso_session = daypass\nsso_account_id = 123456789012\nsso_role_name = analyst\n"
	for name, row := range map[string]struct{ profile, env, more string }{
		"endpoint_url":     {profile: "endpoint_url = " + server.URL + "\n"},
		"AWS_ENDPOINT_URL": {env: server.URL},
		"services": {profile: "services = s\nendpoint_url = http://127.0.0.1:1\n",
			more: "[services s]\nsso =\n  endpoint_url = " + server.URL + "\nsso_oidc =\n  endpoint_url = " + server.URL + "\n"},
	} {
		dir := t.TempDir()
		for name, value := range map[string]string{"HOME": dir, "USERPROFILE": dir, "AWS_CONFIG_FILE": filepath.Join(dir, "config"), "AWS_SHARED_CREDENTIALS_FILE": filepath.Join(dir, "none"),
			"AWS_PROFILE": "", "AWS_DEFAULT_PROFILE": "", "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_ENDPOINT_URL": row.env} {
			t.Setenv(name, value)
		}
		sum := sha1.Sum([]byte("daypass"))
		cache := filepath.Join(dir, ".aws", "sso", "cache")
		if err := os.MkdirAll(cache, 0o700); err != nil {
			t.Fatal(err)
		}
		for path, text := range map[string]string{
			filepath.Join(dir, "config"): "[profile work]\n" + profile + row.profile + "[sso-session daypass]\nsso_start_url = https://identitycenter.amazonaws.com/ssoins-daypass\nsso_region = us-east-1\n" + row.more,
			filepath.Join(cache, hex.EncodeToString(sum[:])+".json"): `{"accessToken": "old", "expiresAt": "2020-01-01T00:00:00Z", "clientId": "c", "clientSecret": "s", "refreshToken": "r",
				"registrationExpiresAt": "2099-01-01T00:00:00Z", "region": "us-east-1", "startUrl": "https://identitycenter.amazonaws.com/ssoins-daypass"}`,
		} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		asked = nil
		found, err := awsconfig.Load(t.Context(), awsconfig.Settings{Profile: "work", EndpointURL: cmp.Or(row.env, "http://127.0.0.1:1"), Getenv: os.Getenv}, "redshift")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		keys, err := found.SDK.Credentials.Retrieve(t.Context())
		if err != nil || keys.AccessKeyID != "ASIAX" || !slices.Equal(asked, []string{"POST /token", "GET /federation/credentials"}) {
			t.Errorf("%s: %s, %v, and the server was asked for %v", name, keys.AccessKeyID, err, asked)
		}
	}
}
