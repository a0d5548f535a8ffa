package signin

import (
	"bytes"
	"encoding/base64"
	"errors"
	"net/url"
	"strings"
	"testing"
)

// FuzzUserCode: only well-formed user codes are looked up, and a user code is found however a
// person writes it.
func FuzzUserCode(f *testing.F) {
	f.Add("BCDF-GHJK")
	f.Add(" bcdf ghjk\t")
	f.Add("ſſſſſſſſ")
	f.Add("BCDF-GHJ\x00")
	f.Fuzz(func(t *testing.T, text string) {
		code := typed(text)
		if code == "" {
			return
		}
		if len(code) != userLength || strings.Trim(code, userLetters) != "" {
			t.Fatalf("typed(%q) = %q", text, code)
		}
		for _, again := range []string{code, shown(code), strings.ToLower(shown(code)), " " + strings.Join(strings.Split(code, ""), " ")} {
			if typed(again) != code {
				t.Fatalf("typed(%q) = %q, want %q", again, typed(again), code)
			}
		}
	})
}

func TestUserCodes(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		code := newUserCode()
		if typed(shown(code)) != code || seen[code] {
			t.Fatalf("newUserCode() = %q", code)
		}
		seen[code] = true
	}
}

// FuzzClientRequest: a browser is sent to its own machine only, and only for a registered client.
func FuzzClientRequest(f *testing.F) {
	query := func(redirect string) string {
		return url.Values{"response_type": {"code"}, "client_id": {"known"}, "state": {"s"}, "code_challenge_method": {"S256"}, "scopes": {accountScope},
			"redirect_uri": {redirect}, "code_challenge": {base64.RawURLEncoding.EncodeToString(make([]byte, 32))}}.Encode()
	}
	f.Add(query("http://127.0.0.1:40000/oauth/callback"))
	f.Add(query("http://127.0.0.1/oauth/callback"))
	f.Add(query("http://127.0.0.1:1@evil.example/oauth/callback"))
	f.Add("client_id=known&client_id=x")
	client := &registration{ID: []byte{1}, Name: "x"}
	open := func(id string) (*registration, error) {
		if id != "known" {
			return nil, errors.New("unknown")
		}
		return client, nil
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseClientRequest(text, open)
		if err != nil {
			return
		}
		u, err := url.Parse(got.Redirect)
		if err != nil || u.Scheme != "http" || u.Hostname() != "127.0.0.1" || u.Port() == "" || u.User != nil || u.Path != "/oauth/callback" || u.RawQuery != "" || u.Fragment != "" ||
			got.Client != client || got.Remote || got.ForDevice || len(got.Challenge) != 32 {
			t.Fatalf("%q is %+v", text, got)
		}
		again, err := parseClientRequest(query(got.Redirect), open)
		if err != nil || again.Redirect != got.Redirect || !bytes.Equal(again.Challenge, make([]byte, 32)) {
			t.Fatalf("written again, %+v is %+v, %v", got, again, err)
		}
	})
}

// TestNamesOfClients: the name that a client gives itself cannot be mistaken for text of the page.
func TestNamesOfClients(t *testing.T) {
	for name, want := range map[string]string{
		"botocore-client-work":    "botocore-client-work",
		"IT desk: press <b>Allow": "IT_desk__press__b_Allow",
		strings.Repeat("ä", 100):  strings.Repeat("_", maxName),
		"a\u202eb\nc":             "a_b_c",
	} {
		if got := printable(name); got != want {
			t.Errorf("printable(%q) = %q, want %q", name, got, want)
		}
	}
}
