package gateway

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"sync"
	"time"

	"github.com/daypass/daypass/internal/admission"
	"github.com/daypass/daypass/internal/pgwire"
	"github.com/daypass/daypass/internal/throttle"
)

// A cancel key that the gateway gives out identifies a session of the gateway. The process ID
// before it is the server's own: tools compare it with pg_stat_activity or pass it to
// pg_terminate_backend, and it is not a secret. The key has 4 random bytes for protocol 3.0,
// which has room for no more, and 32 for 3.2.
const (
	shortCancelKey = 4
	longCancelKey  = 32
	maxCancelKey   = 256 // of the protocol
)

const (
	// cancelPatience is how long a cancel request waits for a free place.
	cancelPatience = 1500 * time.Millisecond
	// cancelTimeout is how long the server may take for a cancel request.
	cancelTimeout = 5 * time.Second
	// cancelLine is the approximate length of the log line for a cancel request.
	cancelLine = 150
	// maxCancelsWaiting is how many cancel requests for one session wait together for the one that
	// is sent for all of them.
	maxCancelsWaiting = 16
)

// cancelKey holds everything needed to cancel a session's query.
type cancelKey struct {
	pid    uint32
	ours   []byte // the client has this one; nil: the server gave none
	theirs []byte // the server's
	target *target
}

// cancelTurns makes the cancel requests for one session go to the server one after the other.
// Those that arrive while one is being sent wait for their turn together, and one request is then
// sent for all of them: anyone who has a session can send cancel requests for it without end, and
// each costs the server a connection and a process. The zero value is ready. Safe for concurrent
// use.
type cancelTurns struct {
	sending sync.Mutex // held while a request is sent

	mu   sync.Mutex
	next *cancelTurn // the one that has not begun, or nil. Guarded by mu.
}

type cancelTurn struct {
	done    chan struct{} // closed once the request was sent
	waiting int           // guarded by cancelTurns.mu
}

// take calls send, or waits for another call that has not begun to send yet and sends for both. If
// very many wait already, it does not. It reports whether it has called send.
func (c *cancelTurns) take(send func()) bool {
	c.mu.Lock()
	if turn := c.next; turn != nil {
		turn.waiting++
		many := turn.waiting >= maxCancelsWaiting
		c.mu.Unlock()
		if !many {
			<-turn.done
		}
		return false
	}
	turn := &cancelTurn{done: make(chan struct{})}
	c.next = turn
	c.mu.Unlock()

	c.sending.Lock()
	defer c.sending.Unlock()
	c.mu.Lock()
	c.next = nil // a request that arrives from now on may be for a later query
	c.mu.Unlock()
	defer close(turn.done)
	send()
	return true
}

// cancel carries out a CancelRequest, which is a process ID and a key. The client gets no answer
// and waits for the end of the connection. A CancelRequest may come without TLS, as libpq has
// always sent it. cancel reports whether it found the session.
func (s *Server) cancel(request []byte, from netip.AddrPort, v *admission.Visitor) bool {
	if !plausibleCancel(request) {
		return false
	}
	if e := s.sessions.find(binary.BigEndian.Uint32(request), request[4:]); e != nil {
		s.waiting.Leave(v) // this is no stranger, and may wait for a server that hangs
		s.cancelHere(e, from)
		return true
	}
	if s.elsewhere != nil && s.elsewhere(request) {
		s.cancels.passed.Add(1)
		s.log.Info("cancel request passed on to another server", "client", from)
		return true
	}
	return s.unknownCancel(from)
}

// plausibleCancel reports whether a request has a process ID and a key of a length that the protocol
// allows.
func plausibleCancel(request []byte) bool {
	return len(request) >= 4+shortCancelKey && len(request) <= 4+maxCancelKey
}

// unknownCancel logs a cancel request that matches no session.
func (s *Server) unknownCancel(from netip.AddrPort) bool {
	s.cancels.unknown.Add(1)
	if write, omitted := s.record.strangers.Next(throttle.Stranger{Address: admission.Network(from.Addr())}, cancelLine, s.now()); write {
		s.log.Info("cancel request names no session", "client", from, "omitted", omitted)
	}
	return false
}

// CancelFromPeer carries out a cancel request that another server passed on, and reports whether
// this server has the session.
func (s *Server) CancelFromPeer(request []byte) bool {
	if !plausibleCancel(request) {
		return false
	}
	e := s.sessions.find(binary.BigEndian.Uint32(request), request[4:])
	if e != nil {
		s.cancelHere(e, netip.AddrPort{})
	}
	return e != nil
}

// fillCancelKey makes a random key that other servers recognize as this server's.
func (s *Server) fillCancelKey(key []byte) {
	rand.Read(key)
	for s.mark != nil && !s.mark(key) {
		rand.Read(key[:shortCancelKey])
	}
}

// cancelHere cancels the query of a session of this server. from is the client's address; it is
// not valid if another server passed the request on.
func (s *Server) cancelHere(e *entry, from netip.AddrPort) {
	sent := e.cancels.take(func() {
		start := time.Now()
		err := s.sendCancel(&e.cancel)
		s.cancels.count(err)
		if write, omitted := s.record.cancels.Next(throttle.Stranger{Address: admission.Network(from.Addr()), Name: e.info.ID}, cancelLine, s.now()); write {
			s.log.Info("cancel", "session", e.info.ID, "client", from, "took", time.Since(start).Round(time.Microsecond), "omitted", omitted, "err", err)
		}
	})
	if !sent {
		s.cancels.joined.Add(1)
	}
}

// cancelQuery cancels the query of a session that has to end. Cancels that hang at one server
// must not hold up others for long.
func (s *Server) cancelQuery(e *entry) {
	const failed = "the query of a session that has to end was not cancelled"
	select {
	case s.cancelling <- struct{}{}:
		defer func() { <-s.cancelling }()
		if err := s.sendCancel(&e.cancel); err != nil {
			s.log.Warn(failed, "session", e.info.ID, "err", err)
		}
	case <-time.After(cancelPatience):
		s.log.Warn(failed, "session", e.info.ID, "err", "too many others are being cancelled")
	}
}

// sendCancel sends the server a cancel request for the session. As with libpq there is no
// answer; the server closes the connection once it has acted.
func (s *Server) sendCancel(key *cancelKey) error {
	if key.theirs == nil {
		return errors.New("the server gave no cancel key")
	}
	ctx, cancel := context.WithTimeout(context.Background(), cancelTimeout)
	defer cancel()
	conn, err := s.reach(ctx, key.target)
	if err != nil {
		return err
	}
	defer conn.Abort()
	if _, err := conn.Write(pgwire.AppendPacket(nil, pgwire.CancelRequest, append(pgwire.AppendUint32(nil, key.pid), key.theirs...))); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(conn, 1<<10))
	return err
}
