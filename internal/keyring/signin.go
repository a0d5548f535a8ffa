package keyring

import (
	"crypto/hkdf"
	"crypto/sha256"
	"time"
)

// SignInLifetime is the longest time that a person stays signed in.
const SignInLifetime = 12 * time.Hour

// signInLabel binds what is sealed for signing in, as sessionLabel does session tokens.
const signInLabel = "daypass sign-in 1\x00"

// signInSecret derives the key that seals what signs people in from a session key, so
// that neither can pass for the other, whatever their additional data.
func signInSecret(secret [secretSize]byte) [secretSize]byte {
	out, err := hkdf.Expand(sha256.New, secret[:], signInLabel, secretSize)
	if err != nil {
		panic("internal error: hkdf: " + err.Error())
	}
	return [secretSize]byte(out)
}

// SealSignIn is Seal for what signs people in: authorization codes, refresh tokens, and
// what a browser carries from page to page. It lives for SignInLifetime at most.
func (k *Keyring) SealSignIn(now time.Time, plaintext, additional []byte) []byte {
	return k.seal(signIns, now, plaintext, additional)
}

// OpenSignIn is Open for what SealSignIn sealed.
func (k *Keyring) OpenSignIn(now time.Time, box, additional []byte) ([]byte, error) {
	return k.open(signIns, now, box, additional)
}

var signIns = sealing{signInLabel, func(k *key) *xaes { return k.signIn }}
