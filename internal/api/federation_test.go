package api_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/redshift"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/go-jose/go-jose/v4"

	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/iam"
)

// idp is an OpenID Connect provider.
type idp struct {
	*httptest.Server
	kid string
	key ed25519.PrivateKey
}

func newIDP(t testing.TB) *idp {
	i := &idp{}
	i.rotate("1")
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/keys" {
			json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: i.key.Public(), KeyID: i.kid}}})
			return
		}
		json.NewEncoder(w).Encode(map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/keys"})
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *idp) rotate(kid string) {
	i.kid = kid
	_, i.key, _ = ed25519.GenerateKey(rand.Reader)
}

func (i *idp) token(t testing.TB, now time.Time, more map[string]any) string {
	t.Helper()
	claims := map[string]any{"iss": i.URL, "sub": "repo:acme/app:ref:refs/heads/main", "aud": "daypass",
		"iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "environment": "prod"}
	maps.Copy(claims, more)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: i.key, KeyID: i.kid}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	payload, _ := json.Marshal(claims)
	jws, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	token, _ := jws.CompactSerialize()
	return token
}

// withIDP has a role that the main branch may assume, and whose database user is
// the provider's subject.
func withIDP(t testing.TB, i *idp) directory.Spec {
	name := strings.TrimPrefix(i.URL, "http://")
	return withRoles(t,
		directory.RoleSpec{Name: "ci", Inline: []*iam.Policy{policy(t, "ci", `{"Effect":"Allow","Action":["redshift:*"],"Resource":"*",
			"Condition":{"StringLike":{"`+name+`:sub":"repo:acme/*"},"StringEquals":{"`+name+`:aud":"daypass"}}}`)},
			Trust: trust(t, `{"Effect":"Allow","Principal":{"Federated":"arn:aws:iam::123456789012:oidc-provider/`+name+`"},
				"Action":"sts:AssumeRoleWithWebIdentity","Condition":{"StringEquals":{"`+name+`:sub":"repo:acme/app:ref:refs/heads/main",
				"`+name+`:environment":"prod"}}}`)},
		directory.RoleSpec{Name: "tagged", Inline: []*iam.Policy{policy(t, "tags",
			`{"Effect":"Allow","Action":"redshift:*","Resource":"*","Condition":{"StringEquals":{"aws:PrincipalTag/Project":"x","aws:SourceIdentity":"ana"}}}`)},
			Trust: trust(t, `{"Effect":"Allow","Principal":{"Federated":"arn:aws:iam::123456789012:oidc-provider/`+name+`"},
				"Action":["sts:AssumeRoleWithWebIdentity","sts:TagSession","sts:SetSourceIdentity"],"Condition":{"StringEquals":{"aws:RequestTag/Project":"x"}}}`)})
}

func webForm(role, token string, more ...string) string {
	return query("2011-06-15", append([]string{"Action", "AssumeRoleWithWebIdentity", "RoleArn", roleARN + role,
		"RoleSessionName", "build-7", "WebIdentityToken", token}, more...)...)
}

// TestAssumeRoleWithWebIdentity: a provider's token gets a session of the role that trusts it,
// with the token's tags and condition keys. The token is not recorded.
func TestAssumeRoleWithWebIdentity(t *testing.T) {
	i := newIDP(t)
	spec := withIDP(t, i)
	spec.Providers = []directory.Provider{{Issuer: i.URL, Audiences: []string{"daypass"}}}
	s := newServer(t, spec)
	post := func(form string) answer { return s.do(s.request("POST", form)) }
	token := i.token(t, start, nil)
	got := post(webForm("ci", token)).assumed(t)
	if got.Subject != "repo:acme/app:ref:refs/heads/main" || got.Audience != "daypass" || got.Provider != i.URL ||
		got.ARN != "arn:aws:sts::123456789012:assumed-role/ci/build-7" {
		t.Errorf("AssumeRoleWithWebIdentity = %+v", got)
	}
	line := s.lastLine()
	if line.Identity.Type != "WebIdentityUser" || line.Identity.UserName != got.Subject || strings.Contains(toString(line), token) {
		t.Errorf("the audit record is %+v, want the subject and no token", line)
	}
	// The session's policies can use the provider's condition keys, in either form.
	if a := s.redshiftAs(got.keys(), valid()...); a.status != 200 {
		t.Errorf("the session may: got %d %s, want 200", a.status, a.body)
	}
	if id := s.lastLine().Identity; id.Type != "AssumedRole" || !strings.HasSuffix(id.Session.FederatedProvider, ":oidc-provider/"+strings.TrimPrefix(i.URL, "http://")) {
		t.Errorf("the session is recorded as %+v", id)
	}
	if a := s.do(s.request("GET", webForm("ci", token))); a.status != 200 {
		t.Errorf("GET: got %d %s, want 200", a.status, a.body)
	}
	tags := map[string]any{"https://aws.amazon.com/tags": map[string]any{"principal_tags": map[string]any{"Project": []string{"x"}}},
		"https://aws.amazon.com/source_identity": "ana"}
	tagged := post(webForm("tagged", i.token(t, start, tags))).assumed(t)
	if a := s.redshiftAs(tagged.keys(), valid()...); a.status != 200 {
		t.Errorf("the tagged session may: got %d %s, want 200", a.status, a.body)
	}

	flat := map[string]any{"https://aws.amazon.com/tags/principal_tags/Project": "x", "https://aws.amazon.com/tags/transitive_tag_keys": []string{"Project"},
		"https://aws.amazon.com/source_identity": "ana"}
	tagged = post(webForm("tagged", i.token(t, start, flat))).assumed(t)
	if a := s.redshiftAs(tagged.keys(), valid()...); a.status != 200 || tagged.Packed == 0 {
		t.Errorf("the session with a flat tag may: got %d %s (packed %d), want 200", a.status, a.body, tagged.Packed)
	}
	const denied = "Not authorized to perform sts:AssumeRoleWithWebIdentity"
	rows := []struct {
		name    string
		form    string
		status  int
		code    string
		message string
	}{
		{"another branch", webForm("ci", i.token(t, start, map[string]any{"sub": "repo:acme/app:ref:refs/heads/x"})), 403, "AccessDenied", denied},
		{"a claim that differs", webForm("ci", i.token(t, start, map[string]any{"environment": "test"})), 403, "AccessDenied", denied},
		{"a role that trusts users", webForm("jobs/etl", token), 403, "AccessDenied", denied},
		{"no such role", webForm("nosuch", token), 403, "AccessDenied", denied},
		{"tags that the role does not let in", webForm("ci", i.token(t, start, tags)), 403, "AccessDenied", "Not authorized to perform sts:TagSession"},
		{"flat tags that the role does not let in", webForm("ci", i.token(t, start, flat)), 403, "AccessDenied", "Not authorized to perform sts:TagSession"},
		{"a flat tag twice", webForm("tagged", i.token(t, start, map[string]any{"https://aws.amazon.com/tags/principal_tags/a": "1",
			"https://aws.amazon.com/tags/principal_tags/A": "2"})), 400, "InvalidIdentityToken", ""},
		{"a flat tag without a key", webForm("tagged", i.token(t, start, map[string]any{"https://aws.amazon.com/tags/principal_tags/": "1"})), 400, "ValidationError",
			"1 validation error detected: Value at 'tags.1.member.key' failed to satisfy constraint: Member must have length greater than or equal to 1"},
		{"tags in both forms", webForm("tagged", i.token(t, start, map[string]any{"https://aws.amazon.com/tags": tags["https://aws.amazon.com/tags"],
			"https://aws.amazon.com/tags/principal_tags/Project": "y"})), 400, "InvalidIdentityToken", ""},
		{"expired", webForm("ci", i.token(t, start.Add(-time.Hour), nil)), 400, "ExpiredTokenException", ""},
		{"another audience", webForm("ci", i.token(t, start, map[string]any{"aud": "x"})), 400, "InvalidIdentityToken", "Incorrect token audience"},
		{"two subjects", webForm("ci", i.token(t, start, map[string]any{"Sub": "admin"})), 400, "InvalidIdentityToken", ""},
		{"two audiences", webForm("ci", i.token(t, start, map[string]any{"aud": "x", "AUD": "daypass"})), 400, "InvalidIdentityToken", ""},
		{"a claim in two cases", webForm("ci", i.token(t, start, map[string]any{"Environment": "test"})), 400, "InvalidIdentityToken", ""},
		{"a client that is not ours", webForm("ci", i.token(t, start, map[string]any{"azp": "x"})), 400, "InvalidIdentityToken", "Incorrect token audience"},
		{"our client, for another service", webForm("ci", i.token(t, start, map[string]any{"aud": "x", "azp": "daypass"})), 400, "InvalidIdentityToken", "Incorrect token audience"},
		{"another issuer", webForm("ci", i.token(t, start, map[string]any{"iss": "https://x"})), 400, "InvalidIdentityToken", "No OpenIDConnect provider found in your account for the issuer of the token."},
		{"no token at all", query("2011-06-15", "Action", "AssumeRoleWithWebIdentity", "RoleArn", roleARN+"ci", "RoleSessionName", "ab"), 400, "ValidationError",
			"1 validation error detected: Value at 'webIdentityToken' failed to satisfy constraint: Member must not be null"},
		{"a token that is none", webForm("ci", "abcd"), 400, "InvalidIdentityToken", ""},
		{"a token too long", webForm("ci", strings.Repeat("x", 20001)), 400, "ValidationError", ""},
		{"too long a session", webForm("ci", token, "DurationSeconds", "3601"), 400, "ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."},
		{"another action without a signature", query("2011-06-15", "Action", "GetCallerIdentity"), 403, "MissingAuthenticationToken", ""},
		{"another version", strings.Replace(webForm("ci", token), "2011-06-15", "2012-12-01", 1), 403, "MissingAuthenticationToken", ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			a := post(row.form)
			f := a.fault(t)
			if a.status != row.status || f.Code != row.code || row.message != "" && f.Message != row.message {
				t.Errorf("got %d %s %q, want %d %s %q", a.status, f.Code, f.Message, row.status, row.code, row.message)
			}
		})
	}
	i.rotate("2")
	if a := post(webForm("ci", i.token(t, start, nil))); a.status != 200 {
		t.Errorf("after the provider changed its key: got %d %s, want 200", a.status, a.body)
	}
	i.Close()
	s.now = start.Add(3 * time.Hour)
	if f := post(webForm("ci", i.token(t, s.now, nil))).fault(t); f.Code != "IDPCommunicationError" {
		t.Errorf("while the provider is down: got %s, want IDPCommunicationError", f.Code)
	}
}

// If a token has azp, azp is the audience in the trust policy, in the answer, in the audit
// record and in the session. The trust policy can also check aud.
func TestAuthorizedParty(t *testing.T) {
	i := newIDP(t)
	name := strings.TrimPrefix(i.URL, "http://")
	spec := withRoles(t, directory.RoleSpec{Name: "cli", Inline: []*iam.Policy{policy(t, "cli", `{"Effect":"Allow","Action":"redshift:*","Resource":"*",
			"Condition":{"StringEquals":{"`+name+`:aud":"daypass-cli"},"Null":{"`+name+`:oaud":"true"}}}`)},
		Trust: trust(t, `{"Effect":"Allow","Principal":{"Federated":"arn:aws:iam::123456789012:oidc-provider/`+name+`"},
			"Action":"sts:AssumeRoleWithWebIdentity","Condition":{"StringEquals":{"`+name+`:aud":"daypass-cli","`+name+`:oaud":"daypass"}}}`)})
	spec.Providers = []directory.Provider{{Issuer: i.URL, Audiences: []string{"daypass", "daypass-cli"}}}
	s := newServer(t, spec)
	post := func(aud, azp string) answer {
		return s.do(s.request("POST", webForm("cli", i.token(t, start, map[string]any{"aud": aud, "azp": azp}))))
	}
	got := post("daypass", "daypass-cli").assumed(t)
	if got.Audience != "daypass-cli" {
		t.Errorf("the answer has the audience %s, want daypass-cli", got.Audience)
	}
	if id := s.lastLine().Identity.PrincipalID; !strings.HasSuffix(id, ":daypass-cli:"+got.Subject) {
		t.Errorf("the audit record has the principal %s, want it with daypass-cli", id)
	}
	if a := s.redshiftAs(got.keys(), valid()...); a.status != 200 {
		t.Errorf("the session: got %d %s, want 200", a.status, a.body)
	}
	for _, row := range [][2]string{{"daypass", "daypass"}, {"daypass-cli", "daypass"}, {"daypass-cli", "daypass-cli"}} {
		if a := post(row[0], row[1]); a.status != 403 {
			t.Errorf("aud %s, azp %s: got %d %s, want 403", row[0], row[1], a.status, a.body)
		}
	}
}

// The official SDK's default credential chain works with a token in a file and with a
// profile that assumes a role. Only the endpoint is changed.
func TestDefaultChains(t *testing.T) {
	i := newIDP(t)
	spec := withIDP(t, i)
	spec.Providers = []directory.Provider{{Issuer: i.URL, Audiences: []string{"daypass"}}}
	s := newServer(t, spec)
	s.now = time.Time{}
	dir := t.TempDir()
	tokenFile, configFile, keysFile := filepath.Join(dir, "token"), filepath.Join(dir, "config"), filepath.Join(dir, "credentials")
	write := func(name, text string) {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(tokenFile, i.token(t, time.Now(), nil))
	write(keysFile, "[ana]\naws_access_key_id = "+keyOf("ana")+"\naws_secret_access_key = "+secret+"\n")
	write(configFile, "[profile ana]\nregion = us-east-1\n"+
		"[profile chain]\nregion = us-east-1\nrole_arn = "+roleARN+"jobs/etl\nsource_profile = ana\n"+
		"[profile web]\nregion = us-east-1\nrole_arn = "+roleARN+"ci\nweb_identity_token_file = "+tokenFile+"\n")
	t.Setenv("AWS_CONFIG_FILE", configFile)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", keysFile)
	t.Setenv("AWS_ENDPOINT_URL", s.url)
	// This SDK resolves the general endpoint only after it has made the STS client
	// of the credential chain (config.defaultAWSConfigResolvers).
	t.Setenv("AWS_ENDPOINT_URL_STS", s.url)
	for profile, want := range map[string]string{
		"ana":   "arn:aws:iam::123456789012:user/ana",
		"chain": "arn:aws:sts::123456789012:assumed-role/etl/",
		"web":   "arn:aws:sts::123456789012:assumed-role/ci/",
	} {
		ctx := context.Background()
		cfg, err := config.LoadDefaultConfig(ctx, config.WithSharedConfigProfile(profile), config.WithHTTPClient(wholeBody{}))
		if err != nil {
			t.Fatalf("%s: %v", profile, err)
		}
		me, err := sts.NewFromConfig(cfg).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
		if err != nil || !strings.HasPrefix(*me.Arn, want) {
			t.Errorf("%s: GetCallerIdentity = %v, %v, want %s", profile, me, err, want)
			continue
		}
		got, err := redshift.NewFromConfig(cfg).GetClusterCredentials(ctx, &redshift.GetClusterCredentialsInput{
			DbUser: aws.String("ana"), ClusterIdentifier: aws.String("examplecluster")})
		if err != nil || *got.DbUser != "IAM:ana" {
			t.Errorf("%s: GetClusterCredentials = %v, %v", profile, got, err)
		}
	}
}

// The refusal of a token with another algorithm names the algorithm.
func TestWebIdentityAlgorithmIsNamed(t *testing.T) {
	i := newIDP(t)
	spec := withIDP(t, i)
	spec.Providers = []directory.Provider{{Issuer: i.URL, Audiences: []string{"daypass"}}}
	s := newServer(t, spec)
	token := i.token(t, start, nil)
	header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","kid":"1"}`))
	f := s.do(s.request("POST", webForm("ci", header+token[strings.IndexByte(token, '.'):]))).fault(t)
	want := "The web identity token is signed with HS256; accepted are RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA"
	if f.Code != "InvalidIdentityToken" || f.Message != want {
		t.Errorf("got %s %q, want InvalidIdentityToken %q", f.Code, f.Message, want)
	}
}
