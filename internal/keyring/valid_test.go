package keyring_test

import (
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/keyring"
)

// TestRememberedSignatures: a Verifier remembers valid signatures only, and not too many. One that it
// remembers is no good for another message, by another key, or once its key has expired.
func TestRememberedSignatures(t *testing.T) {
	k := keyring.New(epoch)
	v := k.Verifier()
	_, most := v.Remembered()
	for i := range most + most/2 {
		msg := []byte(strconv.Itoa(i))
		id, sig := k.Sign(epoch, msg)
		for range 2 {
			if err := v.Verify(id, msg, sig, epoch); err != nil {
				t.Fatal(err)
			}
		}
	}
	n, _ := v.Remembered()
	if n == 0 || n > most {
		t.Fatalf("%d signatures are remembered, want some and at most %d", n, most)
	}
	msg := []byte("the message")
	id, sig := k.Sign(epoch, msg)
	other := keyring.New(epoch)
	for range 2 {
		if err := v.Verify(id, msg, sig, epoch); err != nil {
			t.Fatal(err)
		}
		bad := append([]byte(nil), sig...)
		bad[0] ^= 1
		for name, err := range map[string]error{
			"another message":   v.Verify(id, []byte("another"), sig, epoch),
			"another signature": v.Verify(id, msg, bad, epoch),
			"shorter":           v.Verify(id, msg[:len(msg)-1], append(append([]byte(nil), sig...), msg[len(msg)-1]), epoch),
			"another keyring":   other.Verifier().Verify(id, msg, sig, epoch),
		} {
			if err == nil {
				t.Errorf("%s: accepted", name)
			}
		}
	}
	v = k.Rotate(epoch, epoch.Add(time.Minute)).Verifier()
	if err := v.Verify(id, msg, sig, epoch); err != nil {
		t.Fatal(err)
	}
	if err := v.Verify(id, msg, sig, epoch.Add(1000*time.Hour)); !errors.Is(err, keyring.ErrUnknownKey) {
		t.Errorf("a remembered signature of an expired key: %v", err)
	}
}
