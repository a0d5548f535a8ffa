package credential

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// prefix is tag 61, CWT (RFC 8392 section 6), and tag 18, COSE_Sign1 (RFC 9052
// section 2).
var prefix = []byte{0xd8, 0x3d, 0xd2}

// externalAAD binds a signature to database credentials of this format, version 1.
const externalAAD = "daypass database credential 1"

// algorithmEdDSA is EdDSA in IANA's registry of COSE algorithms. All keys are Ed25519 keys, so
// the name is unambiguous here.
const algorithmEdDSA = -8

const signatureSize = 64

// token is COSE_Sign1 without its tags.
type token struct {
	_           struct{} `cbor:",toarray"`
	Protected   []byte   // header in bytes, as it is signed
	Unprotected struct{} // always empty, so that nothing unsigned has an effect
	Payload     []byte   // claims in bytes, as they are signed
	Signature   []byte
}

// header is the protected header (RFC 9052 section 3.1).
type header struct {
	Algorithm int    `cbor:"1,keyasint"`
	KeyID     []byte `cbor:"4,keyasint"`
}

// claims are the CWT claims set. From -65537 on they are private (RFC 8392
// section 9.1).
type claims struct {
	Subject    string   `cbor:"2,keyasint"`                // ARN of the principal
	Audience   string   `cbor:"3,keyasint"`                // cluster
	Expires    int64    `cbor:"4,keyasint"`                // seconds since 1970
	IssuedAt   int64    `cbor:"6,keyasint"`                // seconds since 1970
	ID         []byte   `cbor:"7,keyasint"`                // 16 bytes
	DBUser     string   `cbor:"-65537,keyasint"`           //
	Database   string   `cbor:"-65538,keyasint,omitempty"` // absent: any
	DBGroups   []string `cbor:"-65539,keyasint,omitempty"` // absent: none
	AutoCreate bool     `cbor:"-65540,keyasint,omitempty"` // absent: false
	Kind       uint8    `cbor:"-65541,keyasint,omitempty"` // absent: DatabaseUser
}

// parseToken parses a password without verifying it. The characters, the CBOR and the
// headers must be exactly those that this package writes, so that there is one password
// for every token. The reason is for an error.
func parseToken(password string) (t token, h header, reason string) {
	if len(password) > MaxLength {
		return t, h, fmt.Sprintf("longer than %d characters", MaxLength)
	}
	// Checked here because encoding/base64 skips line breaks.
	for i := range len(password) {
		c := password[i]
		if (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return t, h, fmt.Sprintf("character %d is none of A-Z, a-z, 0-9, - and _", i+1)
		}
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(password)
	if err != nil {
		return t, h, "not base64url without padding, or with bits left over"
	}
	body, ok := bytes.CutPrefix(raw, prefix)
	if !ok {
		return t, h, "not a CWT in COSE_Sign1"
	}
	if !decode(body, &t) {
		return t, h, "not COSE_Sign1 in deterministic CBOR with an empty unprotected header"
	}
	if !decode(t.Protected, &h) || h.Algorithm != algorithmEdDSA {
		return t, h, "the protected header is not exactly alg EdDSA and kid"
	}
	if len(t.Signature) != signatureSize {
		return t, h, "the signature has the wrong length"
	}
	return t, h, ""
}

// parseClaims reads the payload. The reason is empty if it is valid.
func (t *token) parseClaims() (g Grant, reason string) {
	var c claims
	if !decode(t.Payload, &c) {
		return g, "the claims are not those of a credential in deterministic CBOR"
	}
	if len(c.ID) != idSize {
		return g, "the identifier has the wrong length"
	}
	if c.IssuedAt < 0 || c.Expires < 0 || c.IssuedAt > latest || c.Expires > latest {
		return g, "a time is out of range"
	}
	g = Grant{
		ID:         formatID([idSize]byte(c.ID)),
		Cluster:    c.Audience,
		Database:   c.Database,
		DBUser:     c.DBUser,
		DBGroups:   c.DBGroups,
		AutoCreate: c.AutoCreate,
		Kind:       Kind(c.Kind),
		Principal:  c.Subject,
		IssuedAt:   time.Unix(c.IssuedAt, 0).UTC(),
		NotAfter:   time.Unix(c.Expires, 0).UTC(),
	}
	return g, g.fault()
}

// claims returns the claims of a grant without faults.
func (g Grant) claims() claims {
	id, _ := parseID(g.ID)
	return claims{
		Subject:    g.Principal,
		Audience:   g.Cluster,
		Expires:    g.NotAfter.Unix(),
		IssuedAt:   g.IssuedAt.Unix(),
		ID:         id[:],
		DBUser:     g.DBUser,
		Database:   g.Database,
		DBGroups:   g.DBGroups,
		AutoCreate: g.AutoCreate,
		Kind:       uint8(g.Kind),
	}
}

// encode returns the core deterministic encoding (RFC 8949 section 4.2.1) of one of
// this file's types, for comparison with a token. Mint writes its own (encode.go).
func encode(v any) []byte {
	data, err := encoding.Marshal(v)
	if err != nil {
		panic("internal error: cbor: " + err.Error())
	}
	return data
}

// decode fills v, a pointer to one of this file's types, and reports whether data is
// exactly what encode returns for it: no other map order, length of a number, unknown
// or repeated key, null, or trailing byte.
func decode(data []byte, v any) bool {
	return decoding.Unmarshal(data, v) == nil && bytes.Equal(encode(v), data)
}

// Both are immutable.
var (
	encoding = func() cbor.EncMode {
		options := cbor.CoreDetEncOptions()
		options.NilContainers = cbor.NilContainerAsEmpty
		mode, err := options.EncMode()
		if err != nil {
			panic("internal error: cbor: " + err.Error())
		}
		return mode
	}()
	decoding = func() cbor.DecMode {
		mode, err := cbor.DecOptions{
			DupMapKey:         cbor.DupMapKeyEnforcedAPF,
			IndefLength:       cbor.IndefLengthForbidden,
			TagsMd:            cbor.TagsForbidden,
			MaxNestedLevels:   4,
			MaxMapPairs:       16,
			ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		}.DecMode()
		if err != nil {
			panic("internal error: cbor: " + err.Error())
		}
		return mode
	}()
)
