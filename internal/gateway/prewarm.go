package gateway

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/pgwire"
	"github.com/daypass/daypass/internal/session"
)

// Most of a logon's time goes into starting a process in the server. A cluster may have
// the gateway do that ahead: whenever a session role has logged on, the gateway starts
// another session of the same role, database and start-up parameters, a spare, which waits
// for the next logon. Each spare is used for one logon only.
//
// A spare has never run a query. It may stand in for a new session as long as a new one
// would be let in, and would begin with the same rights and settings. The session role
// is checked at every logon: rights, settings, the right to connect, and whether the
// server has reloaded pg_hba.conf. If any of these has changed since a spare was started,
// the spare is discarded. It is also discarded when
//
//   - the server has sent it anything,
//   - the session role's password was healed,
//   - the cluster's settings have changed,
//   - another logon finds no free connection in the server,
//   - a command, such as DROP DATABASE, waits until the database has no sessions,
//   - it is old.
//
// A database with a login event trigger has no spares: the trigger decides about each
// session when it begins.
//
// A session role's rights end with its last session. A spare would delay that, so a
// session role with groups has spares only while it has a session.
//
// Spares move work and save none, so a cluster's are started one at a time, to keep out
// of the way of clients that wait.

const (
	spareAge     = time.Minute
	spareStay    = 5 * time.Second  // before one makes room for another session role's
	spareTimeout = 10 * time.Second // to start one
	spareParting = time.Second      // for the server to close one
	// sparePatience is how long a logon without a free connection waits for those that it has
	// discarded: the server may be about to start one, and slow.
	sparePatience = 5 * time.Second
	// demandInterval is the time between two checks for commands that wait for a spare's
	// database. Such a command waits for five seconds.
	demandInterval = 2 * time.Second
)

// spareKey is what two sessions must have in common to stand in for each other.
type spareKey struct {
	admin          Admin
	upstream       *pgconn.Config
	role, database string
	seen           [sha256.Size]byte
	params         string // of the client
}

// spareOrder describes how to start another session like an earlier one.
type spareOrder struct {
	key       spareKey
	cluster   *Cluster
	role      dbuser.SessionRole
	principal string // whose logon it follows
	user      string // the database user
	groups    []string
	params    []pgwire.Param // all of them
}

type spare struct {
	id    string
	up    *upstream
	order *spareOrder
	since time.Time
	timer *time.Timer // discards it
}

// spares are the upstream sessions started ahead. Safe for concurrent use.
type spares struct {
	start func(context.Context, *spareOrder) (*upstream, error)
	log   func(message string, order *spareOrder, err error)
	// live reports whether a session of the role lives. It is called with mu held.
	live func(admin Admin, role string) bool

	mu       sync.Mutex // guards what follows
	waiting  map[spareKey][]*spare
	clusters map[Admin]*spareCluster
	leaving  map[chan struct{}]Admin // discarded, and not yet closed by the server
	watching bool                    // watchDemand runs
	closed   bool
}

// spareCluster holds the spares of one cluster.
type spareCluster struct {
	held     int // waiting, about to, or given up and not yet closed by the server
	ordered  []*spareOrder
	busy     bool          // startAll runs
	starting chan struct{} // nil: none; closed when that one waits or is gone
	discards int           // how often those being started were discarded
}

func newSpares(s *Server) *spares {
	p := &spares{
		waiting: map[spareKey][]*spare{}, clusters: map[Admin]*spareCluster{}, leaving: map[chan struct{}]Admin{},
		log: func(message string, o *spareOrder, err error) {
			s.log.Debug(message, "cluster", o.cluster.Identifier, "role", o.role.Name, "err", err)
		},
		live: s.sessions.live,
	}
	p.start = func(ctx context.Context, o *spareOrder) (up *upstream, err error) {
		defer func() {
			if problem := recover(); problem != nil { // as in receive
				up, err = nil, fmt.Errorf("internal error: %v", problem)
			}
		}()
		up, left, err := s.connect(ctx, &wanted{cluster: o.cluster, role: o.role, database: o.key.database, principal: o.principal, params: o.params})
		if len(left) > 0 {
			s.stuck.follow(left, p.hold(o.key.admin))
		}
		return up, err
	}
	return p
}

// hold takes the place of one spare of the cluster, for which one is being started, and returns what
// gives the place back.
func (p *spares) hold(admin Admin) (release func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clusters[admin].held++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.lessLocked(admin)
	}
}

// spareKey returns the key of the session that the logon needs. ok is false if the logon can
// neither use a spare nor have one started for the next logon.
func (l *logon) spareKey(cluster *Cluster) (key spareKey, ok bool) {
	if cluster.Prewarm <= 0 || !session.CanLook || l.role.LoginTrigger || l.role.Seen == [sha256.Size]byte{} {
		return spareKey{}, false
	}
	return l.key(cluster), true
}

// key returns what a session must have in common with the logon's to stand in for it.
func (l *logon) key(cluster *Cluster) spareKey {
	var params strings.Builder
	for _, p := range l.asked.Params {
		params.WriteString(p.Name + "\x00" + p.Value + "\x00")
	}
	return spareKey{cluster.Admin, cluster.Upstream, l.role.Name, l.database, l.role.Seen, params.String()}
}

// take returns a spare and the order to start another one like it, or nil. It discards spares of
// the same role and database that were started when the role's state was different.
func (p *spares) take(key spareKey) (*upstream, *spareOrder) {
	for {
		p.mu.Lock()
		for other := range p.waiting {
			if other.admin == key.admin && other.role == key.role && other.database == key.database && other.seen != key.seen {
				p.leaveLocked(other)
			}
		}
		list := p.waiting[key]
		if len(list) == 0 {
			p.mu.Unlock()
			return nil, nil
		}
		one := list[len(list)-1] // the youngest
		p.removeLocked(key, one)
		p.mu.Unlock()
		if one.up.untouched() {
			return one.up, one.order
		}
		one.up.leave(spareParting)
	}
}

// partLocked ends a spare that was taken out. It returns at once; the channel is closed when the
// server has closed the spare.
func (p *spares) partLocked(one *spare) chan struct{} {
	over := make(chan struct{})
	p.leaving[over] = one.order.key.admin
	go func() {
		one.up.leave(sparePatience) // a logon may wait for it
		p.mu.Lock()
		delete(p.leaving, over)
		p.mu.Unlock()
		close(over)
	}()
	return over
}

// removeLocked takes a spare out, and reports whether it was there.
func (p *spares) removeLocked(key spareKey, one *spare) bool {
	list := p.waiting[key]
	i := slices.Index(list, one)
	if i < 0 {
		return false
	}
	list = slices.Delete(list, i, i+1)
	if len(list) == 0 {
		delete(p.waiting, key)
	} else {
		p.waiting[key] = list
	}
	one.timer.Stop()
	p.lessLocked(key.admin)
	return true
}

// leaveLocked discards all spares of a key.
func (p *spares) leaveLocked(key spareKey) {
	for _, one := range slices.Clone(p.waiting[key]) {
		p.removeLocked(key, one)
		p.partLocked(one)
	}
}

// sessionEnded discards the spares of a session role with groups when its last session
// has ended.
func (p *spares) sessionEnded(admin Admin, role string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, list := range p.waiting {
		if key.admin == admin && key.role == role && len(list[0].order.groups) > 0 && !p.live(admin, role) {
			p.leaveLocked(key)
		}
	}
}

func (p *spares) lessLocked(admin Admin) {
	c := p.clusters[admin]
	if c.held--; c.held == 0 && !c.busy {
		delete(p.clusters, admin)
	}
}

// order starts another session like the one that a logon got, in the background.
func (p *spares) order(o *spareOrder) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	if c := p.clusters[o.key.admin]; c != nil && c.held >= o.cluster.Prewarm && !p.makeRoomLocked(o) {
		return
	}
	c := p.clusters[o.key.admin]
	if c == nil {
		c = &spareCluster{}
		p.clusters[o.key.admin] = c
	}
	c.held++
	c.ordered = append(c.ordered, o)
	if !c.busy {
		c.busy = true
		go p.startAll(c, o.key.admin)
	}
}

// makeRoomLocked discards the oldest spare with another key, if it has waited for
// spareStay: the session role that logged on last is the most likely to log on again.
func (p *spares) makeRoomLocked(o *spareOrder) bool {
	var oldest *spare
	for key, list := range p.waiting {
		if one := list[0]; key.admin == o.key.admin && key != o.key && time.Since(one.since) > spareStay &&
			(oldest == nil || one.since.Before(oldest.since)) {
			oldest = one
		}
	}
	if oldest == nil {
		return false
	}
	p.removeLocked(oldest.order.key, oldest)
	p.partLocked(oldest)
	return true
}

// startAll starts the ordered sessions, one after the other.
func (p *spares) startAll(c *spareCluster, admin Admin) {
	for {
		p.mu.Lock()
		if len(c.ordered) == 0 {
			c.busy, c.starting = false, nil
			if c.held == 0 {
				delete(p.clusters, admin)
			}
			p.mu.Unlock()
			return
		}
		o := c.ordered[0]
		c.ordered = c.ordered[1:]
		over, discards := make(chan struct{}), c.discards
		c.starting = over
		p.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), spareTimeout)
		up, err := p.start(ctx, o)
		cancel()
		if err == nil {
			err = up.SetDeadline(time.Time{})
		}
		p.mu.Lock()
		if err == nil && !p.closed && discards == c.discards && (len(o.groups) == 0 || p.live(admin, o.key.role)) {
			one := &spare{id: rand.Text(), up: up, order: o, since: time.Now()}
			one.timer = time.AfterFunc(spareAge, func() { p.expire(o.key, one) })
			p.waiting[o.key] = append(p.waiting[o.key], one)
			if !p.watching {
				p.watching = true
				go p.watchDemand()
			}
			p.mu.Unlock()
			close(over)
			continue
		}
		c.held--
		p.mu.Unlock()
		if up != nil {
			up.leave(sparePatience) // likewise
		}
		if err != nil {
			p.log("a session was not started ahead", o, err)
		}
		close(over)
	}
}

func (p *spares) expire(key spareKey, one *spare) {
	p.mu.Lock()
	there := p.removeLocked(key, one)
	p.mu.Unlock()
	if there {
		one.up.leave(spareParting)
	}
}

// discard ends the spares that match, and those that are being started for the cluster. It waits
// until the server has closed them, and those that were discarded before, but no longer than
// patience. It returns their number. A nil admin stands for all clusters.
func (p *spares) discard(admin Admin, patience time.Duration, match func(*spareKey) bool) int {
	p.mu.Lock()
	var going []chan struct{}
	for over, of := range p.leaving {
		if admin == nil || of == admin {
			going = append(going, over)
		}
	}
	for key, list := range p.waiting {
		if admin != nil && key.admin != admin || !match(&key) {
			continue
		}
		for _, one := range slices.Clone(list) {
			p.removeLocked(key, one)
			going = append(going, p.partLocked(one))
		}
	}
	for of, c := range p.clusters {
		if admin == nil || of == admin {
			c.discards++
			c.held -= len(c.ordered)
			c.ordered = nil
			if c.starting != nil {
				going = append(going, c.starting)
			}
		}
	}
	p.mu.Unlock()
	late := time.After(patience)
	for _, over := range going {
		select {
		case <-over:
		case <-late:
			return len(going)
		}
	}
	return len(going)
}

func everySpare(*spareKey) bool { return true }

// watchDemand runs while spares wait. It discards the spares in a database if a command, such
// as DROP DATABASE, is waiting until that database has no sessions.
func (p *spares) watchDemand() {
	for {
		time.Sleep(demandInterval)
		admins := map[Admin]bool{}
		p.mu.Lock()
		for key := range p.waiting {
			admins[key.admin] = true
		}
		p.watching = len(admins) > 0
		if !p.watching {
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
		for admin := range admins {
			ctx, cancel := context.WithTimeout(context.Background(), demandInterval)
			names, err := admin.DatabasesInDemand(ctx)
			cancel()
			if err != nil || len(names) == 0 {
				continue // the next logon reports a cluster that cannot be reached
			}
			p.discard(admin, spareParting, func(key *spareKey) bool { return slices.Contains(names, key.database) })
		}
	}
}

// list describes the spares, as sessions without a client.
func (p *spares) list() []Session {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []Session
	for key, waiting := range p.waiting {
		for _, one := range waiting {
			o := one.order
			list = append(list, Session{ID: one.id, Cluster: o.cluster.Identifier, Database: key.database, DBUser: o.user,
				DBGroups: slices.Clone(o.groups), SessionRole: key.role, PID: one.up.pid, Started: one.since, State: statePrewarmed})
		}
	}
	return list
}

// kill ends the spare with this ID, and reports whether there was one.
func (p *spares) kill(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, list := range p.waiting {
		for _, one := range list {
			if one.id == id {
				p.removeLocked(key, one)
				p.partLocked(one)
				return true
			}
		}
	}
	return false
}

// close ends all spares and starts no more.
func (p *spares) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.discard(nil, spareParting, everySpare)
}

// untouched reports whether the server has neither sent anything since ReadyForQuery
// nor closed the connection.
func (u *upstream) untouched() bool {
	return len(u.early) == 0 && u.ready == pgwire.StatusIdle && u.Untouched()
}

// leave ends an unused session and waits until the server has closed it, because only then is
// its connection free, but no longer than patience.
func (u *upstream) leave(patience time.Duration) {
	_ = u.SetDeadline(time.Now().Add(patience))
	if _, err := u.Write([]byte(pgwire.Terminate)); err == nil {
		u.Drain()
	}
	u.Abort()
}
