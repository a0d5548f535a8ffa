package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/smithy-go"
	"github.com/go-jose/go-jose/v4"
)

// issuer is an OpenID Connect provider: discovery, keys, and tokens.
type issuer struct {
	*httptest.Server

	mu        sync.Mutex // guards the rest
	kid       string
	algorithm jose.SignatureAlgorithm
	key       crypto.Signer
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{}
	i.use("first", jose.RS256, key)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/keys",
			"id_token_signing_alg_values_supported": []string{"RS256", "ES256"}})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		i.mu.Lock()
		defer i.mu.Unlock()
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
			{Key: i.key.Public(), KeyID: i.kid, Algorithm: string(i.algorithm), Use: "sig"}}})
	})
	i.Server = httptest.NewServer(mux)
	t.Cleanup(i.Close)
	return i
}

// use replaces the signing key.
func (i *issuer) use(kid string, algorithm jose.SignatureAlgorithm, key crypto.Signer) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.kid, i.algorithm, i.key = kid, algorithm, key
}

// token returns a token for a subject, like the tokens that a CI system gives its jobs.
func (i *issuer) token(t *testing.T, subject string) string {
	t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: i.algorithm, Key: jose.JSONWebKey{Key: i.key, KeyID: i.kid}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	claims, err := json.Marshal(map[string]any{"iss": i.URL, "sub": subject, "aud": "daypass", "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix()})
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// write writes a file into the clients' home directory.
func (s *clientSite) write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(s.home, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// forget deletes the AWS CLI's cache of assumed roles, because the cache's key does not include
// the token file.
func (s *clientSite) forget(t *testing.T) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(s.home, ".aws")); err != nil {
		t.Fatal(err)
	}
}

// testAssumedRole has every client assume an IAM role by role_arn and source_profile. Only
// AWS_ENDPOINT_URL (and, for the SDK for Go, AWS_ENDPOINT_URL_STS) names the endpoint.
func (s *clientSite) testAssumedRole(t *testing.T) {
	id, secret := strings.TrimPrefix(keysOfAna[0], "AWS_ACCESS_KEY_ID="), strings.TrimPrefix(keysOfAna[1], "AWS_SECRET_ACCESS_KEY=")
	s.write(t, "credentials", "[ana]\naws_access_key_id = "+id+"\naws_secret_access_key = "+secret+"\n")
	s.write(t, "config", "[profile etl]\nrole_arn = arn:aws:iam::123456789012:role/etl\nsource_profile = ana\n")
	for name, client := range s.awsClients() {
		t.Run(name, func(t *testing.T) {
			s.forget(t)
			s.check(t, client, s.awsEnv("AWS_PROFILE=etl"), "arn:aws:sts::123456789012:assumed-role/etl/")
		})
	}
}

// testWebIdentity has every client exchange a provider's token for a session, configured by
// environment variables and by profile. In between the provider changes its key.
func (s *clientSite) testWebIdentity(t *testing.T) {
	const subject, role = "repo:acme/app:ref:refs/heads/main", "arn:aws:iam::123456789012:role/ci"
	file := s.write(t, "token", s.issuer.token(t, subject))
	s.write(t, "config", "[profile ci]\nrole_arn = "+role+"\nweb_identity_token_file = "+file+"\nrole_session_name = build-8\n")
	byEnvironment := s.awsEnv("AWS_WEB_IDENTITY_TOKEN_FILE="+file, "AWS_ROLE_ARN="+role, "AWS_ROLE_SESSION_NAME=build-7")
	byProfile := s.awsEnv("AWS_PROFILE=ci")
	session := func(t *testing.T, client func(*testing.T, []string) (awsAnswer, error), env []string, arn string) {
		t.Helper()
		s.forget(t)
		s.check(t, client, env, arn)
	}
	for name, client := range s.awsClients() {
		t.Run(name, func(t *testing.T) {
			session(t, client, byEnvironment, "arn:aws:sts::123456789012:assumed-role/ci/build-7")
			session(t, client, byProfile, "arn:aws:sts::123456789012:assumed-role/ci/build-8")
		})
	}
	old := s.issuer.token(t, subject)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s.issuer.use("second", jose.ES256, key)
	for name, client := range s.awsClients() {
		t.Run("rotated/"+name, func(t *testing.T) {
			s.write(t, "token", s.issuer.token(t, subject))
			session(t, client, byEnvironment, "arn:aws:sts::123456789012:assumed-role/ci/build-7")
		})
	}
	for what, want := range map[string]struct{ token, code string }{
		"withdrawn key":  {old, "InvalidIdentityToken"},
		"another branch": {s.issuer.token(t, "repo:acme/app:ref:refs/heads/other"), "AccessDenied"},
	} {
		t.Run(what, func(t *testing.T) {
			s.write(t, "token", want.token)
			a, err := s.callGo(t, byEnvironment)
			if refused, ok := errors.AsType[smithy.APIError](err); !ok || refused.ErrorCode() != want.code {
				t.Errorf("got %q, %v, want %s", a.Arn, err, want.code)
			}
		})
	}
	// "daypass redshift", which the README recommends, uses the same credential chain.
	s.write(t, "token", s.issuer.token(t, subject))
	text, err := s.run(t, byEnvironment, "daypass", "redshift", "get-cluster-credentials", "--cluster-identifier", "examplecluster", "--db-name", "dev", "--db-user", "alice")
	var a awsAnswer
	if err == nil {
		err = json.Unmarshal([]byte(text), &a)
	}
	if err != nil || a.DbUser != "IAM:alice" {
		t.Errorf("daypass redshift get-cluster-credentials = %q, %v", a.DbUser, err)
	}
}
