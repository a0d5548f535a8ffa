package gateway

import (
	"context"
	"slices"
	"time"

	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/dbuser"
)

// A cluster may keep upstream sessions whose clients have left in good order, for the
// next logon of the same principal with the same session role, database and start-up
// parameters. Such a session is parked, which means that it waits in the pool. Before that it
// is reset (reset.go); if the reset cannot prove that the session is clean, the session ends instead.
//
// A parked session has the rights of its session role, like every session of that role.
// Only a logon with a valid credential of its own can use it, and only if the state of the
// session role is still the same (dbuser.SessionRole.Seen). A parked session also ends
//
//   - when the credential it was opened with, or any that used it since, expires or is
//     revoked,
//   - when the state of its session role changes: roles, memberships, settings, the
//     database, or a reload of pg_hba.conf; that is checked every poolInterval,
//   - when the databases that commands wait for are not known,
//   - when it has been parked for too long, or its upstream session is too old, or another
//     session needs its place.
//
// After that, its session role is cleaned up, as after any session. Parked sessions do not
// delay the clean-up: a session whose role owns something is never parked, and when a session
// ends without being parked, the parked sessions of its role end first.

// resetPatience is how long a logon waits for a session that is being reset. A reset usually takes less
// time than the start of another session, which would then push a parked session out. The first
// reset of a process is slow on a busy machine.
const resetPatience = 500 * time.Millisecond

// maxParkedCredentials bounds how many credentials use one upstream session: each of them can
// be revoked.
const maxParkedCredentials = 50

// origin describes how a session began, which decides whether it can be parked.
type origin struct {
	key     poolKey
	need    dbuser.Need
	begins  dbuser.SettingSources // from where the session has settings
	opened  time.Time             // the upstream session
	expires time.Time             // the earliest expiry of the credentials that have used it
	grants  []credential.Grant    // of the credentials that have used it, each once; the last is the latest
}

// newOrigin returns the origin of a logon's session, or nil if the session cannot be parked.
func (l *logon) newOrigin(cluster *Cluster, key poolKey, need dbuser.Need) *origin {
	if attrs := cluster.TargetSessionAttrs; attrs != "" && attrs != "any" {
		return nil // a server may be promoted, or become a standby, while a session is parked
	}
	// A superuser can leave more behind than is known.
	if cluster.Parking.Max <= 0 || l.role.Superuser {
		return nil
	}
	key.principal = l.grant.Principal
	return &origin{key: key, need: need, begins: l.role.Sources, opened: time.Now(), expires: l.grant.NotAfter, grants: []credential.Grant{l.grant}}
}

// latest returns the grant of the credential that the session was used with last.
func (o *origin) latest() *credential.Grant { return &o.grants[len(o.grants)-1] }

// same reports whether g is the grant of the logon's own credential.
func (o *origin) same(g credential.Grant) bool { return g.ID == o.latest().ID }

// fits reports whether a logon may use the session.
func (one *pooled) fits(o *origin) bool {
	return one.origin != nil && one.key == o.key && (len(one.origin.grants) < maxParkedCredentials || slices.ContainsFunc(one.origin.grants, o.same))
}

// lasts reports whether none of the time limits of a parked session has passed.
func (one *pooled) lasts(now time.Time) bool {
	limits := one.cluster.Parking.WithDefaults()
	return now.Before(one.origin.expires) && time.Since(one.since) < limits.Idle && time.Since(one.origin.opened) < limits.Age
}

// anyRevoked reports whether a credential that has used a parked session was revoked. o is nil for a
// spare, which none has used.
func (s *Server) anyRevoked(o *origin) (bool, error) {
	if o == nil {
		return false, nil
	}
	for i := range o.grants {
		if revoked, err := s.isRevoked(&o.grants[i]); revoked || err != nil {
			return revoked, err
		}
	}
	return false, nil
}

// unpark returns a parked session that the logon may use, or nil if there is none.
func (s *Server) unpark(ctx context.Context, o *origin) *upstream {
	now := s.now()
	one := s.pool.take(func(one *pooled) bool { return one.fits(o) && one.lasts(now) })
	if one == nil {
		one = s.pool.await(ctx, o)
	}
	if one == nil {
		return nil
	}
	if revoked, err := s.anyRevoked(one.origin); revoked || err != nil || !one.lasts(s.now()) || !one.up.untouched() {
		s.pool.leave(one)
		s.finish(revoked, one)
		return nil
	}
	o.opened, o.grants = one.origin.opened, append(slices.DeleteFunc(slices.Clone(one.origin.grants), o.same), o.grants...)
	if one.origin.expires.Before(o.expires) {
		o.expires = one.origin.expires
	}
	s.sessions.countUnparked(one.cluster.Identifier)
	return one.up
}

// await waits for a session that fits and is being reset, if there is one that no other logon waits
// for. It returns nil if the session is not ready soon, or ends.
func (p *pool) await(ctx context.Context, o *origin) *pooled {
	p.mu.Lock()
	i := slices.IndexFunc(p.arriving, func(one *pooled) bool { return one.claim == nil && !one.unwanted && one.fits(o) })
	if i < 0 {
		p.mu.Unlock()
		return nil
	}
	one, claim := p.arriving[i], make(chan bool, 1)
	one.claim = claim
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, p.patience)
	defer cancel()
	ready := false
	select {
	case ready = <-claim:
	case <-ctx.Done():
		p.mu.Lock()
		defer p.mu.Unlock()
		one.claim = nil
		select {
		case ready = <-claim: // just now
		default:
		}
	}
	if !ready {
		return nil
	}
	return one
}

// arrives puts the upstream session of a session that has ended into the pool, before its reset,
// so that pool.end can find it.
func (s *Server) arrives(e *entry) *pooled {
	cluster, ok := s.cluster(e.info.Cluster)
	if !ok {
		cluster = &Cluster{Identifier: e.info.Cluster}
	}
	one := &pooled{id: e.info.ID, key: e.origin.key, cluster: cluster, origin: e.origin, gone: make(chan struct{})}
	one.unwanted = !one.key.servedBy(cluster) || cluster.Parking.Max <= 0 || s.draining.Load() || !s.now().Before(e.origin.expires)
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	s.pool.arriving = append(s.pool.arriving, one)
	return one
}

// park resets the upstream session of a session that has ended and keeps it. It reports
// whether it did; if not, the upstream session has been ended. revoked reports that a credential
// was revoked that has used it.
func (s *Server) park(e *entry, one *pooled) (ok, revoked bool) {
	ok = !e.neverPark.Load() && s.pool.wants(one)
	if ok {
		if err := e.upstream.reset(e.roleUser, e.info.SessionRole, e.origin.begins); err != nil {
			s.log.Debug("session not parked", "session", e.info.ID, "err", err)
			ok = false
		}
	}
	revoked, unknown := s.anyRevoked(e.origin)
	if !s.settle(one, e.upstream, ok && !revoked && unknown == nil) {
		awaitClose(closeTime, one)
		return false, revoked
	}
	s.log.Debug("session parked", "session", e.info.ID, "parked", one.id)
	return true, false
}

// wants reports whether a session that arrives does not have to end.
func (p *pool) wants(one *pooled) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !one.unwanted && !p.closed
}

// pushOutLocked ends the oldest parked session of the cluster if there is no place for one more.
func (p *pool) pushOutLocked(by *pooled) (out []*pooled) {
	if by.origin == nil {
		return nil // startAhead has made a place for a spare
	}
	n, oldest := 0, -1
	for i, one := range p.waiting {
		if one.origin != nil && one.cluster.Identifier == by.cluster.Identifier {
			if n++; oldest < 0 {
				oldest = i
			}
		}
	}
	if n < by.cluster.Parking.Max {
		return nil
	}
	out = []*pooled{p.waiting[oldest]}
	p.leaveLocked(p.waiting[oldest])
	p.waiting = slices.Delete(p.waiting, oldest, oldest+1)
	return out
}

// endChanged ends those of a cluster's parked sessions whose session role has changed since they began.
func (s *Server) endChanged(ctx context.Context, admin Admin, waiting []*pooled) {
	changed := map[poolKey]bool{}
	for _, one := range waiting {
		if _, known := changed[one.key]; known || one.origin == nil {
			continue
		}
		seen, err := admin.Seen(ctx, one.origin.need)
		changed[one.key] = err != nil || seen != one.key.seen
	}
	s.endNow(false, func(one *pooled) bool { return one.origin != nil && changed[one.key] })
}
