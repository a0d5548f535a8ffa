package session

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// Conn is one of the gateway's two ends: the connection of a client or of its
// upstream, with TLS or without. It begins as an ordinary connection for the logon, one
// goroutine at a time; the relay takes it over when its session starts.
type Conn struct {
	transport
	tls *tls.Conn // nil: plain
}

// Watcher is told when a read from a Conn begins and ends; something reports whether bytes
// arrived. *admission.Visitor is a Watcher.
type Watcher interface {
	Listen()
	Heard(something bool)
}

// NewConn returns a plain Conn. watcher may be nil.
func NewConn(conn net.Conn, watcher Watcher) *Conn {
	return &Conn{transport: transport{Conn: conn, watcher: watcher, fd: -1}}
}

// maxHandshake is how many bytes a client may send in its handshake. Clients send up to some 5 KiB, if
// they offer several post-quantum key exchanges. crypto/tls takes 64 KiB for each message, and needs
// several times as much memory for it.
const maxHandshake = 16 << 10

var errHandshakeTooLarge = fmt.Errorf("the client sent more than %d bytes", maxHandshake)

// StartServerTLS does the server's handshake, under the deadline that is set.
func (c *Conn) StartServerTLS(config *tls.Config) error {
	left := maxHandshake
	c.transport.left = &left
	defer func() { c.transport.left = nil }()
	return c.handshake(tls.Server(&c.transport, config))
}

// StartClientTLS does the client's handshake, under the deadline that is set.
func (c *Conn) StartClientTLS(config *tls.Config) error {
	return c.handshake(tls.Client(&c.transport, config))
}

func (c *Conn) handshake(conn *tls.Conn) error {
	if err := conn.Handshake(); err != nil {
		return err
	}
	c.tls = conn
	return nil
}

// TLS returns the state of TLS, nil when the connection is plain.
func (c *Conn) TLS() *tls.ConnectionState {
	if c.tls == nil {
		return nil
	}
	state := c.tls.ConnectionState()
	return &state
}

// Unread makes later reads return b first. There must be no unread bytes already.
func (c *Conn) Unread(b []byte) { c.ahead = b }

func (c *Conn) Read(b []byte) (int, error) {
	if c.tls != nil {
		return c.tls.Read(b)
	}
	return c.transport.Read(b)
}

func (c *Conn) Write(b []byte) (int, error) {
	if c.tls != nil {
		return c.tls.Write(b)
	}
	return c.transport.Write(b)
}

// CloseWrite tells the peer that nothing more will be sent.
func (c *Conn) CloseWrite() error {
	var err error
	if c.tls != nil {
		err = c.tls.CloseWrite()
	}
	if half, ok := c.transport.Conn.(interface{ CloseWrite() error }); ok {
		err = errors.Join(err, half.CloseWrite())
	}
	return err
}

// Close closes the connection; under TLS it tells the peer first.
func (c *Conn) Close() error {
	if c.tls != nil {
		return c.tls.Close()
	}
	return c.transport.Conn.Close()
}

// Abort closes the connection without telling the peer.
func (c *Conn) Abort() { c.transport.Conn.Close() }

// mostDrained is how many bytes Drain discards: far more than a server sends at the beginning of a
// session.
const mostDrained = 1 << 20

// Drain discards what the peer sends, below TLS, until it closes the connection, the deadline
// passes, or it has sent far more than a server does that is about to close.
func (c *Conn) Drain() {
	var b [256]byte
	for left := mostDrained; left > 0; {
		n, err := c.transport.Conn.Read(b[:])
		if err != nil {
			return
		}
		left -= n
	}
}

// Untouched reports whether the peer has neither sent anything nor closed the
// connection. It may read a byte, so a Conn that is not untouched has to be closed. It
// is false where the operating system cannot tell, see CanLook.
func (c *Conn) Untouched() bool {
	raw := rawConn(c.transport.Conn)
	if raw == nil {
		return false
	}
	untouched := false
	err := raw.Control(func(fd uintptr) {
		var b [1]byte
		_, err := rawRead(int(fd), b[:])
		untouched = err == syscall.EAGAIN
	})
	return err == nil && untouched
}

// CanLook reports whether Untouched works on this operating system.
const CanLook = rawRelay

// Local reports whether both ends of the connection are on this machine.
func (c *Conn) Local() bool {
	a := c.RemoteAddr()
	return a.Network() == "unix" || Peer(a).Addr().IsLoopback()
}

// Peer returns the address and port of a TCP connection, zero for others.
func Peer(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// transport is one TCP or Unix connection, below TLS if there is TLS. During the
// logon Read waits as usual. In the relay only crypto/tls calls Read. It gets the bytes
// that the relay has already read, and then errDrained, which claims to be a timeout:
// crypto/tls can continue after a timeout, but not after any other error.
type transport struct {
	net.Conn
	watcher  Watcher // nil: there is none
	left     *int    // how many more bytes Read may return; nil: any number
	ahead    []byte  // read, but not handed out yet
	relaying bool
	failure  error  // relaying: the error that follows ahead; nil: more may come
	fd       int    // relaying: the descriptor for raw writes; -1: there is none
	stall    *stall // relaying: watches writes that block
}

func (t *transport) Read(b []byte) (int, error) {
	if t.left == nil {
		return t.read(b)
	}
	if *t.left == 0 {
		return 0, errHandshakeTooLarge
	}
	n, err := t.read(b[:min(len(b), *t.left)])
	*t.left -= n
	return n, err
}

func (t *transport) read(b []byte) (int, error) {
	if len(t.ahead) > 0 {
		n := copy(b, t.ahead)
		if t.ahead = t.ahead[n:]; len(t.ahead) == 0 {
			t.ahead = nil // or an idle session would keep the relay's buffer alive
		}
		return n, nil
	}
	if t.relaying {
		if t.failure != nil {
			return 0, t.failure
		}
		return 0, errDrained
	}
	if t.watcher == nil {
		return t.Conn.Read(b)
	}
	t.watcher.Listen()
	n, err := t.Conn.Read(b)
	t.watcher.Heard(n > 0)
	return n, err
}

// Write writes directly to the socket in the relay.
func (t *transport) Write(b []byte) (int, error) {
	if t.fd < 0 {
		return t.wait(b)
	}
	n, err := rawWrite(t.fd, b)
	if err != nil || n == len(b) {
		return n, err
	}
	// The socket is full: wait as usual, under the write deadline.
	m, err := t.wait(b[n:])
	return n + m, err
}

func (t *transport) wait(b []byte) (int, error) {
	if t.stall != nil {
		t.stall.begin()
		defer t.stall.end()
	}
	return t.Conn.Write(b)
}

// queued returns how many bytes the peer has not taken yet, as far as the system tells; -1 where it
// does not.
func (t *transport) queued() int {
	if t.fd < 0 {
		return -1
	}
	return rawQueued(t.fd)
}

// hungUp reports whether the peer has closed the connection, as far as that has arrived, and
// whether the connection is broken or closed in both directions. Both are false where the system
// cannot tell.
func (t *transport) hungUp() (closed, broken bool) {
	if t.fd < 0 {
		return false, false
	}
	return rawHungUp(t.fd)
}

// userTimeout returns TCP_USER_TIMEOUT in milliseconds, if the connection has it.
func (t *transport) userTimeout() (milliseconds int, ok bool) {
	if t.fd < 0 {
		return 0, false
	}
	return rawUserTimeout(t.fd)
}

// setUserTimeout sets TCP_USER_TIMEOUT of a connection that has it.
func (t *transport) setUserTimeout(milliseconds int) { rawSetUserTimeout(t.fd, milliseconds) }

// unanswered returns how long ago TCP last heard from the peer; 0 if that is unknown.
func (t *transport) unanswered() time.Duration { return rawUnanswered(t.fd) }

// prepare readies the connection for the raw relay, if it supports that, and removes the logon's
// deadline.
func (c *Conn) prepare() {
	c.watcher = nil
	_ = c.SetDeadline(time.Time{})
	raw := rawConn(c.transport.Conn)
	if raw == nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { c.fd = int(fd) })
	c.relaying = c.fd >= 0
}

// restore undoes prepare: the connection is an ordinary one again, for one goroutine at a time.
// The relay must have ended between two TLS records.
func (c *Conn) restore() {
	c.relaying, c.fd, c.stall = false, -1, nil
	_ = c.SetDeadline(time.Time{})
}

// rawConn returns the connection's descriptor for raw system calls, or nil if the relay has to
// do without.
func rawConn(conn net.Conn) syscall.RawConn {
	if sys, ok := conn.(syscall.Conn); ok && rawRelay {
		if raw, err := sys.SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}

// errDrained tells crypto/tls that there is nothing to read at the moment.
var errDrained net.Error = drained{}

type drained struct{}

func (drained) Error() string   { return "nothing to read at the moment" }
func (drained) Timeout() bool   { return true }
func (drained) Temporary() bool { return true }
