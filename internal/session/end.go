package session

import (
	"errors"
	"io"
	"time"

	"github.com/daypass/daypass/internal/pgwire"
)

// Cause is why a session ends.
type Cause struct {
	Reason   string // for the record
	SQLState string // of a last message to the client; empty: there is none
	Message  string
	// Imposed means that the session was ended neither by the server nor by the client's
	// Terminate, so the backend has to be ended.
	Imposed bool
	Err     error // for the log; nil: none
}

// Reasons of ends that the session itself detects.
const (
	ReasonClientClosed = "client closed"
	ReasonClientGone   = "client gone"
	ReasonServerClosed = "server closed"
	ReasonServerGone   = "server gone"
	ReasonProtocol     = "protocol violation"
	ReasonIdleLimit    = "idle limit"
	ReasonTotalLimit   = "session limit"
	ReasonExpired      = "credential expired"
)

// errStopped ends a direction of a session that is stopping.
var errStopped = errors.New("session is ending")

// End ends the session without waiting for it, and reports whether cause is the one that counts.
func (s *Session) End(cause Cause) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.endLocked(&cause)
}

func (s *Session) endLocked(cause *Cause) bool {
	if s.phase >= stopping {
		return false
	}
	s.phase, s.cause, s.writeBy = stopping, cause, time.Now().Add(writeTime)
	s.armLocked()
	return true
}

// CancelAndEnd ends the session without waiting for it. A running query is cancelled first, so
// that the client can be told the cause after the server's answer.
func (s *Session) CancelAndEnd(cause Cause) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.phase >= stopping || s.exchange.Status() != pgwire.Busy:
		s.endLocked(&cause)
	case s.cancelled == nil:
		s.cancelled = &cause
		go s.config.CancelQuery()
		time.AfterFunc(cancelTime, func() { s.End(cause) })
	}
}

// endCancelled ends the session for the cause that led to the cancel request. It reports whether
// the direction to the client has to stop at once.
func (s *Session) endCancelled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLocked(s.cancelled)
	return s.stoppedLocked()
}

// stoppedLocked reports whether the direction to the client has to stop because the session is
// ending. It goes on to the end of a message that has been sent in part.
func (s *Session) stoppedLocked() bool {
	switch {
	case s.cause.SQLState == "" || s.exchange.ServerBoundary():
		return true
	case s.stopBy.IsZero():
		s.stopBy = time.Now().Add(stopTime)
	}
	return time.Now().After(s.stopBy)
}

// clientDone is called when nothing more comes from the client, or nothing more can be sent to
// the server.
func (s *Session) clientDone(readErr, writeErr error) {
	s.mu.Lock()
	halfClose := false
	switch {
	case s.phase >= stopping:
	case writeErr != nil:
		s.phase = lastWords
		s.listenLocked(lastWordsTime)
		s.armLocked()
	case errors.Is(readErr, io.EOF):
		// The client may still read, as on a direct connection. If it is gone, that is noticed
		// once the server has been silent for a while.
		s.phase, s.closed, halfClose = halfClosed, true, true
		s.listenLocked(s.patienceLocked())
		s.armLocked()
	default:
		s.endLocked(&Cause{Reason: ReasonClientGone, Imposed: true, Err: readErr})
	}
	s.mu.Unlock()
	if halfClose {
		_ = s.config.Upstream.CloseWrite()
	}
	s.directionDone()
}

// patienceLocked returns how long the server may be silent after the client has closed its sending
// side. What a client has sent before it took its leave runs as long as on a direct connection with
// the client_connection_check_interval that the gateway sets.
func (s *Session) patienceLocked() time.Duration {
	if s.leaving {
		return max(s.config.HalfClose, s.config.Stall)
	}
	return s.config.HalfClose
}

// serverDone is called when nothing more comes from the server, or nothing more can be sent to
// the client.
func (s *Session) serverDone(readErr, writeErr error) {
	s.mu.Lock()
	s.kept = s.kept && timedOut(readErr) && writeErr == nil
	switch {
	case s.phase >= stopping:
	case writeErr != nil:
		s.endLocked(&Cause{Reason: ReasonClientGone, Imposed: true, Err: writeErr})
	case s.config.Lost != "" && !s.leaving && !s.closed && !timedOut(readErr) && s.exchange.LastFromServer() != pgwire.MsgErrorResponse:
		s.endLocked(&Cause{Reason: ReasonServerGone, SQLState: pgwire.StateAdminShutdown, Message: s.config.Lost, Err: readErr})
	case errors.Is(readErr, io.EOF):
		s.endLocked(&Cause{Reason: ReasonServerClosed})
	case timedOut(readErr) && s.phase == halfClosed:
		s.endLocked(&Cause{Reason: ReasonClientClosed, Imposed: true})
	default:
		s.endLocked(&Cause{Reason: ReasonServerGone, SQLState: pgwire.StateConnectionFailure,
			Message: "the connection to the cluster was lost", Err: readErr})
	}
	s.mu.Unlock()
	s.directionDone()
}

func (s *Session) directionDone() {
	s.mu.Lock()
	s.directions--
	last := s.directions == 0
	s.mu.Unlock()
	if last {
		s.finish()
	}
}

// finish closes both connections. Nothing else uses them any more.
func (s *Session) finish() {
	s.mu.Lock()
	cause := *s.cause
	if cause.Reason == ReasonServerClosed && (s.leaving || s.closed) {
		cause = Cause{Reason: ReasonClientClosed}
	}
	if s.cancelled != nil {
		imposed := *s.cancelled
		if cause.SQLState != "" {
			imposed = cause
		}
		cause, cause.Imposed = imposed, true
	}
	boundary := s.exchange.ServerBoundary()
	left := remains{imposed: cause.Imposed, busy: s.exchange.Status() == pgwire.Busy, complete: s.exchange.ClientBoundary()}
	s.kept = s.kept && cause.Reason == ReasonClientClosed && !cause.Imposed
	kept, probe := s.kept, s.probe
	s.mu.Unlock()

	client := s.config.Client
	_ = client.SetWriteDeadline(time.Now().Add(writeTime))
	// A message of ours fits only where a message of the server's has ended.
	if cause.SQLState != "" && boundary && s.down.writeErr == nil {
		_, _ = client.Write(pgwire.AppendError(probe, pgwire.ErrorFields{Severity: pgwire.Fatal, SQLState: cause.SQLState, Message: cause.Message}))
	} else {
		cause.SQLState = ""
	}
	_ = client.CloseWrite()
	client.Abort()
	if kept {
		s.config.Upstream.restore()
	} else {
		s.release(left)
	}

	s.mu.Lock()
	s.phase = over
	s.mu.Unlock()
	s.config.Ended(cause)
}
