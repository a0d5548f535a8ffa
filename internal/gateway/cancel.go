package gateway

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
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
	// cancelLine is the approximate length of the log line for a cancel request that matches no
	// session.
	cancelLine = 150
)

// cancelKey holds everything needed to cancel a session's query.
type cancelKey struct {
	pid    uint32
	ours   []byte // the client has this one; nil: the server gave none
	theirs []byte // the server's
	target *target
}

// cancel carries out a CancelRequest, which is a process ID and a key. The client gets no answer
// and waits for the end of the connection. A CancelRequest may come without TLS, as libpq has
// always sent it. cancel reports whether it found the session.
func (s *Server) cancel(request []byte, from netip.AddrPort) bool {
	if !plausibleCancel(request) {
		return false
	}
	if s.cancelHere(request, from) {
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
	return plausibleCancel(request) && s.cancelHere(request, netip.AddrPort{})
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
func (s *Server) cancelHere(request []byte, from netip.AddrPort) bool {
	start := time.Now()
	e := s.sessions.find(binary.BigEndian.Uint32(request), request[4:])
	if e == nil {
		return false
	}
	err := s.sendCancel(&e.cancel)
	s.cancels.count(err)
	s.log.Info("cancel", "session", e.info.ID, "client", from, "took", time.Since(start).Round(time.Microsecond), "err", err)
	return true
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
	conn, err := s.reach(key.target, time.Now().Add(cancelTimeout))
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
