package session

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
)

// The relay copies bytes, one goroutine for each direction.
//
// On Linux a direction stays in one call of RawConn.Read: its callback reads what is
// there, writes it to the other connection and returns to wait, without a second
// system call to find out that there is nothing more. Reads and writes are raw system
// calls on non-blocking sockets, of which Go's scheduler is not notified. A buffer is
// taken from a pool when there is something to read and given back before waiting: an
// idle session holds none. Under TLS the callback reads the records, and crypto/tls
// decrypts them from memory (see transport).
//
// The descriptors are safe to use because nothing closes them before both directions
// have ended. A direction that waits is woken by the deadline of its read, which
// armLocked sets and nothing else does; it then asks the session what to do.

// bufferSize holds four of PostgreSQL's 8 KiB writes, or two TLS records.
const bufferSize = 32 << 10

type buffer [bufferSize]byte

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// direction is one direction of a session. Its goroutine owns the fields.
type direction struct {
	session  *Session
	from, to *Conn
	toClient bool
	ahead    []byte // what was read during the logon
	drained  bool   // crypto/tls holds nothing that it could decrypt
	stall    stall  // watches the writes

	readErr, writeErr error
}

// startLocked starts both directions.
func (s *Session) startLocked() {
	for _, d := range []*direction{&s.up, &s.down} {
		d.to.prepare()
		d.to.stall = &d.stall
	}
	s.armLocked()
	go s.up.run()
	go s.down.run()
}

// armLocked sets the deadlines that wake the directions and bound their writes. Call it after
// every change that affects them.
func (s *Session) armLocked() {
	up, down := s.wakeTimesLocked()
	if s.phase >= stopping {
		_ = s.config.Client.SetWriteDeadline(s.writeBy)
		_ = s.config.Upstream.SetWriteDeadline(s.writeBy)
	}
	_ = s.config.Client.SetReadDeadline(up)
	_ = s.config.Upstream.SetReadDeadline(down)
}

// run copies until a connection closes or breaks, or the session ends.
func (d *direction) run() {
	ahead := d.ahead
	d.ahead = nil
	done := false
	if len(ahead) > 0 {
		done = d.forward(ahead) == stop
	}
	for !done {
		d.copy()
		if d.writeErr != nil || !timedOut(d.readErr) {
			break
		}
		if d.session.renew(d) {
			go d.run()
			return
		}
		if !d.toClient {
			break
		}
		notice, goesOn := d.session.woken()
		if notice != nil {
			_, d.writeErr = d.to.Write(notice)
		}
		done = !goesOn || d.writeErr != nil
	}
	if d.toClient {
		d.session.serverDone(d.readErr, d.writeErr)
	} else {
		d.session.clientDone(d.readErr, d.writeErr)
	}
}

// timedOut reports whether an error means that a deadline passed.
func timedOut(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}

// forward passes a chunk on, and returns what to do next: goOn, wait or stop.
func (d *direction) forward(chunk []byte) step {
	out, next, err := d.session.admit(d, chunk)
	switch {
	case errors.Is(err, errStopped):
		d.readErr = err
		return stop
	case err != nil:
		d.writeErr = err
		return stop
	}
	if n, err := d.to.Write(out); err != nil {
		d.session.unsent(d, len(out)-n)
		d.writeErr = err
		return stop
	}
	if next == answerToCancel {
		next = goOn
		if d.session.endCancelled() {
			next = stop
		}
	}
	if next == stop {
		d.readErr = errStopped
	}
	return next
}

// copy runs until something fails; readErr is io.EOF when from was closed.
func (d *direction) copy() {
	d.readErr = nil
	if !d.from.relaying {
		d.copyPlainly()
		return
	}
	readable := d.readable
	if d.from.tls != nil {
		readable = d.readableTLS
	}
	if err := rawConn(d.from.transport.Conn).Read(readable); err != nil && d.readErr == nil {
		d.readErr = err
	}
}

// copyPlainly is the relay by ordinary reads and writes.
func (d *direction) copyPlainly() {
	buf := buffers.Get().(*buffer)
	defer buffers.Put(buf)
	for {
		n, err := d.from.Read(buf[:])
		if n > 0 && d.forward(buf[:n]) == stop {
			return
		}
		if err != nil {
			d.readErr = err
			return
		}
	}
}

// readable is called when there may be something to read. It returns false to
// wait for more, true when the direction has ended.
func (d *direction) readable(fd uintptr) (done bool) {
	buf := buffers.Get().(*buffer)
	defer buffers.Put(buf)
	for {
		n, err := rawRead(int(fd), buf[:])
		var next step
		switch {
		case n > 0:
			if next = d.forward(buf[:n]); next == stop {
				return true
			}
		case err == syscall.EAGAIN:
			return false
		case err != nil:
			d.readErr = err
			return true
		default:
			d.readErr = io.EOF
			return true
		}
		// A short read has emptied the socket. But if the end of the stream arrived with the
		// last bytes, the kernel announced both together and will not announce the end again. So
		// read once more, unless that is not worth it.
		if n < len(buf) && next == wait {
			return false
		}
	}
}

// readableTLS is readable for a connection with TLS.
func (d *direction) readableTLS(fd uintptr) (done bool) {
	records := buffers.Get().(*buffer)
	defer buffers.Put(records)
	// Bytes that crypto/tls read during the handshake, or held back before an interruption, come
	// first.
	if !d.drained && d.decrypt() == stop {
		return true
	}
	for {
		n, err := rawRead(int(fd), records[:])
		switch {
		case n > 0:
			d.from.ahead = records[:n]
		case err == syscall.EAGAIN:
			return false
		case err != nil:
			d.from.failure = err
		default:
			d.from.failure = io.EOF
		}
		next := d.decrypt()
		if next == stop {
			return true
		}
		if n < len(records) && next == wait {
			return false
		}
	}
}

// decrypt forwards everything that can be decrypted so far. It returns stop when the direction
// has ended; otherwise crypto/tls has used up all the input and waits for more.
func (d *direction) decrypt() step {
	plain := buffers.Get().(*buffer)
	defer buffers.Put(plain)
	d.drained = false
	next := goOn
	for {
		var n int
		var err error
		for n < len(plain) && err == nil {
			var m int
			m, err = d.from.tls.Read(plain[n:])
			n += m
		}
		if n > 0 {
			if next = d.forward(plain[:n]); next == stop {
				return stop
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, errDrained):
			d.drained = true
			return next
		default:
			d.readErr = err
			return stop
		}
	}
}
