package server

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// keySet is a JWK set with the P-256 key of RFC 7517, appendix A.1.
const keySet = `{"keys": [{"kty": "EC", "crv": "P-256", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
	"y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM", "use": "sig", "kid": "1"}]}`

// addProvider adds an identity provider with a key file to the configuration, and
// returns the file's path.
func (s *served) addProvider() string {
	s.t.Helper()
	path := filepath.Join(s.dir, "jwks.json")
	if err := os.WriteFile(path, []byte(keySet), 0o600); err != nil {
		s.t.Fatal(err)
	}
	text, err := os.ReadFile(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	text = bytes.Replace(text, []byte("\niam:\n"),
		[]byte("\niam:\n  oidc_providers: [{issuer: \"https://idp.example.com\", audiences: [daypass], jwks_file: jwks.json}]\n"), 1)
	if err := os.WriteFile(s.config, text, 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// TestIdentityProviderWithoutKeys: when a provider's key file is emptied or deleted, the log,
// the metrics and the readiness report it at once. Callers without a token are not affected.
func TestIdentityProviderWithoutKeys(t *testing.T) {
	s := newServed(t, "127.0.0.1:1", adminListener)
	path := s.addProvider()
	s.start()
	admin := "http://" + s.where.Admin
	for _, row := range []struct {
		name, text   string // no text: the file is deleted
		warning, log string
		metrics      []string
	}{
		{"as it was", keySet, "", "", []string{"keys 1", "ok 1"}},
		{"emptied set", `{"keys": []}`, "it has no keys", "identity provider has no keys any more", []string{"keys 0", "ok 1"}},
		{"filled again", keySet, "", "identity provider's keys are in use", []string{"keys 1", "ok 1"}},
		{"deleted", "", "no such file", "identity provider's keys cannot be read: its tokens are refused", []string{"keys 0", "ok 0"}},
	} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if row.text != "" {
			if err := os.WriteFile(path, []byte(row.text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		status, _, body := s.get(admin + "/readyz")
		var state readiness
		if err := json.Unmarshal([]byte(body), &state); err != nil {
			t.Fatal(err)
		}
		if text := strings.Join(state.Warnings, "\n"); status != 200 || (len(state.Warnings) == 1) != (row.warning != "") ||
			!strings.Contains(text, row.warning) || row.warning != "" && !strings.Contains(text, "https://idp.example.com") {
			t.Errorf("%s: /readyz: %d %s, want the warning %q", row.name, status, body, row.warning)
		}
		if !strings.Contains(s.log.String(), row.log) {
			t.Errorf("%s: the log lacks %q:\n%s", row.name, row.log, s.log)
		}
		_, _, text := s.get(admin + "/metrics")
		for _, metric := range row.metrics {
			name, value, _ := strings.Cut(metric, " ")
			if name == "keys" {
				name = ""
			} else {
				name = "_" + name
			}
			line := "\ndaypass_identity_provider_keys" + name + `{issuer="https://idp.example.com"} ` + value + "\n"
			if !strings.Contains(text, line) {
				t.Errorf("%s: the scrape lacks %s", row.name, line)
			}
		}
	}
}
