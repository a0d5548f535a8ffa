package pgwire

import "encoding/binary"

// maxRelayedMessage is the longest message that is relayed, its length field
// included. PostgreSQL builds none longer: a StringInfo ends at 1 GiB.
const maxRelayedMessage = 1<<30 + 4

// framer follows a stream of messages, each a type byte, a length and a body. It
// keeps the position in the stream and none of its content. The zero value stands
// between two messages.
type framer struct {
	kind byte   // type of the current message, or of the last one between two
	have uint8  // bytes of its head that have arrived; 5: the body is arriving
	size uint32 // of the whole message, as far as the head has arrived
	left uint32 // bytes of the body that are missing
}

// next takes up to one message from b, which must not be empty, and returns how
// many bytes it took. ended reports whether the message ended with them. The error is
// ErrMalformed if the message's length is invalid; the framer is unusable after it.
func (f *framer) next(b []byte) (n int, ended bool, err error) {
	if f.have == 0 && len(b) >= 5 {
		f.kind = b[0]
		size := binary.BigEndian.Uint32(b[1:])
		if size-4 > maxRelayedMessage-4 {
			return 0, false, ErrMalformed
		}
		f.size = size + 1
		if int(f.size) <= len(b) {
			return int(f.size), true, nil
		}
		f.have, f.left = 5, f.size-uint32(len(b))
		return len(b), false, nil
	}
	for f.have < 5 && n < len(b) {
		if f.have == 0 {
			f.kind, f.size = b[n], 0
		} else {
			f.size = f.size<<8 | uint32(b[n])
		}
		f.have++
		n++
		if f.have == 5 {
			if f.size-4 > maxRelayedMessage-4 {
				return n, false, ErrMalformed
			}
			f.left = f.size - 4
			f.size++
		}
	}
	if f.have < 5 {
		return n, false, nil
	}
	if rest := len(b) - n; int(f.left) > rest {
		f.left -= uint32(rest)
		return len(b), false, nil
	}
	n += int(f.left)
	f.have, f.left = 0, 0
	return n, true, nil
}

// rows takes whole messages of CopyData, and of one more type, off the front of b. It
// does what next does, only faster: most messages are rows.
func (f *framer) rows(b []byte, kind byte) []byte {
	if f.have != 0 {
		return b
	}
	last := f.kind
	for len(b) >= 5 && (b[0] == MsgCopyData || b[0] == kind) {
		size := binary.BigEndian.Uint32(b[1:5])
		if size-4 > maxRelayedMessage-4 || int(size) >= len(b) {
			break
		}
		last = b[0]
		b = b[size+1:]
	}
	f.kind = last
	return b
}

// boundary reports whether the stream stands between two messages.
func (f *framer) boundary() bool { return f.have == 0 }

// remainder returns the part of b that belongs to the current message; nothing
// between two messages.
func (f *framer) remainder(b []byte) ([]byte, error) {
	if f.boundary() {
		return nil, nil
	}
	ahead := *f
	n, _, err := ahead.next(b)
	return b[:n], err
}
