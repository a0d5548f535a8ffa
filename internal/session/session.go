// Package session carries a logged-on session: it copies bytes between a client and
// its upstream, knows from the boundaries of messages what the session is doing, and
// ends it, at both connections, when either side or the gateway wants that.
//
// It does not know who is logged on or why: package gateway opens the connections,
// decides when sessions have to end, and records that they did.
package session

import (
	"fmt"
	"sync"
	"time"

	"github.com/daypass/daypass/internal/pgwire"
)

// A session is in one of these phases. The phase, and everything else about the
// session's life, is guarded by one lock; the relay asks before it passes anything on.
//
//	phase       what happens in it
//	opened      the client is being told that it is logged on; nothing is copied
//	relaying    both directions are copied
//	halfClosed  the client has closed its sending side; the server's answers are still copied
//	lastWords   a write to the server has failed; what it still sends is copied
//	stopping    the cause of the end is known; if the client has received part of a
//	            message, the rest is copied, and nothing else
//	over        both connections are closed, or the client's is and the upstream's is kept
//
//	event                               caused by        in phase               leads to
//	Start                               gateway          opened                 relaying
//	Terminate alone, idle, with Keep    client           relaying               stopping; the upstream is kept
//	the client closes its sending side  client           relaying               halfClosed
//	a read from the client fails        client, network  relaying               stopping
//	a write to the server fails         server, network  relaying               lastWords
//	the server closes                   server           relaying to lastWords  stopping
//	a read from the server fails        server, network  relaying to lastWords  stopping
//	a write to the client fails         client, network  relaying to lastWords  stopping
//	an invalid message length           either side      relaying to lastWords  stopping
//	silence of the server for           time             halfClosed             stopping
//	  Config.HalfClose
//	the server takes nothing, and the   client, network  relaying               stopping
//	  client is found to have left
//	the client takes nothing, and the   server, network  relaying to lastWords  stopping
//	  server is found to be gone
//	lastWordsTime passes                time             lastWords              stopping
//	End                                 gateway          opened to lastWords    stopping
//	CancelAndEnd, session waits         gateway          opened to lastWords    stopping
//	CancelAndEnd, server works          gateway          opened to lastWords    the query is cancelled; stopping
//	                                                                            when the server has answered,
//	                                                                            or cancelTime has passed
//	Apply, a limit has passed           time             opened to lastWords    as End or CancelAndEnd
//	Apply, a limit is near              time             relaying               a NOTICE to the client
//	Shrink, TLS, session waits          gateway          relaying               relaying, in new goroutines
//	both directions have stopped        relay            stopping               over
//
// The first cause of an end is the one that is recorded, with two exceptions. If the server
// closes after the client has sent Terminate, the cause is "client closed". If the client
// leaves after CancelAndEnd was called, the cause is still the one of CancelAndEnd.
type phase uint8

const (
	opened phase = iota
	relaying
	halfClosed
	lastWords
	stopping
	over
)

const (
	// writeTime is how long a write may take once the session is stopping.
	writeTime = time.Second
	// stopTime is how long the server may take to complete the message that it is
	// sending, so that the client can be told why the session ends.
	stopTime = time.Second
	// lastWordsTime is how long the session listens to a server that no longer accepts anything.
	lastWordsTime = time.Second
	// cancelTime is how long the server may take to answer after the gateway has cancelled
	// its query in order to end the session.
	cancelTime = 1500 * time.Millisecond
)

// Config holds what a session is made of. All fields are required except the bytes that were
// read ahead.
type Config struct {
	Client, Upstream *Conn
	// FromClient and FromUpstream are bytes that were read during the logon. They are
	// passed on first.
	FromClient, FromUpstream []byte
	// Status is the transaction status of the upstream's ReadyForQuery.
	Status byte
	// Lost is what the client is told when the upstream connection ends and the server has not
	// said why. Empty: nothing, if the server closed it, and a general message if it broke.
	Lost string
	// HalfClose is how long the server may be silent after the client has closed its
	// sending side.
	HalfClose time.Duration
	// Stall is how long the server may take no byte of what the client has sent before the
	// session finds out whether the client is still there. It is also the least time that the
	// server may be silent if the client has sent Terminate before it closed. Default 5 s.
	Stall time.Duration
	// Keep leaves the upstream connection open when the client leaves in good order: it
	// sends Terminate, and nothing else, while the session is idle and the server owes it
	// nothing. See Kept.
	Keep bool
	// CancelQuery asks the server to cancel the session's query. It is called from a goroutine
	// of its own.
	CancelQuery func()
	// Ended is called once, when both connections are closed, or the upstream one is kept.
	Ended func(Cause)
}

// Session is a client and its upstream. Make it with New; safe for concurrent use.
type Session struct {
	config   Config
	up, down direction // client to upstream, upstream to client
	_        [64]byte  // the directions read the above, and both write what follows

	mu         sync.Mutex // guards what follows
	phase      phase
	leaving    bool   // the client has sent Terminate
	kept       bool   // the client left in good order, and the server has sent nothing since
	closed     bool   // the client has closed its sending side
	noticed    bool   // the client has had its notice
	cause      *Cause // set when stopping begins
	cancelled  *Cause // set when the query was cancelled in order to end the session
	fromClient uint64 // bytes passed on
	toClient   uint64
	exchange   pgwire.Exchange

	directions  int       // that run
	writeBy     time.Time // in stopping
	stopBy      time.Time // in stopping: for the message that is being completed
	silentUntil time.Time // of the server, in halfClosed and lastWords
	lastSent    uint64    // toClient, when silentUntil was set
	notice      []byte    // to be sent to the client
	stalled     bool      // the server takes nothing
	probe       []byte    // the rest of a message to the client, see stall
	probeDue    bool      // the next byte of it
	renewUp     bool      // the direction to the server goes on in a new goroutine
	renewDown   bool      // so does the direction to the client
	shrunk      uint64    // bytes passed on when Shrink last acted, plus 1; 0: never
	quiet       quiet
}

// New returns a session that is not running yet.
func New(config Config) *Session {
	s := &Session{config: config, exchange: pgwire.NewExchange(config.Status)}
	s.up = direction{session: s, from: config.Client, to: config.Upstream, ahead: config.FromClient}
	s.down = direction{session: s, from: config.Upstream, to: config.Client, ahead: config.FromUpstream, toClient: true}
	s.config.FromClient, s.config.FromUpstream = nil, nil
	if config.Stall <= 0 {
		s.config.Stall = stallTime
	}
	for _, d := range []*direction{&s.up, &s.down} {
		d.stall = stall{session: s, from: d.from, to: d.to, toClient: d.toClient}
	}
	return s
}

// Start lets the session run. It returns at once.
func (s *Session) Start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase == opened {
		s.phase = relaying
	}
	s.directions = 2
	s.startLocked()
}

// Status returns pgwire.Busy while the server owes the client an answer, else the
// status of the last ReadyForQuery.
func (s *Session) Status() byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.exchange.Status()
}

// Traffic returns the bytes that were passed on from each side.
func (s *Session) Traffic() (fromClient, toClient uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fromClient, s.toClient
}

// Ending reports whether the cause of the session's end is known.
func (s *Session) Ending() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.phase >= stopping || s.cancelled != nil
}

// Kept reports whether the upstream connection was left open, see Config.Keep. It may be called
// from Config.Ended on; the caller then owns the connection.
func (s *Session) Kept() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.phase == over && s.kept
}

// Over reports whether the session has ended.
func (s *Session) Over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.phase == over
}

// admit is called by a direction before it passes on bytes that it has read. It returns the
// bytes to pass on, and what the direction does after that.
func (s *Session) admit(d *direction, chunk []byte) (out []byte, next step, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.toClient {
		return s.admitToClientLocked(chunk)
	}
	if s.phase >= stopping {
		return nil, 0, errStopped
	}
	mayKeep := s.config.Keep && s.phase == relaying && s.cancelled == nil && s.exchange.Quiet() && string(chunk) == pgwire.Terminate
	terminated, err := s.exchange.FromClient(chunk)
	if err != nil {
		s.endLocked(&Cause{Reason: ReasonProtocol, SQLState: pgwire.StateProtocolViolation, Message: "invalid message length", Imposed: true,
			Err: fmt.Errorf("from the client: %w", err)})
		return nil, 0, err
	}
	s.leaving = s.leaving || terminated
	s.fromClient += uint64(len(chunk))
	if mayKeep && terminated {
		s.kept = true
		s.endLocked(&Cause{Reason: ReasonClientClosed})
		return nil, 0, errStopped
	}
	return chunk, 0, nil
}

func (s *Session) admitToClientLocked(chunk []byte) (out []byte, next step, err error) {
	if s.phase >= stopping {
		s.kept = false
		if s.cause.SQLState == "" {
			return nil, 0, errStopped
		}
		if chunk, err = s.exchange.ServerRemainder(chunk); err != nil || len(chunk) == 0 {
			return nil, 0, errStopped
		}
	}
	if err := s.exchange.FromServer(chunk); err != nil {
		s.endLocked(&Cause{Reason: ReasonServerGone, Imposed: true, Err: fmt.Errorf("from the server: %w", err)})
		return nil, 0, err
	}
	if s.probe != nil { // a message of ours has to be completed first
		chunk, s.probe = append(s.probe, chunk...), nil
	}
	s.toClient += uint64(len(chunk))
	switch {
	case s.phase >= stopping:
		if s.exchange.ServerBoundary() {
			next = stop
		}
	case s.cancelled != nil && s.exchange.Status() != pgwire.Busy:
		next = answerToCancel
	case s.phase == relaying && !s.leaving && s.exchange.Ready():
		next = wait
	}
	return chunk, next, nil
}

// step is what a direction does after it has passed bytes on.
type step uint8

const (
	goOn step = iota
	// wait means that the direction waits at once, without another read. The server has just
	// sent ReadyForQuery to a client that stays, so it will not close the connection now. If it
	// crashes at this very moment, the next query finds out.
	wait
	// stop means that the session is ending, and that nothing more may be passed on.
	stop
	// answerToCancel means that the server has answered after the gateway cancelled its
	// query in order to end the session.
	answerToCancel
)

// unsent corrects what admit counted: the last n bytes could not be written.
func (s *Session) unsent(d *direction, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.toClient {
		s.toClient -= uint64(n)
	} else {
		s.fromClient -= uint64(n)
	}
}

// wakeTimesLocked returns when a direction that waits for bytes has to be woken, so that it asks
// the session what to do. A time in the past means at once, zero means never.
func (s *Session) wakeTimesLocked() (up, down time.Time) {
	switch {
	case s.phase >= stopping:
		down = s.stopBy
		if down.IsZero() {
			down = longAgo
		}
		return longAgo, down
	case s.phase == relaying:
		if s.renewUp {
			up = longAgo
		}
		if s.renewDown || s.notice != nil || s.probingLocked() {
			down = longAgo
		}
		return up, down
	case s.notice != nil, s.probingLocked():
		return time.Time{}, longAgo
	}
	return time.Time{}, s.silentUntil
}

var longAgo = time.Unix(1, 0)

// Shrink reduces the memory of a session with TLS that waits for its client, unless it has passed
// nothing on since the last call. crypto/tls has grown the stacks of both directions, and the
// runtime does not shrink them to the 2 KiB that waiting takes, so the directions go on in new
// goroutines. Call it after a garbage collection in a quiet time: the runtime starts goroutines
// with the size that the stacks had on average at the last collection.
func (s *Session) Shrink() {
	client, upstream := s.config.Client, s.config.Upstream
	s.mu.Lock()
	defer s.mu.Unlock()
	passed := s.fromClient + s.toClient + 1
	switch {
	case s.phase != relaying, s.exchange.Status() == pgwire.Busy, s.shrunk == passed:
	case client.tls == nil && upstream.tls == nil, !client.relaying, !upstream.relaying:
	default:
		s.shrunk, s.renewUp, s.renewDown = passed, true, true
		s.armLocked()
	}
}

// renew is called when a direction has been woken. It reports whether the direction must continue
// in a new goroutine.
func (s *Session) renew(d *direction) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := &s.renewUp
	if d.toClient {
		asked = &s.renewDown
	}
	if s.phase != relaying || !*asked {
		return false
	}
	*asked = false
	s.armLocked()
	return true
}

// woken is called when the direction to the client has been woken. It returns a notice to send, or
// a part of a probe, if there is one, and whether the direction keeps copying.
func (s *Session) woken() (notice []byte, goesOn bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.armLocked()
	switch {
	case s.phase >= stopping:
		return nil, !s.stoppedLocked()
	case s.probingLocked():
		return s.takeProbeLocked(), true
	case s.notice != nil:
		notice, s.notice = s.notice, nil
		// If the server is in the middle of a message, the next Apply tries again.
		if s.phase != relaying || s.probe != nil || !s.exchange.ServerBoundary() || s.exchange.Status() == pgwire.Busy {
			return nil, true
		}
		s.noticed = true
		return notice, true
	case s.phase == halfClosed && s.toClient != s.lastSent:
		s.listenLocked(s.patienceLocked())
		return nil, true
	}
	return nil, s.silentUntil.IsZero() || time.Now().Before(s.silentUntil)
}

// listenLocked gives the server time for its last messages.
func (s *Session) listenLocked(patience time.Duration) {
	s.lastSent, s.silentUntil = s.toClient, time.Now().Add(patience)
}
