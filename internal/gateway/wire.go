package gateway

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"net/netip"

	"github.com/daypass/daypass/internal/admission"
)

// The codes that stand where a start-up message has its protocol version.
const (
	codeCancelRequest = 1234<<16 | 5678
	codeSSLRequest    = 1234<<16 | 5679
	codeGSSENCRequest = 1234<<16 | 5680
)

const (
	protocol30 = 3 << 16
	protocol32 = 3<<16 | 2
)

// alpnProtocol is what direct TLS must agree on, so that no other protocol's TLS
// connection can be turned into one of ours.
const alpnProtocol = "postgresql"

// socket is one TCP or Unix connection, below TLS if there is TLS. During the
// logon Read waits as usual. In the relay Read is only called by crypto/tls, and
// only hands out what the relay has already read: crypto/tls can be resumed after
// an error that calls itself temporary, as it is after a deadline.
type socket struct {
	net.Conn
	visitor  *admission.Visitor // is told of reads; nil: nobody waits for them
	ahead    []byte             // read, but not handed out yet
	relaying bool
	failure  error // relaying: what comes after ahead; nil means that more may come
	fd       int   // relaying: the descriptor for raw writes; -1 means that there is none
}

func newSocket(conn net.Conn, visitor *admission.Visitor) *socket {
	return &socket{Conn: conn, visitor: visitor, fd: -1}
}

func (s *socket) Read(b []byte) (int, error) {
	if len(s.ahead) > 0 {
		n := copy(b, s.ahead)
		if s.ahead = s.ahead[n:]; len(s.ahead) == 0 {
			s.ahead = nil // or an idle session would keep the relay's buffer alive
		}
		return n, nil
	}
	if s.relaying {
		if s.failure != nil {
			return 0, s.failure
		}
		return 0, errDrained
	}
	if s.visitor == nil {
		return s.Conn.Read(b)
	}
	s.visitor.Listen()
	n, err := s.Conn.Read(b)
	s.visitor.Heard(n > 0)
	return n, err
}

// Write takes the short way to the kernel in the relay.
func (s *socket) Write(b []byte) (int, error) {
	if s.fd < 0 {
		return s.Conn.Write(b)
	}
	n, err := rawWrite(s.fd, b)
	if err != nil || n == len(b) {
		return n, err
	}
	// The socket is full: wait as usual, under the write deadline.
	m, err := s.Conn.Write(b[n:])
	return n + m, err
}

// errDrained tells crypto/tls that there is nothing to read at the moment.
var errDrained net.Error = drained{}

type drained struct{}

func (drained) Error() string   { return "nothing to read at the moment" }
func (drained) Timeout() bool   { return true }
func (drained) Temporary() bool { return true }

// end is one of the gateway's two ends: the client or the upstream.
type end struct {
	*socket
	tls *tls.Conn // nil: plain
}

func (e end) Read(b []byte) (int, error) {
	if e.tls != nil {
		return e.tls.Read(b)
	}
	return e.socket.Read(b)
}

func (e end) Write(b []byte) (int, error) {
	if e.tls != nil {
		return e.tls.Write(b)
	}
	return e.socket.Write(b)
}

// CloseWrite says that nothing more will be sent.
func (e end) CloseWrite() error {
	var err error
	if e.tls != nil {
		err = e.tls.CloseWrite()
	}
	if half, ok := e.socket.Conn.(interface{ CloseWrite() error }); ok {
		err = errors.Join(err, half.CloseWrite())
	}
	return err
}

// Close closes the connection; under TLS it takes leave first.
func (e end) Close() error {
	if e.tls != nil {
		return e.tls.Close()
	}
	return e.socket.Conn.Close()
}

// state is the TLS state for the record, nil when plain.
func (e end) state() *tls.ConnectionState {
	if e.tls == nil {
		return nil
	}
	state := e.tls.ConnectionState()
	return &state
}

// peerOf is the address and port of a TCP connection, zero for others.
func peerOf(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// isLocal says whether nobody but this machine can listen in.
func isLocal(a net.Addr) bool {
	if a.Network() == "unix" {
		return true
	}
	return peerOf(a).Addr().IsLoopback()
}

var (
	errTooLong   = errors.New("message too long")
	errMalformed = errors.New("malformed message")
)

// reader reads messages during a logon. It never reads into memory what it has
// not been asked for beyond one buffer's worth, and the buffer grows only as far
// as the limit of the message that is being read.
type reader struct {
	src  io.Reader
	buf  []byte
	r, w int
}

func newReader(src io.Reader) *reader { return &reader{src: src, buf: make([]byte, 512)} }

// need makes sure that n bytes are buffered. The error is io.EOF only when the
// peer left between messages.
func (r *reader) need(n int) error {
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

// startupPacket reads a packet of the phase before messages have types: its
// length, including the length itself, and at least a code. The slice is valid
// until the next read.
func (r *reader) startupPacket(limit int) ([]byte, error) {
	if err := r.need(4); err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint32(r.buf[r.r:])
	if length < 8 || length > uint32(limit) {
		return nil, errTooLong
	}
	if err := r.need(int(length)); err != nil {
		return nil, err
	}
	packet := r.buf[r.r+4 : r.r+int(length)]
	r.r += int(length)
	return packet, nil
}

// message reads one typed message with a body of at most limit bytes. The slice
// is valid until the next read.
func (r *reader) message(limit int) (kind byte, body []byte, err error) {
	return r.admitted(func(_ byte, size int) error {
		if size > limit {
			return errTooLong
		}
		return nil
	})
}

// admitted reads one typed message, the body of which is read after admit has
// agreed to its kind and size. The slice is valid until the next read.
func (r *reader) admitted(admit func(kind byte, size int) error) (kind byte, body []byte, err error) {
	if err := r.need(5); err != nil {
		return 0, nil, err
	}
	kind = r.buf[r.r]
	length := binary.BigEndian.Uint32(r.buf[r.r+1:])
	if length < 4 || length > math.MaxInt32 {
		return kind, nil, errMalformed
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

// rest is what was read beyond the last message.
func (r *reader) rest() []byte { return r.buf[r.r:r.w] }

// begin appends the head of a message; finish fills in its length.
func begin(b []byte, kind byte) ([]byte, int) {
	return append(b, kind, 0, 0, 0, 0), len(b) + 1
}

func finish(b []byte, at int) []byte {
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at))
	return b
}

func appendMessage(b []byte, kind byte, body []byte) []byte {
	b, at := begin(b, kind)
	return finish(append(b, body...), at)
}

func appendString(b []byte, s string) []byte { return append(append(b, s...), 0) }

func appendUint32(b []byte, n uint32) []byte { return binary.BigEndian.AppendUint32(b, n) }

// cutString takes a NUL-terminated string off b.
func cutString(b []byte) (s string, rest []byte, ok bool) {
	for i, c := range b {
		if c == 0 {
			return string(b[:i]), b[i+1:], true
		}
	}
	return "", nil, false
}
