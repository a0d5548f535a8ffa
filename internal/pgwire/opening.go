package pgwire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
)

// The bounds of an Opening. A server sends about 20 messages and 1 KiB; a login
// event trigger may add notices, and a long search_path is reported since 18.
const (
	MaxOpeningBytes    = 128 << 10
	maxOpeningMessages = 1000

	maxAuthentication = 8 << 10 // bytes of one authentication request
	maxCancelKey      = 256     // bytes, as protocol 3.2 has it
)

// maxIterations is the largest iteration count of a SCRAM exchange that an
// administrative login computes. The server chooses the count, and the client does
// the work: this many take a quarter of a second.
const maxIterations = 1 << 20

// ErrOpening is wrapped by all errors of an Opening: the server broke the
// protocol, or sent more than an honest one does.
var ErrOpening = errors.New("server does not follow the protocol")

// Opening follows what a server sends from the start-up message to
// ReadyForQuery. A hostile server must not be able to fill the memory of its client,
// or to send anything else before authentication is complete. The zero value is ready
// for use.
type Opening struct {
	bytes, messages int
	authenticated   bool // AuthenticationOk was seen
	negotiated      bool // NegotiateProtocolVersion was seen
	keyed           bool // BackendKeyData was seen
	ready           bool // ReadyForQuery was seen
}

// Admit accepts or refuses a message by its type and the size of its body, before the
// body is read.
func (o *Opening) Admit(kind byte, size int) error {
	o.messages++
	o.bytes += 5 + size
	switch {
	case o.ready:
		return fmt.Errorf("%w: message %q after ReadyForQuery", ErrOpening, kind)
	case size < 0 || size > MaxOpeningBytes || o.bytes > MaxOpeningBytes:
		return fmt.Errorf("%w: more than %d KiB before it is ready for a query", ErrOpening, MaxOpeningBytes>>10)
	case o.messages > maxOpeningMessages:
		return fmt.Errorf("%w: more than %d messages before it is ready for a query", ErrOpening, maxOpeningMessages)
	}
	ok := false
	switch kind {
	case MsgErrorResponse, MsgNoticeResponse:
		ok = true
	case MsgAuthentication:
		ok = !o.authenticated && size >= 4 && size <= maxAuthentication
	case MsgNegotiateProtocolVersion:
		ok = !o.authenticated && !o.negotiated
		o.negotiated = true
	case MsgParameterStatus:
		ok = o.authenticated
	case MsgBackendKeyData:
		ok = o.authenticated && !o.keyed && size >= 4 && size <= 4+maxCancelKey
		o.keyed = true
	case MsgReadyForQuery:
		ok = o.authenticated && size == 1
		o.ready = ok
	}
	if ok {
		return nil
	}
	if !o.authenticated {
		return fmt.Errorf("%w: message %q of %d bytes before authentication is complete", ErrOpening, kind, size)
	}
	return fmt.Errorf("%w: message %q of %d bytes before it is ready for a query", ErrOpening, kind, size)
}

// Authenticated notes AuthenticationOk.
func (o *Opening) Authenticated() { o.authenticated = true }

// Ready reports whether ReadyForQuery has been admitted.
func (o *Opening) Ready() bool { return o.ready }

// Scanner follows an Opening in a stream of bytes that another package reads and
// parses, as pgconn does. The zero value is ready for use.
type Scanner struct {
	opening Opening
	head    [5]byte
	filled  int    // of head
	left    int    // of the body
	body    []byte // of an authentication request
	err     error
}

// Scan takes the next bytes of the stream and returns how many of them belong to
// the opening. An error is final.
func (s *Scanner) Scan(b []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	taken := 0
	for len(b) > 0 && !s.opening.Ready() || s.left > 0 && len(b) > 0 {
		n := 0
		if s.left > 0 {
			n = min(s.left, len(b))
			if s.head[0] == MsgAuthentication {
				s.body = append(s.body, b[:n]...)
			}
			s.left -= n
		} else {
			n = copy(s.head[s.filled:], b)
			s.filled += n
			if s.filled == len(s.head) {
				if s.err = s.begin(); s.err != nil {
					return taken, s.err
				}
			}
		}
		taken += n
		b = b[n:]
		if s.filled == len(s.head) && s.left == 0 {
			if s.err = s.end(); s.err != nil {
				return taken, s.err
			}
		}
	}
	return taken, nil
}

// Ready reports whether the opening is complete.
func (s *Scanner) Ready() bool { return s.opening.Ready() && s.left == 0 }

func (s *Scanner) begin() error {
	length := binary.BigEndian.Uint32(s.head[1:])
	if length < 4 || length > MaxOpeningBytes {
		return fmt.Errorf("%w: message %q claims a length of %d bytes", ErrOpening, s.head[0], length)
	}
	s.left = int(length) - 4
	s.body = s.body[:0]
	return s.opening.Admit(s.head[0], s.left)
}

func (s *Scanner) end() error {
	s.filled = 0
	if s.head[0] != MsgAuthentication {
		return nil
	}
	switch binary.BigEndian.Uint32(s.body) { // Admit requires at least four bytes
	case AuthOK:
		s.opening.Authenticated()
	case AuthSASLContinue:
		_, count, found := bytes.Cut(s.body[4:], []byte(",i="))
		if n, err := strconv.Atoi(string(count)); found && (err != nil || n > maxIterations) {
			return fmt.Errorf("%w: it asks for %.20q SCRAM iterations, %d are the limit", ErrOpening, count, maxIterations)
		}
	}
	return nil
}
