package gateway

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/daypass/daypass/internal/credential"
)

// A session outlives its credential. What ends it earlier is decided here: a
// revocation, and the limits that a cluster may have. The relay is not asked to
// look at a clock; a sweep over the sessions does, once a second and whenever
// Recheck says that revocations have changed, and reads what the relay leaves
// behind: the state and the bytes.
//
// Every end that is imposed on a session cancels what it runs and ends its backend
// (see release), whatever the session is thought to be at.

// Ends limits how long sessions of a cluster last. The zero value limits nothing.
// Limits of a reloaded configuration hold for the sessions that run.
type Ends struct {
	// Idle ends a session that has waited for its client for this long. 0: never.
	Idle time.Duration
	// Total ends a session this long after its logon. 0: never.
	Total time.Duration
	// AtExpiry ends a session when its credential expires.
	AtExpiry bool
	// Notice is how long ahead of Total and AtExpiry the client gets a NOTICE, if
	// it is idle at some time between. 0: none.
	Notice time.Duration
}

// sweepInterval is how exact the limits are.
const sweepInterval = time.Second

// partingTime is how long a session that has to end may take to hear from the
// server that its query was cancelled.
const partingTime = 1500 * time.Millisecond

// The reasons that records give, beside those of session.go.
const (
	reasonRevoked     = "credential revoked"
	reasonExpired     = "credential expired"
	reasonIdleLimit   = "idle limit"
	reasonTotalLimit  = "session limit"
	stateIdleSession  = "57P05" // idle_session_timeout
	stateIdleInBlock  = "25P03" // idle_in_transaction_session_timeout
	stateNoComplaints = "00000" // what PostgreSQL's notices have
)

// fate is what the sweep keeps of a session.
type fate struct {
	// Only the sweep's.
	bytes uint64    // that the client had sent at the last look
	quiet time.Time // since when it has sent nothing and nothing runs; what it is sent, as notifications, does not count

	parting  atomic.Pointer[ending] // the end is on its way
	noticed  atomic.Bool            // the client has had its notice
	upIsOver atomic.Bool            // nothing more comes from the client

	mu     sync.Mutex // orders the deadline that wakes the relay with the relay's answer
	notice []byte     // to be sent when the relay wakes; guarded by mu
}

var (
	errRevoked = errors.New("the credential was revoked")
	errUnknown = errors.New("nobody can tell what is revoked")
)

// refuseRevoked refuses a good credential that was taken back, and every
// credential while nobody can tell.
func (s *Server) refuseRevoked(grant *credential.Grant) *refusal {
	revoked, err := s.isRevoked(grant)
	switch {
	case err != nil:
		return &refusal{reason: ReasonUnknown, state: stateCannotConnectNow, cause: fmt.Errorf("%w: %w", errUnknown, err),
			message: "logons are refused while the registry of revocations cannot be read",
			hint:    "Try again; an operator finds the cause in the log."}
	case revoked:
		return &refusal{reason: ReasonRevoked, state: stateInvalidAuthorization, cause: errRevoked, message: "IAM Authentication token has been revoked",
			hint: "Ask for a new one with GetClusterCredentials."}
	}
	return nil
}

func (s *Server) isRevoked(grant *credential.Grant) (bool, error) {
	if s.revoked == nil {
		return false, nil
	}
	return s.revoked(grant)
}

// endIfRevoked ends a session whose credential was revoked, and says whether it
// was. When nobody can tell, running sessions go on: only logons fail closed.
func (s *Server) endIfRevoked(c *session) bool {
	info := &c.info
	revoked, err := s.isRevoked(&credential.Grant{ID: info.CredentialID, Cluster: info.Cluster, DBUser: info.DBUser,
		Principal: info.Principal, IssuedAt: info.IssuedAt, NotAfter: info.NotAfter})
	if err != nil || !revoked {
		return false
	}
	c.part(&ending{reason: reasonRevoked, state: stateAdminShutdown, imposed: true,
		message: "terminating connection: the credential was revoked"})
	return true
}

// Recheck asks Config.Revoked about every session, soon. It returns at once.
func (s *Server) Recheck() {
	select {
	case s.recheck <- struct{}{}:
	default: // one that is still to begin sees what this one would
	}
}

// watchEnds sweeps until Shutdown has ended.
func (s *Server) watchEnds() {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-ticker.C:
		case <-s.recheck:
		}
		s.sweep(s.now())
	}
}

// sweep looks at every session once.
func (s *Server) sweep(now time.Time) {
	s.sweeping.Lock()
	defer s.sweeping.Unlock()
	limits := map[string]Ends{} // a cluster that is gone limits nothing
	for _, c := range s.sessions.all() {
		if c.why.Load() != nil || c.fate.parting.Load() != nil || s.endIfRevoked(c) {
			continue
		}
		ends, known := limits[c.info.Cluster]
		if !known {
			if cluster, ok := s.cluster(c.info.Cluster); ok {
				ends = cluster.Ends
			}
			limits[c.info.Cluster] = ends
		}
		c.limit(ends, now)
	}
}

// limit ends the session if it is over one of its limits, and has a notice sent
// when that is near.
func (c *session) limit(ends Ends, now time.Time) {
	f, state := &c.fate, c.exchange.state.Load()
	if bytes := c.up.bytes.Load(); bytes != f.bytes || state == stateBusy || f.quiet.IsZero() {
		f.bytes, f.quiet = bytes, now
	}
	if ends.Idle > 0 && state != stateBusy && now.Sub(f.quiet) >= ends.Idle {
		why := &ending{reason: reasonIdleLimit, state: stateIdleSession, imposed: true, message: "terminating connection due to idle-session timeout"}
		if state != 'I' {
			why.state, why.message = stateIdleInBlock, "terminating connection due to idle-in-transaction timeout"
		}
		c.end(why)
		return
	}
	over, why, because := time.Time{}, (*ending)(nil), ""
	if ends.AtExpiry {
		over, because = c.info.NotAfter, "when its credential expires"
		why = &ending{reason: reasonExpired, state: stateAdminShutdown, imposed: true,
			message: "terminating connection: the credential has expired"}
	}
	if end := c.info.Started.Add(ends.Total); ends.Total > 0 && (why == nil || end.Before(over)) {
		over, because = end, fmt.Sprintf("at the limit of %v for sessions of this cluster", ends.Total)
		why = &ending{reason: reasonTotalLimit, state: stateAdminShutdown, imposed: true,
			message: fmt.Sprintf("terminating connection: the session has reached its limit of %v", ends.Total)}
	}
	switch left := over.Sub(now); {
	case why == nil:
	case left <= 0:
		c.part(why)
	case left <= ends.Notice && state != stateBusy && !f.noticed.Load() && !f.upIsOver.Load():
		c.tell(fmt.Sprintf("this session ends in %v, %s", left.Round(time.Second), because))
	}
}

// part ends the session. A query that runs is cancelled first, so that the client
// can be told the reason where the server's answer has ended.
func (c *session) part(why *ending) {
	if !c.busy() {
		c.end(why)
		return
	}
	told := &ending{reason: why.reason, state: why.state, message: why.message, imposed: true}
	if !c.fate.parting.CompareAndSwap(nil, told) {
		return
	}
	go c.cancelQuery()
	go func() {
		for end := time.Now().Add(partingTime); time.Now().Before(end) && c.busy() && c.why.Load() == nil; {
			time.Sleep(20 * time.Millisecond)
		}
		c.end(told)
	}()
}

// tell has the relay send the client a notice. Only the direction from the server
// writes to the client, so it is woken for it, by a deadline.
func (c *session) tell(message string) {
	f := &c.fate
	f.mu.Lock()
	defer f.mu.Unlock()
	f.notice = appendError(nil, "NOTICE", stateNoComplaints, message, "", "")
	f.notice[0] = 'N'
	_ = c.upstream.SetReadDeadline(longAgo)
}

// woken is called by the direction from the server when its read has timed out. It
// returns false when tell was not the reason. The notice is sent where a message
// of the server's has ended and none is on the way; else the next sweep tries
// again.
func (c *session) woken(p *pump) bool {
	f := &c.fate
	f.mu.Lock()
	notice := f.notice
	f.notice = nil
	if notice != nil {
		_ = c.upstream.SetReadDeadline(time.Time{})
	}
	f.mu.Unlock()
	if notice == nil {
		return false
	}
	// The deadline that was just taken away may have been another one, whose
	// reason was noted before it was set.
	switch {
	case c.why.Load() != nil:
		c.interrupt()
		return false
	case f.upIsOver.Load():
		_ = c.upstream.SetReadDeadline(time.Now().Add(c.server.limits.HalfClose))
		return true
	}
	if c.exchange.down.boundary() && !c.busy() {
		f.noticed.Store(true)
		_, p.writeErr = p.to.Write(notice)
	}
	return true
}
