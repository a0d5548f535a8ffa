package gateway

import (
	"cmp"
	"context"
	"crypto/subtle"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/pgwire"
	"github.com/daypass/daypass/internal/session"
)

// Session describes a session that is logged on.
type Session struct {
	ID           string
	CredentialID string
	Principal    string // ARN of the caller who asked for the credential
	Cluster      string
	Database     string
	DBUser       string
	DBGroups     []string
	SessionRole  string
	Application  string // application_name of the start-up message
	Client       netip.AddrPort
	TLS          bool
	PID          uint32 // of the upstream's backend
	Started      time.Time
	IssuedAt     time.Time // of the credential
	NotAfter     time.Time // the credential's expiry, which the session may outlive

	State           string // active, idle, idle in transaction, idle in transaction (aborted), prewarmed, parked
	BytesFromClient uint64
	BytesToClient   uint64
}

// The States that pg_stat_activity has too, by the status of a session.
var states = map[byte]string{
	pgwire.Busy:                "active",
	pgwire.StatusIdle:          "idle",
	pgwire.StatusInTransaction: "idle in transaction",
	pgwire.StatusFailed:        "idle in transaction (aborted)",
}

// The States of sessions of the pool.
const (
	statePrewarmed = "prewarmed" // started ahead of its logon
	stateParked    = "parked"
)

// Reasons for the end of a session that the gateway adds to those of package session.
const (
	reasonShutdown   = "shutdown"
	reasonTerminated = "terminated"
	reasonRevoked    = "credential revoked"
)

// entry is a session in the table, with the gateway's own data about it.
type entry struct {
	*session.Session
	info    Session
	details *audit.TLS
	cluster *Cluster // as it was at the logon
	admin   Admin    // of cluster
	cancel  cancelKey
	cancels cancelTurns
	backend *dbuser.Backend // nil: the server has not named it
	// unfinished is closed when the servers have closed the connections that the logon gave up at
	// other hosts. nil: there are none.
	unfinished chan struct{}

	// The data needed to park the upstream session.
	origin    *origin // nil: it is never parked
	upstream  *upstream
	roleUser  string      // the role that it works as; empty: the session role
	neverPark atomic.Bool // it was killed, or a cancel request for it may still be on its way
}

// newSession adds a session to the table. The session does not run yet.
func (s *Server) newSession(l *logon, cluster *Cluster, up *upstream) *entry {
	g := &l.grant
	state := l.client.TLS()
	e := &entry{
		details: audit.TLSDetails(state), cluster: cluster, admin: cluster.Admin, backend: up.backend(), cancel: cancelKey{pid: up.pid, theirs: up.key, target: up.target},
		info: Session{
			ID: l.id, CredentialID: g.ID, Principal: g.Principal, Cluster: cluster.Identifier, Database: l.database,
			DBUser: g.DBUser, DBGroups: g.DBGroups, SessionRole: l.role.Name, Application: pgwire.Clip(l.asked.Application()),
			Client: l.peer, TLS: state != nil, PID: up.pid, Started: s.now(), IssuedAt: g.IssuedAt, NotAfter: g.NotAfter,
		},
	}
	if l.origin != nil { // or the answers of the logon would stay in memory
		e.origin, e.upstream, e.roleUser = l.origin, up, l.role.User
	}
	if up.key != nil {
		e.cancel.ours = make([]byte, shortCancelKey)
		if l.asked.Version >= pgwire.Version32 {
			e.cancel.ours = make([]byte, longCancelKey)
		}
		s.fillCancelKey(e.cancel.ours)
	}
	e.Session = session.New(session.Config{
		Client: l.client, Upstream: up.Conn, FromClient: l.in.Rest(), FromUpstream: up.early,
		Status: up.ready, HalfClose: s.limits.HalfClose, Stall: s.limits.Stall, Keep: l.origin != nil,
		CancelQuery: func() { s.cancelQuery(e) }, Ended: func(cause session.Cause) { s.sessionEnded(e, cause) },
	})
	s.sessions.add(e)
	return e
}

// sessionEnded tells the rest of the gateway that a session is over, and records it.
func (s *Server) sessionEnded(e *entry, cause session.Cause) {
	info := &e.info
	cleanUp := func(revoked bool) {
		waited, _ := s.pool.end(func(one *pooled) bool { return one.origin != nil && one.key.of(e.admin, info.SessionRole) })
		s.finish(false, waited...)
		s.cleanUp(e.cluster, info.SessionRole, e.backend, revoked)
	}
	kept := e.Kept()
	if !kept {
		cleanUp(cause.Reason == reasonRevoked)
	}

	now := s.now()
	fromClient, toClient := e.Traffic()
	record := audit.SessionRecord{
		Time: now, SessionID: info.ID, Client: info.Client, TLS: e.details, CredentialID: info.CredentialID, Principal: info.Principal,
		Cluster: info.Cluster, Database: info.Database, DBUser: info.DBUser, DBGroups: info.DBGroups, SessionRole: info.SessionRole,
		ProcessID: info.PID, ApplicationName: info.Application, Started: info.Started, Duration: now.Sub(info.Started),
		BytesFromClient: int64(fromClient), BytesToClient: int64(toClient), Reason: cause.Reason, SQLState: cause.SQLState,
	}
	if err := s.record.sessionEnd(&record); err != nil {
		s.log.Error("the audit record of a session's end could not be written", "session", info.ID, "err", err)
	}
	attributes := []any{"session", info.ID, "reason", cause.Reason, "duration", record.Duration.Round(time.Millisecond),
		"bytes_from_client", record.BytesFromClient, "bytes_to_client", record.BytesToClient}
	if cause.Err != nil {
		attributes = append(attributes, "err", cause.Err)
	}
	s.log.Info("session ended", attributes...)
	var arriving *pooled
	if kept {
		arriving = s.arrives(e)
	}
	s.sessions.forget(e) // from now on no cancel request finds it
	if kept {
		if ok, revoked := s.park(e, arriving); !ok {
			cleanUp(revoked)
		}
	}
	if e.unfinished == nil {
		s.release(info.Cluster, info.DBUser)
		return
	}
	go func() {
		<-e.unfinished
		s.release(info.Cluster, info.DBUser)
	}()
}

// describe returns a description of the session.
func (e *entry) describe() Session {
	info := e.info
	info.DBGroups = slices.Clone(info.DBGroups)
	info.BytesFromClient, info.BytesToClient = e.Traffic()
	info.State = states[e.Status()]
	return info
}

// Sessions lists the sessions that are logged on and, with the state "prewarmed" or "parked",
// those that wait for a logon, oldest first.
func (s *Server) Sessions() []Session {
	var list []Session
	for _, e := range s.sessions.all() {
		list = append(list, e.describe())
	}
	for _, one := range s.pool.all() {
		list = append(list, one.describe())
	}
	slices.SortFunc(list, func(a, b Session) int {
		return cmp.Or(a.Started.Compare(b.Started), strings.Compare(a.ID, b.ID))
	})
	return list
}

// Shrink reduces the memory of the sessions that wait for their clients, see session.Shrink.
func (s *Server) Shrink() {
	for _, e := range s.sessions.all() {
		e.Shrink()
	}
}

// Kill ends the session with this ID, as pg_terminate_backend does: its query is
// cancelled, and the client gets 57P01 where that is possible. Kill reports whether
// there was such a session; it does not wait for its end.
func (s *Server) Kill(id string) bool {
	return s.KillWhere(func(c *Session) bool { return c.ID == id }) > 0
}

// KillWhere ends all sessions that match, and returns how many it found. match
// must not keep the Session.
func (s *Server) KillWhere(match func(*Session) bool) int {
	n := 0
	for _, e := range s.sessions.all() {
		if info := e.describe(); !match(&info) {
			continue
		}
		if e.End(imposed(reasonTerminated, "terminating connection due to administrator command")) {
			n++
		} else {
			e.neverPark.Store(true)
		}
	}
	return n + len(s.endNow(false, func(one *pooled) bool { info := one.describe(); return match(&info) }))
}

// imposed returns the cause for an end that the gateway imposes.
func imposed(reason, message string) session.Cause {
	return session.Cause{Reason: reason, SQLState: pgwire.StateAdminShutdown, Message: message, Imposed: true}
}

func shutdown() session.Cause {
	return imposed(reasonShutdown, "terminating connection due to administrator command")
}

// endAll ends every session, at once or, if a query is running, after it has been
// cancelled. It returns when all sessions have ended and been recorded.
func (s *Server) endAll() {
	s.ending.Store(true)
	for _, e := range s.sessions.all() {
		e.CancelAndEnd(shutdown())
	}
	// Every step of an end has a deadline, so this timeout is never reached.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = s.sessions.wait(ctx)
}

// table holds the sessions, and counts them and the logons in progress. Safe for
// concurrent use.
type table struct {
	max int // 0: no limit

	mu       sync.Mutex // guards what follows
	sessions map[string]*entry
	byPID    map[uint32][]*entry
	counts   map[place]int
	past     map[string]ClusterStats // of sessions that ended, and of parked ones that were used, by cluster
	total    int
	closed   bool
	empty    chan struct{} // closed when closed and total is 0
}

// place is what a session is counted under: its cluster, or its user in the cluster.
type place struct{ cluster, user string }

func newTable(most int) *table {
	return &table{max: most, sessions: map[string]*entry{}, byPID: map[uint32][]*entry{},
		counts: map[place]int{}, past: map[string]ClusterStats{}, empty: make(chan struct{})}
}

// reserve counts a logon before the logon causes the cluster any work.
func (t *table) reserve(cluster *Cluster, user string) *refusal {
	t.mu.Lock()
	defer t.mu.Unlock()
	all, own := place{cluster: cluster.Identifier}, place{cluster.Identifier, user}
	switch {
	case t.closed:
		return refuseShutdown()
	case t.max > 0 && t.total >= t.max:
		return &refusal{reason: ReasonLimit, state: pgwire.StateTooManyConnections, message: "the gateway has as many sessions as it may have"}
	case cluster.MaxSessions > 0 && t.counts[all] >= cluster.MaxSessions:
		return refuseFull(cluster, "")
	case cluster.MaxSessionsPerUser > 0 && t.counts[own] >= cluster.MaxSessionsPerUser:
		return refuseFull(cluster, user)
	}
	t.total++
	t.counts[all]++
	t.counts[own]++
	return nil
}

// release undoes reserve.
func (t *table) release(cluster, user string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range []place{{cluster: cluster}, {cluster, user}} {
		if t.counts[p]--; t.counts[p] == 0 {
			delete(t.counts, p)
		}
	}
	if t.total--; t.total == 0 && t.closed {
		close(t.empty)
	}
}

func (t *table) add(e *entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sessions[e.info.ID] = e
	t.byPID[e.cancel.pid] = append(t.byPID[e.cancel.pid], e)
}

// forget removes a session. Its traffic stays in the sums of Stats.
func (t *table) forget(e *entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.sessions[e.info.ID]; ok {
		t.pastLocked(e)
	}
	delete(t.sessions, e.info.ID)
	others := slices.DeleteFunc(t.byPID[e.cancel.pid], func(o *entry) bool { return o == e })
	if len(others) == 0 {
		delete(t.byPID, e.cancel.pid)
	} else {
		t.byPID[e.cancel.pid] = others
	}
}

// find looks a session up by its cancel key. All sessions with the process ID are
// compared, each in constant time.
func (t *table) find(pid uint32, key []byte) *entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	var found *entry
	for _, e := range t.byPID[pid] {
		if subtle.ConstantTimeCompare(e.cancel.ours, key) == 1 {
			found = e
		}
	}
	if found != nil {
		found.neverPark.Store(true)
	}
	return found
}

// live reports whether a session role has a session.
func (t *table) live(admin Admin, role string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.sessions {
		if e.admin == admin && e.info.SessionRole == role && !e.Over() {
			return true
		}
	}
	return false
}

func (t *table) all() []*entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.AppendSeq(make([]*entry, 0, len(t.sessions)), maps.Values(t.sessions))
}

// wait refuses new logons, and waits until the last session has ended.
func (t *table) wait(ctx context.Context) error {
	t.mu.Lock()
	if !t.closed {
		t.closed = true
		if t.total == 0 {
			close(t.empty)
		}
	}
	t.mu.Unlock()
	select {
	case <-t.empty:
		return nil
	default:
	}
	select {
	case <-t.empty:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for sessions to end: %w", ctx.Err())
	}
}
