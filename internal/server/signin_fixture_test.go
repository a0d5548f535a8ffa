package server

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/daypass/daypass/internal/client"
	"github.com/daypass/daypass/internal/devidp"
	"github.com/daypass/daypass/test/pgtest"
	"github.com/daypass/daypass/test/sitetest"
)

const (
	sameDevice  = "arn:aws:signin:::devtools/same-device"
	crossDevice = "arn:aws:signin:::devtools/cross-device"
)

// signInSite is a server with sign-in, and its identity provider.
type signInSite struct {
	*served
	idp string
	api string
	top string // more keys of the configuration

	mu     sync.Mutex
	people []devidp.Person // guarded by mu
}

func newSignInSite(t *testing.T) *signInSite {
	t.Helper()
	return newSignInSiteWith(t, "")
}

// newSignInSiteWith is newSignInSite with more keys of the configuration.
func newSignInSiteWith(t *testing.T, top string) *signInSite {
	t.Helper()
	s := newProvider(t)
	s.top = top
	s.served = newServed(t, "127.0.0.1:1", "")
	s.configure("")
	s.start()
	return s
}

// newProvider starts an identity provider, and chooses the address of a server that uses it.
func newProvider(t *testing.T) *signInSite {
	t.Helper()
	s := &signInSite{people: []devidp.Person{
		{Subject: "1", Name: "Ana", Email: "ana@example.com", Groups: []string{"analysts", "engineers"}},
		{Subject: "2", Name: "Bob", Email: "bob@example.com", Groups: []string{"engineers"}},
		{Subject: "3", Name: "Eve", Email: "eve@example.com", Groups: []string{"sales"}},
	}}
	var provider http.Handler
	idp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { provider.ServeHTTP(w, r) }))
	t.Cleanup(idp.Close)
	s.idp = idp.URL
	s.api = "http://" + freeAddress(t)
	provider, err := devidp.New(devidp.Config{Issuer: s.idp, ClientID: "daypass", ClientSecret: "provider's secret", RedirectURI: s.api + "/sign-in/callback",
		People: func() []devidp.Person { s.mu.Lock(); defer s.mu.Unlock(); return slices.Clone(s.people) }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// configure writes the configuration: two IAM roles, for the groups analysts and engineers,
// and more keys of sign_in.
func (s *signInSite) configure(more string) {
	s.t.Helper()
	text := fmt.Sprintf(`account: "123456789012"
region: us-east-1
data: ./data
api: {listen: "%s"}
gateway: {listen: "127.0.0.1:0"}
%sclusters: []
iam:
  users:
    - name: admin
      access_keys: [{id: %s, secret: "%s"}]
      policies: [{Version: "2012-10-17", Statement: [{Effect: Allow, Action: "*", Resource: "*"}]}]
%s%s`, strings.TrimPrefix(s.api, "http://"), s.signIn(more), sitetest.Keys["admin"][0], sitetest.Keys["admin"][1], s.roles(), s.top)
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// signIn returns the section sign_in.
func (s *signInSite) signIn(more string) string {
	return fmt.Sprintf("sign_in: {url: %q, issuer: %q, client_id: daypass, client_secret: \"provider's secret\"%s}\n", s.api, s.idp, more)
}

// roles returns the part of the section iam with the provider and its two IAM roles.
func (s *signInSite) roles() string {
	name := strings.TrimPrefix(s.idp, "http://")
	text := fmt.Sprintf("  oidc_providers: [{issuer: %q, audiences: [daypass]}]\n  roles:\n", s.idp)
	for _, role := range [][2]string{{"analyst", "analysts"}, {"engineer", "engineers"}} {
		text += fmt.Sprintf(`    - name: %s
      trust_policy:
        Version: "2012-10-17"
        Statement:
          - Effect: Allow
            Principal: {Federated: "arn:aws:iam::123456789012:oidc-provider/%s"}
            Action: sts:AssumeRoleWithWebIdentity
            Condition: {"ForAnyValue:StringEquals": {"%s:groups": %s}}
      policies: [{Version: "2012-10-17", Statement: [{Effect: Allow, Action: "redshift:*", Resource: "*"}]}]
`, role[0], name, name, role[1])
	}
	return text
}

// browser acts as a browser without scripts. It follows redirects, except to another program
// on its machine, and submits the forms that it receives.
type browser struct {
	t    *testing.T
	http *http.Client
	// page is the body of the current page, code its status, and last where it was redirected
	// to.
	page   string
	status int
	header http.Header
	last   *url.URL
}

func newBrowser(t *testing.T) *browser {
	jar, _ := cookiejar.New(nil)
	b := &browser{t: t}
	b.http = &http.Client{Jar: jar, Timeout: time.Minute, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		b.last = r.URL
		if r.URL.Path == "/oauth/callback" {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	return b
}

func (b *browser) do(r *http.Request) {
	b.t.Helper()
	b.last = r.URL
	response, err := b.http.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	b.page, b.status, b.header = string(body), response.StatusCode, response.Header
	if strings.Contains(b.page, "Daypass</title>") {
		checkPage(b.t, b.last.Path, b.page)
	}
}

func (b *browser) open(address string) {
	b.t.Helper()
	r, err := http.NewRequest("GET", address, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	b.do(r)
}

var hiddenFields = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)

// send submits the form of the page with additional fields.
func (b *browser) send(more ...string) {
	b.t.Helper()
	form := url.Values{}
	page := b.page
	if _, content, ok := strings.Cut(page, "<main"); ok {
		page = content // the form in the console's header signs out
	}
	for _, field := range hiddenFields.FindAllStringSubmatch(page, -1) {
		form.Set(field[1], html.UnescapeString(field[2]))
	}
	for i := 0; i < len(more); i += 2 {
		form.Set(more[i], more[i+1])
	}
	to := b.last.String()
	if _, action, ok := strings.Cut(page, `action="`); ok {
		action, _, _ = strings.Cut(action, `"`)
		to = b.last.Scheme + "://" + b.last.Host + action
	}
	r, err := http.NewRequest("POST", to, strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	b.do(r)
}

// device is a program that signs in, as the AWS CLI does.
type device struct {
	site     *signInSite
	key      *ecdsa.PrivateKey
	id       string
	redirect string
	verifier string
	state    string
}

func (s *signInSite) device(id string) *device {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	d := &device{site: s, key: key, id: id, redirect: "http://127.0.0.1:39999/oauth/callback", verifier: rand.Text() + rand.Text(), state: "8a0d-state"}
	if id == crossDevice {
		d.redirect = s.api + "/v1/sessions/confirmation"
	}
	return d
}

func (d *device) authorizeURL() string {
	sum := sha256.Sum256([]byte(d.verifier))
	return d.site.api + "/v1/authorize?" + url.Values{"response_type": {"code"}, "client_id": {d.id}, "state": {d.state}, "code_challenge_method": {"SHA-256"},
		"scope": {"openid"}, "redirect_uri": {d.redirect}, "code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}}.Encode()
}

// signIn goes through all pages as a person, chooses a role, and returns the code.
func (d *device) signIn(person, role string) string {
	t := d.site.t
	t.Helper()
	b := newBrowser(t)
	b.open(d.authorizeURL())
	b.send("person", person)
	if b.status != 200 || !strings.Contains(b.page, ">"+role+"<") {
		t.Fatalf("the page of roles: %d %s, want the IAM role %s", b.status, b.page, role)
	}
	b.send("role", role)
	query := b.last.Query()
	if d.id == crossDevice {
		_, pasted, _ := strings.Cut(b.page, "<textarea")
		_, pasted, _ = strings.Cut(pasted, ">")
		pasted, _, _ = strings.Cut(pasted, "<")
		text, err := base64.StdEncoding.DecodeString(html.UnescapeString(pasted))
		if err != nil {
			t.Fatalf("the page with the code: %d %s: %v", b.status, b.page, err)
		}
		query, _ = url.ParseQuery(string(text))
	} else if b.status != http.StatusSeeOther || !strings.HasPrefix(b.last.String(), d.redirect+"?") {
		t.Fatalf("after the choice: %d at %s, want a redirect to the device\n%s", b.status, b.last, b.page)
	}
	if query.Get("state") != d.state || query.Get("code") == "" {
		t.Fatalf("the device got %v, want its state and a code", query)
	}
	return query.Get("code")
}

// proof returns a DPoP header; change alters its header and claims before it is signed.
func (d *device) proof(change func(header, claims map[string]any)) string {
	point, _ := d.key.PublicKey.Bytes()
	encode := base64.RawURLEncoding.EncodeToString
	header := map[string]any{"typ": "dpop+jwt", "alg": "ES256", "jwk": map[string]any{"kty": "EC", "crv": "P-256", "x": encode(point[1:33]), "y": encode(point[33:])}}
	claims := map[string]any{"htm": "POST", "htu": d.site.api + "/v1/token", "iat": d.site.now().Unix(), "jti": rand.Text()}
	if change != nil {
		change(header, claims)
	}
	part := func(v any) string { data, _ := json.Marshal(v); return encode(data) }
	text := part(header) + "." + part(claims)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, d.key, sum[:])
	if err != nil {
		d.site.t.Fatal(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return text + "." + encode(signature)
}

// tokens is the response of /v1/token, or its error.
type tokens struct {
	status       int
	AccessToken  struct{ AccessKeyID, SecretAccessKey, SessionToken string }
	TokenType    string
	ExpiresIn    int
	RefreshToken string
	IDToken      string
	Error        string
	Message      string
}

func (d *device) post(proof string, body map[string]any) tokens {
	t := d.site.t
	t.Helper()
	data, _ := json.Marshal(body)
	r, err := http.NewRequest("POST", d.site.api+"/v1/token", bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if proof != "" {
		r.Header.Set("DPoP", proof)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer := tokens{status: response.StatusCode}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

func (d *device) redemption(code string) map[string]any {
	return map[string]any{"clientId": d.id, "grantType": "authorization_code", "code": code, "codeVerifier": d.verifier, "redirectUri": d.redirect}
}

func (d *device) redeem(code string) tokens {
	d.site.t.Helper()
	return d.post(d.proof(nil), d.redemption(code))
}

func (d *device) refresh(token string) tokens {
	d.site.t.Helper()
	return d.post(d.proof(nil), map[string]any{"clientId": d.id, "grantType": "refresh_token", "refreshToken": token})
}

// whoami calls GetCallerIdentity with the keys.
func (s *signInSite) whoami(got tokens) (string, error) {
	keys := got.AccessToken
	client := sts.New(sts.Options{Region: "us-east-1", BaseEndpoint: &s.api, Retryer: aws.NopRetryer{},
		Credentials: credentials.NewStaticCredentialsProvider(keys.AccessKeyID, keys.SecretAccessKey, keys.SessionToken)})
	answer, err := client.GetCallerIdentity(context.Background(), nil)
	if err != nil {
		return "", err
	}
	return *answer.Arn, nil
}

func (s *signInSite) revokePrincipal(arn string) error {
	_, err := s.operator().Revoke(context.Background(), client.Selector{Principal: arn})
	return err
}

// reload puts the written configuration in force.
func (s *signInSite) reload() {
	s.t.Helper()
	const inForce = "configuration reloaded"
	before := strings.Count(s.log.String(), inForce)
	s.hangup <- os.Interrupt
	pgtest.Eventually(s.t, "the configuration in force", func() bool { return strings.Count(s.log.String(), inForce) > before })
}

// freeAddress returns a free address, for a configuration that has to name it in advance.
func freeAddress(t *testing.T) string {
	t.Helper()
	address, err := sitetest.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	return address
}
