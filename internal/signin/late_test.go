package signin

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/keyring"
)

// slowBody is a body before whose first byte something happens.
type slowBody struct {
	io.Reader
	meanwhile func()
}

func (b *slowBody) Read(p []byte) (int, error) {
	if b.meanwhile != nil {
		b.meanwhile()
		b.meanwhile = nil
	}
	return b.Reader.Read(p)
}

func (b *slowBody) Close() error { return nil }

// slowStand is a stand whose configuration and time change while a body arrives.
type slowStand struct {
	*stand
	now       time.Time
	directory *directory.Directory
}

func newSlowStand(t *testing.T) *slowStand {
	s := &slowStand{stand: newStand(t, http.NotFound), now: proofTime}
	s.directory = s.signin.config.Directory()
	s.signin.config.Now = func() time.Time { return s.now }
	s.signin.config.Directory = func() *directory.Directory { return s.directory }
	return s
}

func (s *slowStand) seal(step string, value any) string {
	text, err := seal(s.keys, proofTime, step, value)
	if err != nil {
		s.t.Fatal(err)
	}
	return text
}

// send sends a body that arrives after something has happened.
func (s *slowStand) send(path, kind, body string, header http.Header, meanwhile func()) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", base+path, &slowBody{strings.NewReader(body), meanwhile})
	maps.Copy(r.Header, header)
	r.Header.Set("Content-Type", kind)
	return s.serve("192.0.2.1", r)
}

// TestSlowBodies: a request is decided with the time, the configuration and the keys of the moment
// at which its body has arrived, whatever reads the body.
func TestSlowBodies(t *testing.T) {
	requests := map[string]func(s *slowStand, meanwhile func()) *httptest.ResponseRecorder{
		"a refresh token of SSO OIDC": func(s *slowStand, meanwhile func()) *httptest.ResponseRecorder {
			client := registration{ID: newID(), Name: "c", Refreshable: true, NotAfter: proofTime.Add(time.Hour).Unix()}
			body, _ := json.Marshal(createTokenRequest{ClientID: s.seal(forClient, client), ClientSecret: s.seal(forSecret, client.ID), GrantType: grantRefresh,
				RefreshToken: s.seal(forRenewal, grant{ID: newID(), Identity: s.ana(), Client: client.ID, NotAfter: proofTime.Add(time.Hour).Unix()})})
			return s.send(pathSSOToken, "application/json", string(body), nil, meanwhile)
		},
		"a refresh token of the sign-in service": func(s *slowStand, meanwhile func()) *httptest.ResponseRecorder {
			key := testKey(t, 7)
			shown, err := checkProof(joseProof(t, key, proofTime), tokenURL, proofTime)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := json.Marshal(tokenRequest{ClientID: sameDevice, GrantType: grantRefresh, RefreshToken: s.seal(forRefresh, refresh{
				Identity: s.ana(), Role: "r", ClientID: sameDevice, Key: shown.key, NotAfter: proofTime.Add(time.Hour).Unix()})})
			return s.send(pathToken, "application/json", string(body), http.Header{"Dpop": {joseProof(t, key, proofTime)}}, meanwhile)
		},
		"a form": func(s *slowStand, meanwhile func()) *httptest.ResponseRecorder {
			browser := s.callback()()
			hash := sha256.Sum256([]byte((&exchange{r: browser, settings: s.settings}).cookie(cookieBrowser)))
			given := consent{Identity: s.ana(), Request: request{Client: &registration{ID: newID()}, Redirect: "http://127.0.0.1:1/oauth/callback",
				Browser: hash[:], NotAfter: proofTime.Add(15 * time.Minute).Unix()}}
			return s.send(pathContinue, "application/x-www-form-urlencoded", url.Values{"sealed": {s.seal(forConsent, given)}}.Encode(), browser.Header, meanwhile)
		},
	}
	for name, row := range map[string]struct {
		meanwhile func(s *slowStand)
		refused   bool
	}{
		"nothing":               {func(*slowStand) {}, false},
		"20 s pass":             {func(s *slowStand) { s.now = s.now.Add(20 * time.Second) }, false},
		"the sign-in ends":      {func(s *slowStand) { s.now = s.now.Add(time.Hour) }, true},
		"sign-in is turned off": {func(s *slowStand) { s.settings = nil }, true},
		"the client's ID changes": {func(s *slowStand) {
			changed := *s.settings
			changed.ClientID = "another"
			s.settings = &changed
		}, true},
		"the provider is removed": {func(s *slowStand) {
			d, err := directory.New(directory.Spec{Account: "123456789012", Region: "us-east-1"})
			if err != nil {
				t.Fatal(err)
			}
			s.directory = d
		}, true},
		"the keys are replaced": {func(s *slowStand) { s.keys = keyring.New(proofTime) }, true},
	} {
		for what, send := range requests {
			s := newSlowStand(t)
			got := send(s, func() { row.meanwhile(s) })
			if (got.Code >= 400) != row.refused {
				t.Errorf("%s while %s arrives: %d %s, refused: want %t", name, what, got.Code, got.Body, row.refused)
			}
			if got.Code >= 500 {
				t.Errorf("%s while %s arrives: %d %s", name, what, got.Code, got.Body)
			}
		}
	}
}

// TestExpiriesAfterSlowBodies: what is issued expires as counted from the arrival of the body.
func TestExpiriesAfterSlowBodies(t *testing.T) {
	s := newSlowStand(t)
	later := proofTime.Add(29 * time.Second)
	got := s.send(pathRegister, "application/json", `{"clientName":"c","clientType":"public","scopes":["sso:account:access"]}`, nil, func() { s.now = later })
	var client struct {
		ID      string `json:"clientId"`
		Secret  string `json:"clientSecret"`
		Issued  int64  `json:"clientIdIssuedAt"`
		Expires int64  `json:"clientSecretExpiresAt"`
	}
	if err := json.Unmarshal(got.Body.Bytes(), &client); err != nil || client.Issued != later.Unix() || client.Expires != later.Add(registrationLifetime).Unix() {
		t.Fatalf("registration: %v, %s, want %d and %d", err, got.Body, later.Unix(), later.Add(registrationLifetime).Unix())
	}
	later = later.Add(29 * time.Second)
	got = s.send(pathDeviceCode, "application/json", fmt.Sprintf(`{"clientId":%q,"clientSecret":%q,"startUrl":"x"}`, client.ID, client.Secret), nil, func() { s.now = later })
	var device struct {
		Code string `json:"deviceCode"`
	}
	var code deviceCode
	if err := json.Unmarshal(got.Body.Bytes(), &device); err != nil {
		t.Fatal(err, got.Body)
	}
	if err := unseal(s.keys, later, forDeviceCode, device.Code, &code); err != nil || code.Since != later.Unix() || code.NotAfter != later.Add(deviceLifetime).Unix() {
		t.Errorf("device code: %v, %+v, want it from %v", err, code, later)
	}
}

// ana is the identity of a person who has just signed in.
func (s *slowStand) ana() identity {
	return identity{Claims: deflate(fmt.Appendf(nil, `{"iss":%q,"aud":"daypass","sub":"ana"}`, s.issuer)), Session: "ana", Since: proofTime.Unix()}
}

// TestLateRequestsDiscoverNothing: requests that waited for a discovery do not begin another one,
// although they began before it.
func TestLateRequestsDiscoverNothing(t *testing.T) {
	s := newSlowStand(t)
	provider, ok := s.directory.Provider(s.issuer)
	if !ok {
		t.Fatal("there is no provider")
	}
	var p providers
	for i, row := range []struct {
		at    time.Duration
		until time.Duration // of what was found
	}{
		{0, discoveryFresh},
		{-30 * time.Second, discoveryFresh},
		{time.Minute, discoveryFresh},
		{-time.Hour, discoveryFresh - time.Hour}, // the clock was set back
	} {
		if _, err := p.endpoint(t.Context(), provider, proofTime.Add(row.at), time.Minute); err != nil {
			t.Fatal(err)
		}
		if got := p.until.Sub(proofTime); got != row.until {
			t.Errorf("request %d: what was found is kept for %v, want %v", i, got, row.until)
		}
	}
}

// TestPauseAfterASlowDiscovery: the pause begins when a discovery has failed, however long it took.
func TestPauseAfterASlowDiscovery(t *testing.T) {
	const slow = 100 * time.Millisecond
	asked := 0
	idp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++ // one request at a time
		time.Sleep(slow)
		http.Error(w, "down", http.StatusServiceUnavailable)
	}))
	t.Cleanup(idp.Close)
	var p providers
	for _, at := range []time.Duration{0, discoveryPause + slow/2} {
		if _, err := p.endpoint(t.Context(), &directory.Provider{Issuer: idp.URL}, proofTime.Add(at), time.Minute); err == nil {
			t.Fatal("a provider that is down has endpoints")
		}
	}
	if asked != 1 {
		t.Errorf("the provider was asked %d times within %v after a failure, want once", asked, discoveryPause)
	}
}
