package gateway

import (
	"context"
	"crypto/rand"
	"slices"
	"sync"
	"time"

	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/session"
)

// A cluster may keep upstream sessions whose clients have left in good order, for the
// next logon of the same principal with the same session role, database and start-up
// parameters. Such a session is parked. Before that it is reset (reset.go); if the reset
// cannot prove that the session is clean, the session ends instead.
//
// A parked session has the rights of its session role, like every session of that role.
// Only a logon with a valid credential of its own can use it, and only if the state of the
// session role is still the same (dbuser.SessionRole.Seen). A parked session ends
//
//   - when the credential it was opened with, or any that used it since, expires or is
//     revoked,
//   - when the state of its session role changes: roles, memberships, settings, the
//     database, or a reload of pg_hba.conf; that is checked every parkedCheck,
//   - when a command, such as DROP DATABASE, waits until the database has no sessions,
//   - when it has been parked for too long, or its upstream session is too old, or another
//     session needs its place,
//   - when another logon finds no free connection in the server,
//   - when the server has sent it anything,
//   - when the cluster's settings change, and when the gateway shuts down.
//
// After that, its session role is cleaned up, as after any session. Parked sessions do not
// delay the clean-up: a session whose role owns something is never parked, and when a session
// ends without being parked, the parked sessions of its role end first.

// parkedCheck is how often the state of the session roles of parked sessions is checked.
// A command that waits for a database waits for five seconds.
const parkedCheck = 2 * time.Second

// resetPatience is how long a logon waits for a session that is being reset. A reset usually takes less
// time than the start of another session, which would then push a parked session out. The first
// reset of a process is slow on a busy machine.
const resetPatience = 500 * time.Millisecond

// parkedKey is the key of a parked session. A logon can use the session only if its own key is
// equal.
type parkedKey struct {
	spareKey
	principal string
}

// origin describes how a session began, which decides whether it can be parked.
type origin struct {
	key     parkedKey
	need    dbuser.Need
	begins  dbuser.SettingSources // from where the session has settings
	opened  time.Time             // the upstream session
	expires time.Time             // the earliest expiry of the credentials that have used it
	grants  []credential.Grant    // of the credentials that have used it, each once; the last is the latest
}

// maxParkedCredentials bounds how many credentials use one upstream session: each of them can
// be revoked.
const maxParkedCredentials = 50

// parked is one parked session.
type parked struct {
	id      string // while it is being reset, that of the session that has ended
	up      *upstream
	cluster *Cluster
	origin  origin
	since   time.Time

	// While it is being reset; guarded by lot.mu.
	unwanted bool         // it has to end
	claim    chan *parked // nil: no logon waits for it; gets it when it is ready, and is closed if it ends
}

// lot holds the parked sessions. Safe for concurrent use.
type lot struct {
	patience time.Duration // resetPatience

	mu       sync.Mutex // guards what follows
	sessions []*parked
	arriving []*parked                 // are being reset
	leaving  map[<-chan struct{}]Admin // were ended, and the server has not closed them yet
	closed   bool
	watching bool              // watchParked runs
	reused   map[string]uint64 // logons that got a parked session, by cluster
}

func newLot() *lot {
	return &lot{patience: resetPatience, leaving: map[<-chan struct{}]Admin{}, reused: map[string]uint64{}}
}

// newOrigin returns the origin of a logon's session, or nil if the session cannot be parked.
func (l *logon) newOrigin(cluster *Cluster, need dbuser.Need) *origin {
	if attrs := cluster.TargetSessionAttrs; attrs != "" && attrs != "any" {
		return nil // a server may be promoted, or become a standby, while a session is parked
	}
	// A superuser can leave more behind than is known.
	if cluster.Parking.Max <= 0 || !session.CanLook || l.role.LoginTrigger || l.role.Superuser || l.role.Seen == ([len(l.role.Seen)]byte{}) {
		return nil
	}
	return &origin{key: parkedKey{l.key(cluster), l.grant.Principal}, need: need, begins: l.role.Sources, opened: time.Now(), expires: l.grant.NotAfter,
		grants: []credential.Grant{l.grant}}
}

// unpark returns a parked session that the logon may use, or nil if there is none.
func (s *Server) unpark(ctx context.Context, o *origin) *upstream {
	one := s.takeParked(o)
	if one == nil {
		one = s.parked.await(ctx, o)
	}
	if one == nil {
		return nil
	}
	if revoked, err := s.anyRevoked(one); revoked || err != nil || !s.staysParked(one, s.now()) || !one.up.untouched() {
		s.endParked(one, revoked)
		return nil
	}
	o.opened, o.grants = one.origin.opened, append(slices.DeleteFunc(slices.Clone(one.origin.grants), o.same), o.grants...)
	if one.origin.expires.Before(o.expires) {
		o.expires = one.origin.expires
	}
	s.parked.mu.Lock()
	s.parked.reused[one.cluster.Identifier]++
	s.parked.mu.Unlock()
	return one.up
}

// takeParked takes out a parked session that fits, or returns nil.
func (s *Server) takeParked(o *origin) *parked {
	now := s.now()
	s.parked.mu.Lock()
	defer s.parked.mu.Unlock()
	for i := len(s.parked.sessions) - 1; i >= 0; i-- {
		if p := s.parked.sessions[i]; p.fits(o) && s.staysParked(p, now) {
			s.parked.sessions = slices.Delete(s.parked.sessions, i, i+1)
			return p
		}
	}
	return nil
}

// fits reports whether a logon may use the session.
func (p *parked) fits(o *origin) bool {
	return p.origin.key == o.key && (len(p.origin.grants) < maxParkedCredentials || slices.ContainsFunc(p.origin.grants, o.same))
}

// same reports whether g is the grant of the logon's own credential.
func (o *origin) same(g credential.Grant) bool { return g.ID == o.grants[len(o.grants)-1].ID }

// await waits for a session that fits and is being reset, if there is one that no other logon waits
// for. It returns nil if the session is not ready soon, or ends.
func (l *lot) await(ctx context.Context, o *origin) *parked {
	l.mu.Lock()
	i := slices.IndexFunc(l.arriving, func(p *parked) bool { return p.claim == nil && !p.unwanted && p.fits(o) })
	if i < 0 {
		l.mu.Unlock()
		return nil
	}
	p, claim := l.arriving[i], make(chan *parked, 1)
	p.claim = claim
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, l.patience)
	defer cancel()
	select {
	case one := <-claim:
		return one
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	p.claim = nil
	select {
	case one := <-claim: // it became ready just now
		return one
	default:
		return nil
	}
}

// staysParked reports whether none of the session's time limits has passed.
func (s *Server) staysParked(p *parked, now time.Time) bool {
	limits := p.cluster.Parking.WithDefaults()
	return now.Before(p.origin.expires) && time.Since(p.since) < limits.Idle && time.Since(p.origin.opened) < limits.Age
}

func (s *Server) anyRevoked(p *parked) (bool, error) {
	for i := range p.origin.grants {
		if revoked, err := s.isRevoked(&p.origin.grants[i]); revoked || err != nil {
			return revoked, err
		}
	}
	return false, nil
}

// arrives registers the upstream session of a session that has ended, before its reset,
// so that unwant can find it.
func (s *Server) arrives(e *entry) *parked {
	cluster, ok := s.cluster(e.info.Cluster)
	if !ok {
		cluster = &Cluster{Identifier: e.info.Cluster}
	}
	p := &parked{id: e.info.ID, up: e.upstream, cluster: cluster, origin: *e.origin, since: time.Now()}
	p.unwanted = !ok || cluster.Admin != p.origin.key.admin || cluster.Upstream != p.origin.key.upstream || cluster.Parking.Max <= 0 ||
		s.draining.Load() || !s.now().Before(p.origin.expires)
	s.parked.mu.Lock()
	defer s.parked.mu.Unlock()
	s.parked.arriving = append(s.parked.arriving, p)
	return p
}

// park resets the upstream session of a session that has ended and keeps it. It reports
// whether it did; if not, the upstream session has been ended. revoked reports that a credential
// was revoked that has used it.
func (s *Server) park(e *entry, p *parked) (ok, revoked bool) {
	ok = !e.neverPark.Load() && s.parked.wants(p)
	if ok {
		if err := p.up.reset(e.roleUser, e.info.SessionRole, p.origin.begins); err != nil {
			s.log.Debug("session not parked", "session", e.info.ID, "err", err)
			ok = false
		}
	}
	revoked, unknown := s.anyRevoked(p)
	ok, out := s.parked.settle(p, ok && !revoked && unknown == nil)
	if out != nil {
		s.endParked(out, false)
	}
	if !ok {
		p.up.leave(spareParting)
		return false, revoked
	}
	s.log.Debug("session parked", "session", e.info.ID, "parked", p.id)
	s.parked.mu.Lock()
	defer s.parked.mu.Unlock()
	if !s.parked.watching {
		s.parked.watching = true
		go s.watchParked()
	}
	return true, false
}

// wants reports whether a session that arrives has not been told to end.
func (l *lot) wants(p *parked) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !p.unwanted && !l.closed
}

// settle parks a session after its reset, if it may be parked and is still wanted, or gives it to
// the logon that waits for it. out is another one that must end to make room for it.
func (l *lot) settle(p *parked, may bool) (added bool, out *parked) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.arriving = slices.DeleteFunc(l.arriving, func(other *parked) bool { return other == p })
	claim := p.claim
	p.id, p.claim = rand.Text(), nil
	switch may = may && !p.unwanted && !l.closed; {
	case claim != nil && may:
		claim <- p
		return true, nil
	case claim != nil:
		close(claim)
	}
	if !may {
		return false, nil
	}
	n, oldest := 0, -1
	for i, other := range l.sessions {
		if other.cluster.Identifier == p.cluster.Identifier {
			if n++; oldest < 0 {
				oldest = i
			}
		}
	}
	if n >= p.cluster.Parking.Max {
		out = l.sessions[oldest]
		l.sessions = slices.Delete(l.sessions, oldest, oldest+1)
	}
	l.sessions = append(l.sessions, p)
	return true, out
}

// unwant makes the sessions that match and are being reset end instead of being parked, and
// returns their number.
func (l *lot) unwant(match func(*parked) bool) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.arriving {
		if match(p) {
			p.unwanted = true
			n++
		}
	}
	return n
}

// take removes the sessions that match.
func (l *lot) take(match func(*parked) bool) []*parked {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []*parked
	l.sessions = slices.DeleteFunc(l.sessions, func(p *parked) bool {
		if match(p) {
			out = append(out, p)
			return true
		}
		return false
	})
	return out
}

// remove removes one session. It reports whether the session was there.
func (l *lot) remove(p *parked) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.sessions, p)
	if i < 0 {
		return false
	}
	l.sessions = slices.Delete(l.sessions, i, i+1)
	return true
}

func (l *lot) all() []*parked {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.sessions)
}

// count adds the present and past parked sessions to the statistics of their clusters.
func (l *lot) count(clusters map[string]ClusterStats) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.sessions {
		of := clusters[p.cluster.Identifier]
		of.Parked++
		clusters[p.cluster.Identifier] = of
	}
	for id, n := range l.reused {
		of := clusters[id]
		of.Unparked = n
		clusters[id] = of
	}
}

// sweepParked ends the parked sessions whose time is over, that were revoked, or whose
// cluster has changed.
func (s *Server) sweepParked(now time.Time) {
	for _, p := range s.parked.all() {
		revoked, err := s.anyRevoked(p)
		cluster, served := s.cluster(p.cluster.Identifier)
		same := served && cluster.Admin == p.origin.key.admin && cluster.Upstream == p.origin.key.upstream && cluster.Parking == p.cluster.Parking
		if same && !revoked && err == nil && s.staysParked(p, now) {
			continue
		}
		if s.parked.remove(p) {
			go s.endParked(p, revoked)
		}
	}
}

// watchParked runs while sessions are parked. It ends those whose session role has changed
// since they began, and those in a database that a command is waiting for.
func (s *Server) watchParked() {
	for {
		time.Sleep(parkedCheck)
		s.parked.mu.Lock()
		if s.parked.watching = len(s.parked.sessions) > 0; !s.parked.watching {
			s.parked.mu.Unlock()
			return
		}
		s.parked.mu.Unlock()
		s.checkParked()
	}
}

func (s *Server) checkParked() {
	ctx, cancel := context.WithTimeout(context.Background(), parkedCheck)
	defer cancel()
	for _, p := range s.parked.take(func(p *parked) bool { return !p.up.untouched() }) {
		go s.endParked(p, false)
	}
	wanted, unknown := map[Admin][]string{}, map[Admin]bool{}
	checked := map[parkedKey]bool{} // whether the state is still the same
	for _, p := range s.parked.all() {
		key := p.origin.key
		if _, known := wanted[key.admin]; !known {
			names, err := key.admin.DatabasesInDemand(ctx)
			if err != nil {
				s.log.Debug("databases in demand unknown; parked sessions end", "cluster", p.cluster.Identifier, "err", err)
			}
			wanted[key.admin], unknown[key.admin] = names, err != nil
		}
		same, known := checked[key]
		if !known {
			seen, err := key.admin.Seen(ctx, p.origin.need)
			same = err == nil && seen == key.seen
			checked[key] = same
		}
		if same && !unknown[key.admin] && !slices.Contains(wanted[key.admin], key.database) {
			continue
		}
		if s.parked.remove(p) {
			go s.endParked(p, false)
		}
	}
}

// closeParked ends all parked sessions and parks no more.
func (s *Server) closeParked() {
	s.parked.mu.Lock()
	s.parked.closed = true
	s.parked.mu.Unlock()
	s.endParkedWhere(func(*parked) bool { return true })
}

// describe returns a description of the parked session.
func (p *parked) describe() Session {
	g := p.origin.grants[len(p.origin.grants)-1]
	return Session{ID: p.id, CredentialID: g.ID, Principal: g.Principal, Cluster: p.cluster.Identifier, Database: p.origin.key.database,
		DBUser: g.DBUser, DBGroups: slices.Clone(g.DBGroups), SessionRole: p.origin.key.role, PID: p.up.pid,
		Started: p.since, IssuedAt: g.IssuedAt, NotAfter: p.origin.expires, State: stateParked}
}

// stateParked is the State of a parked session.
const stateParked = "parked"
