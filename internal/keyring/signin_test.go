package keyring_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/keyring"
)

func TestSealSignIn(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	k := keyring.New(now)
	box := k.SealSignIn(now, []byte("code"), []byte("for"))
	if got, err := k.OpenSignIn(now, box, []byte("for")); err != nil || string(got) != "code" {
		t.Fatalf("OpenSignIn = %q, %v, want what was sealed", got, err)
	}
	altered := bytes.Clone(box)
	altered[len(altered)-1] ^= 1
	rotated := k.Rotate(now, now)
	past := now.Add(keyring.SessionLifetime + keyring.Margin)
	for name, err := range map[string]error{
		"other data":            errorOf(k.OpenSignIn(now, box, []byte("four"))),
		"altered":               errorOf(k.OpenSignIn(now, altered, []byte("for"))),
		"short":                 errorOf(k.OpenSignIn(now, box[:40], []byte("for"))),
		"as a session token":    errorOf(k.Open(now, box, []byte("for"))),
		"of a session token":    errorOf(k.OpenSignIn(now, k.Seal(now, []byte("code"), []byte("for")), []byte("for"))),
		"of another keyring":    errorOf(keyring.New(now).OpenSignIn(now, box, []byte("for"))),
		"of a discarded key":    errorOf(k.Discard(now).OpenSignIn(now, box, []byte("for"))),
		"of a key that is over": errorOf(rotated.OpenSignIn(past, box, []byte("for"))),
	} {
		if !errors.Is(err, keyring.ErrBadBox) && !errors.Is(err, keyring.ErrUnknownKey) {
			t.Errorf("%s: OpenSignIn = %v, want a refusal", name, err)
		}
	}
	if _, err := rotated.OpenSignIn(past.Add(-time.Second), box, []byte("for")); err != nil {
		t.Errorf("after a rotation: OpenSignIn = %v, want what was sealed", err)
	}
}

// A server that has not yet heard that a session key is in use can still open what another
// server sealed with it.
func TestOpenSignInDuringARotation(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	before := keyring.NewShared(now).Rotate(now)
	after := before.Activate(now)
	own := keyring.NewSigner(now)
	late, early := before.With(own, now.Add(time.Hour), nil, now), after.With(own, now.Add(time.Hour), nil, now)
	soon := now.Add(time.Hour)
	for name, box := range map[string][]byte{"later key": early.SealSignIn(soon, []byte("code"), nil), "earlier key": late.SealSignIn(soon, []byte("code"), nil)} {
		for server, k := range map[string]*keyring.Keyring{"late": late, "early": early} {
			if got, err := k.OpenSignIn(soon, box, nil); err != nil || string(got) != "code" {
				t.Errorf("sealed with the %s, opened by the %s server: %q, %v", name, server, got, err)
			}
		}
	}
}

func errorOf(_ []byte, err error) error { return err }
