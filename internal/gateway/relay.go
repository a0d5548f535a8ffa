package gateway

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// The relay copies bytes, one goroutine for each direction.
//
// On Linux a direction lives in one call of RawConn.Read: its callback reads what
// there is, writes it to the other end and returns to wait, without a second
// system call to find out that there is nothing more. Reads and writes are raw
// system calls on sockets that never block, so the scheduler is not told of each.
// A buffer is taken from a pool when there is something to read and given back
// before waiting: an idle session holds none. Under TLS the callback reads the
// records and crypto/tls decrypts them from memory (see socket).
//
// The descriptors are safe to use because nothing closes them before both
// directions have ended; whoever wants a session to end moves its deadlines
// (session.end).
//
// Messages are not read, but their lengths are followed (see exchange): so it is
// known where a message of the gateway's own may go, and what the session is at.

// bufferSize holds four of PostgreSQL's 8 KiB writes, or two TLS records.
const bufferSize = 32 << 10

type buffer [bufferSize]byte

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// pump is one direction of a session.
type pump struct {
	session  *session
	from, to *end
	toClient bool
	early    []byte // what was read during the logon

	bytes atomic.Uint64

	sentBefore uint64    // bytes at the last look, once the client has closed its side
	stopBy     time.Time // once the session is ending

	readErr, writeErr error
	_                 [64]byte // the two directions share no cache line
}

// errStopped ends a direction of a session that is ending.
var errStopped = errors.New("session is ending")

// stopTime is how long the server may take to end the message that it is sending,
// so that the client can be told why the session ends.
const stopTime = time.Second

// start lets the session run. It returns at once.
func (c *session) start() {
	for _, e := range []*end{&c.client, &c.upstream} {
		e.visitor = nil
		_ = e.SetDeadline(time.Time{})
	}
	if c.why.Load() != nil { // it was ended before it began
		c.interrupt()
	}
	c.running.Store(2)
	for _, p := range []*pump{&c.up, &c.down} {
		p.prepare()
	}
	go c.up.run()
	go c.down.run()
}

// prepare readies the end that the pump reads from for the raw relay, where
// there is one.
func (p *pump) prepare() {
	raw := rawConn(p.from.socket.Conn)
	if raw == nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { p.from.fd = int(fd) })
	p.from.relaying = p.from.fd >= 0
}

// rawConn is the connection's descriptor for raw system calls, nil where the
// relay has to do without.
func rawConn(conn io.Reader) syscall.RawConn {
	if sys, ok := conn.(syscall.Conn); ok && rawRelay {
		if raw, err := sys.SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}

// run copies until an end closes or breaks, and then sees to the other direction.
func (p *pump) run() {
	c := p.session
	early := p.early
	p.early = nil
	if len(early) > 0 {
		p.writeErr = p.forward(early)
	}
	for p.writeErr == nil {
		p.copy()
		if p.writeErr != nil || !timedOut(p.readErr) || !c.extend(p) {
			break
		}
	}
	if p.toClient {
		c.downEnded(p)
	} else {
		c.upEnded(p)
	}
	if c.running.Add(-1) == 0 {
		c.finish()
	}
}

// copy runs until something fails; readErr is io.EOF when from was closed.
func (p *pump) copy() {
	p.readErr = nil
	if !p.from.relaying {
		p.copyPlainly()
		return
	}
	readable := p.readable
	if p.from.tls != nil {
		readable = p.readableTLS
	}
	if err := rawConn(p.from.socket.Conn).Read(readable); err != nil && p.readErr == nil {
		p.readErr = err
	}
}

// copyPlainly is the relay by ordinary reads and writes.
func (p *pump) copyPlainly() {
	buf := buffers.Get().(*buffer)
	defer buffers.Put(buf)
	for {
		n, err := p.from.Read(buf[:])
		if n > 0 {
			if p.writeErr = p.forward(buf[:n]); p.writeErr != nil {
				return
			}
		}
		if err != nil {
			p.readErr = err
			return
		}
		if p.stopped() {
			p.readErr = errStopped
			return
		}
	}
}

// readable is called when there may be something to read. It returns false to
// wait for more, true when the direction has ended.
func (p *pump) readable(fd uintptr) (done bool) {
	buf := buffers.Get().(*buffer)
	defer buffers.Put(buf)
	for {
		n, err := rawRead(int(fd), buf[:])
		switch {
		case n > 0:
			if p.writeErr = p.forward(buf[:n]); p.writeErr != nil {
				return true
			}
		case err == syscall.EAGAIN:
			return false
		case err != nil:
			p.readErr = err
			return true
		default:
			p.readErr = io.EOF
			return true
		}
		if p.stopped() {
			p.readErr = errStopped
			return true
		}
		if n < len(buf) && p.quiet() {
			return false
		}
	}
}

// stopped reports whether the direction has to end because the session does. The one
// to the client goes on to the end of the message that the client has a part of.
func (p *pump) stopped() bool {
	why := p.session.why.Load()
	switch {
	case why == nil:
		return false
	case !p.toClient || why.state == "" || p.session.exchange.down.boundary():
		return true
	case p.stopBy.IsZero():
		p.stopBy = time.Now().Add(stopTime)
	}
	return time.Now().After(p.stopBy)
}

// quiet says that it is not worth looking for more before waiting. A short read
// has emptied the socket; but an end of the stream that came with the last bytes
// was announced together with them, and will not be announced again. So a second
// look is taken, except where nobody hangs up: a server that has just sent
// ReadyForQuery does not, unless the client has taken its leave; if it died at
// this very moment the next query finds out.
func (p *pump) quiet() bool {
	return p.toClient && p.session.exchange.ready() && !p.session.farewell.Load() && !p.session.halfClosed.Load()
}

// readableTLS is readable for an end with TLS.
func (p *pump) readableTLS(fd uintptr) (done bool) {
	records := buffers.Get().(*buffer)
	defer buffers.Put(records)
	// What crypto/tls has read during the handshake, or not handed out before
	// an interruption, comes first.
	if p.decrypt() {
		return true
	}
	for {
		n, err := rawRead(int(fd), records[:])
		switch {
		case n > 0:
			p.from.ahead = records[:n]
		case err == syscall.EAGAIN:
			return false
		case err != nil:
			p.from.failure = err
		default:
			p.from.failure = io.EOF
		}
		if p.decrypt() {
			return true
		}
		if n < len(records) && p.quiet() {
			return false
		}
	}
}

// decrypt forwards all that can be decrypted of what was read. When it returns
// false, crypto/tls has taken everything and waits for more.
func (p *pump) decrypt() (done bool) {
	plain := buffers.Get().(*buffer)
	defer buffers.Put(plain)
	for {
		var n int
		var err error
		for n < len(plain) && err == nil {
			var m int
			m, err = p.from.tls.Read(plain[n:])
			n += m
		}
		if n > 0 {
			if p.writeErr = p.forward(plain[:n]); p.writeErr != nil {
				return true
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, errDrained):
			return false
		default:
			p.readErr = err
			return true
		}
		if p.stopped() {
			p.readErr = errStopped
			return true
		}
	}
}

// forward passes a chunk on, and notes what it says of the session before it goes
// out: the other end answers at once.
func (p *pump) forward(chunk []byte) error {
	c := p.session
	var err error
	if p.toClient {
		if why := c.why.Load(); why != nil && why.state != "" {
			if chunk, err = c.exchange.down.remainder(chunk); err != nil || len(chunk) == 0 {
				return errStopped
			}
		}
		if err = c.exchange.fromServer(chunk); err != nil {
			c.end(&ending{reason: reasonServerGone, imposed: true, err: fmt.Errorf("from the server: %w", err)})
		}
	} else {
		var terminated bool
		if terminated, err = c.exchange.fromClient(chunk); err != nil {
			c.end(&ending{reason: reasonProtocol, state: stateProtocolViolation, message: "invalid message length", imposed: true,
				err: fmt.Errorf("from the client: %w", err)})
		}
		if terminated {
			c.farewell.Store(true)
		}
	}
	if err != nil {
		return err
	}
	n, err := p.to.Write(chunk)
	p.bytes.Add(uint64(n))
	return err
}

// upEnded is called when nothing more comes from the client, or nothing more goes
// to the upstream.
func (c *session) upEnded(p *pump) {
	c.fate.upIsOver.Store(true)
	switch {
	case c.why.Load() != nil:
	case p.writeErr != nil:
		// The upstream is gone or going; its last words may still be on the way.
		_ = c.upstream.SetReadDeadline(time.Now().Add(time.Second))
	case errors.Is(p.readErr, io.EOF):
		// The client sends no more but may still read, as with a direct
		// connection. Who is really gone is noticed when the server has been
		// silent for a while.
		c.halfClosed.Store(true)
		_ = c.upstream.CloseWrite()
		_ = c.upstream.SetReadDeadline(time.Now().Add(c.server.limits.HalfClose))
	default:
		c.end(&ending{reason: reasonClientGone, imposed: true, err: p.readErr})
	}
	if c.why.Load() != nil {
		c.interrupt() // it may have come in between, and lost its deadline
	}
}

// extend decides whether a direction goes on whose read has timed out. The one to the
// client does for a notice of the gateway's own; to end a message, when the session is
// ending; and when the server has sent something since the client closed its side.
func (c *session) extend(p *pump) bool {
	switch {
	case !p.toClient:
		return false
	case c.why.Load() != nil:
		if p.stopped() {
			return false
		}
		_ = c.upstream.SetReadDeadline(p.stopBy)
		return true
	case c.woken(p):
		return true
	case c.why.Load() != nil:
		return c.extend(p)
	case !c.halfClosed.Load():
		return false
	}
	sent := p.bytes.Load()
	if sent == p.sentBefore {
		return false
	}
	p.sentBefore = sent
	_ = c.upstream.SetReadDeadline(time.Now().Add(c.server.limits.HalfClose))
	if c.why.Load() != nil {
		c.interrupt() // it may have come in between, and lost its deadline
	}
	return true
}

// downEnded is called when nothing more comes from the upstream, or nothing more
// goes to the client.
func (c *session) downEnded(p *pump) {
	switch {
	case p.writeErr != nil:
		c.end(&ending{reason: reasonClientGone, imposed: true, err: p.writeErr})
	case errors.Is(p.readErr, io.EOF):
		c.end(&ending{reason: reasonServerClosed})
	case timedOut(p.readErr) && c.halfClosed.Load():
		c.end(&ending{reason: reasonClientClosed, imposed: true})
	default:
		c.end(&ending{reason: reasonServerGone, state: stateConnectionFailure,
			message: "the connection to the cluster was lost", err: p.readErr})
	}
}
