package signin

import (
	"bytes"
	"encoding/base64"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/keyring"
)

const base = "https://daypass.example.com"

func query(change func(url.Values)) string {
	q := url.Values{"response_type": {"code"}, "client_id": {sameDevice}, "state": {"s"}, "code_challenge_method": {"SHA-256"}, "scope": {"openid"},
		"redirect_uri": {"http://127.0.0.1:40000/oauth/callback"}, "code_challenge": {base64.RawURLEncoding.EncodeToString(make([]byte, 32))}}
	if change != nil {
		change(q)
	}
	return q.Encode()
}

// FuzzRequest: an accepted redirect_uri leads to this machine or to our own page, however a
// client parses the URL, and survives being parsed and written again.
func FuzzRequest(f *testing.F) {
	f.Add(query(nil))
	f.Add(query(func(q url.Values) {
		q.Set("client_id", crossDevice)
		q.Set("redirect_uri", base+pathConfirmation)
	}))
	f.Add(query(func(q url.Values) { q.Set("redirect_uri", "http://127.0.0.1:1@evil.example/oauth/callback") }))
	f.Add("redirect_uri=%00&redirect_uri=x")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseRequest(text, base)
		if err != nil {
			return
		}
		u, err := url.Parse(got.Redirect)
		if err != nil {
			t.Fatalf("%q: %v", got.Redirect, err)
		}
		if got.Remote {
			if got.Redirect != base+pathConfirmation {
				t.Fatalf("a remote client is sent to %q", got.Redirect)
			}
		} else if u.Scheme != "http" || u.Hostname() != "127.0.0.1" || u.User != nil || u.Path != "/oauth/callback" || u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(got.Redirect, "\\ \t\r\n") {
			t.Fatalf("a client is sent to %q", got.Redirect)
		}
		again, err := parseRequest(query(func(q url.Values) {
			q.Set("client_id", got.clientID())
			q.Set("redirect_uri", got.Redirect)
			q.Set("state", got.State)
			q.Set("code_challenge", base64.RawURLEncoding.EncodeToString(got.Challenge))
		}), base)
		if err != nil || again.Redirect != got.Redirect || again.State != got.State || again.Remote != got.Remote || !bytes.Equal(again.Challenge, got.Challenge) {
			t.Fatalf("written again, %+v is %+v, %v", got, again, err)
		}
	})
}

// FuzzSealed: a text opens only if it was sealed here, and only for the step that it was sealed
// for.
func FuzzSealed(f *testing.F) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	k := keyring.New(now)
	made := code{ID: []byte{1}, Identity: identity{Claims: deflate([]byte("{}")), Session: "ana", Since: 1}, Role: "r", ClientID: sameDevice, NotAfter: 2}
	good, err := seal(k, now, forCode, made)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good + "=")
	f.Add(good[:len(good)-1])
	f.Add(good[:8] + "\n" + good[8:])
	f.Fuzz(func(t *testing.T, text string) {
		var got code
		if err := unseal(k, now, forCode, text, &got); (err == nil) != (text == good) {
			t.Fatalf("unseal(%q) = %v", text, err)
		} else if err == nil && got.Identity.Session != made.Identity.Session {
			t.Fatalf("unseal(%q) = %+v", text, got)
		}
		var other refresh
		if unseal(k, now, forRefresh, text, &other) == nil {
			t.Fatalf("%q opens as what it was not sealed for", text)
		}
	})
}

// The claims of a token are bounded even if a few bytes decode to many.
func TestInflateIsBounded(t *testing.T) {
	if _, err := inflate(deflate(bytes.Repeat([]byte("a"), maxClaims+1))); err == nil {
		t.Error("claims that are too long were taken")
	}
	if got, err := inflate(deflate(bytes.Repeat([]byte("a"), maxClaims))); err != nil || len(got) != maxClaims {
		t.Errorf("inflate = %d bytes, %v, want %d", len(got), err, maxClaims)
	}
}
