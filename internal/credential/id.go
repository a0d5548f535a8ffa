package credential

import (
	"crypto/rand"
	"encoding/binary"
	"strings"
	"time"
)

// idSize is the size of an identifier in a credential; idLength as text.
const (
	idSize   = 16
	idLength = 26
)

// crockford is the alphabet of ULIDs (https://github.com/ulid/spec): no I, L, O, U.
const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// NewID returns a new credential identifier: a ULID, 26 characters that sort by the
// time of creation, with 80 random bits. The time is from the system's clock; it is
// only for people who read audit logs.
func NewID() string {
	var id [idSize]byte
	binary.BigEndian.PutUint64(id[:], uint64(time.Now().UnixMilli())<<16)
	rand.Read(id[6:]) // never fails
	return formatID(id)
}

// ParseID returns an identifier as NewID wrote it. Space around it and small letters
// are forgiven: people copy them from terminals.
func ParseID(text string) (id string, ok bool) {
	id = strings.ToUpper(strings.TrimSpace(text))
	_, ok = parseID(id)
	return id, ok
}

func formatID(id [idSize]byte) string {
	high, low := binary.BigEndian.Uint64(id[:8]), binary.BigEndian.Uint64(id[8:])
	var text [idLength]byte
	for i := idLength - 1; i >= 0; i-- {
		text[i] = crockford[low&31]
		low = low>>5 | high<<59
		high >>= 5
	}
	return string(text[:])
}

// parseID accepts exactly the output of formatID: capital letters only, and no
// look-alikes, which the ULID specification allows readers to accept.
func parseID(text string) (id [idSize]byte, ok bool) {
	if len(text) != idLength || text[0] > '7' {
		return id, false
	}
	var high, low uint64
	for i := range idLength {
		digit := strings.IndexByte(crockford, text[i])
		if digit < 0 {
			return id, false
		}
		high = high<<5 | low>>59
		low = low<<5 | uint64(digit)
	}
	binary.BigEndian.PutUint64(id[:8], high)
	binary.BigEndian.PutUint64(id[8:], low)
	return id, true
}
