package gateway

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/session"
)

// The pool has the upstream sessions without a client. There are two kinds: spares, which are
// started ahead of their logons (prewarm.go), and parked sessions, whose clients have left
// (parked.go). The rules in this file hold for both.
//
// A session of the pool is in one of these states:
//
//	arriving  it is being started, or reset
//	waiting   a logon can take it
//	leaving   it was ended, and the server has not closed it yet
//
// A logon takes the youngest that has its key. A session ends
//
//   - when another logon finds no free connection in the server,
//   - when a command, such as DROP DATABASE, waits until the database has no sessions,
//   - when the server has sent it anything,
//   - when the session role's password was healed,
//   - when the cluster's settings have changed, and when the gateway shuts down,
//   - when it is killed,
//   - and for the reasons of its kind.
//
// One that is arriving then ends instead of waiting.

const (
	// closeTime is how long the gateway waits for the server to close a session before it has
	// its role cleaned up.
	closeTime = time.Second
	// closePatience is how long a logon without a free connection waits until the server has closed
	// the sessions that end: the server may be about to start one, and slow.
	closePatience = 5 * time.Second
	// poolInterval is the time between two checks of the sessions that wait, against the server.
	// A command that waits for a database waits for five seconds.
	poolInterval = 2 * time.Second
)

// poolKey is what a session of the pool and one that a logon needs must have in common.
type poolKey struct {
	admin          Admin
	upstream       *pgconn.Config
	role, database string
	seen           [sha256.Size]byte // the state of the session role: rights, settings, pg_hba.conf
	params         string            // of the client
	principal      string            // empty: a spare, which is for any
}

// of reports whether the key is of a session role.
func (k *poolKey) of(admin Admin, role string) bool { return k.admin == admin && k.role == role }

// servedBy reports whether the cluster is still the one of the session.
func (k *poolKey) servedBy(c *Cluster) bool { return c.Admin == k.admin && c.Upstream == k.upstream }

// pooled is a session of the pool, a spare or a parked session.
type pooled struct {
	key     poolKey
	cluster *Cluster
	order   *spareOrder   // nil: not a spare
	origin  *origin       // nil: not a parked session
	gone    chan struct{} // closed when the server has closed the session

	// Guarded by pool.mu until the session waits, and constant after that.
	id       string    // while it is being reset, the one of the session that has ended
	up       *upstream // nil while it is arriving
	since    time.Time // when it was ready
	unwanted bool      // it has to end
	claim    chan bool // gets whether it is ready; nil: no logon waits for that
}

// pool holds the upstream sessions without a client. Safe for concurrent use.
type pool struct {
	patience time.Duration // resetPatience

	mu       sync.Mutex // guards what follows; is locked before table.mu
	arriving []*pooled
	waiting  []*pooled // the oldest first
	leaving  []*pooled
	watched  bool // watchPool runs
	closed   bool

	starting   map[Admin]bool // startSpares runs
	unfinished map[Admin]int  // spares whose start was given up, and that the server has not closed
}

func newPool() *pool {
	return &pool{patience: resetPatience, starting: map[Admin]bool{}, unfinished: map[Admin]int{}}
}

// poolKey returns the key of the session that the logon needs. ok is false if the logon has nothing to
// do with the pool, for instance because of a login event trigger, which decides about each session
// when it begins.
func (l *logon) poolKey(cluster *Cluster) (key poolKey, ok bool) {
	if cluster.Parking.Max <= 0 && cluster.Prewarm <= 0 || !session.CanLook || l.role.LoginTrigger || l.role.Seen == [sha256.Size]byte{} {
		return poolKey{}, false
	}
	var params strings.Builder
	for _, p := range l.asked.Params {
		params.WriteString(p.Name + "\x00" + p.Value + "\x00")
	}
	return poolKey{admin: cluster.Admin, upstream: cluster.Upstream, role: l.role.Name, database: l.database, seen: l.role.Seen, params: params.String()}, true
}

// without removes a session from a list.
func without(list []*pooled, one *pooled) []*pooled {
	return slices.DeleteFunc(list, func(other *pooled) bool { return other == one })
}

// take takes out the youngest of the waiting sessions that match, or returns nil.
func (p *pool) take(match func(*pooled) bool) *pooled {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, one := range slices.Backward(p.waiting) {
		if match(one) {
			p.waiting = slices.Delete(p.waiting, i, i+1)
			return one
		}
	}
	return nil
}

// end ends the sessions that match and returns them: those that were waiting, which the caller
// passes to finish, and those that are arriving. match is called with the lock held.
func (p *pool) end(match func(*pooled) bool) (waited, arriving []*pooled) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.arriving {
		if match(one) {
			one.unwanted = true
			arriving = append(arriving, one)
		}
	}
	p.waiting = slices.DeleteFunc(p.waiting, func(one *pooled) bool {
		if !match(one) {
			return false
		}
		waited = append(waited, one)
		p.leaveLocked(one)
		return true
	})
	return waited, arriving
}

// leave ends a session that was taken out.
func (p *pool) leave(one *pooled) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leaveLocked(one)
}

func (p *pool) leaveLocked(one *pooled) {
	if one.up == nil { // it was not started
		close(one.gone)
		return
	}
	p.leaving = append(p.leaving, one)
	go func() {
		one.up.leave(closePatience)
		p.mu.Lock()
		p.leaving = without(p.leaving, one)
		p.mu.Unlock()
		close(one.gone)
	}()
}

// awaitClose waits until the server has closed the sessions, but no longer than patience.
func awaitClose(patience time.Duration, list ...*pooled) {
	if len(list) == 0 {
		return
	}
	late := time.After(patience)
	for _, one := range list {
		select {
		case <-one.gone:
		case <-late:
			return
		}
	}
}

// all returns the sessions that wait.
func (p *pool) all() []*pooled {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.waiting)
}

// leavers returns those of the leaving sessions that match.
func (p *pool) leavers(match func(*pooled) bool) []*pooled {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(p.leaving), func(one *pooled) bool { return !match(one) })
}

// settle makes a session that was arriving wait for a logon, or gives it to the logon that waits for
// it. If it is not ok, or had to end in the meantime, it ends, and settle returns false. up is nil if it
// was not started.
func (s *Server) settle(one *pooled, up *upstream, ok bool) bool {
	var out []*pooled
	p := s.pool
	p.mu.Lock()
	p.arriving = without(p.arriving, one)
	claim := one.claim
	one.id, one.up, one.since, one.claim = rand.Text(), up, time.Now(), nil
	ok = ok && !one.unwanted && !p.closed
	if claim != nil {
		claim <- ok
	}
	switch {
	case !ok:
		p.leaveLocked(one)
	case claim == nil:
		out = p.pushOutLocked(one)
		p.waiting = append(p.waiting, one)
		if !p.watched {
			p.watched = true
			go s.watchPool()
		}
	}
	p.mu.Unlock()
	s.finish(false, out...)
	return ok
}

// endNow is pool.end. It finishes the sessions in the background.
func (s *Server) endNow(revoked bool, match func(*pooled) bool) (ending []*pooled) {
	waited, arriving := s.pool.end(match)
	if len(waited) > 0 {
		go s.finish(revoked, waited...)
	}
	return append(waited, arriving...)
}

// makeRoom ends the sessions that match, and waits until the server has closed them and those that ended
// before, but no longer than patience. It reports whether there were any.
func (s *Server) makeRoom(patience time.Duration, match func(*pooled) bool) bool {
	ending := append(s.endNow(false, match), s.pool.leavers(match)...)
	awaitClose(patience, ending...)
	return len(ending) > 0
}

// finish waits until the server has closed sessions that were ended, and has the session roles of those
// that have run anything cleaned up. It does not wait long for a slow server.
func (s *Server) finish(revoked bool, ended ...*pooled) {
	awaitClose(closeTime, ended...)
	for _, one := range ended {
		if one.origin == nil {
			continue
		}
		s.cleanUp(one.cluster, one.key.role, one.up.backend(), revoked)
		s.log.Info("parked session ended", "parked", one.id, "cluster", one.cluster.Identifier, "role", one.key.role, "revoked", revoked)
	}
}

// cleanUp has a session role cleaned up after one of its sessions. left is that session's backend.
func (s *Server) cleanUp(cluster *Cluster, role string, left *dbuser.Backend, revoked bool) {
	s.pool.end(func(one *pooled) bool { return one.key.of(cluster.Admin, role) && s.orphaned(one) })
	admin := s.adminOf(cluster)
	if revoked {
		admin.SessionRevoked(role, left)
	} else {
		admin.SessionEnded(role, left)
	}
}

// sweepPool ends the sessions that have waited for too long, whose cluster has changed or that were revoked.
func (s *Server) sweepPool(now time.Time) {
	for _, one := range s.pool.all() {
		revoked, err := s.anyRevoked(one.origin)
		cluster, served := s.cluster(one.cluster.Identifier)
		if served && one.key.servedBy(cluster) && !revoked && err == nil && one.stays(cluster, now) {
			continue
		}
		s.endNow(revoked, func(other *pooled) bool { return other == one })
	}
}

// stays reports whether none of the session's time limits has passed, and its cluster still parks as it did.
func (one *pooled) stays(cluster *Cluster, now time.Time) bool {
	if one.order != nil {
		return time.Since(one.since) < spareAge
	}
	return cluster.Parking == one.cluster.Parking && one.lasts(now)
}

// watchPool checks the sessions that wait as long as there are any.
func (s *Server) watchPool() {
	for {
		time.Sleep(poolInterval)
		s.pool.mu.Lock()
		if s.pool.watched = len(s.pool.waiting) > 0; !s.pool.watched {
			s.pool.mu.Unlock()
			return
		}
		s.pool.mu.Unlock()
		s.checkPool()
	}
}

// checkPool ends the sessions that the server has sent anything, those in a database that a command is
// waiting for, and the parked ones whose session role has changed.
func (s *Server) checkPool() {
	clusters := map[Admin][]*pooled{}
	for _, one := range s.pool.all() {
		clusters[one.key.admin] = append(clusters[one.key.admin], one)
	}
	var group sync.WaitGroup
	for admin, waiting := range clusters {
		group.Go(func() { s.checkCluster(admin, waiting) })
	}
	group.Wait()
}

func (s *Server) checkCluster(admin Admin, waiting []*pooled) {
	ctx, cancel := context.WithTimeout(context.Background(), poolInterval)
	defer cancel()
	s.endNow(false, func(one *pooled) bool { return slices.Contains(waiting, one) && !one.up.untouched() })
	databases, err := admin.DatabasesInDemand(ctx)
	if err != nil {
		s.log.Debug("databases in demand unknown; parked sessions end", "cluster", waiting[0].cluster.Identifier, "err", err)
	}
	s.endNow(false, func(one *pooled) bool {
		return one.key.admin == admin && (slices.Contains(databases, one.key.database) || err != nil && one.origin != nil)
	})
	if err == nil {
		s.endChanged(ctx, admin, waiting)
	}
}

// closePool ends all sessions. After that none waits any more.
func (s *Server) closePool() {
	every := func(*pooled) bool { return true }
	s.pool.mu.Lock()
	s.pool.closed = true
	s.pool.mu.Unlock()
	waited, arriving := s.pool.end(every)
	s.finish(false, waited...)
	awaitClose(closeTime, append(arriving, s.pool.leavers(every)...)...)
}

// describe returns a description of the session.
func (one *pooled) describe() Session {
	d := Session{ID: one.id, Cluster: one.cluster.Identifier, Database: one.key.database, SessionRole: one.key.role, Started: one.since}
	if one.up != nil {
		d.PID = one.up.pid
	}
	if o := one.order; o != nil {
		d.DBUser, d.DBGroups, d.State = o.user, slices.Clone(o.groups), statePrewarmed
		return d
	}
	g := one.origin.latest()
	d.CredentialID, d.Principal, d.DBUser, d.DBGroups = g.ID, g.Principal, g.DBUser, slices.Clone(g.DBGroups)
	d.IssuedAt, d.NotAfter, d.State = g.IssuedAt, one.origin.expires, stateParked
	return d
}
