package gateway

import (
	"maps"
	"sync/atomic"
	"time"

	"github.com/daypass/daypass/internal/admission"
)

// LogonEvent is the outcome of an attempt to log on. Times are from the machine's clock,
// not from Config.Now: they are for measuring.
type LogonEvent struct {
	Cluster      string // of the credential, if it is served here; else empty
	Database     string
	CredentialID string // empty: the password was no genuine credential
	SessionID    string
	Upstream     string // address of the server that was logged on to
	SQLState     string // of the refusal; empty: a session, or no answer was sent
	Reason       string // one of the Reason constants
	Err          error  // the real cause of the refusal; nil: a session

	// The time when each step was done. It is zero if neither that step nor a later one was
	// done.
	Accepted  time.Time // the connection
	Greeted   time.Time // TLS and the start-up message
	Password  time.Time // the password message
	Prepared  time.Time // the session role
	Connected time.Time // the upstream session
	Ended     time.Time // the client has been answered, or is about to be
}

// The reasons of a LogonEvent. The list is complete.
const (
	ReasonOK          = "ok"
	ReasonForged      = "forged"  // not a credential for this user
	ReasonExpired     = "expired" // an expired credential
	ReasonNotYetValid = "not yet valid"
	ReasonRevoked     = "revoked"     // a revoked credential
	ReasonUnknown     = "unknown"     // revocations, or keys, cannot be read
	ReasonRefused     = "refused"     // the user, group or database does not exist or may not be used
	ReasonLimit       = "limit"       // too many sessions
	ReasonShutdown    = "shutdown"    // of the gateway
	ReasonNotReady    = "not ready"   // the cluster starts, stops, lags behind or is read-only
	ReasonFull        = "full"        // the cluster has no connection left for the gateway
	ReasonAudit       = "audit"       // the record could not be written
	ReasonUnreachable = "unreachable" // no server of the cluster answered, or not in time
	ReasonRights      = "rights"      // the administrative login lacks rights
	ReasonUpstream    = "upstream"    // the server refused
	ReasonGone        = "gone"        // the client left before it had an answer
	ReasonProtocol    = "protocol"    // a fault in the protocol, before a password
	ReasonInternal    = "internal"
)

// notALogon is the reason of a refusal that is not reported, because the connection was not an
// attempt to log on.
const notALogon = ""

// observe reports the outcome of the logon. Both results are nil for a cancel request,
// which is not reported.
func (l *logon) observe(e *entry, r *refusal) {
	tell := l.server.observer
	if tell == nil || e == nil && (r == nil || r.reason == notALogon) {
		return
	}
	event := LogonEvent{
		Database: l.database, SessionID: l.id, Reason: ReasonOK,
		Accepted: l.visitor.Arrived, Greeted: l.greeted, Password: l.password,
		Prepared: l.prepared, Connected: l.connected, Ended: time.Now(),
	}
	if l.genuine {
		event.CredentialID = l.grant.ID
		if _, ok := l.server.cluster(l.grant.Cluster); ok {
			event.Cluster = l.grant.Cluster
		}
	}
	if e != nil {
		event.Upstream = e.cancel.target.address
	} else {
		event.SQLState, event.Reason, event.Err = r.state, r.reason, r
		if r.silent {
			event.SQLState = ""
		}
	}
	tell(event)
}

// Stats are the gateway's present state, and what it has done since New.
type Stats struct {
	HalfOpen admission.Stats // connections that have not sent a valid credential yet
	Opening  int             // logons that have, and wait for their session
	Held     int             // answers to failed logons that are held back
	Cancels  CancelStats
	Clusters map[string]ClusterStats // those that had a session, by identifier
}

// CancelStats count cancel requests by outcome. Joined ones were not sent, since one was sent for
// several of them.
type CancelStats struct{ Sent, Joined, Unknown, Failed, Passed uint64 }

// ClusterStats are the statistics of one cluster. Bytes cover running and ended sessions, and
// never decrease.
type ClusterStats struct {
	Sessions        int
	Parked          int    // upstream sessions kept for the next logon
	Unparked        uint64 // logons that got one
	Ended           uint64
	BytesFromClient uint64
	BytesToClient   uint64
}

// cancelCounts count cancel requests.
type cancelCounts struct{ sent, joined, unknown, failed, passed atomic.Uint64 }

// count counts a request that named a session.
func (c *cancelCounts) count(err error) {
	if err != nil {
		c.failed.Add(1)
		return
	}
	c.sent.Add(1)
}

// Stats takes a snapshot. It visits every session once.
func (s *Server) Stats() Stats {
	stats := Stats{
		Cancels:  CancelStats{s.cancels.sent.Load(), s.cancels.joined.Load(), s.cancels.unknown.Load(), s.cancels.failed.Load(), s.cancels.passed.Load()},
		Clusters: map[string]ClusterStats{},
	}
	stats.HalfOpen = s.waiting.Stats()
	stats.Opening = int(s.opening.Load())
	stats.Held = s.failures.Held()

	s.sessions.addTo(stats.Clusters)
	for _, one := range s.pool.all() {
		if one.origin != nil {
			of := stats.Clusters[one.cluster.Identifier]
			of.Parked++
			stats.Clusters[one.cluster.Identifier] = of
		}
	}
	return stats
}

// addTo adds the sessions that run and those that have ended to the statistics of their clusters.
func (t *table) addTo(clusters map[string]ClusterStats) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.Copy(clusters, t.past)
	for _, e := range t.sessions {
		of := clusters[e.info.Cluster]
		of.Sessions++
		of.add(e)
		clusters[e.info.Cluster] = of
	}
}

func (c *ClusterStats) add(e *entry) {
	fromClient, toClient := e.Traffic()
	c.BytesFromClient += fromClient
	c.BytesToClient += toClient
}

// pastLocked keeps the traffic of a session that is being forgotten, under the lock
// that addTo holds for the sum: a sum neither misses the session nor counts it twice.
func (t *table) pastLocked(e *entry) {
	of := t.past[e.info.Cluster]
	of.Ended++
	of.add(e)
	t.past[e.info.Cluster] = of
}

// countUnparked counts a logon that got a parked session.
func (t *table) countUnparked(cluster string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	of := t.past[cluster]
	of.Unparked++
	t.past[cluster] = of
}
