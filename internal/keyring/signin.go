package keyring

import (
	"crypto/hkdf"
	"crypto/sha256"
	"time"
)

// SignInLifetime is the longest time that a person stays signed in.
const SignInLifetime = 12 * time.Hour

// signInLabel binds what is sealed for sign-ins to its purpose, as sessionLabel does for session
// tokens.
const signInLabel = "daypass sign-in 1\x00"

// signInSecret derives the key for sign-ins from a session key. Because it is a separate key, a
// box for one purpose cannot pass for a box for the other, whatever its additional data.
func signInSecret(secret [secretSize]byte) [secretSize]byte {
	out, err := hkdf.Expand(sha256.New, secret[:], signInLabel, secretSize)
	if err != nil {
		panic("internal error: hkdf: " + err.Error())
	}
	return [secretSize]byte(out)
}

// SealSignIn is Seal for sign-ins: authorization codes, refresh tokens, and the state that a
// browser carries from page to page. These live for at most SignInLifetime.
func (k *Keyring) SealSignIn(now time.Time, plaintext, additional []byte) []byte {
	return k.seal(signIns, now, plaintext, additional)
}

// OpenSignIn is Open for boxes of SealSignIn.
func (k *Keyring) OpenSignIn(now time.Time, box, additional []byte) ([]byte, error) {
	return k.open(signIns, now, box, additional)
}

var signIns = sealing{signInLabel, func(k *key) *xaes { return k.signIn }}
