package credential

import (
	"encoding/base64"
	"encoding/binary"
)

// The signed bytes are written by hand into one buffer; with a library this would be
// the most expensive part of issuing besides the signature. decode compares every token
// with the encoding of package cbor, so the two cannot diverge.

// The major types of CBOR (RFC 8949 section 3.1), in their place.
const (
	majorUint     = 0 << 5
	majorNegative = 1 << 5
	majorBytes    = 2 << 5
	majorText     = 3 << 5
	majorArray    = 4 << 5
	majorMap      = 5 << 5

	simpleTrue = 0xf5
)

// appendHead appends a major type and its argument, in the shortest form.
func appendHead(b []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n < 1<<8:
		return append(b, major|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), n)
}

// appendInt appends an integer, as a key or as a value.
func appendInt(b []byte, n int64) []byte {
	if n < 0 {
		return appendHead(b, majorNegative, uint64(-1-n))
	}
	return appendHead(b, majorUint, uint64(n))
}

func appendText(b []byte, s string) []byte {
	return append(appendHead(b, majorText, uint64(len(s))), s...)
}

func appendBytes(b, s []byte) []byte {
	return append(appendHead(b, majorBytes, uint64(len(s))), s...)
}

// appendTo appends the protected header.
func (h header) appendTo(b []byte) []byte {
	b = appendHead(b, majorMap, 2)
	b = appendInt(appendInt(b, 1), int64(h.Algorithm))
	return appendBytes(appendInt(b, 4), h.KeyID)
}

// appendTo appends the claims, in the order of their encoded keys.
func (c *claims) appendTo(b []byte) []byte {
	pairs := uint64(6)
	for _, there := range []bool{c.Database != "", len(c.DBGroups) > 0, c.AutoCreate, c.Kind != 0} {
		if there {
			pairs++
		}
	}
	b = appendHead(b, majorMap, pairs)
	b = appendText(appendInt(b, 2), c.Subject)
	b = appendText(appendInt(b, 3), c.Audience)
	b = appendInt(appendInt(b, 4), c.Expires)
	b = appendInt(appendInt(b, 6), c.IssuedAt)
	b = appendBytes(appendInt(b, 7), c.ID)
	b = appendText(appendInt(b, -65537), c.DBUser)
	if c.Database != "" {
		b = appendText(appendInt(b, -65538), c.Database)
	}
	if len(c.DBGroups) > 0 {
		b = appendHead(appendInt(b, -65539), majorArray, uint64(len(c.DBGroups)))
		for _, group := range c.DBGroups {
			b = appendText(b, group)
		}
	}
	if c.AutoCreate {
		b = append(appendInt(b, -65540), simpleTrue)
	}
	if c.Kind != 0 {
		b = appendInt(appendInt(b, -65541), int64(c.Kind))
	}
	return b
}

// toBeSigned is Sig_structure (RFC 9052 section 4.4).
func (t *token) toBeSigned() []byte {
	const context = "Signature1"
	b := make([]byte, 0, len(context)+len(externalAAD)+len(t.Protected)+len(t.Payload)+16)
	b = appendText(appendHead(b, majorArray, 4), context)
	b = appendBytes(b, t.Protected)
	b = appendBytes(b, []byte(externalAAD))
	return appendBytes(b, t.Payload)
}

// password returns the token with its tags, as text.
func (t *token) password() string {
	var space [512]byte
	b := appendHead(append(space[:0], prefix...), majorArray, 4)
	b = appendHead(appendBytes(b, t.Protected), majorMap, 0)
	b = appendBytes(appendBytes(b, t.Payload), t.Signature)
	var text [1024]byte
	return string(base64.RawURLEncoding.AppendEncode(text[:0], b))
}
