package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// TestTokenForgeries: each row changes one thing in a valid exchange, which must then yield
// no keys.
func TestTokenForgeries(t *testing.T) {
	s := newSignInSite(t)
	d := s.device(sameDevice)
	first := d.redeem(d.signIn("1", "analyst"))
	code := d.signIn("1", "analyst")
	thief := s.device(sameDevice)
	thief.verifier = d.verifier
	type change = func(header, claims map[string]any)
	claim := func(name string, value any) change {
		return func(_, claims map[string]any) { claims[name] = value }
	}
	head := func(name string, value any) change {
		return func(header, _ map[string]any) { header[name] = value }
	}
	other, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	point, _ := other.PublicKey.Bytes()
	encode := base64.RawURLEncoding.EncodeToString
	otherKey := map[string]any{"kty": "EC", "crv": "P-256", "x": encode(point[1:33]), "y": encode(point[33:])}
	good := d.proof(nil)
	parts := strings.Split(good, ".")
	for name, proof := range map[string]string{
		"no proof":                  "",
		"no token":                  "nonsense",
		"alg none":                  encode([]byte(`{"typ":"dpop+jwt","alg":"none"}`)) + "." + parts[1] + ".",
		"another alg":               d.proof(head("alg", "ES384")),
		"another typ":               d.proof(head("typ", "JWT")),
		"critical extension":        d.proof(head("crit", []string{"exp"})),
		"key of somebody else":      d.proof(head("jwk", otherKey)),
		"no key":                    d.proof(head("jwk", nil)),
		"private key":               d.proof(func(h, _ map[string]any) { h["jwk"].(map[string]any)["d"] = "AA" }),
		"point off the curve":       d.proof(func(h, _ map[string]any) { h["jwk"].(map[string]any)["y"] = h["jwk"].(map[string]any)["x"] }),
		"another method":            d.proof(claim("htm", "GET")),
		"another server":            d.proof(claim("htu", "http://127.0.0.1:1/v1/token")),
		"another path":              d.proof(claim("htu", s.api+"/v1/authorize")),
		"old":                       d.proof(claim("iat", time.Now().Add(-6*time.Minute).Unix())),
		"from the future":           d.proof(claim("iat", time.Now().Add(6*time.Minute).Unix())),
		"without a time":            d.proof(claim("iat", nil)),
		"without an id":             d.proof(claim("jti", "")),
		"long id":                   d.proof(claim("jti", strings.Repeat("x", 129))),
		"altered claims":            parts[0] + "." + encode([]byte(`{"htm":"POST","htu":"`+s.api+`/v1/token","iat":`+"1"+`,"jti":"x"}`)) + "." + parts[2],
		"altered signature":         parts[0] + "." + parts[1] + "." + altered(parts[2], 5),
		"line break":                parts[0] + "." + parts[1] + "." + parts[2][:9] + "\t" + parts[2][9:],
		"too long":                  good + strings.Repeat("A", 5000),
		"signature of another size": parts[0] + "." + parts[1] + "." + parts[2][:80],
	} {
		if got := d.post(proof, d.redemption(code)); got.status == 200 || got.Error != "INVALID_REQUEST" {
			t.Errorf("proof, %s: %+v, want INVALID_REQUEST", name, got)
		}
		if got := d.post(proof, map[string]any{"clientId": d.id, "grantType": "refresh_token", "refreshToken": first.RefreshToken}); got.status == 200 {
			t.Errorf("proof of a refresh, %s: it was taken", name)
		}
	}
	with := func(name string, value any) map[string]any {
		body := maps.Clone(d.redemption(code))
		body[name] = value
		return body
	}
	for name, body := range map[string]map[string]any{
		"another verifier":        with("codeVerifier", rand.Text()+rand.Text()),
		"no verifier":             with("codeVerifier", ""),
		"another client":          with("clientId", crossDevice),
		"unknown client":          with("clientId", "x"),
		"another redirect_uri":    with("redirectUri", "http://127.0.0.1:39998/oauth/callback"),
		"no redirect_uri":         with("redirectUri", ""),
		"another grant":           with("grantType", "client_credentials"),
		"altered code":            with("code", altered(code, len(code)/2)),
		"code with padding":       with("code", code+"="),
		"code with a line break":  with("code", code[:9]+"\n"+code[9:]),
		"a refresh token as code": with("code", first.RefreshToken),
		"a session token as code": with("code", first.AccessToken.SessionToken),
		"an enormous code":        with("code", strings.Repeat("A", 40_000)),
	} {
		if got := d.post(d.proof(nil), body); got.status == 200 {
			t.Errorf("code, %s: it was taken", name)
		}
	}
	// After all these attempts the owner can still use the code, once, and the proof, once.
	if got := d.post(good, d.redemption(code)); got.status != 200 {
		t.Errorf("the good code: %+v", got)
	}
	if got := d.redeem(code); got.status != 401 || got.Error != "AUTHCODE_EXPIRED" {
		t.Errorf("the code a second time: %+v, want AUTHCODE_EXPIRED", got)
	}
	if got := d.post(good, map[string]any{"clientId": d.id, "grantType": "refresh_token", "refreshToken": first.RefreshToken}); got.status == 200 {
		t.Error("a proof was taken a second time")
	}
	fresh := d.signIn("1", "analyst")
	for name, row := range map[string]struct {
		by   *device
		body map[string]any
	}{
		"of somebody else's key": {thief, map[string]any{"clientId": d.id, "grantType": "refresh_token", "refreshToken": first.RefreshToken}},
		"of another client":      {d, map[string]any{"clientId": crossDevice, "grantType": "refresh_token", "refreshToken": first.RefreshToken}},
		"altered":                {d, map[string]any{"clientId": d.id, "grantType": "refresh_token", "refreshToken": altered(first.RefreshToken, 60)}},
		"a code":                 {d, map[string]any{"clientId": d.id, "grantType": "refresh_token", "refreshToken": fresh}},
		"a session token":        {d, map[string]any{"clientId": d.id, "grantType": "refresh_token", "refreshToken": first.AccessToken.SessionToken}},
	} {
		if got := row.by.post(row.by.proof(nil), row.body); got.status == 200 {
			t.Errorf("refresh token, %s: it was taken", name)
		}
	}
	s.offset.Store(int64(11 * time.Minute))
	if got := d.redeem(fresh); got.Error != "AUTHCODE_EXPIRED" {
		t.Errorf("a code after eleven minutes: %+v, want AUTHCODE_EXPIRED", got)
	}
	if text := s.log.String(); strings.Contains(text, code) || strings.Contains(text, first.RefreshToken) || !strings.Contains(text, "a code was sent twice") {
		t.Errorf("the log has what it should not, or not what it should:\n%s", text)
	}
}

// TestBrowserForgeries: a sign-in is bound to the browser that started it, and redirects only to
// a program on this machine.
func TestBrowserForgeries(t *testing.T) {
	s := newSignInSite(t)
	d := s.device(sameDevice)
	refused := func(what string, b *browser, status int) {
		t.Helper()
		if b.status != status || !strings.Contains(b.page, "You are not signed in") || b.header.Get("Location") != "" {
			t.Errorf("%s: %d to %q, want a page with %d\n%s", what, b.status, b.header.Get("Location"), status, b.page)
		}
	}
	for name, change := range map[string]func(url.Values){
		"a redirect to another host":       func(q url.Values) { q.Set("redirect_uri", "https://evil.example/oauth/callback") },
		"a host that begins like loopback": func(q url.Values) { q.Set("redirect_uri", "http://127.0.0.1:1.evil.example/oauth/callback") },
		"credentials in front":             func(q url.Values) { q.Set("redirect_uri", "http://127.0.0.1:80@evil.example/oauth/callback") },
		"localhost, which is a name":       func(q url.Values) { q.Set("redirect_uri", "http://localhost:80/oauth/callback") },
		"another loopback address":         func(q url.Values) { q.Set("redirect_uri", "http://127.0.0.2:80/oauth/callback") },
		"another spelling of it":           func(q url.Values) { q.Set("redirect_uri", "http://127.0.0.1:080/oauth/callback") },
		"no port":                          func(q url.Values) { q.Set("redirect_uri", "http://127.0.0.1/oauth/callback") },
		"another path":                     func(q url.Values) { q.Set("redirect_uri", "http://127.0.0.1:80/") },
		"a query in the redirect":          func(q url.Values) { q.Set("redirect_uri", "http://127.0.0.1:80/oauth/callback?x=1") },
		"another scheme":                   func(q url.Values) { q.Set("redirect_uri", "javascript:alert(1)//oauth/callback") },
		"the page of another device":       func(q url.Values) { q.Set("redirect_uri", s.api+"/v1/sessions/confirmation") },
		"a remote client with a redirect":  func(q url.Values) { q.Set("client_id", crossDevice) },
		"an unknown client":                func(q url.Values) { q.Set("client_id", "x") },
		"a parameter twice":                func(q url.Values) { q.Add("redirect_uri", q.Get("redirect_uri")) },
		"no challenge":                     func(q url.Values) { q.Del("code_challenge") },
		"the plain method":                 func(q url.Values) { q.Set("code_challenge_method", "plain") },
		"a short challenge":                func(q url.Values) { q.Set("code_challenge", "AAAA") },
		"another response type":            func(q url.Values) { q.Set("response_type", "token") },
		"no state":                         func(q url.Values) { q.Del("state") },
		"a state with a line break":        func(q url.Values) { q.Set("state", "x\r\nSet-Cookie: x=y") },
	} {
		u, _ := url.Parse(d.authorizeURL())
		q := u.Query()
		change(q)
		u.RawQuery = q.Encode()
		b := newBrowser(t)
		b.open(u.String())
		refused(name, b, http.StatusBadRequest)
	}

	// The victim's browser is sent to the last step of a sign-in that the attacker began.
	attacker, victim := newBrowser(t), newBrowser(t)
	stop := attacker.http.CheckRedirect
	var callback string
	attacker.http.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if r.URL.Path == "/sign-in/callback" {
			callback = r.URL.String()
			return http.ErrUseLastResponse
		}
		return stop(r, via)
	}
	attacker.open(d.authorizeURL())
	attacker.send("person", "1")
	victim.open(callback)
	refused("another browser's callback", victim, http.StatusBadRequest)
	victim.open(d.authorizeURL()) // the victim's browser has a cookie of its own now
	victim.open(callback)
	refused("another browser's callback, with a cookie", victim, http.StatusBadRequest)
	u, _ := url.Parse(callback)
	for name, change := range map[string]func(url.Values){
		"no state":            func(q url.Values) { q.Del("state") },
		"altered state":       func(q url.Values) { q.Set("state", altered(q.Get("state"), 1)) },
		"another issuer":      func(q url.Values) { q.Set("iss", "https://evil.example") },
		"state twice":         func(q url.Values) { q.Add("state", q.Get("state")) },
		"an error, in markup": func(q url.Values) { q.Set("error", "<script>alert(1)</script>") },
	} {
		q := u.Query()
		change(q)
		attacker.open(u.Scheme + "://" + u.Host + u.Path + "?" + q.Encode())
		if attacker.status < 400 || strings.Contains(attacker.page, "<script>") {
			t.Errorf("%s: %d %s, want a refusal", name, attacker.status, attacker.page)
		}
	}
	attacker.http.CheckRedirect = stop
	// The provider's token or code belongs to another request.
	for _, parameter := range []string{"nonce", "code_challenge", "client_id"} {
		b := newBrowser(t)
		b.http.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
			b.last = r.URL
			if q := r.URL.Query(); r.URL.Path == "/authorize" && r.URL.Host != u.Host {
				q.Set(parameter, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
				r.URL.RawQuery = q.Encode()
			}
			return nil
		}
		b.open(d.authorizeURL())
		if b.status == 200 {
			b.send("person", "1")
		}
		if strings.Contains(b.page, "Choose an IAM role") {
			t.Errorf("with another %s at the provider the sign-in goes on:\n%s", parameter, b.page)
		}
	}
	attacker.open(callback)
	if attacker.status != 200 {
		t.Fatalf("the browser's own callback: %d %s", attacker.status, attacker.page)
	}
	form := attacker.page
	// The provider's code was used already.
	attacker.open(callback)
	refused("the callback a second time", attacker, http.StatusBadGateway)

	send := func(b *browser, header, value string) {
		b.page, b.last = form, u
		sealed := hiddenFields.FindStringSubmatch(form)[2]
		r, _ := http.NewRequest("POST", s.api+"/sign-in/continue", strings.NewReader(url.Values{"sealed": {sealed}, "role": {"analyst"}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if header != "" {
			r.Header.Set(header, value)
		}
		b.do(r)
	}
	send(victim, "", "")
	refused("another browser's form", victim, http.StatusBadRequest)
	for header, value := range map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"} {
		send(attacker, header, value)
		refused("the form of another site's page, "+header, attacker, http.StatusForbidden)
	}
	send(attacker, "Sec-Fetch-Site", "same-site")
	refused("the form of a neighbour's page", attacker, http.StatusForbidden)
	s.offset.Store(int64(16 * time.Minute))
	send(attacker, "Origin", s.api)
	refused("the form after sixteen minutes", attacker, http.StatusBadRequest)
}

// TestSignInIsBounded: one address cannot use up all the capacity. When it is refused, others
// are still served.
func TestSignInIsBounded(t *testing.T) {
	s := newSignInSite(t)
	ask := func(from string) int {
		t.Helper()
		client := &http.Client{Transport: &http.Transport{DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext}}
		defer client.CloseIdleConnections()
		status := 0
		for range 10_000 { // a slow machine needs more, because the allowance grows in the meantime
			response, err := client.Get(s.api + "/v1/sessions/confirmation")
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, response.Body)
			response.Body.Close()
			if status = response.StatusCode; status != http.StatusNotFound {
				break
			}
			if from != "127.0.0.1" {
				break
			}
		}
		return status
	}
	if got := ask("127.0.0.1"); got != http.StatusTooManyRequests {
		t.Errorf("after thousands of requests at once: %d, want 429", got)
	}
	if got := ask("127.0.0.2"); got != http.StatusNotFound {
		t.Errorf("another address: %d, want to be served", got)
	}
}

// TestSignInHeaders: the headers of every page forbid frames, scripts and caching.
func TestSignInHeaders(t *testing.T) {
	s := newSignInSite(t)
	b := newBrowser(t)
	d := s.device(sameDevice)
	look := func(what string) {
		t.Helper()
		policy := b.header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"} {
			if !strings.Contains(policy, want) {
				t.Errorf("%s: Content-Security-Policy %q lacks %q", what, policy, want)
			}
		}
		for name, want := range map[string]string{"X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"} {
			if got := b.header.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", what, name, got, want)
			}
		}
		if strings.Contains(b.page, "<script") || strings.Contains(b.page, "style=") || strings.Contains(strings.ToLower(b.page), " onclick") {
			t.Errorf("%s: the page has script or style in it:\n%s", what, b.page)
		}
	}
	b.open(s.api + "/v1/authorize?x=1")
	look("a refusal")
	b.open(d.authorizeURL())
	b.send("person", "1")
	look("the roles")
	if policy := b.header.Get("Content-Security-Policy"); !strings.Contains(policy, "form-action 'self' http://127.0.0.1:39999;") {
		t.Errorf("the policy %q lets the form lead elsewhere than to the device, or not there", policy)
	}
	remote := s.device(crossDevice)
	b.open(remote.authorizeURL())
	b.send("person", "1")
	if !strings.Contains(b.page, "another machine asks") {
		t.Errorf("the page does not say that another machine asks:\n%s", b.page)
	}
	b.send("role", "analyst")
	look("the code")
	for _, c := range b.http.Jar.Cookies(b.last) {
		if !strings.HasPrefix(c.Name, "daypass-") {
			t.Errorf("there is a cookie %s", c.Name)
		}
	}
	for _, set := range b.header.Values("Set-Cookie") {
		if !strings.Contains(set, "HttpOnly") || !strings.Contains(set, "SameSite=Lax") || !strings.Contains(set, "Path=/") || strings.Contains(set, "Domain") {
			t.Errorf("Set-Cookie: %s", set)
		}
	}
	r, _ := http.NewRequest("PUT", s.api+"/v1/token", nil)
	b.do(r)
	if b.status != http.StatusMethodNotAllowed {
		t.Errorf("PUT /v1/token: %d, want 405", b.status)
	}
}

// altered returns the text with another letter at this place.
func altered(text string, at int) string {
	letter := "A"
	if text[at] == 'A' {
		letter = "B"
	}
	return text[:at] + letter + text[at+1:]
}
