package keyring

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"slices"
	"time"
)

// sessionLabel binds what the session keys seal to their purpose. It is followed
// by the key's identifier, of fixed length, and the caller's additional data.
const sessionLabel = "daypass session token 1\x00"

const (
	nonceSize = 24
	tagSize   = 16
)

// Seal encrypts and authenticates plaintext, and authenticates additional, with the
// session key in use at now. The box is
//
//	key identifier (8 bytes) | nonce (24, random) | ciphertext | tag (16)
func (k *Keyring) Seal(now time.Time, plaintext, additional []byte) []byte {
	return k.seal(sessionTokens, now, plaintext, additional)
}

// Open returns the plaintext of a box that was sealed with the same additional data. It returns
// ErrBadBox or ErrUnknownKey, the latter also for a key whose last token has expired at now.
func (k *Keyring) Open(now time.Time, box, additional []byte) ([]byte, error) {
	return k.open(sessionTokens, now, box, additional)
}

// sealing is one use of the session keys: the label that binds boxes to it, and the cipher that
// a key has for it.
type sealing struct {
	label  string
	cipher func(*key) *xaes
}

var sessionTokens = sealing{sessionLabel, func(k *key) *xaes { return k.sealer }}

func (s sealing) bound(id keyID, additional []byte) []byte {
	return slices.Concat([]byte(s.label), id[:], additional)
}

func (k *Keyring) seal(s sealing, now time.Time, plaintext, additional []byte) []byte {
	key := k.session[inUse(k.session, now)]
	box := make([]byte, idSize+nonceSize, idSize+nonceSize+len(plaintext)+tagSize)
	copy(box, key.id[:])
	nonce := box[idSize:]
	rand.Read(nonce) // never fails
	return s.cipher(key).seal(box, nonce, plaintext, s.bound(key.id, additional))
}

func (k *Keyring) open(s sealing, now time.Time, box, additional []byte) ([]byte, error) {
	if len(box) < idSize+nonceSize+tagSize {
		return nil, ErrBadBox
	}
	id, nonce, sealed := keyID(box[:idSize]), box[idSize:idSize+nonceSize], box[idSize+nonceSize:]
	var by *key
	for i, key := range k.session {
		if key.id != id {
			continue
		}
		if u := until(k.session, i, Session); !u.IsZero() && !now.Before(u) {
			return nil, ErrUnknownKey
		}
		by = key
	}
	if by == nil && k.waiting != nil && k.waiting.id == id {
		by = k.waiting // another server seals with it already
	}
	if by == nil {
		return nil, ErrUnknownKey
	}
	plaintext, err := s.cipher(by).open(nonce, sealed, s.bound(id, additional))
	if err != nil {
		return nil, ErrBadBox
	}
	return plaintext, nil
}

// xaes is XAES-256-GCM (https://c2sp.org/XAES-256-GCM): AES-256-GCM under a key
// derived from the first half of a 192-bit nonce with CMAC (NIST SP 800-108 in
// counter mode), and the second half as GCM's nonce.
type xaes struct {
	block cipher.Block
	k1    [aes.BlockSize]byte // CMAC's subkey for whole blocks
}

func newXAES(secret [secretSize]byte) *xaes {
	block, err := aes.NewCipher(secret[:])
	if err != nil {
		panic("internal error: aes: " + err.Error())
	}
	x := &xaes{block: block}
	block.Encrypt(x.k1[:], x.k1[:])
	var carry byte
	for i := len(x.k1) - 1; i >= 0; i-- {
		x.k1[i], carry = x.k1[i]<<1|carry, x.k1[i]>>7
	}
	x.k1[len(x.k1)-1] ^= carry * 0x87
	return x
}

func (x *xaes) derived(nonce []byte) cipher.AEAD {
	var secret [secretSize]byte
	for i := range byte(2) {
		half := secret[int(i)*aes.BlockSize:][:aes.BlockSize]
		copy(half, []byte{0, i + 1, 'X', 0})
		copy(half[4:], nonce[:12])
		subtle.XORBytes(half, half, x.k1[:])
		x.block.Encrypt(half, half)
	}
	block, err := aes.NewCipher(secret[:])
	if err != nil {
		panic("internal error: aes: " + err.Error())
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic("internal error: gcm: " + err.Error())
	}
	return gcm
}

func (x *xaes) seal(dst, nonce, plaintext, additional []byte) []byte {
	return x.derived(nonce).Seal(dst, nonce[12:], plaintext, additional)
}

func (x *xaes) open(nonce, sealed, additional []byte) ([]byte, error) {
	return x.derived(nonce).Open(nil, nonce[12:], sealed, additional)
}
