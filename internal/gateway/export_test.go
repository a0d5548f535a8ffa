package gateway

import (
	"crypto/tls"
	"time"

	"github.com/daypass/daypass/internal/pgwire"
	"github.com/daypass/daypass/internal/throttle"
)

// SetStrangerLines limits the log lines and records about strangers.
func (s *Server) SetStrangerLines(l throttle.Limit) { s.record.strangers = throttle.NewLines(l, l) }

// HalfOpen returns the number of connections that are not logged on yet.
func (s *Server) HalfOpen() int { return s.waiting.Stats().Open }

// SCRAMFirst returns the client's first message.
func SCRAMFirst(offered []string, state *tls.ConnectionState, binding string, verified bool) (string, error) {
	c, err := pgwire.NewSCRAM(offered, "password", state, binding, verified)
	if err != nil {
		return "", err
	}
	return c.First(), nil
}

// Settled reports whether the table counts no session, including sessions that are being parked.
func (s *Server) Settled() bool {
	s.sessions.mu.Lock()
	defer s.sessions.mu.Unlock()
	return s.sessions.total == 0
}

// ResetRefused returns why the gateway does not reset a session on a server of that version, or nil
// if it does.
func ResetRefused(version string) error {
	return (&upstream{status: map[string]string{"server_version": version}}).mayReset()
}

// WaitForResets sets how long a logon waits for a session that is being reset.
func (s *Server) WaitForResets(patience time.Duration) { s.parked.patience = patience }

// AwaitedResets returns how many logons wait for a session that is being reset.
func (s *Server) AwaitedResets() (n int) {
	s.parked.mu.Lock()
	defer s.parked.mu.Unlock()
	for _, p := range s.parked.arriving {
		if p.claim != nil {
			n++
		}
	}
	return n
}

// CheckParked checks the parked sessions now, as the gateway does periodically.
func (s *Server) CheckParked() {
	s.checkParked()
	s.sweep(s.now())
}

// StartsSpares reports whether a session is being started ahead.
func (s *Server) StartsSpares() bool {
	s.spares.mu.Lock()
	defer s.spares.mu.Unlock()
	for _, c := range s.spares.clusters {
		if c.busy {
			return true
		}
	}
	return false
}

// NewCancelTurns returns a function that calls send, or waits for a call for another request; see
// cancelTurns.take.
func NewCancelTurns() (take func(send func()) bool) { return new(cancelTurns).take }
