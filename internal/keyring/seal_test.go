package keyring_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/daypass/daypass/internal/keyring"
)

// The vectors of https://c2sp.org/XAES-256-GCM. The second has a subkey K1 whose
// most significant bit carried over.
func TestXAESVectors(t *testing.T) {
	for _, row := range []struct {
		fill       byte
		additional string
		want       string
	}{
		{0x01, "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"},
		{0x03, "c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"},
	} {
		key := [32]byte(bytes.Repeat([]byte{row.fill}, 32))
		got := keyring.SealXAES(key, []byte("ABCDEFGHIJKLMNOPQRSTUVWX"), []byte("XAES-256-GCM"), []byte(row.additional))
		if hex.EncodeToString(got) != row.want {
			t.Errorf("key %02x…, additional data %q: %x, want %s", row.fill, row.additional, got, row.want)
		}
	}
}

func TestOpenForgeries(t *testing.T) {
	k := keyring.New(epoch)
	plaintext, additional := []byte("session of ana"), []byte("AKIA")
	box := k.Seal(epoch, plaintext, additional)
	got, err := k.Open(epoch, box, additional)
	if err != nil || !bytes.Equal(got, plaintext) {
		t.Fatalf("Open = %q, %v, want %q", got, err, plaintext)
	}
	if bytes.Equal(box, k.Seal(epoch, plaintext, additional)) {
		t.Error("Seal gave the same box twice")
	}
	for i := range box {
		for bit := range 8 {
			altered := bytes.Clone(box)
			altered[i] ^= 1 << bit
			want := keyring.ErrBadBox
			if i < 8 {
				want = keyring.ErrUnknownKey
			}
			if _, err := k.Open(epoch, altered, additional); !errors.Is(err, want) {
				t.Fatalf("Open with bit %d of byte %d altered = %v, want %v", bit, i, err, want)
			}
		}
	}
	for i := range box {
		if _, err := k.Open(epoch, box[:i], additional); !errors.Is(err, keyring.ErrBadBox) {
			t.Fatalf("Open of the first %d bytes = %v, want %v", i, err, keyring.ErrBadBox)
		}
	}
	if _, err := k.Open(epoch, append(bytes.Clone(box), 0), additional); !errors.Is(err, keyring.ErrBadBox) {
		t.Errorf("Open with a byte more = %v, want %v", err, keyring.ErrBadBox)
	}
	for _, other := range []string{"", "AKI", "AKIAB"} {
		if _, err := k.Open(epoch, box, []byte(other)); !errors.Is(err, keyring.ErrBadBox) {
			t.Errorf("Open with additional data %q = %v, want %v", other, err, keyring.ErrBadBox)
		}
	}
	if _, err := keyring.New(epoch).Open(epoch, box, additional); !errors.Is(err, keyring.ErrUnknownKey) {
		t.Errorf("Open with another keyring = %v, want %v", err, keyring.ErrUnknownKey)
	}
}
