package keyring

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
)

// Roots are the root keys of an installation of several servers. The servers share records in
// etcd, where others may be able to write. The first root key signs and seals them, and every
// root key in the list is accepted. The root keys themselves are never in etcd.
//
// A root key is 32 random bytes. Three keys are derived from it (HKDF-Expand, RFC 5869): one
// signs statements (Ed25519), one seals secrets (XAES-256-GCM), and one is for Derive. Roots is
// immutable and safe for concurrent use.
type Roots struct{ list []*root }

type root struct {
	id     keyID
	secret [secretSize]byte
	sign   ed25519.PrivateKey
	sealer *xaes
}

// ErrUnknownRoot is returned for data signed or sealed under a root key that is not in the list.
var ErrUnknownRoot = errors.New("signed or sealed under a root key that this server does not have")

const (
	// mostRoots bounds the list: a change of root keys needs two.
	mostRoots = 8
	// leastDistinct is the least number of different bytes in a root key. Practically every 32
	// random bytes have that many, and typed text does not.
	leastDistinct = 16
)

// ParseRoots reads root keys, one to a line: 32 bytes in base64, as `openssl rand
// -base64 32` prints them, or in hexadecimal. The error never quotes the text.
func ParseRoots(text []byte) (*Roots, error) {
	r := &Roots{}
	for i, line := range bytes.Split(text, []byte("\n")) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		secret, err := parseRoot(string(line))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		one := newRoot(secret)
		if slices.ContainsFunc(r.list, func(other *root) bool { return other.id == one.id }) {
			return nil, fmt.Errorf("line %d: the same root key twice", i+1)
		}
		if r.list = append(r.list, one); len(r.list) > mostRoots {
			return nil, fmt.Errorf("more than %d root keys", mostRoots)
		}
	}
	if len(r.list) == 0 {
		return nil, errors.New("no root key: make one with `openssl rand -base64 32`")
	}
	return r, nil
}

func parseRoot(line string) (secret [secretSize]byte, err error) {
	data, err := hex.DecodeString(line)
	if err != nil || len(data) != secretSize {
		data, err = base64.StdEncoding.Strict().DecodeString(line)
	}
	if err != nil || len(data) != secretSize {
		return secret, fmt.Errorf("not %d bytes in base64 or hexadecimal: make a root key with `openssl rand -base64 32`", secretSize)
	}
	distinct := map[byte]bool{}
	for _, b := range data {
		distinct[b] = true
	}
	if len(distinct) < leastDistinct {
		return secret, errors.New("not random: make a root key with `openssl rand -base64 32`")
	}
	return [secretSize]byte(data), nil
}

// NewRoots returns one fresh root key.
func NewRoots() *Roots {
	var secret [secretSize]byte
	rand.Read(secret[:]) // never fails
	return &Roots{[]*root{newRoot(secret)}}
}

func newRoot(secret [secretSize]byte) *root {
	one := &root{secret: secret}
	one.id = keyID(one.expand("identifier")[:idSize])
	one.sign = ed25519.NewKeyFromSeed(one.expand("sign statements"))
	one.sealer = newXAES([secretSize]byte(one.expand("seal secrets")))
	return one
}

func (r *root) expand(purpose string) []byte {
	out, err := hkdf.Expand(sha256.New, r.secret[:], "daypass root key 1\x00"+purpose, secretSize)
	if err != nil {
		panic("internal error: hkdf: " + err.Error())
	}
	return out
}

// ID returns the identifier of the first root key: 16 hexadecimal digits, which reveal nothing
// about the key.
func (r *Roots) ID() string { return hex.EncodeToString(r.list[0].id[:]) }

// IDs returns the identifiers of all root keys, the first one first.
func (r *Roots) IDs() []string {
	ids := make([]string, len(r.list))
	for i, one := range r.list {
		ids[i] = hex.EncodeToString(one.id[:])
	}
	return ids
}

// Derive returns 32 bytes for a purpose of each root key, the first one first.
func (r *Roots) Derive(purpose string) [][32]byte {
	list := make([][32]byte, len(r.list))
	for i, one := range r.list {
		list[i] = [32]byte(one.expand("derive " + purpose))
	}
	return list
}

func (r *Roots) find(id keyID) *root {
	for _, one := range r.list {
		if one.id == id {
			return one
		}
	}
	return nil
}

// statement returns the bytes that are signed. Lengths separate the parts.
func statement(kind, name string, body []byte) []byte {
	b := []byte("daypass root statement 1\x00")
	for _, part := range [][]byte{[]byte(kind), []byte(name), body} {
		b = binary.BigEndian.AppendUint64(b, uint64(len(part)))
		b = append(b, part...)
	}
	return b
}

// Sign signs a statement of a kind about a name with the first root key:
//
//	root key identifier (8 bytes) | Ed25519 signature (64)
func (r *Roots) Sign(kind, name string, body []byte) []byte {
	first := r.list[0]
	return append(slices.Clone(first.id[:]), ed25519.Sign(first.sign, statement(kind, name, body))...)
}

// Verify checks what Sign returned. The error is ErrUnknownRoot or ErrBadSignature.
func (r *Roots) Verify(kind, name string, body, signature []byte) error {
	if len(signature) != idSize+ed25519.SignatureSize {
		return ErrBadSignature
	}
	by := r.find(keyID(signature[:idSize]))
	if by == nil {
		return ErrUnknownRoot
	}
	if !ed25519.Verify(by.sign.Public().(ed25519.PublicKey), statement(kind, name, body), signature[idSize:]) {
		return ErrBadSignature
	}
	return nil
}

// Seal encrypts and authenticates a secret of a kind under the first root key. The
// box is as Keyring.Seal's, with the root key's identifier in front.
func (r *Roots) Seal(kind string, plaintext []byte) []byte {
	first := r.list[0]
	box := make([]byte, idSize+nonceSize, idSize+nonceSize+len(plaintext)+tagSize)
	copy(box, first.id[:])
	nonce := box[idSize:]
	rand.Read(nonce) // never fails
	return first.sealer.seal(box, nonce, plaintext, statement("seal", kind, first.id[:]))
}

// Open returns what Seal sealed, and the identifier of the root key that it was sealed
// under. The error is ErrUnknownRoot or ErrBadBox.
func (r *Roots) Open(kind string, box []byte) (plaintext []byte, under string, err error) {
	if len(box) < idSize+nonceSize+tagSize {
		return nil, "", ErrBadBox
	}
	id := keyID(box[:idSize])
	by := r.find(id)
	if by == nil {
		return nil, "", ErrUnknownRoot
	}
	plaintext, err = by.sealer.open(box[idSize:idSize+nonceSize], box[idSize+nonceSize:], statement("seal", kind, id[:]))
	if err != nil {
		return nil, "", ErrBadBox
	}
	return plaintext, hex.EncodeToString(id[:]), nil
}

// String names the root keys by their identifiers.
func (r *Roots) String() string { return fmt.Sprintf("root keys %v", r.IDs()) }

// GoString is String: %#v does not print secrets either.
func (r *Roots) GoString() string { return r.String() }
