package sts_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/sts"
)

// issuer is an OpenID Connect provider with discovery and keys.
type issuer struct {
	*httptest.Server
	keys    atomic.Pointer[jose.JSONWebKeySet]
	fetched atomic.Int32 // how often the keys were read
	down    atomic.Bool
	body    atomic.Pointer[string] // in place of the keys
	moved   atomic.Pointer[string] // jwks_uri of the discovery document
	hang    atomic.Pointer[chan struct{}]
}

func newIssuer(t testing.TB) *issuer {
	i := &issuer{}
	i.keys.Store(&jose.JSONWebKeySet{})
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if wait := i.hang.Load(); wait != nil {
			<-*wait
		}
		keys := i.URL + "/keys"
		if moved := i.moved.Load(); moved != nil {
			keys = *moved
		}
		switch {
		case i.down.Load():
			http.Error(w, "down", http.StatusServiceUnavailable)
		case i.body.Load() != nil && r.URL.Path == "/keys":
			i.fetched.Add(1)
			fmt.Fprint(w, *i.body.Load())
		case r.URL.Path == "/.well-known/openid-configuration":
			json.NewEncoder(w).Encode(map[string]any{"issuer": i.URL, "jwks_uri": keys,
				"authorization_endpoint": i.URL, "token_endpoint": i.URL, "id_token_signing_alg_values_supported": []string{"RS256"}})
		case r.URL.Path == "/keys":
			i.fetched.Add(1)
			json.NewEncoder(w).Encode(i.keys.Load())
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(i.Close)
	return i
}

// signer is a private key under a name.
type signer struct {
	kid string
	alg jose.SignatureAlgorithm
	key crypto.Signer
}

func newSigner(t testing.TB, kid string, alg jose.SignatureAlgorithm) signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch alg {
	case jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case jose.ES256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case jose.ES384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case jose.ES512:
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case jose.EdDSA:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return signer{kid, alg, key}
}

func publish(signers ...signer) *jose.JSONWebKeySet {
	set := &jose.JSONWebKeySet{}
	for _, s := range signers {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: s.key.Public(), KeyID: s.kid, Use: "sig"})
	}
	return set
}

func (s signer) sign(t testing.TB, claims any) string {
	t.Helper()
	js, err := jose.NewSigner(jose.SigningKey{Algorithm: s.alg, Key: jose.JSONWebKey{Key: s.key, KeyID: s.kid}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	payload, _ := json.Marshal(claims)
	jws, err := js.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	token, _ := jws.CompactSerialize()
	return token
}

type claims = map[string]any

func (i *issuer) claims(changes claims) claims {
	c := claims{"iss": i.URL, "sub": "repo:a/b", "aud": "daypass", "iat": start.Unix(), "exp": start.Unix() + 300}
	maps.Copy(c, changes)
	for name, value := range c {
		if value == nil {
			delete(c, name)
		}
	}
	return c
}

func (i *issuer) directory(t testing.TB) *directory.Directory {
	t.Helper()
	d, err := directory.New(directory.Spec{Account: "123456789012", Region: "us-east-1",
		Providers: []directory.Provider{{Issuer: i.URL, Audiences: []string{"daypass", "other"}}}})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestWebIdentity(t *testing.T) {
	i := newIssuer(t)
	d := i.directory(t)
	var ids sts.WebIdentities
	for _, alg := range []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
		jose.ES256, jose.ES384, jose.ES512, jose.EdDSA} {
		s := newSigner(t, string(alg), alg)
		i.keys.Store(publish(s))
		ids = sts.WebIdentities{}
		got, err := ids.Verify(context.Background(), d, start, s.sign(t, i.claims(claims{
			"aud": []string{"else", "other"}, "amr": []string{"pwd", "mfa"}, "admin": true, "level": 3, "address": claims{"a": "b"},
			"https://aws.amazon.com/tags": claims{"principal_tags": claims{"Project": []string{"x"}, "Cost": []string{"9"}},
				"transitive_tag_keys": []string{"Cost"}},
			"https://aws.amazon.com/source_identity": "ana",
		})))
		if err != nil {
			t.Fatalf("%s: Verify: %v", alg, err)
		}
		want := []sts.Claim{{Name: "admin", Values: []string{"true"}}, {Name: "amr", Values: []string{"pwd", "mfa"}, List: true},
			{Name: "aud", Values: []string{"else", "other"}, List: true}, {Name: "oaud", Values: []string{"else", "other"}, List: true}}
		if got.Subject != "repo:a/b" || got.SourceIdentity != "ana" || !reflect.DeepEqual(got.Transitive, []string{"Cost"}) ||
			!reflect.DeepEqual(got.Tags, []sts.Tag{{Key: "Cost", Value: "9"}, {Key: "Project", Value: "x"}}) {
			t.Errorf("%s: got %+v", alg, got)
		}
		for _, w := range want {
			if !contains(got.Claims, w) {
				t.Errorf("%s: got the claims %+v, want %+v among them", alg, got.Claims, w)
			}
		}
		if contains(got.Claims, sts.Claim{Name: "address"}) {
			t.Errorf("%s: an object became a condition key", alg)
		}
		if f := got.Federated(d); f.Provider != strings.TrimPrefix(i.URL, "http://") || len(f.AMR) != 2 {
			t.Errorf("%s: Federated = %+v", alg, f)
		}
	}
}

func contains(all []sts.Claim, one sts.Claim) bool {
	for _, c := range all {
		if reflect.DeepEqual(c, one) {
			return true
		}
	}
	return false
}

// One good token, one thing changed: each has its own error.
func TestForgedWebIdentity(t *testing.T) {
	i := newIssuer(t)
	good, other := newSigner(t, "1", jose.RS256), newSigner(t, "1", jose.RS256)
	p384 := newSigner(t, "2", jose.ES384)
	small, _ := rsa.GenerateKey(rand.Reader, 1024)
	weak := signer{"3", jose.RS256, small}
	i.keys.Store(publish(good, p384, weak))
	d := i.directory(t)
	token, wrongCurve := good.sign(t, i.claims(nil)), p384.sign(t, i.claims(nil))
	parts := strings.Split(token, ".")
	encode := base64.RawURLEncoding.EncodeToString
	der := good.key.Public().(*rsa.PublicKey).N.Bytes()
	hmacKey, _ := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: der}, nil)
	payload, _ := json.Marshal(i.claims(nil))
	hs, _ := hmacKey.Sign(payload)
	symmetric, _ := hs.CompactSerialize()
	edited, _ := json.Marshal(i.claims(claims{"sub": "admin"}))
	with := func(changes claims) string { return good.sign(t, i.claims(changes)) }
	rows := []struct {
		name  string
		token string
		want  error
	}{
		{"empty", "", sts.ErrNotJWT},
		{"not a token", "abc.def.ghi", sts.ErrNotJWT},
		{"no signature", parts[0] + "." + parts[1] + ".", sts.ErrBadSignature},
		{"two parts", parts[0] + "." + parts[1], sts.ErrNotJWT},
		{"alg none", encode([]byte(`{"alg":"none"}`)) + "." + parts[1] + ".", sts.ErrAlgorithm},
		{"HMAC with the public key", symmetric, sts.ErrAlgorithm},
		{"another payload", parts[0] + "." + encode(edited) + "." + parts[2], sts.ErrBadSignature},
		{"another key, same name", other.sign(t, i.claims(nil)), sts.ErrBadSignature},
		{"a name that nobody has", signer{"9", good.alg, good.key}.sign(t, i.claims(nil)), sts.ErrBadSignature},
		{"a weak key", weak.sign(t, i.claims(nil)), sts.ErrBadSignature},
		{"a key of another curve than the algorithm's", encode([]byte(`{"alg":"ES256","kid":"2"}`)) + wrongCurve[strings.IndexByte(wrongCurve, '.'):], sts.ErrBadSignature},
		{"another issuer", with(claims{"iss": "https://evil.example.com"}), sts.ErrNoProvider},
		{"the issuer with a slash", with(claims{"iss": i.URL + "/"}), sts.ErrNoProvider},
		{"no issuer", with(claims{"iss": nil}), sts.ErrNoProvider},
		{"another audience", with(claims{"aud": "evil"}), sts.ErrAudience},
		{"other audiences", with(claims{"aud": []string{"evil", "Daypass"}}), sts.ErrAudience},
		{"no audience", with(claims{"aud": nil}), sts.ErrAudience},
		{"expired", with(claims{"exp": start.Unix()}), sts.ErrTokenExpired},
		{"no expiry", with(claims{"exp": nil}), sts.ErrBadClaims},
		{"expiry as text", with(claims{"exp": "never"}), sts.ErrBadClaims},
		{"from the future", with(claims{"iat": start.Unix() + 400}), sts.ErrTokenTooEarly},
		{"not before", with(claims{"nbf": start.Unix() + 400}), sts.ErrTokenTooEarly},
		{"no subject", with(claims{"sub": nil}), sts.ErrBadClaims},
		{"two values in a tag", with(claims{"https://aws.amazon.com/tags": claims{"principal_tags": claims{"a": []string{"1", "2"}}}}), sts.ErrBadClaims},
		{"two values in a flat tag", with(claims{"https://aws.amazon.com/tags/principal_tags/a": []string{"1", "2"}}), sts.ErrBadClaims},
		{"no value in a flat tag", with(claims{"https://aws.amazon.com/tags/principal_tags/a": []string{}}), sts.ErrBadClaims},
		{"a flat tag that is none", with(claims{"https://aws.amazon.com/tags/principal_tags/a": claims{"b": "c"}}), sts.ErrBadClaims},
		{"a flat tag that is a number", with(claims{"https://aws.amazon.com/tags/principal_tags/a": 1}), sts.ErrBadClaims},
		{"flat keys that are none", with(claims{"https://aws.amazon.com/tags/transitive_tag_keys": true}), sts.ErrBadClaims},
		{"tags in both forms", with(claims{"https://aws.amazon.com/tags": claims{"principal_tags": claims{"a": []string{"1"}}},
			"https://aws.amazon.com/tags/principal_tags/a": "2"}), sts.ErrBadClaims},
		{"keys in the other form", with(claims{"https://aws.amazon.com/tags": claims{"principal_tags": claims{"a": []string{"1"}}},
			"https://aws.amazon.com/tags/transitive_tag_keys": []string{"a"}}), sts.ErrBadClaims},
		{"tags that are none", with(claims{"https://aws.amazon.com/tags": 5}), sts.ErrBadClaims},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			var ids sts.WebIdentities
			if got, err := ids.Verify(context.Background(), d, start, row.token); !errors.Is(err, row.want) {
				t.Errorf("got %+v, %v, want %v", got, err, row.want)
			}
		})
	}
	var ids sts.WebIdentities
	for name, ok := range map[string]string{
		"unchanged":                   token,
		"a clock four minutes fast":   with(claims{"iat": start.Unix() + 240, "nbf": start.Unix() + 240}),
		"no iat":                      with(claims{"iat": nil}),
		"a key without a name":        signer{"", good.alg, good.key}.sign(t, i.claims(nil)),
		"an audience among several":   with(claims{"aud": []string{"x", "daypass"}}),
		"a second before its expiry ": with(claims{"exp": start.Unix() + 1}),
	} {
		if _, err := ids.Verify(context.Background(), d, start, ok); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAmbiguousClaims: tokens with a valid signature, whose claims are ambiguous or make no
// sense. A row adds members to a valid token; -"name" removes one first.
func TestAmbiguousClaims(t *testing.T) {
	i := newIssuer(t)
	s := newSigner(t, "1", jose.EdDSA)
	i.keys.Store(publish(s))
	d := i.directory(t)
	const tags = `"https://aws.amazon.com/tags":`
	rows := []struct {
		name string
		text string
		want error
	}{
		{"sub twice", `"sub":"admin"`, sts.ErrBadClaims},
		{"sub twice, the same", `"sub":"repo:a/b"`, sts.ErrBadClaims},
		{"sub twice, escaped", `"s\u0075b":"admin"`, sts.ErrBadClaims},
		{"sub in another case", `"Sub":"admin"`, sts.ErrBadClaims},
		{"aud in another case", `"AUD":"other"`, sts.ErrBadClaims},
		{"iss in another case", `"ISS":"https://evil.example.com"`, sts.ErrBadClaims},
		{"exp in another case", `"EXP":99999999999`, sts.ErrBadClaims},
		{"nbf in two cases", `"nbf":1,"NBF":99999999999`, sts.ErrBadClaims},
		{"a claim in two cases", `"team":"root","Team":"user"`, sts.ErrBadClaims},
		{"a claim in two cases, beyond ASCII", `"é":"root","É":"user"`, sts.ErrBadClaims},
		{"only the wrong case of sub", `-"sub","SUB":"repo:a/b"`, sts.ErrBadClaims},
		{"only the wrong case of aud", `-"aud","Aud":"daypass"`, sts.ErrAudience},
		{"only the wrong case of exp", `-"exp","Exp":99999999999`, sts.ErrBadClaims},
		{"only the wrong case of iss", `-"iss","Iss":"` + i.URL + `"`, sts.ErrNoProvider},
		{"sub with a long s", `-"sub","\u017fub":"repo:a/b"`, sts.ErrBadClaims},
		{"sub as a number", `-"sub","sub":1`, sts.ErrBadClaims},
		{"sub as a list", `-"sub","sub":["repo:a/b"]`, sts.ErrBadClaims},
		{"sub null", `-"sub","sub":null`, sts.ErrBadClaims},
		{"iss as a list", `-"iss","iss":["` + i.URL + `"]`, sts.ErrNoProvider},
		{"aud null", `-"aud","aud":null`, sts.ErrAudience},
		{"aud empty", `-"aud","aud":[]`, sts.ErrAudience},
		{"aud with a number", `-"aud","aud":["daypass",1]`, sts.ErrBadClaims},
		{"aud with a null", `-"aud","aud":["daypass",null]`, sts.ErrBadClaims},
		{"aud with a list", `-"aud","aud":[["daypass"]]`, sts.ErrBadClaims},
		{"aud an object", `-"aud","aud":{"daypass":1}`, sts.ErrBadClaims},
		{"a text that is half a character", `-"sub","sub":"a\ud800"`, sts.ErrBadClaims},
		{"a text that is not UTF-8", "-\"sub\",\"sub\":\"a\xff\"", sts.ErrBadClaims},
		{"a name that is half a character", `"a\ud800":"x"`, sts.ErrBadClaims},
		{"twice in an object", `"address":{"a":1,"a":2}`, sts.ErrBadClaims},
		{"twice in an object in a list", `"address":[[{"a":1,"b":2,"a":2}]]`, sts.ErrBadClaims},
		{"a tag twice", tags + `{"principal_tags":{"a":["1"],"a":["2"]}}`, sts.ErrBadClaims},
		{"a tag in two cases", tags + `{"principal_tags":{"a":["1"],"A":["2"]}}`, sts.ErrBadClaims},
		{"the tags twice", tags + `{"principal_tags":{"a":["1"]},"principal_tags":{"b":["2"]}}`, sts.ErrBadClaims},
		{"the tags in two cases", tags + `{"principal_tags":{"a":["1"]},"Principal_Tags":{"b":["2"]}}`, sts.ErrBadClaims},
		{"the claim with the tags in two cases", tags + `{},"https://aws.amazon.com/TAGS":{}`, sts.ErrBadClaims},
		{"the source identity in two cases", `"https://aws.amazon.com/source_identity":"ana","https://aws.amazon.com/Source_Identity":"eve"`, sts.ErrBadClaims},
		{"a tag as text", tags + `{"principal_tags":{"a":"1"}}`, sts.ErrBadClaims},
		{"a tag as a number", tags + `{"principal_tags":{"a":[1]}}`, sts.ErrBadClaims},
		{"a tag without a value", tags + `{"principal_tags":{"a":null}}`, sts.ErrBadClaims},
		{"tags as a list", tags + `{"principal_tags":["a"]}`, sts.ErrBadClaims},
		{"transitive keys as text", tags + `{"transitive_tag_keys":"a"}`, sts.ErrBadClaims},
		{"transitive keys as numbers", tags + `{"transitive_tag_keys":[1]}`, sts.ErrBadClaims},
		{"exp as a power", `-"exp","exp":1e12`, sts.ErrBadClaims},
		{"exp as a huge power", `-"exp","exp":1e999999999`, sts.ErrBadClaims},
		{"exp as a power of a fraction", `-"exp","exp":9.9e99`, sts.ErrBadClaims},
		{"exp beyond 64 bits", `-"exp","exp":9223372036854775808`, sts.ErrBadClaims},
		{"exp in a list", `-"exp","exp":[99999999999]`, sts.ErrBadClaims},
		{"exp null", `-"exp","exp":null`, sts.ErrBadClaims},
		{"exp a fraction of a second ahead", fmt.Sprintf(`-"exp","exp":%d.999`, start.Unix()), sts.ErrTokenExpired},
		{"iat as text", `-"iat","iat":"1"`, sts.ErrBadClaims},
		{"nbf null", `"nbf":null`, sts.ErrBadClaims},
		{"nested too deeply", `"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100), sts.ErrBadClaims},
		{"nested much too deeply", `"a":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000), sts.ErrBadClaims},

		{"nothing more", `"x":1`, nil},
		{"exp of a fraction", fmt.Sprintf(`-"exp","exp":%d.5`, start.Unix()+1), nil},
		{"exp at the end of time", `-"exp","exp":9223372036854775807`, nil},
		{"s and a long s", `"s":"a","\u017f":"b"`, nil},
		{"two names in an object that policies do not see", `"resource_access":{"app":{},"App":{}}`, nil},
		{"one name in two objects", `"a":{"x":1},"b":{"x":2}`, nil},
		{"tags null", tags + `null`, nil},
		{"no tags", tags + `{"principal_tags":null,"transitive_tag_keys":null}`, nil},
	}
	base := map[string]string{"iss": strconv.Quote(i.URL), "sub": `"repo:a/b"`, "aud": `"daypass"`,
		"iat": strconv.FormatInt(start.Unix(), 10), "exp": strconv.FormatInt(start.Unix()+300, 10)}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			without, text := "", row.text
			if removed, ok := strings.CutPrefix(text, "-"); ok {
				without, text, _ = strings.Cut(removed, ",")
			}
			// The members of the row come last, and then first.
			for _, first := range []bool{false, true} {
				members := []string{}
				for _, name := range slices.Sorted(maps.Keys(base)) {
					if strconv.Quote(name) != without {
						members = append(members, strconv.Quote(name)+":"+base[name])
					}
				}
				members = append(members, text)
				if first {
					slices.Reverse(members)
				}
				var ids sts.WebIdentities
				got, err := ids.Verify(context.Background(), d, start, s.sign(t, json.RawMessage("{"+strings.Join(members, ",")+"}")))
				if !errors.Is(err, row.want) {
					t.Errorf("got %+v, %v, want %v", got, err, row.want)
				}
			}
		})
	}
	for _, payload := range []string{`[]`, `"a"`, `null`, `1`, `{"iss":`, `{} {}`, ``, `{"a":1,}`} {
		js, _ := jose.NewSigner(jose.SigningKey{Algorithm: s.alg, Key: jose.JSONWebKey{Key: s.key, KeyID: s.kid}}, nil)
		jws, err := js.Sign([]byte(payload))
		if err != nil {
			t.Fatal(err)
		}
		token, _ := jws.CompactSerialize()
		var ids sts.WebIdentities
		if got, err := ids.Verify(context.Background(), d, start, token); !errors.Is(err, sts.ErrNotJWT) {
			t.Errorf("the payload %q: got %+v, %v, want ErrNotJWT", payload, got, err)
		}
	}
}

// A token expires exactly at exp; nbf and iat may be up to five minutes in the future.
func TestTokenTimes(t *testing.T) {
	i := newIssuer(t)
	s := newSigner(t, "1", jose.EdDSA)
	i.keys.Store(publish(s))
	d := i.directory(t)
	token := s.sign(t, i.claims(claims{"iat": start.Unix() + 600, "nbf": start.Unix() + 600, "exp": start.Unix() + 900}))
	begin, end := time.Unix(start.Unix()+300, 0), time.Unix(start.Unix()+900, 0)
	for _, row := range []struct {
		now  time.Time
		want error
	}{
		{begin.Add(-time.Second), sts.ErrTokenTooEarly},
		{begin.Add(-time.Nanosecond), sts.ErrTokenTooEarly},
		{begin, nil},
		{end.Add(-time.Nanosecond), nil},
		{end, sts.ErrTokenExpired},
		{end.Add(time.Nanosecond), sts.ErrTokenExpired},
		{end.Add(time.Second), sts.ErrTokenExpired},
		{end.Add(200 * time.Second), sts.ErrTokenExpired},
		{end.Add(24 * time.Hour), sts.ErrTokenExpired},
	} {
		var ids sts.WebIdentities
		if _, err := ids.Verify(context.Background(), d, row.now, token); !errors.Is(err, row.want) {
			t.Errorf("%s before its end: got %v, want %v", end.Sub(row.now), err, row.want)
		}
	}
}

// If a token has azp, azp is the audience, and both azp and aud must be configured.
func TestAuthorizedParty(t *testing.T) {
	i := newIssuer(t)
	s := newSigner(t, "1", jose.EdDSA)
	i.keys.Store(publish(s))
	d := i.directory(t)
	type list = []string
	for _, row := range []struct {
		name     string
		aud, azp any
		oaud     any // more claims
		want     error
		key      list // aud, as policies see it
		original list // oaud
	}{
		{"azp of another", "daypass", "evil", nil, sts.ErrAudience, nil, nil},
		{"azp of another, several audiences", list{"x", "daypass"}, "evil", nil, sts.ErrAudience, nil, nil},
		{"azp of another in the same letters", "daypass", "Daypass", nil, sts.ErrAudience, nil, nil},
		{"aud of another", "x", "daypass", nil, sts.ErrAudience, nil, nil},
		{"no aud", nil, "daypass", nil, sts.ErrAudience, nil, nil},
		{"no audience but oaud", "x", nil, "daypass", sts.ErrAudience, nil, nil},
		{"azp empty", "daypass", "", nil, sts.ErrBadClaims, nil, nil},
		{"azp a list", "daypass", list{"daypass"}, nil, sts.ErrBadClaims, nil, nil},
		{"azp a number", "daypass", 1, nil, sts.ErrBadClaims, nil, nil},
		{"azp false", "daypass", false, nil, sts.ErrBadClaims, nil, nil},

		{"no azp", "daypass", nil, nil, nil, list{"daypass"}, list{"daypass"}},
		{"no value of azp", "daypass", json.RawMessage("null"), nil, nil, list{"daypass"}, list{"daypass"}},
		{"azp is aud", "daypass", "daypass", nil, nil, list{"daypass"}, list{"daypass"}},
		{"azp and aud", "daypass", "other", nil, nil, list{"other"}, list{"daypass"}},
		{"azp and several", list{"x", "daypass"}, "other", nil, nil, list{"other"}, list{"x", "daypass"}},
		{"a claim called oaud", "daypass", "other", "x", nil, list{"other"}, list{"daypass"}},
		{"one audience in a list", list{"daypass"}, nil, list{"x", "y"}, nil, list{"daypass"}, list{"daypass"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			var ids sts.WebIdentities
			got, err := ids.Verify(context.Background(), d, start, s.sign(t, i.claims(claims{"aud": row.aud, "azp": row.azp, "oAud": row.oaud})))
			if !errors.Is(err, row.want) {
				t.Fatalf("got %+v, %v, want %v", got, err, row.want)
			}
			if row.want != nil {
				return
			}
			if f := got.Federated(d); !reflect.DeepEqual(got.Audience, row.key) || !reflect.DeepEqual(f.Audience, row.key) {
				t.Errorf("the audience is %q, and %q in the session, want %q", got.Audience, f.Audience, row.key)
			}
			keys := map[string][]sts.Claim{}
			for _, c := range got.Claims {
				keys[strings.ToLower(c.Name)] = append(keys[strings.ToLower(c.Name)], c)
			}
			for name, want := range map[string]list{"aud": row.key, "oaud": row.original} {
				if !reflect.DeepEqual(keys[name], []sts.Claim{{Name: name, Values: want, List: len(want) > 1}}) {
					t.Errorf("the condition key %s is %+v, want %q", name, keys[name], want)
				}
			}
		})
	}
}

// Numbers are the digits that the provider wrote, however many.
func TestNumericClaims(t *testing.T) {
	i := newIssuer(t)
	s := newSigner(t, "1", jose.EdDSA)
	i.keys.Store(publish(s))
	d := i.directory(t)
	for _, number := range []string{"0", "-1", "3", "9007199254740992", "9007199254740993", "18446744073709551617", "0.1", "1.50", "1e3", "123456789012345678901234567890.000000000000000000001"} {
		var ids sts.WebIdentities
		got, err := ids.Verify(context.Background(), d, start, s.sign(t, i.claims(claims{"org_id": json.Number(number), "ids": []json.Number{json.Number(number), "7"}})))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []sts.Claim{{Name: "org_id", Values: []string{number}}, {Name: "ids", Values: []string{number, "7"}, List: true}} {
			if !contains(got.Claims, want) {
				t.Errorf("got the claims %+v, want %+v among them", got.Claims, want)
			}
		}
	}
}

// Tags may be claims of their own.
func TestFlatSessionTags(t *testing.T) {
	good := newSigner(t, "one", jose.RS256)
	i := newIssuer(t)
	i.keys.Store(publish(good))
	d := i.directory(t)
	const tag, keys = "https://aws.amazon.com/tags/principal_tags/", "https://aws.amazon.com/tags/transitive_tag_keys"
	for name, tt := range map[string]struct {
		claims     claims
		tags       []sts.Tag
		transitive []string
	}{
		"texts":            {claims{tag + "Team": "x", tag + "Cost": "9"}, []sts.Tag{{Key: "Cost", Value: "9"}, {Key: "Team", Value: "x"}}, nil},
		"lists of one":     {claims{tag + "Team": []string{"x"}, keys: []string{"Team"}}, []sts.Tag{{Key: "Team", Value: "x"}}, []string{"Team"}},
		"a key alone":      {claims{tag + "Team": "x", keys: "Team"}, []sts.Tag{{Key: "Team", Value: "x"}}, []string{"Team"}},
		"a key with slash": {claims{tag + "a/b": ""}, []sts.Tag{{Key: "a/b"}}, nil},
		"without a key":    {claims{tag: "x"}, []sts.Tag{{Value: "x"}}, nil},
		"another claim":    {claims{"https://aws.amazon.com/tags/principal_tags": "x"}, nil, nil},
	} {
		var ids sts.WebIdentities
		got, err := ids.Verify(context.Background(), d, start, good.sign(t, i.claims(tt.claims)))
		if err != nil || !reflect.DeepEqual(got.Tags, tt.tags) || !reflect.DeepEqual(got.Transitive, tt.transitive) {
			t.Errorf("%s: got %+v, %v, want %v and %v", name, got, err, tt.tags, tt.transitive)
		}
	}
}

// Keys are read once, and again if a key is new or the keys are old, but not for every made-up
// key name.
func TestKeyRotation(t *testing.T) {
	i := newIssuer(t)
	first, second, invented := newSigner(t, "1", jose.ES256), newSigner(t, "2", jose.ES256), newSigner(t, "x", jose.ES256)
	i.keys.Store(publish(first))
	d := i.directory(t)
	var ids sts.WebIdentities
	verify := func(now time.Time, s signer) error {
		_, err := ids.Verify(context.Background(), d, now, s.sign(t, i.claims(claims{"exp": start.Unix() + 1e6})))
		return err
	}
	expect := func(what string, err, want error, fetched int32) {
		t.Helper()
		if !errors.Is(err, want) || i.fetched.Load() != fetched {
			t.Errorf("%s: got %v after %d reads, want %v after %d", what, err, i.fetched.Load(), want, fetched)
		}
	}
	expect("first", verify(start, first), nil, 1)
	expect("again", verify(start, first), nil, 1)
	i.keys.Store(publish(second))
	expect("the new key", verify(start, second), nil, 2)
	expect("the old key, gone", verify(start, first), sts.ErrBadSignature, 3)
	for range 20 {
		verify(start, invented)
	}
	if n := i.fetched.Load(); n > 6 {
		t.Errorf("twenty invented keys made %d reads in all, want no more than 6", n)
	}
	i.fetched.Store(0)
	later := start.Add(16 * time.Minute)
	i.keys.Store(publish(first))
	expect("a withdrawn key, a quarter of an hour later", verify(later, second), sts.ErrBadSignature, 2)

	// While the provider is down, the keys that were read may be used for an hour.
	i.down.Store(true)
	expect("down", verify(later.Add(30*time.Minute), first), nil, 2)
	expect("down for long", verify(later.Add(2*time.Hour), first), sts.ErrUnreachable, 2)
	i.down.Store(false)
	expect("up again, too early to ask", verify(later.Add(2*time.Hour+time.Second), first), sts.ErrUnreachable, 2)
	expect("up again", verify(later.Add(2*time.Hour+6*time.Second), first), nil, 3)
}

func TestKeysFromFile(t *testing.T) {
	i := newIssuer(t)
	i.down.Store(true)
	file := filepath.Join(t.TempDir(), "jwks.json")
	d, err := directory.New(directory.Spec{Account: "123456789012", Region: "us-east-1",
		Providers: []directory.Provider{{Issuer: i.URL, Audiences: []string{"daypass"}, JWKSFile: file}}})
	if err != nil {
		t.Fatal(err)
	}
	first, second := newSigner(t, "1", jose.EdDSA), newSigner(t, "2", jose.EdDSA)
	write := func(set any, age time.Duration) {
		data, _ := json.Marshal(set)
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, start, start.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	var ids sts.WebIdentities
	verify := func(s signer) error {
		_, err := ids.Verify(context.Background(), d, start, s.sign(t, i.claims(nil)))
		return err
	}
	if err := verify(first); !errors.Is(err, sts.ErrUnreachable) {
		t.Errorf("without a file: got %v, want ErrUnreachable", err)
	}
	write(publish(first), 2*time.Hour)
	if err := verify(first); err != nil {
		t.Errorf("with the file: %v", err)
	}
	write(publish(second), time.Hour)
	if err := verify(second); err != nil {
		t.Errorf("with a new file: %v", err)
	}
	if err := verify(first); !errors.Is(err, sts.ErrBadSignature) {
		t.Errorf("a key that is not in the file any more: got %v, want ErrBadSignature", err)
	}
	write("rubbish", time.Minute)
	if err := verify(second); !errors.Is(err, sts.ErrUnreachable) {
		t.Errorf("with a bad file: got %v, want ErrUnreachable", err)
	}
}

func FuzzWebIdentity(f *testing.F) {
	i := newIssuer(f)
	s := newSigner(f, "1", jose.EdDSA)
	i.keys.Store(publish(s))
	d := i.directory(f)
	good := s.sign(f, i.claims(nil))
	f.Add(good)
	f.Add(strings.Replace(good, ".", "..", 1))
	f.Add("a.b.c")
	var ids sts.WebIdentities
	f.Fuzz(func(t *testing.T, token string) {
		got, err := ids.Verify(context.Background(), d, start, token)
		if err == nil && (token != good || got.Subject != "repo:a/b") {
			t.Errorf("accepted %q as %+v", token, got)
		}
	})
}
