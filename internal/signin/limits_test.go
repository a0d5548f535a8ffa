package signin

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/sts"
)

// allowing is an Authority that allows every request but accepts no token.
type allowing struct{}

func (allowing) Roles(*http.Request, *sts.Person) ([]Role, error) { return nil, nil }

func (allowing) SignedIn(*http.Request, *sts.Person, Check) error { return nil }

func (allowing) Assume(*http.Request, *sts.Person, Assumption) (*Keys, error) {
	return &Keys{Credentials: sts.Credentials{Expiration: proofTime.Add(time.Minute)}}, nil
}

func (allowing) Enter(*http.Request, *Session) error { return nil }

func (allowing) Verify(*http.Request, string) (*sts.WebIdentity, error) {
	return nil, errors.New("not believed")
}

func (allowing) Attend(*http.Request) func() { return func() {} }

func (allowing) Source(r *http.Request) netip.Addr {
	return netip.MustParseAddrPort(r.RemoteAddr).Addr()
}

// stand is a Handler with a provider. The provider's token endpoint is the function token.
type stand struct {
	t       *testing.T
	keys    *keyring.Keyring
	issuer  string
	log     bytes.Buffer
	signin  *Handler
	handler http.Handler

	settings *Settings
}

func newStand(t *testing.T, token http.HandlerFunc) *stand {
	s := &stand{t: t, keys: keyring.New(proofTime)}
	mux := http.NewServeMux()
	provider := httptest.NewServer(mux)
	t.Cleanup(provider.Close)
	s.issuer = provider.URL
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"issuer":%q,"authorization_endpoint":%q,"token_endpoint":%q,"jwks_uri":%q}`, s.issuer, s.issuer+"/a", s.issuer+"/t", s.issuer+"/k")
	})
	mux.HandleFunc("/t", token)
	d, err := directory.New(directory.Spec{Account: "123456789012", Region: "us-east-1", Providers: []directory.Provider{
		{Issuer: s.issuer, Audiences: []string{"daypass"}}, {Issuer: "https://other.example.com", Audiences: []string{"daypass"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	s.settings = &Settings{URL: base, Issuer: s.issuer, ClientID: "daypass", Scopes: []string{"openid"}, Duration: time.Hour}
	s.signin = New(Config{
		Settings: func() *Settings { return s.settings }, Directory: func() *directory.Directory { return d }, Keyring: func() *keyring.Keyring { return s.keys },
		Authority: allowing{}, UseOnce: func(context.Context, []byte, time.Time) error { return nil },
		Used:       func(context.Context, []byte) (bool, error) { return false, nil },
		Rendezvous: func(context.Context, []byte, time.Time, func([]byte) []byte) error { return nil },
		Log:        slog.New(slog.NewTextHandler(&s.log, nil)), Now: func() time.Time { return proofTime },
	})
	s.handler = s.signin.Before(http.NotFoundHandler())
	return s
}

func (s *stand) serve(from string, r *http.Request) *httptest.ResponseRecorder {
	r.RemoteAddr = from + ":1"
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w
}

// callback returns a function that makes the request that the browser sends when the provider
// redirects it back. The code is made up.
func (s *stand) callback() func() *http.Request {
	began := s.serve("192.0.2.99", httptest.NewRequest("GET", base+"/v1/authorize?"+query(nil), nil)).Result()
	to, err := began.Location()
	if err != nil {
		s.t.Fatal(began.Status, err)
	}
	return func() *http.Request {
		r := httptest.NewRequest("GET", base+"/sign-in/callback?"+url.Values{"code": {"junk"}, "state": {to.Query().Get("state")}}.Encode(), nil)
		for _, c := range began.Cookies() {
			r.AddCookie(c)
		}
		return r
	}
}

// TestRefreshTokensOfSSOEnd: as with `aws login`, a longer limit does not bring back the refresh
// tokens of sign-ins that have ended.
func TestRefreshTokensOfSSOEnd(t *testing.T) {
	s := newStand(t, http.NotFound)
	e := &exchange{Handler: s.signin, r: httptest.NewRequest("POST", base+pathSSOToken, nil), settings: s.settings, directory: s.signin.config.Directory(), keyring: s.keys, now: proofTime}
	client := &registration{ID: newID(), Name: "c", Refreshable: true}
	claims := deflate(fmt.Appendf(nil, `{"iss":%q,"aud":"daypass","sub":"ana"}`, s.issuer))
	refresh := func(token string) (string, time.Duration, *oidcProblem) {
		answer, problem := e.renewAccess(client, &createTokenRequest{GrantType: grantRefresh, RefreshToken: token})
		if problem != nil {
			return "", 0, problem
		}
		return answer["refreshToken"].(string), time.Duration(answer["expiresIn"].(int)) * time.Second, nil
	}
	token, err := seal(s.keys, proofTime, forRenewal, grant{ID: newID(), Client: client.ID, NotAfter: proofTime.Add(10 * time.Minute).Unix(),
		Identity: identity{Claims: claims, Session: "ana", Since: proofTime.Add(-20 * time.Minute).Unix()}})
	if err != nil {
		t.Fatal(err)
	}
	token, left, problem := refresh(token)
	if problem != nil || left != 10*time.Minute {
		t.Fatalf("before its end: %v left, %+v", left, problem)
	}
	e.now = proofTime.Add(10 * time.Minute)
	if _, left, problem := refresh(token); problem == nil || problem.code != "invalid_grant" {
		t.Errorf("after its end: %v left, %+v", left, problem)
	}
}

// A provider's code is sent to no other provider: RFC 9700, section 4.4. The configured
// provider may have changed since the browser left.
func TestCodesOfAnotherProvider(t *testing.T) {
	asked := false
	s := newStand(t, func(w http.ResponseWriter, _ *http.Request) {
		asked = true
		w.WriteHeader(http.StatusBadRequest)
	})
	callback := s.callback()
	changed := *s.settings
	changed.Issuer = "https://other.example.com"
	s.settings = &changed
	if got := s.serve("192.0.2.1", callback()); got.Code != http.StatusBadRequest || !strings.Contains(got.Body.String(), "configuration has changed") || asked {
		t.Errorf("the callback of another provider: %d %s", got.Code, got.Body)
	}
}

// TestOneAddressDoesNotTakeTheProvider: one address, without an account, can use only its share
// of the places that wait for a provider that hangs.
func TestOneAddressDoesNotTakeTheProvider(t *testing.T) {
	asked, release := make(chan bool, 2*outsidePlaces), make(chan bool)
	s := newStand(t, func(w http.ResponseWriter, _ *http.Request) {
		asked <- true
		<-release
		w.WriteHeader(http.StatusBadRequest)
	})
	callback := s.callback()
	answers := make(chan int, 2*outsidePlaces)
	ask := func(from string) { answers <- s.serve(from, callback()).Code }
	places := outsidePlaces / 4
	for range places {
		go ask("192.0.2.1")
	}
	for range places {
		<-asked
	}
	go ask("192.0.2.1")
	select {
	case <-asked:
		t.Error("an address has more than its share of the places")
	case got := <-answers:
		if got != http.StatusTooManyRequests {
			t.Errorf("a request more: %d, want 429", got)
		}
	}
	go ask("192.0.2.2")
	<-asked // another address has a place
	close(release)
}

// TestProviderThatHangs: a provider that takes connections and never answers delays no step of a
// sign-in for long, and the page says that the provider is the cause.
func TestProviderThatHangs(t *testing.T) {
	silent := make(chan bool)
	s := newStand(t, func(http.ResponseWriter, *http.Request) { <-silent })
	t.Cleanup(func() { close(silent) })
	s.signin.patience = 100 * time.Millisecond
	callback := s.callback()
	hole, err := net.Listen("tcp", "127.0.0.1:0") // the system takes connections, and no one accepts them
	if err != nil {
		t.Fatal(err)
	}
	defer hole.Close()
	d, err := directory.New(directory.Spec{Account: "123456789012", Region: "us-east-1",
		Providers: []directory.Provider{{Issuer: "http://" + hole.Addr().String(), Audiences: []string{"daypass"}}}})
	if err != nil {
		t.Fatal(err)
	}
	check := func(step string, r *http.Request) {
		t.Helper()
		began := time.Now()
		got := s.serve("192.0.2.1", r)
		if got.Code != http.StatusBadGateway || !strings.Contains(got.Body.String(), "has not said who you are") || time.Since(began) > time.Minute {
			t.Errorf("%s: %d after %v %s, want a page that names the provider", step, got.Code, time.Since(began), got.Body)
		}
	}
	check("the exchange of the code", callback())
	s.settings = &Settings{URL: base, Issuer: "http://" + hole.Addr().String(), ClientID: "daypass", Scopes: []string{"openid"}, Duration: time.Hour}
	s.signin.config.Directory = func() *directory.Directory { return d }
	check("the discovery, for a device", httptest.NewRequest("GET", base+"/device", nil))
	s.signin.config.Now = func() time.Time { return proofTime.Add(time.Minute) } // the failed discovery is forgotten
	check("the discovery, for aws login", httptest.NewRequest("GET", base+"/v1/authorize?"+query(nil), nil))
}

// A stranger can make the provider refuse a code as often as the limits allow. The
// provider's error texts do not fill the log.
func TestLogOfAProviderIsShort(t *testing.T) {
	s := newStand(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprint(w, strings.Repeat("x", 100_000))
	})
	if got := s.serve("192.0.2.1", s.callback()()).Code; got != http.StatusBadGateway {
		t.Errorf("the callback: %d, want 502", got)
	}
	if text := s.log.String(); len(text) > 2000 || !strings.Contains(text, "exchanging the code") {
		t.Errorf("the log has %d bytes, %.300s", len(text), text)
	}
}

// Proofs are remembered for all people together, so one person has a share.
func TestOnePersonDoesNotTakeAllProofs(t *testing.T) {
	s := newStand(t, http.NotFound)
	key := testKey(t, 7)
	thumbprint, err := (&jose.JSONWebKey{Key: key.Public()}).Thumbprint(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{EmbedJWK: true}).WithType("dpop+jwt"))
	if err != nil {
		t.Fatal(err)
	}
	claims := deflate(fmt.Appendf(nil, `{"iss":%q,"sub":"1","aud":"daypass"}`, s.issuer))
	renew := func(person string) int {
		token, err := seal(s.keys, proofTime, forRefresh, refresh{Identity: identity{claims, person, proofTime.Unix()}, Role: "r", ClientID: sameDevice,
			Key: thumbprint, NotAfter: proofTime.Add(time.Hour).Unix()})
		if err != nil {
			t.Fatal(err)
		}
		payload, _ := json.Marshal(map[string]any{"htm": "POST", "htu": tokenURL, "iat": proofTime.Unix(), "jti": rand.Text()})
		jws, err := signer.Sign(payload)
		if err != nil {
			t.Fatal(err)
		}
		proof, err := jws.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		body, _ := json.Marshal(map[string]string{"clientId": sameDevice, "grantType": "refresh_token", "refreshToken": token})
		r := httptest.NewRequest("POST", tokenURL, bytes.NewReader(body))
		r.Header.Set("DPoP", proof)
		return s.serve("192.0.2.1", r).Code
	}
	for i := range perPerson.Burst {
		if got := renew("ana@example.com"); got != http.StatusOK {
			t.Fatalf("request %d: %d, want 200", i, got)
		}
	}
	if got := renew("ana@example.com"); got != http.StatusTooManyRequests {
		t.Errorf("after %d requests: %d, want 429", perPerson.Burst, got)
	}
	if got := renew("bob@example.com"); got != http.StatusOK {
		t.Errorf("another person: %d, want 200", got)
	}
}
