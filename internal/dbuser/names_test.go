package dbuser_test

import (
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/daypass/daypass/internal/dbuser"
)

// TestSessionRoleNames: names that are short and regular are readable; all others have a hash.
func TestSessionRoleNames(t *testing.T) {
	for _, tt := range []struct {
		user     string
		groups   []string
		identity bool
		want     string // empty: the name with a hash
	}{
		{"alice", nil, false, "IAM:alice"},
		{"alice", []string{"analysts", "finance"}, false, "IAM:alice:analysts:finance"},
		{"IAM:ana", nil, true, "IAMA:IAM:ana"},
		{"IAMR:etl", []string{"analysts"}, true, "IAMA:IAMR:etl:analysts"},
		{strings.Repeat("x", 59), nil, false, "IAM:" + strings.Repeat("x", 59)},
		{strings.Repeat("x", 60), nil, false, ""},
		{"a:b", nil, false, ""},
		{"a~b", nil, false, ""},
		{"a", []string{"b:c"}, false, ""},
	} {
		got, fallback := dbuser.SessionRoleNames(tt.user, tt.groups, tt.identity)
		want := tt.want
		if want == "" {
			want = fallback
		}
		if got != want {
			t.Errorf("SessionRoleNames(%q, %q, %v) = %q, want %q", tt.user, tt.groups, tt.identity, got, want)
		}
	}
}

// FuzzSessionRoleNames looks for two logons that would share a role, and for names that
// PostgreSQL would truncate.
func FuzzSessionRoleNames(f *testing.F) {
	f.Add("IAM", "ana:g1", false, "IAM:ana", "g1", true)
	f.Add("alice", "a:b", false, "alice:a", "b", false)
	f.Add("a", "", false, "a", ":", false)
	f.Fuzz(func(t *testing.T, u1, g1 string, i1 bool, u2, g2 string, i2 bool) {
		for _, name := range []string{u1, g1, u2, g2} {
			if !utf8.ValidString(name) {
				return // refused before it gets a name
			}
		}
		split := func(s string) []string {
			return slices.DeleteFunc(strings.Split(s, ":"), func(g string) bool { return g == "" })
		}
		groups1, groups2 := split(g1), split(g2)
		p1, f1 := dbuser.SessionRoleNames(u1, groups1, i1)
		p2, f2 := dbuser.SessionRoleNames(u2, groups2, i2)
		for _, name := range []string{p1, f1} {
			if len(name) > 63 || !utf8.ValidString(name) {
				t.Errorf("name %q", name)
			}
		}
		same := u1 == u2 && i1 == i2 && slices.Equal(groups1, groups2)
		if !same && (p1 == p2 || f1 == f2 || p1 == f2 || f1 == p2) {
			t.Errorf("%q %q %v and %q %q %v share a name: %q %q, %q %q", u1, groups1, i1, u2, groups2, i2, p1, f1, p2, f2)
		}
	})
}

// TestVerifier checks the format of the verifier. Every other test that logs on shows that it
// matches the password.
func TestVerifier(t *testing.T) {
	v := dbuser.Verifier([32]byte{7}, "examplecluster", "IAM:alice")
	rest, ok := strings.CutPrefix(v, "SCRAM-SHA-256$1:")
	if !ok {
		t.Fatalf("verifier = %q", v)
	}
	if other := dbuser.Verifier([32]byte{7}, "examplecluster", "IAM:bob"); other == v {
		t.Error("two roles have one verifier")
	}
	if other := dbuser.Verifier([32]byte{7}, "other", "IAM:alice"); other == v {
		t.Error("two clusters have one verifier")
	}
	salt64, keys, _ := strings.Cut(rest, "$")
	stored64, server64, _ := strings.Cut(keys, ":")
	for name, s := range map[string]string{"salt": salt64, "StoredKey": stored64, "ServerKey": server64} {
		if raw, err := base64.StdEncoding.DecodeString(s); err != nil || name != "salt" && len(raw) != sha256.Size || name == "salt" && len(raw) != 16 {
			t.Errorf("%s = %q, %v", name, s, err)
		}
	}
}
