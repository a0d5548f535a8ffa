package session

import (
	"errors"
	"io"
	"syscall"
	"time"

	"github.com/daypass/daypass/internal/pgwire"
)

// How the upstream side of a session ends:
//
//	gateway → server   CancelRequest, on a connection of its own, if a query runs
//	gateway → server   Terminate, if the client's last message was complete; end of the stream
//	server → gateway   what it still had to say, thrown away; end of the stream
//
// A backend closes its connection by exiting, not earlier, so the end of the stream
// shows that it is gone. An idle one goes at once. If nothing is heard, the session was
// not as idle as it looked, and a cancel request follows. A statement that survives
// even that, by catching its cancellation, is terminated by the administrative login:
// Config.Ended is called for every session, and package dbuser looks for its backend.

const (
	// idlePatience is how long an idle backend may take to exit.
	idlePatience = 300 * time.Millisecond
	// cancelPatience is how long a backend may take to exit after its query was cancelled.
	cancelPatience = 1500 * time.Millisecond
)

// release ends the session at the server. For an imposed end it uses every means that
// the session itself has. busy: a query runs; boundary: the client's last message was
// complete.
func (s *Session) release(imposed, busy, boundary bool) {
	upstream := s.config.Upstream
	defer upstream.Abort()
	if errors.Is(s.down.readErr, io.EOF) {
		return // the server was first
	}
	if imposed && busy {
		go s.config.CancelQuery()
	}
	_ = upstream.SetWriteDeadline(time.Now().Add(writeTime))
	if boundary && s.up.writeErr == nil {
		_, _ = upstream.Write([]byte(pgwire.Terminate))
	}
	_ = upstream.CloseWrite()
	if !imposed {
		return
	}
	if !busy {
		if upstream.closes(idlePatience) {
			return
		}
		go s.config.CancelQuery()
	}
	upstream.closes(cancelPatience)
}

// closes discards what the peer sends until it closes the connection, and reports whether it did
// so in time. The reading matters: a server that waits for a reader would not notice that its
// query was cancelled.
func (c *Conn) closes(patience time.Duration) bool {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	buf := buffers.Get().(*buffer)
	defer buffers.Put(buf)
	for {
		if _, err := c.transport.Conn.Read(buf[:]); err != nil {
			return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)
		}
	}
}
