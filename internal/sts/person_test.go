package sts_test

import (
	"errors"
	"testing"

	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/sts"
)

func TestSessionName(t *testing.T) {
	d, err := directory.New(directory.Spec{Account: "123456789012", Region: "us-east-1",
		Providers: []directory.Provider{{Issuer: "https://token.example.com", Audiences: []string{"daypass"}}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ claims, claim, want string }{
		{`"email": "ana@example.com"`, "email", "ana@example.com"},
		{`"email": "ana@example.com", "email_verified": true`, "email", "ana@example.com"},
		{`"email": "ana@example.com", "email_verified": false`, "email", ""},
		{`"email": "ana@example.com", "email_verified": "false"`, "email", ""},
		{`"email": "ana@example.com", "email_verified": ["true"]`, "email", ""},
		{`"email": "ana@example.com", "email_verified": false`, "sub", "s1"},
		{`"email": "ana"`, "upn", ""},
		{`"upn": ["ana"]`, "upn", ""},
		{`"upn": "ana/admin"`, "upn", ""},
		{`"upn": "a"`, "upn", ""},
		{`"upn": "ana\\n"`, "upn", ""},
		{`"upn": "änä"`, "upn", ""},
		{`"upn": ""`, "upn", ""},
	} {
		who, err := sts.Reread(d, []byte(`{"iss": "https://token.example.com", "aud": "daypass", "sub": "s1", `+row.claims+`}`))
		if err != nil {
			t.Fatalf("%s: %v", row.claims, err)
		}
		got, err := who.SessionName(row.claim)
		if got != row.want || (err == nil) != (row.want != "") || err != nil && !errors.Is(err, sts.ErrSessionName) {
			t.Errorf("SessionName(%q) of %s = %q, %v, want %q", row.claim, row.claims, got, err, row.want)
		}
	}
}

// Reread checks claims that were verified once against the current directory.
func TestReread(t *testing.T) {
	d, err := directory.New(directory.Spec{Account: "123456789012", Region: "us-east-1",
		Providers: []directory.Provider{{Issuer: "https://token.example.com", Audiences: []string{"daypass"}}}})
	if err != nil {
		t.Fatal(err)
	}
	for payload, want := range map[string]error{
		`{"iss": "https://token.example.com", "aud": "daypass", "sub": "s1", "exp": 1}`:    nil,
		`{"iss": "https://gone.example.com", "aud": "daypass", "sub": "s1"}`:               sts.ErrNoProvider,
		`{"iss": "https://token.example.com", "aud": "other", "sub": "s1"}`:                sts.ErrAudience,
		`{"iss": "https://token.example.com", "aud": "daypass"}`:                           sts.ErrBadClaims,
		`{"iss": "https://token.example.com", "aud": "daypass", "sub": "s1", "sub": "s2"}`: sts.ErrBadClaims,
		`[]`: sts.ErrNotJWT,
	} {
		if _, err := sts.Reread(d, []byte(payload)); !errors.Is(err, want) {
			t.Errorf("Reread(%s) = %v, want %v", payload, err, want)
		}
	}
}
