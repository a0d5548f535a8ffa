package session

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/daypass/daypass/internal/pgwire"
)

// A direction that is blocked in a write reads nothing, so it does not see that its own peer has
// left. If a client sends a lot to a server that waits for a lock, even the client's FIN does not
// reach the gateway: it follows bytes for which there is no room. So a stall watches writes that
// block. A write that makes no progress for Config.Stall has stalled:
//
//	to the server   The client is sent a message that means nothing, one byte at a time. If the
//	                client has closed its connection, its system answers with a reset, and the
//	                next byte cannot be written. A client that is there gets the rest of the
//	                message when the stall ends, and it is not cut: TCP_USER_TIMEOUT, which
//	                also ends connections to a peer that is well and takes nothing, is off.
//	to the client   The session ends if the server's connection is closed or broken, the client
//	                has not sent Terminate, and it takes nothing for six times as long.
//
// A write that does not block costs nothing; one that blocks starts and stops a timer.
type stall struct {
	session  *Session
	from, to *Conn
	toClient bool
	blocked  atomic.Bool // a write waits for its peer
	ticked   atomic.Bool // the timer has fired since the write began

	// Session.mu guards what follows.
	timer  *time.Timer
	queued int // bytes that the peer had not taken at the last tick
	still  int // ticks since the peer last took some; 0: there was none
	// lenient is set while TCP_USER_TIMEOUT of to is off; timeout is its value otherwise.
	lenient bool
	timeout int
}

const (
	// stallTime is the default of Config.Stall.
	stallTime = 5 * time.Second
	// stallTicks is how many ticks without progress make a stall.
	stallTicks = 5
	// pauseTicks is how many of them a client may pause if its server is gone: what the server
	// has sent before is the client's.
	pauseTicks = 6 * stallTicks
	// vanished is how long a server's system may leave TCP unanswered in a stall. TCP asks it every
	// two minutes at least.
	vanished = 5 * time.Minute
)

var (
	errHungUp   = errors.New("connection is closed, and the other end takes no bytes")
	errVanished = fmt.Errorf("the server's system has not answered for %v", vanished)
)

// begin is called before a write waits.
func (w *stall) begin() {
	w.blocked.Store(true)
	if w.timer != nil {
		w.timer.Reset(w.session.config.Stall / stallTicks)
		return
	}
	w.session.mu.Lock()
	defer w.session.mu.Unlock()
	w.timer = time.AfterFunc(w.session.config.Stall/stallTicks, w.tick)
}

// end is called when the write no longer waits. It waits for a tick that is running, so ticks only
// use descriptors that are open.
func (w *stall) end() {
	w.blocked.Store(false)
	if w.timer.Stop() && !w.ticked.Load() {
		return
	}
	s := w.session
	s.mu.Lock()
	defer s.mu.Unlock()
	w.ticked.Store(false)
	w.still = 0
	w.endedLocked()
}

// endedLocked ends a stall, if there was one.
func (w *stall) endedLocked() {
	if w.lenient {
		w.to.setUserTimeout(w.timeout)
		w.lenient = false
	}
	if s := w.session; !w.toClient && s.stalled {
		s.stalled = false
		s.armLocked() // the client gets the rest of the message
	}
}

func (w *stall) tick() {
	s := w.session
	s.mu.Lock()
	defer s.mu.Unlock()
	w.ticked.Store(true) // before the look at blocked: see end
	if !w.blocked.Load() || s.phase >= stopping {
		return
	}
	w.timer.Reset(s.config.Stall / stallTicks)
	if queued := w.to.queued(); w.still == 0 || queued != w.queued {
		w.queued, w.still = queued, 1
		w.endedLocked()
		return
	}
	w.still++
	switch {
	case !w.toClient && w.still > stallTicks:
		if _, broken := w.from.hungUp(); broken {
			s.endLocked(&Cause{Reason: ReasonClientGone, Imposed: true, Err: errHungUp})
			return
		}
		if w.lenient && w.to.unanswered() > vanished {
			s.endLocked(&Cause{Reason: ReasonServerGone, SQLState: pgwire.StateConnectionFailure,
				Message: "the connection to the cluster was lost", Imposed: true, Err: errVanished})
			return
		}
		if !w.lenient {
			w.timeout, w.lenient = w.to.userTimeout()
			if w.lenient {
				w.to.setUserTimeout(0)
			}
		}
		s.probeLocked()
	case w.toClient && w.still > pauseTicks && !s.leaving:
		if closed, broken := w.from.hungUp(); closed || broken {
			s.endLocked(&Cause{Reason: ReasonServerGone, Imposed: true, Err: errHungUp})
		}
	}
}

// probeLocked has one more byte sent to the client. Messages of the gateway's own fit only between
// those of the server.
func (s *Session) probeLocked() {
	if s.probe == nil {
		if !s.exchange.ServerBoundary() {
			return
		}
		s.probe = probeMessage(s.exchange.Copying())
	}
	s.stalled, s.probeDue = true, true
	s.armLocked()
}

// probeMessage returns a message that a client ignores. Every client expects ParameterStatus at any
// time, but for some, such as lib/pq, in the middle of a COPY FROM STDIN: they expect a notice there.
func probeMessage(copying bool) []byte {
	if copying {
		return pgwire.AppendNotice(nil, pgwire.ErrorFields{Severity: pgwire.Notice, SQLState: pgwire.StateSuccess,
			Message: "the cluster has not taken the data of this COPY for a while: check what it waits for, for instance a lock"})
	}
	return pgwire.AppendMessage(nil, pgwire.MsgParameterStatus, []byte("daypass.waiting_for_cluster\x00on\x00"))
}

// probingLocked reports whether bytes of a probe are due.
func (s *Session) probingLocked() bool { return s.probe != nil && (s.probeDue || !s.stalled) }

// takeProbeLocked returns the bytes of a probe that are due: one in a stall, else all that are left.
func (s *Session) takeProbeLocked() []byte {
	b := s.probe
	if s.stalled {
		b = b[:1]
	}
	if s.probe = s.probe[len(b):]; len(s.probe) == 0 {
		s.probe = nil
	}
	s.probeDue = false
	return b
}
