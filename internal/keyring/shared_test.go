package keyring_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/keyring"
)

// FuzzParseShared: a document that can be read is written back unchanged, and no error quotes
// it.
func FuzzParseShared(f *testing.F) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	fresh := keyring.NewShared(now)
	moved := keyring.SharedOf(keyring.New(now))
	for _, s := range []*keyring.Shared{fresh, fresh.Rotate(now), fresh.Rotate(now).Activate(now), moved, moved.Rotate(now), fresh.Discard(now), fresh.RotateUpstream(now)} {
		f.Add(s.Marshal())
	}
	f.Add([]byte(`{"version":1,"serial":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := keyring.ParseShared(data)
		if err != nil {
			return
		}
		again, err := keyring.ParseShared(s.Marshal())
		if err != nil || !bytes.Equal(again.Marshal(), s.Marshal()) {
			t.Errorf("%q is not read again: %v", s.Marshal(), err)
		}
		k := s.With(nil, time.Time{}, nil, now)
		if _, err := k.Open(now, k.Seal(now, []byte("x"), nil), nil); err != nil && !strings.Contains(err.Error(), "unknown key") {
			t.Errorf("what it seals is not opened: %v", err)
		}
	})
}

// FuzzParseRoots: accepted root keys have distinct identifiers, open what they seal, and are not
// quoted in errors.
func FuzzParseRoots(f *testing.F) {
	for _, text := range []string{"", "5mrUHyeJx4KGsXXGbqZqCLpEVkGePlmkkkIAXfHlYmQ=", "5mrUHyeJx4KGsXXGbqZqCLpEVkGePlmkkkIAXfHlYmQ=\n\nq4d61qyQyxyvhhAIz9wUURnLlaVnVRcGgCYHxnIfm0o=\n",
		"e66ad41f2789c78286b175c66ea66a08ba4456419e3e59a49242005df1e56264", "correct horse battery staple of some length"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		roots, err := keyring.ParseRoots(text)
		if err != nil {
			for line := range strings.FieldsSeq(string(text)) {
				if len(line) > 20 && strings.Contains(err.Error(), line) {
					t.Errorf("the error quotes the text: %v", err)
				}
			}
			return
		}
		plain, under, err := roots.Open("x", roots.Seal("x", []byte("y")))
		if err != nil || string(plain) != "y" || under != roots.ID() || roots.ID() != roots.IDs()[0] {
			t.Errorf("Open() = %q, %q, %v", plain, under, err)
		}
		if _, _, err := roots.Open("z", roots.Seal("x", []byte("y"))); err == nil {
			t.Error("what was sealed for one thing is opened for another")
		}
		if err := roots.Verify("x", "a", []byte("b"), roots.Sign("x", "a", []byte("b"))); err != nil {
			t.Error(err)
		}
		if err := roots.Verify("x", "ab", nil, roots.Sign("x", "a", []byte("b"))); err == nil {
			t.Error("a statement passes for another")
		}
	})
}
