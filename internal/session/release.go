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
//	server → gateway   the rest of its messages, which are discarded; end of the stream
//
// A backend closes its connection only by exiting, so the end of the stream shows that it
// is gone. An idle backend exits at once. If it does not, it was running a query after all,
// and the gateway sends a cancel request. If a statement catches even that, the administrative
// login terminates the backend: Config.Ended is called for every session, and package handover
// looks for its backend.

const (
	// idlePatience is how long an idle backend may take to exit.
	idlePatience = 300 * time.Millisecond
	// cancelPatience is how long a backend may take to exit after its query was cancelled.
	cancelPatience = 1500 * time.Millisecond
)

// remains is how a session that is over leaves its upstream.
type remains struct {
	imposed  bool // see Cause
	busy     bool // a query runs
	complete bool // the client's last message was sent to its end
}

// release ends the session at the server. For an imposed end it uses every means that
// the session itself has.
func (s *Session) release(r remains) {
	upstream := s.config.Upstream
	defer upstream.Abort()
	if errors.Is(s.down.readErr, io.EOF) {
		return // the server has already closed the connection
	}
	if r.imposed && r.busy {
		go s.config.CancelQuery()
	}
	_ = upstream.SetWriteDeadline(time.Now().Add(writeTime))
	if r.complete && s.up.writeErr == nil {
		_, _ = upstream.Write([]byte(pgwire.Terminate))
	}
	_ = upstream.CloseWrite()
	if !r.imposed {
		return
	}
	if !r.busy {
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
