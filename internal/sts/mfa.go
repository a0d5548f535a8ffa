package sts

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/daypass/daypass/internal/keyring"
)

// Ways in which a one-time password fails.
var (
	ErrWrongCode = errors.New("one-time password is wrong or was used before")
	ErrTooMany   = errors.New("too many wrong one-time passwords; wait for the next one")
	ErrBadSeed   = errors.New("seed of the MFA device is not base32")
)

const (
	totpStep = 30 * time.Second
	// totpDrift is how many steps a device's clock may be off, either way.
	totpDrift = 1
	// totpTries is how many wrong codes are allowed for a device in one step. Guessing a
	// code takes some hundred thousand tries.
	totpTries = 5
)

// totp returns the time-based one-time password of a step: RFC 6238 with SHA-1 and six
// digits, RFC 4226 section 5.3.
func totp(seed []byte, step uint64) string {
	var counter [8]byte
	binary.BigEndian.PutUint64(counter[:], step)
	mac := hmac.New(sha1.New, seed)
	mac.Write(counter[:])
	sum := mac.Sum(nil)
	offset := sum[len(sum)-1] & 0x0f
	code := binary.BigEndian.Uint32(sum[offset:]) & 0x7fffffff
	return fmt.Sprintf("%06d", code%1e6)
}

// MFA checks one-time passwords. It accepts a code once (RFC 6238, section 5.2). Used codes
// are remembered by this process only: after a restart or on another server, a code can be
// used again within its 90 seconds. The zero value is ready. MFA is safe for concurrent
// use.
type MFA struct {
	mu      sync.Mutex
	devices map[string]*deviceState // by serial number; guarded by mu
}

type deviceState struct {
	used     uint64 // the last step whose code was accepted
	step     uint64 // the step that failures counts for
	failures int    // wrong codes in that step
	latest   time.Time
}

// Check checks a code against the device's seed, in base32 as authenticator apps take
// it. It returns ErrWrongCode, ErrTooMany or ErrBadSeed. now may be the time at which the call
// began: a late call does not begin a step anew.
func (m *MFA) Check(now time.Time, serial string, seed keyring.Secret, code string) error {
	key, err := decodeSeed(seed)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.devices[serial]
	if d == nil {
		d = &deviceState{}
		if m.devices == nil {
			m.devices = make(map[string]*deviceState)
		}
		m.devices[serial] = d
	}
	current := uint64(now.Unix()) / uint64(totpStep/time.Second)
	if now.After(d.latest) {
		if d.latest = now; d.step != current {
			d.step, d.failures = current, 0
		}
	}
	if d.failures >= totpTries {
		return ErrTooMany
	}
	matched := uint64(0)
	for step := current - totpDrift; step <= current+totpDrift; step++ {
		if subtle.ConstantTimeCompare([]byte(totp(key, step)), []byte(code)) == 1 && step > d.used {
			matched = step
		}
	}
	if matched == 0 {
		d.failures++
		return ErrWrongCode
	}
	d.used = matched
	return nil
}

// CheckSeed returns ErrBadSeed for a text that cannot be the seed of a device.
func CheckSeed(seed keyring.Secret) error {
	_, err := decodeSeed(seed)
	return err
}

func decodeSeed(seed keyring.Secret) ([]byte, error) {
	text := strings.ToUpper(strings.ReplaceAll(seed.Reveal(), " ", ""))
	key, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.TrimRight(text, "="))
	if err != nil || len(key) == 0 {
		return nil, ErrBadSeed
	}
	return key, nil
}
