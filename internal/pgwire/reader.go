package pgwire

import (
	"encoding/binary"
	"errors"
	"io"
	"math"
)

var (
	// ErrTooLong means that a message is longer than its reader allows.
	ErrTooLong = errors.New("message too long")
	// ErrMalformed means that a message breaks the protocol.
	ErrMalformed = errors.New("malformed message")
)

// Reader reads messages from a peer that is not trusted. It reads at most one
// buffer's worth ahead, and the buffer grows only up to the limit of the message
// that is being read.
type Reader struct {
	src  io.Reader
	buf  []byte
	r, w int
}

// NewReader returns a Reader of src.
func NewReader(src io.Reader) *Reader { return &Reader{src: src, buf: make([]byte, 512)} }

// NewReaderAhead returns a Reader of bytes that were read before, and then of src.
func NewReaderAhead(ahead []byte, src io.Reader) *Reader {
	r := NewReader(src)
	if len(ahead) > 0 {
		r.buf, r.w = append(ahead[:len(ahead):len(ahead)], r.buf...), len(ahead)
	}
	return r
}

// Peek returns the next byte and leaves it to be read.
func (r *Reader) Peek() (byte, error) {
	if err := r.need(1); err != nil {
		return 0, err
	}
	return r.buf[r.r], nil
}

// need makes sure that n bytes are buffered. The error is io.EOF only when the
// peer closed the connection between messages.
func (r *Reader) need(n int) error {
	if r.w-r.r >= n {
		return nil
	}
	if r.r > 0 {
		r.w = copy(r.buf, r.buf[r.r:r.w])
		r.r = 0
	}
	if n > len(r.buf) {
		grown := make([]byte, max(n, 2*len(r.buf)))
		copy(grown, r.buf[:r.w])
		r.buf = grown
	}
	for r.w < n {
		m, err := r.src.Read(r.buf[r.w:])
		r.w += m
		if err != nil && r.w < n {
			if err == io.EOF && r.w > 0 {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// Packet reads a packet without a type, as used before authentication: a length, a code and
// the rest. The length, and limit, include the four bytes of the length itself. The slice
// begins with the code and is valid until the next read.
func (r *Reader) Packet(limit int) ([]byte, error) {
	if err := r.need(4); err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint32(r.buf[r.r:])
	if length < 8 || length > uint32(limit) {
		return nil, ErrTooLong
	}
	if err := r.need(int(length)); err != nil {
		return nil, err
	}
	packet := r.buf[r.r+4 : r.r+int(length)]
	r.r += int(length)
	return packet, nil
}

// Message reads one typed message with a body of at most limit bytes. The slice
// is valid until the next read.
func (r *Reader) Message(limit int) (kind byte, body []byte, err error) {
	return r.Admitted(func(_ byte, size int) error {
		if size > limit {
			return ErrTooLong
		}
		return nil
	})
}

// Admitted reads one typed message. The body is read only after admit has agreed to
// the message's type and size. The slice is valid until the next read.
func (r *Reader) Admitted(admit func(kind byte, size int) error) (kind byte, body []byte, err error) {
	if err := r.need(5); err != nil {
		return 0, nil, err
	}
	kind = r.buf[r.r]
	length := binary.BigEndian.Uint32(r.buf[r.r+1:])
	if length < 4 || length > math.MaxInt32 {
		return kind, nil, ErrMalformed
	}
	if err := admit(kind, int(length)-4); err != nil {
		return kind, nil, err
	}
	if err := r.need(1 + int(length)); err != nil {
		return kind, nil, err
	}
	body = r.buf[r.r+5 : r.r+1+int(length)]
	r.r += 1 + int(length)
	return kind, body, nil
}

// Rest returns a copy of what was read beyond the last message; nil when there is
// nothing.
func (r *Reader) Rest() []byte { return append([]byte(nil), r.buf[r.r:r.w]...) }

// Buffered returns how many bytes were read beyond the last message.
func (r *Reader) Buffered() int { return r.w - r.r }
