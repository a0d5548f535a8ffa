package gateway

import (
	"crypto/subtle"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/daypass/daypass/internal/admission"
	"github.com/daypass/daypass/internal/throttle"
)

// A cancel key of ours names a session of ours. The process id in front of it is
// the upstream's own, since tools compare it with pg_stat_activity or hand it to
// pg_terminate_backend; it is not a secret. The key is 4 random bytes for
// protocol 3.0, which has room for no more, and 32 for 3.2.
const (
	shortCancelKey = 4
	longCancelKey  = 32
)

// cancelLine is about how long the log line of a cancel request is that names no
// session.
const cancelLine = 150

// cancel carries out a CancelRequest: process id, then the key. There is no
// answer, whether or not it names a session; the client waits for the end of the
// connection. It may come without TLS, as libpq has always sent it.
func (s *Server) cancel(request []byte, from netip.AddrPort) bool {
	if len(request) < 4+shortCancelKey || len(request) > 4+256 {
		return false
	}
	start := time.Now()
	session := s.sessions.find(binary.BigEndian.Uint32(request), request[4:])
	if session == nil {
		s.cancels.unknown.Add(1)
		if write, omitted := s.record.strangers.Next(throttle.Stranger{Address: admission.Network(from.Addr())}, cancelLine, s.now()); write {
			s.log.Info("cancel request names no session", "client", from, "omitted", omitted)
		}
		return false
	}
	err := s.sendCancel(session.target, session.pid, session.upstreamKey)
	s.cancels.done(err)
	s.log.Info("cancel", "session", session.id, "client", from, "took", time.Since(start).Round(time.Microsecond), "error", err)
	return true
}

// find looks a session up by its cancel key. All sessions with the process id are
// compared, each in constant time.
func (r *registry) find(pid uint32, key []byte) *session {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found *session
	for _, s := range r.byPID[pid] {
		if subtle.ConstantTimeCompare(s.key(), key) == 1 {
			found = s
		}
	}
	return found
}
