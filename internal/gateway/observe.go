package gateway

import (
	"sync/atomic"
	"time"
)

// LogonEvent is an attempt to log on that has become a session, or not. Times are
// the machine's own, not Config.Now's: they are for measuring.
type LogonEvent struct {
	Cluster      string // of the credential, if it is served here; else empty
	Database     string
	CredentialID string // empty: none that was genuine
	SessionID    string
	Upstream     string // address of the server that was logged on to
	SQLState     string // of the refusal; empty: a session, or nobody was told
	Reason       string // one of the Reason constants
	Err          error  // why it was refused, in truth; nil: a session

	// When each step was done. Zero: it was not, and so the later ones.
	Accepted  time.Time // the connection
	Greeted   time.Time // TLS and the start-up message
	Password  time.Time // the password message
	Prepared  time.Time // the session role
	Connected time.Time // the upstream session
	Ended     time.Time // the client has its answer, or is about to
}

// Reasons of a LogonEvent. There are no others.
const (
	ReasonOK          = "ok"
	ReasonForged      = "forged"  // not a credential for this user
	ReasonExpired     = "expired" // a credential that was
	ReasonNotYetValid = "not yet valid"
	ReasonRevoked     = "revoked"     // a credential that was taken back
	ReasonUnknown     = "unknown"     // nobody can tell what is revoked
	ReasonRefused     = "refused"     // the user, group or database is not to be had
	ReasonLimit       = "limit"       // too many sessions
	ReasonShutdown    = "shutdown"    // of the gateway
	ReasonNotReady    = "not ready"   // the cluster starts, stops, lags behind or is read-only
	ReasonFull        = "full"        // the cluster has no connection left for the gateway
	ReasonAudit       = "audit"       // the record could not be written
	ReasonUnreachable = "unreachable" // no server of the cluster answered, or not in time
	ReasonRights      = "rights"      // the administrative login lacks rights
	ReasonUpstream    = "upstream"    // the server said no
	ReasonGone        = "gone"        // the client left before it was told anything
	ReasonProtocol    = "protocol"    // before a password
	ReasonInternal    = "internal"
)

// notALogon is the reason of a refusal that nobody is told of: it is of no attempt to
// log on.
const notALogon = ""

// observe tells what became of the logon. Neither result is set for a cancel
// request, which is none.
func (l *logon) observe(session *session, r *refusal) {
	tell := l.server.observer
	if tell == nil || session == nil && (r == nil || r.reason == notALogon) {
		return
	}
	e := LogonEvent{
		Database: l.database, SessionID: l.id, Reason: ReasonOK,
		Accepted: l.visitor.Arrived, Greeted: l.greeted, Password: l.password,
		Prepared: l.prepared, Connected: l.connected, Ended: time.Now(),
	}
	if l.genuine {
		e.CredentialID = l.grant.ID
		if _, ok := l.server.cluster(l.grant.Cluster); ok {
			e.Cluster = l.grant.Cluster
		}
	}
	if session != nil {
		e.Upstream = session.target.address
	} else {
		e.SQLState, e.Reason, e.Err = r.state, r.reason, r
		if r.silent {
			e.SQLState = ""
		}
	}
	tell(e)
}

// Stats are what the gateway holds and has done since New.
type Stats struct {
	HalfOpen int // connections that are not logged on yet
	Held     int // answers to failed logons that are held back
	Cancels  CancelStats
	Clusters map[string]ClusterStats // those that had a session, by identifier
}

// CancelStats count cancel requests by what became of them.
type CancelStats struct{ Sent, Unknown, Failed uint64 }

// ClusterStats are of one cluster. Bytes are those of ended and of open sessions,
// and never go down.
type ClusterStats struct {
	Sessions        int
	Ended           uint64
	BytesFromClient uint64
	BytesToClient   uint64
}

// cancelCounts are counted where cancel requests are carried out.
type cancelCounts struct{ sent, unknown, failed atomic.Uint64 }

func (c *cancelCounts) done(err error) {
	if err != nil {
		c.failed.Add(1)
		return
	}
	c.sent.Add(1)
}

// Stats takes a moment's picture. It visits every session once.
func (s *Server) Stats() Stats {
	stats := Stats{
		Cancels:  CancelStats{s.cancels.sent.Load(), s.cancels.unknown.Load(), s.cancels.failed.Load()},
		Clusters: map[string]ClusterStats{},
	}
	stats.HalfOpen = s.waiting.Stats().Open
	stats.Held = s.failures.Held()

	r := s.sessions
	r.mu.Lock()
	defer r.mu.Unlock()
	for cluster, past := range r.past {
		stats.Clusters[cluster] = past
	}
	for _, c := range r.sessions {
		of := stats.Clusters[c.info.Cluster]
		of.Sessions++
		of.BytesFromClient += c.up.bytes.Load()
		of.BytesToClient += c.down.bytes.Load()
		stats.Clusters[c.info.Cluster] = of
	}
	return stats
}

// pastLocked keeps what a session that is forgotten has moved, under the lock
// that Stats adds it up with: a sum neither misses it nor has it twice.
func (r *registry) pastLocked(c *session) {
	if r.past == nil {
		r.past = map[string]ClusterStats{}
	}
	of := r.past[c.info.Cluster]
	of.Ended++
	of.BytesFromClient += c.up.bytes.Load()
	of.BytesToClient += c.down.bytes.Load()
	r.past[c.info.Cluster] = of
}
