package sts_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/sts"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)

func session() *sts.Session {
	return &sts.Session{
		Kind: sts.RoleSession, Account: "123456789012", Name: "etl", PrincipalID: "AROAEXAMPLE",
		SessionName: "nightly", SourceIdentity: "ana",
		Tags: []sts.Tag{{Key: "team", Value: "data"}, {Key: "Cost", Value: "42"}}, Transitive: []string{"Team"},
		Policy:     `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"redshift:*","Resource":"*"}]}`,
		PolicyARNs: []string{"arn:aws:iam::123456789012:policy/p"},
		Federated: &sts.Federated{ProviderARN: "arn:aws:iam::123456789012:oidc-provider/idp", Provider: "idp",
			Subject: "sub", Audience: []string{"a", "b"}, AMR: []string{"mfa"}},
	}
}

func TestIssueAndOpen(t *testing.T) {
	k := keyring.New(start)
	for name, s := range map[string]*sts.Session{
		"role": session(),
		"user": {Kind: sts.UserSession, Account: "000000000001", Name: "ana", PrincipalID: "AIDAEXAMPLE", MFA: start.Truncate(time.Second)},
	} {
		credentials, err := sts.Issue(k, start, time.Hour, s)
		if err != nil {
			t.Fatalf("%s: Issue: %v", name, err)
		}
		if !strings.HasPrefix(credentials.AccessKeyID, "ASIA") || len(credentials.AccessKeyID) != 20 || len(credentials.Secret.Reveal()) != 40 {
			t.Errorf("%s: the access key is %q with a secret of %d characters", name, credentials.AccessKeyID, len(credentials.Secret.Reveal()))
		}
		if want := time.Date(2026, 1, 2, 4, 4, 5, 0, time.UTC); !credentials.Expiration.Equal(want) {
			t.Errorf("%s: Expiration is %v, want %v", name, credentials.Expiration, want)
		}
		if got, ok := sts.AccountOf(credentials.AccessKeyID); !ok || got != s.Account {
			t.Errorf("%s: AccountOf = %q, %v, want %q", name, got, ok, s.Account)
		}
		var opener sts.Opener
		for range 2 { // the second time from the cache
			got, err := opener.Open(k, credentials.Expiration.Add(-time.Nanosecond), credentials.AccessKeyID, credentials.Token.Reveal())
			if err != nil {
				t.Fatalf("%s: Open: %v", name, err)
			}
			if (got.InlinePolicy() != nil) != (s.Policy != "") {
				t.Errorf("%s: the inline policy is %v", name, got.InlinePolicy())
			}
			if !reflect.DeepEqual(got.Tags, s.Tags) || !reflect.DeepEqual(got.Federated, s.Federated) || got.Secret != credentials.Secret ||
				got.SourceIdentity != s.SourceIdentity || !got.MFA.Equal(s.MFA) || !reflect.DeepEqual(got.PolicyARNs, s.PolicyARNs) {
				t.Errorf("%s: got %+v, want %+v", name, got, s)
			}
			if _, err := opener.Open(k, credentials.Expiration, credentials.AccessKeyID, credentials.Token.Reveal()); !errors.Is(err, sts.ErrExpired) {
				t.Errorf("%s: at its Expiration: got %v, want ErrExpired", name, err)
			}
		}
	}
}

// One valid token, one thing changed.
func TestForgedTokens(t *testing.T) {
	k := keyring.New(start)
	one, _ := sts.Issue(k, start, time.Hour, session())
	other, _ := sts.Issue(k, start, time.Hour, session())
	foreign, _ := sts.Issue(keyring.New(start), start, time.Hour, session())
	token := one.Token.Reveal()
	box, _ := base64.StdEncoding.DecodeString(token)
	flip := func(i int) string {
		changed := append([]byte(nil), box...)
		changed[i] ^= 1
		return base64.StdEncoding.EncodeToString(changed)
	}
	rows := map[string]struct{ id, token string }{
		"empty":                   {one.AccessKeyID, ""},
		"not base64":              {one.AccessKeyID, "*" + token[1:]},
		"a line break":            {one.AccessKeyID, token[:8] + "\n" + token[8:]},
		"cut":                     {one.AccessKeyID, token[:len(token)-4]},
		"longer":                  {one.AccessKeyID, token + "AAAA"},
		"of another access key":   {other.AccessKeyID, token},
		"no access key":           {"", token},
		"of another keyring":      {foreign.AccessKeyID, foreign.Token.Reveal()},
		"sealed for another use":  {"", base64.StdEncoding.EncodeToString(k.Seal(start, []byte("{}"), []byte("authorization message")))},
		"sealed, and not session": {"x", base64.StdEncoding.EncodeToString(k.Seal(start, []byte("{}"), []byte("access key x")))},
	}
	for i := range box {
		rows[fmt.Sprintf("bit of byte %d", i)] = struct{ id, token string }{one.AccessKeyID, flip(i)}
	}
	var opener sts.Opener
	for name, row := range rows {
		if _, err := opener.Open(k, start, row.id, row.token); !errors.Is(err, sts.ErrInvalidToken) {
			t.Errorf("%s: got %v, want ErrInvalidToken", name, err)
		}
	}
	if _, err := opener.Open(k, start, one.AccessKeyID, token); err != nil {
		t.Errorf("unchanged: %v", err)
	}
	// The cache belongs to one keyring.
	if _, err := opener.Open(keyring.New(start), start, one.AccessKeyID, token); !errors.Is(err, sts.ErrInvalidToken) {
		t.Errorf("after the keyring was replaced: got %v, want ErrInvalidToken", err)
	}
}

func TestRotation(t *testing.T) {
	k := keyring.New(start)
	credentials, _ := sts.Issue(k, start, keyring.SessionLifetime, &sts.Session{Kind: sts.UserSession, Account: "123456789012"})
	rotated := k.Rotate(start.Add(time.Minute), start.Add(time.Minute))
	var opener sts.Opener
	last := credentials.Expiration.Add(-time.Second)
	if _, err := opener.Open(rotated, last, credentials.AccessKeyID, credentials.Token.Reveal()); err != nil {
		t.Errorf("in its last second, after a rotation: %v", err)
	}
}

func TestPackedPolicySize(t *testing.T) {
	k := keyring.New(start)
	plain, err := sts.Issue(k, start, time.Hour, &sts.Session{Kind: sts.RoleSession, Account: "123456789012"})
	if err != nil || plain.PackedPolicySize != 0 {
		t.Errorf("without policies: size %d, %v, want 0", plain.PackedPolicySize, err)
	}
	small, err := sts.Issue(k, start, time.Hour, session())
	if err != nil || small.PackedPolicySize < 1 || small.PackedPolicySize > 20 {
		t.Errorf("with a small policy: size %d, %v", small.PackedPolicySize, err)
	}
	s := session()
	random := keyring.New(start)
	for i := range 50 {
		sum := random.Derive("tag", fmt.Sprint(i))
		s.Tags = append(s.Tags, sts.Tag{Key: fmt.Sprintf("%x", sum), Value: strings.Repeat(fmt.Sprintf("%x", sum[:20]), 6)})
	}
	large, err := sts.Issue(k, start, time.Hour, s)
	if err != nil || large.PackedPolicySize < 30 || len(large.Token.Reveal()) > 8192 {
		t.Errorf("with 50 tags: size %d, token %d, %v", large.PackedPolicySize, len(large.Token.Reveal()), err)
	}
	for i := range 50 {
		s.Tags[i].Key = ""
		for j := range 4 {
			sum := random.Derive("tag", fmt.Sprint(i, j))
			s.Tags[i].Value += fmt.Sprintf("%x", sum)
		}
	}
	if _, err := sts.Issue(k, start, time.Hour, s); !errors.Is(err, sts.ErrPackedTooLarge) || !strings.Contains(err.Error(), "%") {
		t.Errorf("with tags that do not fit: got %v, want ErrPackedTooLarge", err)
	}
}

// Access key ids that AWS has published, with the accounts that are known for them.
func TestAccountOf(t *testing.T) {
	for id, want := range map[string]string{
		"ASIAQNZGKIQY56JQ7WML":  "029608264753",
		"AKIAIOSFODNN7EXAMPLE":  "581039954779",
		"ASIAIOSFODNN7EXAMPL":   "",
		"ASIAIOSFODNN7EXAMPLE1": "",
		"ASIA0000000000000000":  "", // not base32
		"":                      "",
	} {
		got, ok := sts.AccountOf(id)
		if got != want && ok || ok != (want != "") {
			t.Errorf("AccountOf(%q) = %q, %v, want %q", id, got, ok, want)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	k := keyring.New(start)
	credentials, _ := sts.Issue(k, start, time.Hour, session())
	b.Run("cached", func(b *testing.B) {
		var opener sts.Opener
		for b.Loop() {
			opener.Open(k, start, credentials.AccessKeyID, credentials.Token.Reveal())
		}
	})
	b.Run("fresh", func(b *testing.B) {
		for b.Loop() {
			var opener sts.Opener
			opener.Open(k, start, credentials.AccessKeyID, credentials.Token.Reveal())
		}
	})
}
