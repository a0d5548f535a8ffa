package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/daypass/daypass/internal/audit"
)

// Session describes a session that is logged on.
type Session struct {
	ID           string
	CredentialID string
	Principal    string // ARN of who asked for the credential
	Cluster      string
	Database     string
	DBUser       string
	DBGroups     []string
	SessionRole  string
	Application  string // application_name of the start-up message
	Client       netip.AddrPort
	TLS          bool
	PID          uint32 // the upstream's process
	Started      time.Time
	IssuedAt     time.Time // of the credential
	NotAfter     time.Time // the credential's expiry, which the session outlives

	State           string // active, idle, idle in transaction, idle in transaction (aborted), prewarmed
	BytesFromClient uint64
	BytesToClient   uint64
}

// session is a logged-on client and its upstream, with one goroutine for each
// direction and nothing else. It keeps nothing of the logon but names.
type session struct {
	server   *Server
	client   end
	upstream end
	info     Session
	id       string
	details  *audit.TLS

	pid         uint32
	secret      []byte // our cancel key; nil when the upstream gave none
	upstreamKey []byte
	target      *target
	admin       Admin // of the cluster: hears of the end

	over       atomic.Bool            // it counts as one of its session role no more
	why        atomic.Pointer[ending] // set once
	halfClosed atomic.Bool            // the client sends no more
	farewell   atomic.Bool            // the client has sent Terminate
	running    atomic.Int32           // pumps

	_        [64]byte // both directions write to what follows, and to nothing else here
	exchange exchange
	_        [64]byte

	up, down pump // client to upstream, upstream to client
	fate     fate // what ends the session from outside
}

// ending is why a session ends.
type ending struct {
	reason  string // for the records
	state   string // SQLSTATE of a last message to the client; empty: none
	message string
	imposed bool // the server has not ended the session and the client has not taken leave: its backend has to be ended
	err     error
}

// The reasons that records give.
const (
	reasonClientClosed = "client closed"
	reasonClientGone   = "client gone"
	reasonServerClosed = "server closed"
	reasonServerGone   = "server gone"
	reasonShutdown     = "shutdown"
	reasonTerminated   = "terminated"
	reasonProtocol     = "protocol violation"
)

// newSession registers a session; it does not run yet.
func (s *Server) newSession(l *logon, cluster *Cluster, up *upstream) *session {
	g := &l.grant
	c := &session{
		server: s, client: l.client, upstream: up.end, id: l.id, details: audit.TLSDetails(l.client.state()),
		pid: up.pid, upstreamKey: up.key, target: up.target, admin: cluster.Admin,
		info: Session{
			ID: l.id, CredentialID: g.ID, Principal: g.Principal, Cluster: cluster.Identifier, Database: l.database,
			DBUser: g.DBUser, DBGroups: g.DBGroups, SessionRole: l.role.Name, Application: clip(l.asked.application()),
			Client: l.peer, TLS: l.client.tls != nil, PID: up.pid, Started: s.now(), IssuedAt: g.IssuedAt, NotAfter: g.NotAfter,
		},
	}
	if up.key != nil {
		c.secret = make([]byte, shortCancelKey)
		if l.asked.version >= protocol32 {
			c.secret = make([]byte, longCancelKey)
		}
		rand.Read(c.secret)
	}
	c.exchange.state.Store(uint32(up.ready))
	// What either side sent ahead goes first.
	c.up = pump{session: c, from: &c.client, to: &c.upstream, early: append([]byte(nil), l.in.rest()...)}
	c.down = pump{session: c, from: &c.upstream, to: &c.client, early: up.early, toClient: true}
	s.sessions.add(c)
	return c
}

// busy reports whether the server owes the client an answer.
func (c *session) busy() bool { return c.exchange.state.Load() == stateBusy }

// key is the session's cancel key, nil when there is none.
func (c *session) key() []byte { return c.secret }

// end ends the session for a reason, unless it is ending already. Both
// directions stop at the next chunk of bytes, and writes get a second.
func (c *session) end(why *ending) bool {
	if !c.why.CompareAndSwap(nil, why) {
		return false
	}
	c.interrupt()
	return true
}

func (c *session) interrupt() {
	soon := time.Now().Add(time.Second)
	for _, e := range []*end{&c.client, &c.upstream} {
		_ = e.SetWriteDeadline(soon)
		_ = e.SetReadDeadline(longAgo)
	}
}

var longAgo = time.Unix(1, 0)

// finish is run by the direction that ends last.
func (c *session) finish() {
	s, why := c.server, c.why.Load()
	if why == nil {
		why = &ending{reason: reasonServerClosed}
	}
	if why.reason == reasonServerClosed && (c.farewell.Load() || c.halfClosed.Load()) {
		why = &ending{reason: reasonClientClosed}
	}
	parting := c.fate.parting.Load()
	if parting != nil && why.state == "" {
		why = parting // which the client was faster than
	}
	_ = c.client.SetWriteDeadline(time.Now().Add(time.Second))
	// A message of ours fits only where a message of the server's has ended.
	state := why.state
	if state != "" && c.exchange.down.boundary() && (c.down.writeErr == nil || errors.Is(c.down.writeErr, errStopped)) {
		_, _ = c.client.Write(appendError(nil, "FATAL", why.state, why.message, "", ""))
	} else {
		state = ""
	}
	_ = c.client.CloseWrite()
	c.client.socket.Conn.Close()
	c.release(why.imposed || parting != nil)
	c.over.Store(true)
	s.spares.sessionEnded(c.admin, c.info.SessionRole)
	admin := c.admin
	if cluster, ok := s.cluster(c.info.Cluster); ok {
		admin = cluster.Admin // a reload may have closed the one that opened the session
	}
	if why.reason == reasonRevoked {
		admin.SessionRevoked(c.info.SessionRole, c.info.Database, c.backend())
	} else {
		admin.SessionEnded(c.info.SessionRole, c.info.Database, c.backend())
	}

	now := s.now()
	info := &c.info
	record := audit.SessionRecord{
		Time: now, SessionID: c.id, Client: info.Client, TLS: c.details, CredentialID: info.CredentialID, Principal: info.Principal,
		Cluster: info.Cluster, Database: info.Database, DBUser: info.DBUser, DBGroups: info.DBGroups, SessionRole: info.SessionRole,
		ApplicationName: info.Application, Started: info.Started, Duration: now.Sub(info.Started),
		BytesFromClient: int64(c.up.bytes.Load()), BytesToClient: int64(c.down.bytes.Load()), Reason: why.reason, SQLState: state,
	}
	if err := s.record.sessionEnd(&record); err != nil {
		s.log.Error("writing the audit record of a session's end", "session", c.id, "error", err)
	}
	attributes := []any{"session", c.id, "reason", why.reason, "duration", record.Duration.Round(time.Millisecond),
		"bytes_from_client", record.BytesFromClient, "bytes_to_client", record.BytesToClient}
	if why.err != nil {
		attributes = append(attributes, "error", why.err)
	}
	s.log.Info("session ended", attributes...)
	s.sessions.forget(c)
	s.sessions.release(info.Cluster, info.DBUser)
}

// describe is a snapshot of the session.
func (c *session) describe() Session {
	info := c.info
	info.DBGroups = slices.Clone(info.DBGroups)
	info.BytesFromClient, info.BytesToClient = c.up.bytes.Load(), c.down.bytes.Load()
	switch c.exchange.state.Load() {
	case 'I':
		info.State = "idle"
	case 'T':
		info.State = "idle in transaction"
	case 'E':
		info.State = "idle in transaction (aborted)"
	default:
		info.State = "active"
	}
	return info
}

// Sessions lists the sessions that are logged on, and those that wait for their
// logon with the state "prewarmed", oldest first.
func (s *Server) Sessions() []Session {
	var list []Session
	for _, c := range s.sessions.all() {
		list = append(list, c.describe())
	}
	list = append(list, s.spares.list()...)
	slices.SortFunc(list, func(a, b Session) int {
		if order := a.Started.Compare(b.Started); order != 0 {
			return order
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list
}

// Kill ends the session with this id, as pg_terminate_backend does: what runs is
// cancelled, and a client that can be told gets 57P01. It reports whether there
// was such a session; it does not wait for its end.
func (s *Server) Kill(id string) bool {
	return s.KillWhere(func(c *Session) bool { return c.ID == id }) > 0 || s.spares.kill(id)
}

// KillWhere ends all sessions that match, and returns how many it found. match
// must not keep the Session.
func (s *Server) KillWhere(match func(*Session) bool) int {
	n := 0
	for _, c := range s.sessions.all() {
		if info := c.describe(); match(&info) && c.end(&ending{reason: reasonTerminated, state: stateAdminShutdown,
			message: "terminating connection due to administrator command", imposed: true}) {
			n++
		}
	}
	return n
}

func shutdown() *ending {
	return &ending{reason: reasonShutdown, state: stateAdminShutdown,
		message: "terminating connection due to administrator command", imposed: true}
}

// endAll ends every session: those that wait for their client at once, the others
// after their query was cancelled. It returns when all have ended and been
// recorded.
func (s *Server) endAll() {
	s.ending.Store(true)
	why := shutdown()
	for _, c := range s.sessions.all() {
		c.part(why)
	}
	// Every step of an ending has a deadline, so this one is not reached.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = s.sessions.wait(ctx)
}

// registry knows the sessions and counts the logons. Safe for concurrent use.
type registry struct {
	max int // 0: no limit

	mu       sync.Mutex // guards what follows
	sessions map[string]*session
	byPID    map[uint32][]*session
	counts   map[place]int
	past     map[string]ClusterStats // of sessions that ended, by cluster
	total    int
	closed   bool
	empty    chan struct{} // closed when closed and total is 0
}

// place is what a session counts for: its cluster, or its user there.
type place struct{ cluster, user string }

func newRegistry(most int) *registry {
	return &registry{max: most, sessions: map[string]*session{}, byPID: map[uint32][]*session{},
		counts: map[place]int{}, empty: make(chan struct{})}
}

// reserve counts a logon before it costs the cluster anything.
func (r *registry) reserve(cluster *Cluster, user string) *refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	all, own := place{cluster: cluster.Identifier}, place{cluster.Identifier, user}
	switch {
	case r.closed:
		return refuseShutdown()
	case r.max > 0 && r.total >= r.max:
		return &refusal{reason: ReasonLimit, state: stateTooManyConnections, message: "the gateway has as many sessions as it may have"}
	case cluster.MaxSessions > 0 && r.counts[all] >= cluster.MaxSessions:
		return &refusal{reason: ReasonLimit, state: stateTooManyConnections, message: fmt.Sprintf("too many sessions for cluster \"%s\"", cluster.Identifier)}
	case cluster.MaxSessionsPerUser > 0 && r.counts[own] >= cluster.MaxSessionsPerUser:
		return &refusal{reason: ReasonLimit, state: stateTooManyConnections, message: fmt.Sprintf("too many sessions for user \"%s\"", user)}
	}
	r.total++
	r.counts[all]++
	r.counts[own]++
	return nil
}

// release undoes reserve.
func (r *registry) release(cluster, user string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range []place{{cluster: cluster}, {cluster, user}} {
		if r.counts[p]--; r.counts[p] == 0 {
			delete(r.counts, p)
		}
	}
	if r.total--; r.total == 0 && r.closed {
		close(r.empty)
	}
}

func (r *registry) add(c *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sessions[c.id] = c
	r.byPID[c.pid] = append(r.byPID[c.pid], c)
}

func (r *registry) forget(c *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.sessions[c.id]; ok {
		r.pastLocked(c)
	}
	delete(r.sessions, c.id)
	others := slices.DeleteFunc(r.byPID[c.pid], func(o *session) bool { return o == c })
	if len(others) == 0 {
		delete(r.byPID, c.pid)
	} else {
		r.byPID[c.pid] = others
	}
}

// live reports whether a session of a session role lives.
func (r *registry) live(admin Admin, role string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.sessions {
		if c.admin == admin && c.info.SessionRole == role && !c.over.Load() {
			return true
		}
	}
	return false
}

func (r *registry) all() []*session {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]*session, 0, len(r.sessions))
	for _, c := range r.sessions {
		list = append(list, c)
	}
	return list
}

// wait keeps new logons out, and waits until the last session is gone.
func (r *registry) wait(ctx context.Context) error {
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		if r.total == 0 {
			close(r.empty)
		}
	}
	r.mu.Unlock()
	select {
	case <-r.empty:
		return nil
	default:
	}
	select {
	case <-r.empty:
		return nil
	case <-ctx.Done():
		return errors.Join(errors.New("sessions were still running"), ctx.Err())
	}
}
