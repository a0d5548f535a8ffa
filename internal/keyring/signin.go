package keyring

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"slices"
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
	key := k.session[inUse(k.session, now)]
	box := make([]byte, idSize+nonceSize, idSize+nonceSize+len(plaintext)+tagSize)
	copy(box, key.id[:])
	nonce := box[idSize:]
	_, _ = rand.Read(nonce) // never fails: crypto/rand ends the process instead
	return key.signIn.seal(box, nonce, plaintext, signInData(key.id, additional))
}

// OpenSignIn is Open for what SealSignIn sealed.
func (k *Keyring) OpenSignIn(now time.Time, box, additional []byte) ([]byte, error) {
	if len(box) < idSize+nonceSize+tagSize {
		return nil, ErrBadBox
	}
	id, nonce, sealed := keyID(box[:idSize]), box[idSize:idSize+nonceSize], box[idSize+nonceSize:]
	for i, key := range k.session {
		if key.id != id {
			continue
		}
		if u := until(k.session, i, Session); !u.IsZero() && !now.Before(u) {
			return nil, ErrUnknownKey
		}
		plaintext, err := key.signIn.open(nonce, sealed, signInData(id, additional))
		if err != nil {
			return nil, ErrBadBox
		}
		return plaintext, nil
	}
	return nil, ErrUnknownKey
}

func signInData(id keyID, additional []byte) []byte {
	return slices.Concat([]byte(signInLabel), id[:], additional)
}
