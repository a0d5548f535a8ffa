package gateway

import (
	"errors"
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
// Messages are not read. What the relay notes in passing is the last six bytes
// of what the server sent, to know a ReadyForQuery when it sees one: a session
// is then idle, and a message of the gateway's own may follow.

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

	// Only toClient; read by others once both directions have ended.
	tail     [6]byte // the last bytes that went by
	ready    bool    // they were a ReadyForQuery
	boundary bool    // they ended a message

	sentBefore uint64 // bytes at the last look, once the client has closed its side

	readErr, writeErr error
	_                 [64]byte // the two directions share no cache line
}

// errStopped ends a direction of a session that is ending.
var errStopped = errors.New("session is ending")

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
		if p.session.why.Load() != nil {
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
		if p.session.why.Load() != nil {
			p.readErr = errStopped
			return true
		}
		if n < len(buf) && p.quiet() {
			return false
		}
	}
}

// quiet says that it is not worth looking for more before waiting. A short read
// has emptied the socket; but an end of the stream that came with the last bytes
// was announced together with them, and will not be announced again. So a second
// look is taken, except where nobody hangs up: a server that has just sent
// ReadyForQuery does not, unless the client has taken its leave; if it died at
// this very moment the next query finds out.
func (p *pump) quiet() bool {
	return p.ready && !p.session.farewell.Load() && !p.session.halfClosed.Load()
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
		if p.session.why.Load() != nil {
			p.readErr = errStopped
			return true
		}
	}
}

// forward passes a chunk on, and notes what can be known in passing.
func (p *pump) forward(chunk []byte) error {
	c := p.session
	if p.toClient {
		// Before the bytes go out: a client that answers them at once is busy
		// again.
		p.note(chunk)
	} else {
		switch {
		case c.state.Load() != stateBusy:
			c.state.Store(stateBusy)
			if pipelined(chunk) {
				c.overlapped.Store(true)
			}
		case !c.overlapped.Load():
			c.overlapped.Store(true)
		}
		if n := len(chunk); n >= 5 && string(chunk[n-5:]) == terminate {
			c.farewell.Store(true)
		}
	}
	n, err := p.to.Write(chunk)
	p.bytes.Add(uint64(n))
	return err
}

const (
	terminate     = "X\x00\x00\x00\x04"
	readyForQuery = "Z\x00\x00\x00\x05" // and the transaction status
)

// note keeps the last bytes from the server, and with them whether a session is
// idle. That the bytes of a ReadyForQuery might be data that happens to end there
// costs the one who arranged it a misplaced message at a shutdown.
func (p *pump) note(chunk []byte) {
	c := p.session
	if n := len(chunk); n >= len(p.tail) {
		copy(p.tail[:], chunk[n-len(p.tail):])
	} else {
		copy(p.tail[:], p.tail[n:])
		copy(p.tail[len(p.tail)-n:], chunk)
	}
	p.ready = string(p.tail[:5]) == readyForQuery
	if p.ready {
		p.boundary = true
		c.state.Store(uint32(p.tail[5]))
		return
	}
	// Notices and notifications reach an idle client too; they come whole.
	p.boundary = p.boundary && c.state.Load() != stateBusy && wholeMessages(chunk)
}

// wholeMessages says whether b, which begins a message, also ends one.
func wholeMessages(b []byte) bool {
	for whole := true; whole && len(b) > 0; {
		if b, whole = afterMessage(b); !whole {
			return false
		}
	}
	return true
}

// pipelined says whether b, which begins a message of the client's, asks for more
// than one ReadyForQuery. The first one says then that the session is idle, and it
// is not. What is sent in several pieces is noticed by its second piece.
func pipelined(b []byte) bool {
	asked := 0
	for whole := true; whole && len(b) > 0; b, whole = afterMessage(b) {
		switch b[0] {
		case 'Q', 'S', 'F': // Query, Sync, FunctionCall
			if asked++; asked > 1 {
				return true
			}
		}
	}
	return false
}

// afterMessage takes the first message off b. It is not whole when there is less
// of it, or when its length is none.
func afterMessage(b []byte) (rest []byte, whole bool) {
	if len(b) < 5 {
		return nil, false
	}
	size := 1 + int64(b[1])<<24 + int64(b[2])<<16 + int64(b[3])<<8 + int64(b[4])
	if size < 5 || size > int64(len(b)) {
		return nil, false
	}
	return b[size:], true
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
		c.end(&ending{reason: reasonClientGone, cancel: true, err: p.readErr})
	}
	if c.why.Load() != nil {
		c.interrupt() // it may have come in between, and lost its deadline
	}
}

// extend decides about a server that has been silent since the client closed its
// side: as long as something comes, the client gets it.
func (c *session) extend(p *pump) bool {
	if p.toClient && c.woken(p) {
		return true
	}
	if !p.toClient || c.why.Load() != nil || !c.halfClosed.Load() {
		return false
	}
	sent := p.bytes.Load()
	if sent == p.sentBefore {
		return false
	}
	p.sentBefore = sent
	_ = c.upstream.SetReadDeadline(time.Now().Add(c.server.limits.HalfClose))
	return c.why.Load() == nil
}

// downEnded is called when nothing more comes from the upstream, or nothing more
// goes to the client.
func (c *session) downEnded(p *pump) {
	switch {
	case p.writeErr != nil:
		c.end(&ending{reason: reasonClientGone, cancel: true, err: p.writeErr})
	case errors.Is(p.readErr, io.EOF):
		c.end(&ending{reason: reasonServerClosed})
	case timedOut(p.readErr) && c.halfClosed.Load():
		c.end(&ending{reason: reasonClientClosed, cancel: true})
	default:
		c.end(&ending{reason: reasonServerGone, state: stateConnectionFailure,
			message: "the connection to the cluster was lost", err: p.readErr})
	}
}
