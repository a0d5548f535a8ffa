package gateway

import (
	"errors"
	"io"
	"syscall"
	"time"

	"github.com/daypass/daypass/internal/dbuser"
)

// How the upstream side of a session ends:
//
//	gateway → server   CancelRequest, on a connection of its own, if a query runs
//	gateway → server   Terminate, if the client's last message was complete; end of the stream
//	server → gateway   what it still had to say, thrown away; end of the stream
//
// A backend closes its connection by exiting and not before, so the end of the
// stream shows that it is gone. One that was idle goes at once. Where nothing is
// heard, because the session was not as idle as it looked, a cancel follows. What
// still runs then, as a statement does that catches its cancellation, is terminated by
// the administrative login: SessionEnded is told of every backend, and looks.

const (
	// idlePatience is how long a backend may take that has nothing to do.
	idlePatience = 300 * time.Millisecond
	// cancelPatience is how long one may take whose query was cancelled.
	cancelPatience = 1500 * time.Millisecond
)

// release ends the session at the server, for an end that the gateway imposes by
// every means that the session itself has.
func (c *session) release(imposed bool) {
	conn := c.upstream.socket.Conn
	defer conn.Close()
	if errors.Is(c.down.readErr, io.EOF) {
		return // the server was first
	}
	busy := c.busy()
	if imposed && busy {
		go c.cancelQuery()
	}
	_ = c.upstream.SetWriteDeadline(time.Now().Add(time.Second))
	if c.exchange.up.boundary() && c.up.writeErr == nil {
		_, _ = c.upstream.Write([]byte(terminate))
	}
	_ = c.upstream.CloseWrite()
	if !imposed {
		return
	}
	if !busy {
		if c.serverCloses(idlePatience) {
			return
		}
		go c.cancelQuery()
	}
	c.serverCloses(cancelPatience)
}

const terminate = "X\x00\x00\x00\x04"

// serverCloses reads what the server sends until it closes the connection. A server
// that waits for a reader would not notice that its query was cancelled.
func (c *session) serverCloses(patience time.Duration) bool {
	conn := c.upstream.socket.Conn
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	buf := buffers.Get().(*buffer)
	defer buffers.Put(buf)
	for {
		if _, err := conn.Read(buf[:]); err != nil {
			return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)
		}
	}
}

// cancelQuery has the server cancel what the session runs. A server that does not
// even take the request must not keep others from being cancelled for long.
func (c *session) cancelQuery() {
	s := c.server
	select {
	case s.cancelling <- struct{}{}:
		defer func() { <-s.cancelling }()
		if err := s.sendCancel(c.target, c.pid, c.upstreamKey); err != nil {
			s.log.Warn("cancelling the query of a session that has to end", "session", c.id, "error", err)
		}
	case <-time.After(cancelPatience):
		s.log.Warn("cancelling the query of a session that has to end", "session", c.id, "error", "too many others are being cancelled")
	}
}

// backend names the session's server process.
func (c *session) backend() *dbuser.Backend {
	if c.pid == 0 {
		return nil // the server has not said
	}
	return &dbuser.Backend{PID: c.pid, Address: c.upstream.socket.Conn.RemoteAddr().String()}
}
