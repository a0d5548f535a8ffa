package session

import (
	"fmt"
	"time"

	"github.com/daypass/daypass/internal/pgwire"
)

// Limits bound how long a session lasts. The zero value limits nothing.
type Limits struct {
	// Idle ends a session that has waited for its client for this long. 0: never.
	Idle time.Duration
	// Total ends a session this long after its logon. 0: never.
	Total time.Duration
	// AtExpiry ends a session when its credential expires.
	AtExpiry bool
	// Notice is how long ahead of Total and AtExpiry the client gets a NOTICE, if
	// the session is idle at some time in between. 0: none.
	Notice time.Duration
}

// quiet is what Apply remembers to find out how long a session has been idle.
type quiet struct {
	fromClient uint64    // bytes that the client had sent at the last look
	since      time.Time // when the session became idle; data sent to an idle client, such as notifications, does not count
}

// Apply ends the session if a limit has passed, and sends the client a NOTICE when one is near.
// Call it regularly: limits are only as exact as the calls are frequent. started is when the
// session began, and expires when its credential expires.
func (s *Session) Apply(limits Limits, started, expires, now time.Time) {
	s.mu.Lock()
	status := s.exchange.Status()
	if s.fromClient != s.quiet.fromClient || status == pgwire.Busy || s.quiet.since.IsZero() {
		s.quiet = quiet{s.fromClient, now}
	}
	idle := now.Sub(s.quiet.since)
	mayNotice := s.phase == relaying && status != pgwire.Busy && !s.noticed
	s.mu.Unlock()

	if limits.Idle > 0 && status != pgwire.Busy && idle >= limits.Idle {
		cause := Cause{Reason: ReasonIdleLimit, SQLState: pgwire.StateIdleSession, Imposed: true, Message: "terminating connection due to idle-session timeout"}
		if status != pgwire.StatusIdle {
			cause.SQLState, cause.Message = pgwire.StateIdleInTransaction, "terminating connection due to idle-in-transaction timeout"
		}
		s.End(cause)
		return
	}
	var at time.Time
	var cause Cause
	var when string
	if limits.AtExpiry {
		at, when = expires, "when its credential expires"
		cause = Cause{Reason: ReasonExpired, SQLState: pgwire.StateAdminShutdown, Imposed: true,
			Message: "terminating connection: the credential has expired"}
	}
	if total := started.Add(limits.Total); limits.Total > 0 && (!limits.AtExpiry || total.Before(at)) {
		at, when = total, fmt.Sprintf("at the limit of %v for sessions of this cluster", limits.Total)
		cause = Cause{Reason: ReasonTotalLimit, SQLState: pgwire.StateAdminShutdown, Imposed: true,
			Message: fmt.Sprintf("terminating connection: the session has reached its limit of %v", limits.Total)}
	}
	switch left := at.Sub(now); {
	case at.IsZero():
	case left <= 0:
		s.CancelAndEnd(cause)
	case left <= limits.Notice && mayNotice:
		s.sendNotice(fmt.Sprintf("this session ends in %v, %s", left.Round(time.Second), when))
	}
}

// sendNotice has the relay send a NOTICE to the client. Only the direction from the server
// writes to the client, so that direction is woken.
func (s *Session) sendNotice(message string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase == relaying {
		s.notice = pgwire.AppendNotice(nil, pgwire.ErrorFields{Severity: pgwire.Notice, SQLState: pgwire.StateSuccess, Message: message})
		s.armLocked()
	}
}
