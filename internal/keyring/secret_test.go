package keyring_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/keyring"
)

func TestSecretIsNotPrinted(t *testing.T) {
	const value = "hunter2-and-more"
	secret := keyring.Secret(value)
	type holder struct {
		S keyring.Secret
		P *keyring.Secret
		M map[string]keyring.Secret
	}
	h := holder{secret, &secret, map[string]keyring.Secret{"a": secret}}

	var out strings.Builder
	for verb := range strings.SplitSeq("v +v #v s q x X d T 10s -40q", " ") {
		fmt.Fprintf(&out, "%"+verb+"\n", secret)
		fmt.Fprintf(&out, "%"+verb+"\n", h)
	}
	fmt.Fprintln(&out, secret, h, errors.Join(fmt.Errorf("with %w and %v", errors.New("cause"), secret)))
	for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(handler).Info("m", "secret", secret, "holder", h)
	}
	j, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	type element struct{ S keyring.Secret }
	x, err := xml.Marshal(element{secret})
	if err != nil {
		t.Fatal(err)
	}
	out.Write(j)
	out.Write(x)
	for _, form := range []string{value, fmt.Sprintf("%x", value), fmt.Sprintf("%X", value), fmt.Sprint([]byte(value))} {
		if strings.Contains(out.String(), form) {
			t.Errorf("%q is in the output:\n%s", form, out.String())
		}
	}
	if !bytes.Contains(j, []byte(`"S":"[redacted]"`)) {
		t.Errorf("json.Marshal = %s", j)
	}
	if secret.Reveal() != value {
		t.Errorf("Reveal() = %q, want the value", secret.Reveal())
	}
}
