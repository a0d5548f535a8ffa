package gateway

import (
	"context"
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
func (s *Server) WaitForResets(patience time.Duration) { s.pool.patience = patience }

// AwaitedResets returns how many logons wait for a session that is being reset.
func (s *Server) AwaitedResets() (n int) {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	for _, one := range s.pool.arriving {
		if one.claim != nil {
			n++
		}
	}
	return n
}

// CheckPool checks the sessions that wait now, as the gateway does periodically.
func (s *Server) CheckPool() {
	s.checkPool()
	s.sweep(s.now())
}

// StartsSpares reports whether a session is being started ahead.
func (s *Server) StartsSpares() bool {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	return len(s.pool.starting) > 0
}

// NewCancelTurns returns a function that calls send, or waits for a call for another request; see
// cancelTurns.take.
func NewCancelTurns() (take func(send func()) bool) { return new(cancelTurns).take }

// StartAtMost sets how many sessions a server may be starting at a time.
func (s *Server) StartAtMost(n int) { s.starting.max = n }

// Starting returns a bound on the sessions that a server may be starting, and what takes a place.
func Starting(most int) func(ctx context.Context, database, principal string) (give, leave func(), err error) {
	s := newStarting(most)
	return func(ctx context.Context, database, principal string) (give, leave func(), err error) {
		p, err := s.take(ctx, "server", database, principal)
		if err != nil {
			return nil, nil, err
		}
		return p.give, p.leave, nil
	}
}

// Silent remembers hosts that do not answer.
type Silent struct{ hosts silentHosts }

// Order returns the addresses as a logon to the database tries them.
func (s *Silent) Order(database string, addresses ...string) (ordered []string) {
	var list []*target
	for _, a := range addresses {
		list = append(list, &target{address: a})
	}
	for _, t := range s.hosts.order(list, database) {
		ordered = append(ordered, t.address)
	}
	return ordered
}

// Note records a logon's outcome. answered reports whether the host had answered before the error.
func (s *Silent) Note(address, database string, answered bool, err error) {
	if err != nil {
		err = &connectError{answered: answered, err: err}
	}
	s.hosts.note(&target{address: address}, database, err)
}
