package keyring_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/keyring"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

const second = time.Second

func TestSignVerify(t *testing.T) {
	k := keyring.New(epoch)
	msg := []byte("a credential")
	id, sig := k.Sign(epoch, msg)
	if err := k.Verifier().Verify(id, msg, sig, epoch); err != nil {
		t.Fatalf("Verify of what was signed = %v", err)
	}
	flip := func(b []byte, i int) []byte {
		b = bytes.Clone(b)
		b[i] ^= 1
		return b
	}
	otherID, otherSig := keyring.New(epoch).Sign(epoch, msg)
	for name, row := range map[string]struct {
		id, msg, sig []byte
		want         error
	}{
		"message altered":       {id, flip(msg, 0), sig, keyring.ErrBadSignature},
		"message longer":        {id, append(bytes.Clone(msg), 0), sig, keyring.ErrBadSignature},
		"signature R altered":   {id, msg, flip(sig, 0), keyring.ErrBadSignature},
		"signature S altered":   {id, msg, flip(sig, 40), keyring.ErrBadSignature},
		"signature S plus L":    {id, msg, addOrder(sig), keyring.ErrBadSignature},
		"signature short":       {id, msg, sig[:63], keyring.ErrBadSignature},
		"signature long":        {id, msg, append(bytes.Clone(sig), 0), keyring.ErrBadSignature},
		"signature empty":       {id, msg, nil, keyring.ErrBadSignature},
		"signature of another":  {id, msg, otherSig, keyring.ErrBadSignature},
		"key of another":        {otherID, msg, otherSig, keyring.ErrUnknownKey},
		"identifier altered":    {flip(id, 7), msg, sig, keyring.ErrUnknownKey},
		"identifier short":      {id[:7], msg, sig, keyring.ErrUnknownKey},
		"identifier long":       {append(bytes.Clone(id), 0), msg, sig, keyring.ErrUnknownKey},
		"identifier missing":    {nil, msg, sig, keyring.ErrUnknownKey},
		"identifier all zeroes": {make([]byte, 8), msg, sig, keyring.ErrUnknownKey},
	} {
		if err := k.Verifier().Verify(row.id, row.msg, row.sig, epoch); !errors.Is(err, row.want) {
			t.Errorf("%s: Verify = %v, want %v", name, err, row.want)
		}
	}
}

// addOrder adds the order of the group to S, which makes a second signature that a careless
// verifier would accept.
func addOrder(sig []byte) []byte {
	order, _ := hex.DecodeString("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
	out := bytes.Clone(sig)
	carry := 0
	for i, b := range order {
		carry += int(out[32+i]) + int(b)
		out[32+i] = byte(carry)
		carry >>= 8
	}
	return out
}

func TestRotateKeepsWhatCanBeAlive(t *testing.T) {
	first := keyring.New(epoch)
	msg, extra := []byte("m"), []byte("x")
	at := epoch.Add(24 * time.Hour)
	second1 := first.Rotate(at, at)
	firstID, firstSig := first.Sign(epoch, msg)
	firstBox := first.Seal(epoch, msg, extra)

	for _, row := range []struct {
		after          time.Duration
		verify, sealed bool
	}{
		{0, true, true},
		{time.Hour, true, true},
		{time.Hour + keyring.Margin - second, true, true},
		{time.Hour + keyring.Margin, false, true},
		{36*time.Hour + keyring.Margin - second, false, true},
		{36*time.Hour + keyring.Margin, false, false},
	} {
		now := at.Add(row.after)
		// Check with the old key in the file, and after a rotation that may have dropped it.
		for _, k := range []*keyring.Keyring{second1, second1.Rotate(now, now)} {
			if err := k.Verifier().Verify(firstID, msg, firstSig, now); (err == nil) != row.verify {
				t.Errorf("Verify %v after the rotation = %v, want accepted: %t", row.after, err, row.verify)
			} else if err != nil && !errors.Is(err, keyring.ErrUnknownKey) {
				t.Errorf("Verify %v after the rotation = %v, want %v", row.after, err, keyring.ErrUnknownKey)
			}
			if _, err := k.Open(now, firstBox, extra); (err == nil) != row.sealed {
				t.Errorf("Open %v after the rotation = %v, want opened: %t", row.after, err, row.sealed)
			}
		}
	}
	if err := first.Verifier().Verify(firstID, msg, firstSig, at.Add(1000*time.Hour)); err != nil {
		t.Errorf("Verify with a keyring that was never rotated = %v", err)
	}
}

func TestRotateDropsExpiredKeys(t *testing.T) {
	k := keyring.New(epoch)
	now := epoch
	for range 50 {
		now = now.Add(time.Hour)
		k = k.Rotate(now, now)
	}
	count := map[keyring.Purpose]int{}
	for _, info := range k.Keys(now) {
		count[info.Purpose]++
	}
	// The key in use, and the keys superseded less than 1 h 5 min or 36 h 5 min ago.
	want := map[keyring.Purpose]int{keyring.Credential: 3, keyring.Session: 38, keyring.Upstream: 1}
	if fmt.Sprint(count) != fmt.Sprint(want) {
		t.Errorf("keys after 50 hourly rotations: %v, want %v", count, want)
	}
}

func TestRotateActivatesLater(t *testing.T) {
	old := keyring.New(epoch)
	activate := epoch.Add(10 * time.Minute)
	k := old.Rotate(epoch, activate)
	oldID, _ := old.Sign(epoch, nil)

	before, _ := k.Sign(activate.Add(-second), nil)
	if !bytes.Equal(before, oldID) {
		t.Error("the new key signs before it is active")
	}
	newID, newSig := k.Sign(activate, []byte("m"))
	if bytes.Equal(newID, oldID) {
		t.Error("the old key signs when the new one is active")
	}
	// A machine whose clock is behind must accept the key already.
	if err := k.Verifier().Verify(newID, []byte("m"), newSig, activate.Add(-time.Minute)); err != nil {
		t.Errorf("Verify with a key not active yet = %v", err)
	}

	// A key that becomes active at once is used until a pending key becomes active.
	both := k.Rotate(epoch.Add(second), epoch)
	nowID, _ := both.Sign(epoch.Add(second), nil)
	laterID, _ := both.Sign(activate, nil)
	if bytes.Equal(nowID, oldID) || bytes.Equal(nowID, newID) || !bytes.Equal(laterID, newID) {
		t.Errorf("keys in use: %x then %x; want a third key, then the pending %x", nowID, laterID, newID)
	}
	// If the clock is before all keys, the oldest key signs, because all machines have it.
	id, _ := both.Sign(epoch.Add(-time.Hour), nil)
	if !bytes.Equal(id, oldID) {
		t.Error("before all activations, not the oldest key signs")
	}
}

func TestDiscard(t *testing.T) {
	k := keyring.New(epoch)
	id, sig := k.Sign(epoch, nil)
	box := k.Seal(epoch, nil, nil)
	fresh := k.Rotate(epoch, epoch.Add(time.Hour)).Discard(epoch)
	if err := fresh.Verifier().Verify(id, nil, sig, epoch); !errors.Is(err, keyring.ErrUnknownKey) {
		t.Errorf("Verify after Discard = %v, want %v", err, keyring.ErrUnknownKey)
	}
	if _, err := fresh.Open(epoch, box, nil); !errors.Is(err, keyring.ErrUnknownKey) {
		t.Errorf("Open after Discard = %v, want %v", err, keyring.ErrUnknownKey)
	}
	if len(fresh.Keys(epoch)) != 3 {
		t.Errorf("keys after Discard: %v, want one of each purpose", fresh.Keys(epoch))
	}
	if k.Derive("p") != fresh.Derive("p") {
		t.Error("Discard changed the upstream key")
	}
}

func TestKeys(t *testing.T) {
	k := keyring.New(epoch)
	k = k.Rotate(epoch.Add(time.Hour), epoch.Add(time.Hour))
	k = k.Rotate(epoch.Add(2*time.Hour), epoch.Add(3*time.Hour))
	now := epoch.Add(2*time.Hour + 30*time.Minute)
	var got []string
	for _, info := range k.Keys(now) {
		until := "-"
		if !info.Until.IsZero() {
			until = info.Until.Sub(epoch).String()
		}
		got = append(got, fmt.Sprintf("%s %s %s %s", info.Purpose, info.Active.Sub(epoch), until, info.State))
		if len(info.ID) != 16 || (info.Public != nil) != (info.Purpose == keyring.Credential) {
			t.Errorf("Keys: %+v", info)
		}
	}
	want := []string{
		"credential 0s 2h5m0s expired",
		"credential 1h0m0s 4h5m0s in use",
		"credential 3h0m0s - pending",
		"session 0s 37h5m0s kept",
		"session 1h0m0s 39h5m0s in use",
		"session 3h0m0s - pending",
		"upstream 0s - in use",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("Keys:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestDerive computes a value without Derive, from the secret in the file, and compares.
func TestDerive(t *testing.T) {
	k := keyring.New(epoch)
	var file struct{ Upstream struct{ Secret string } }
	if err := json.Unmarshal(k.Marshal(), &file); err != nil {
		t.Fatal(err)
	}
	secret, err := base64.RawURLEncoding.DecodeString(file.Upstream.Secret)
	if err != nil {
		t.Fatal(err)
	}
	info := "daypass derive 1\x00" + "\x00\x00\x00\x00\x00\x00\x00\x08upstream" + "\x00\x00\x00\x00\x00\x00\x00\x02ab"
	want, err := hkdf.Expand(sha256.New, secret, info, 32)
	if err != nil {
		t.Fatal(err)
	}
	if got := k.Derive("upstream", "ab"); !bytes.Equal(got[:], want) {
		t.Errorf("Derive = %x, want %x", got, want)
	}

	seen := map[[32]byte]string{}
	for _, list := range [][]string{{"p"}, {"p", ""}, {"p", "", ""}, {"p", "a", "bc"}, {"p", "ab", "c"}, {"p", "abc"}, {"pa", "bc"}, {"pabc"}} {
		got := k.Derive(list[0], list[1:]...)
		if other, ok := seen[got]; ok {
			t.Errorf("Derive(%q) = Derive(%s)", list, other)
		}
		seen[got] = fmt.Sprintf("%q", list)
	}
	if k.Derive("p", "a") != k.Rotate(epoch, epoch).Derive("p", "a") {
		t.Error("Rotate changed a derived value")
	}
	if k.Derive("p", "a") == k.RotateUpstream(epoch).Derive("p", "a") {
		t.Error("RotateUpstream did not change a derived value")
	}
}

func TestPrintingHidesSecrets(t *testing.T) {
	k := keyring.New(epoch)
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(format, k); got != "keyring of 1 credential and 1 session keys" {
			t.Errorf("Sprintf(%q, keyring) = %q", format, got)
		}
	}
}

// The identifier of a credential key is a function of its public key alone.
func TestIdentifiers(t *testing.T) {
	for _, info := range keyring.New(epoch).Keys(epoch) {
		if info.Purpose != keyring.Credential {
			continue
		}
		sum := sha256.Sum256(append([]byte("daypass key identifier: credential\x00"), info.Public...))
		if want := hex.EncodeToString(sum[:8]); info.ID != want || len(info.Public) != ed25519.PublicKeySize {
			t.Errorf("identifier %s of public key %x, want %s", info.ID, info.Public, want)
		}
	}
}

func BenchmarkSign(b *testing.B) {
	k := keyring.New(epoch)
	msg := make([]byte, 300)
	for b.Loop() {
		k.Sign(epoch, msg)
	}
}

func BenchmarkVerify(b *testing.B) {
	k := keyring.New(epoch)
	msg := make([]byte, 300)
	id, sig := k.Sign(epoch, msg)
	for b.Loop() {
		if err := k.Verifier().Verify(id, msg, sig, epoch); err != nil {
			b.Fatal(err)
		}
	}
}
