package keyring_test

import (
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/keyring"
)

func TestRedact(t *testing.T) {
	password := "2D3ShE2iAScESK-" + strings.Repeat("Ab0_", 62)
	for text, want := range map[string]string{
		"":       "",
		"alice":  "alice",
		password: "[redacted]",
		"arn:aws:redshift:us-east-1:123456789012:dbuser:examplecluster/alice": "arn:aws:redshift:us-east-1:123456789012:dbuser:examplecluster/alice",
		`failed for user "` + password + `" or "` + password[:256] + `…"`:     `failed for user "[redacted]" or "[redacted]…"`,
		"user=" + password[:60] + " x":                                        "user=[redacted] x",
	} {
		if got := keyring.Redact(text); got != want {
			t.Errorf("Redact(%q) = %q, want %q", text, got, want)
		}
	}
}
