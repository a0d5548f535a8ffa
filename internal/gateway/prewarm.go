package gateway

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/pgwire"
)

// Most of a logon's time goes into starting a process in the server. A cluster may have
// the gateway do that ahead: whenever a session role has logged on, the gateway starts
// another session of the same role, database and start-up parameters, a spare, which waits
// in the pool for the next logon. Each spare is used for one logon only.
//
// A spare has never run a query. It may stand in for a new session as long as a new one
// would be let in, and would begin with the same rights and settings. The session role
// is checked at every logon: rights, settings, the right to connect, and whether the
// server has reloaded pg_hba.conf. If any of these has changed since a spare was started,
// the spare ends. It also ends when it is old, and when another session role needs its
// place.
//
// A session role's rights end with its last session. A spare would delay that, so a
// session role with groups has spares only while it has a session. The clean-up after its
// last one ends them, also one that is being started.
//
// Spares move work and save none, so a cluster's are started one at a time, to keep out
// of the way of clients that wait.

const (
	spareAge     = time.Minute - sweepInterval // so none waits for more than a minute
	spareStay    = 5 * time.Second             // before one makes room for another session role's
	spareTimeout = 10 * time.Second            // to start one
)

// spareOrder describes how to start a session like the one of a logon.
type spareOrder struct {
	role      dbuser.SessionRole
	principal string // whose logon it follows
	user      string // the database user
	groups    []string
	params    []pgwire.Param // all of them
}

// newSpare returns a spare for the next logon like this one, to be started with params.
func (l *logon) newSpare(cluster *Cluster, key poolKey, need dbuser.Need, params []pgwire.Param) *pooled {
	return &pooled{key: key, cluster: cluster, gone: make(chan struct{}),
		order: &spareOrder{role: l.role, principal: l.grant.Principal, user: need.User, groups: need.Groups, params: params}}
}

// orphaned reports whether a session is a spare that must end because its role has no session any more.
func (s *Server) orphaned(one *pooled) bool {
	return one.order != nil && len(one.order.groups) > 0 && !s.sessions.live(one.key.admin, one.key.role)
}

// takeSpare returns a spare, or nil. It ends spares of the same role and database that were started
// when the role's state was different.
func (s *Server) takeSpare(key *poolKey) *pooled {
	s.pool.end(func(one *pooled) bool {
		return one.order != nil && one.key.of(key.admin, key.role) && one.key.database == key.database && one.key.seen != key.seen
	})
	for {
		one := s.pool.take(func(one *pooled) bool { return one.order != nil && one.key == *key })
		if one == nil || one.up.untouched() {
			return one
		}
		s.pool.leave(one)
	}
}

// startAhead starts a spare in the background, if its cluster may have one more.
func (s *Server) startAhead(one *pooled) {
	p, admin := s.pool, one.key.admin
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.sparesLocked(admin) >= one.cluster.Prewarm && !p.replaceLocked(one) {
		return
	}
	p.arriving = append(p.arriving, one)
	if !p.starting[admin] {
		p.starting[admin] = true
		go s.startSpares(admin)
	}
}

// sparesLocked returns how many spares a cluster has: those that wait, are to be started, or were given
// up and not yet closed by the server.
func (p *pool) sparesLocked(admin Admin) int {
	n := p.unfinished[admin]
	for _, list := range [][]*pooled{p.arriving, p.waiting} {
		for _, one := range list {
			if one.order != nil && one.key.admin == admin {
				n++
			}
		}
	}
	return n
}

// replaceLocked ends the oldest of the cluster's spares with another key, if it has waited for
// spareStay: the session role that logged on last is the most likely to log on again.
func (p *pool) replaceLocked(by *pooled) bool {
	i := slices.IndexFunc(p.waiting, func(one *pooled) bool {
		return one.order != nil && one.key.admin == by.key.admin && one.key != by.key && time.Since(one.since) > spareStay
	})
	if i < 0 {
		return false
	}
	p.leaveLocked(p.waiting[i])
	p.waiting = slices.Delete(p.waiting, i, i+1)
	return true
}

// startSpares starts the ordered spares of a cluster, one after the other.
func (s *Server) startSpares(admin Admin) {
	for one := s.pool.nextSpare(admin); one != nil; one = s.pool.nextSpare(admin) {
		up, err := s.startSpare(one)
		if err != nil {
			s.log.Debug("a session was not started ahead", "cluster", one.cluster.Identifier, "role", one.key.role, "err", err)
		}
		if !s.settle(one, up, err == nil) {
			<-one.gone
		}
	}
}

// nextSpare returns the next spare to be started. It skips those that have to end. If none is left,
// it records that startSpares ends.
func (p *pool) nextSpare(admin Admin) *pooled {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		i := slices.IndexFunc(p.arriving, func(one *pooled) bool { return one.order != nil && one.key.admin == admin })
		if i < 0 {
			delete(p.starting, admin)
			return nil
		}
		one := p.arriving[i]
		if !one.unwanted {
			return one
		}
		p.arriving = slices.Delete(p.arriving, i, i+1)
		p.leaveLocked(one)
	}
}

func (s *Server) startSpare(one *pooled) (up *upstream, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), spareTimeout)
	defer cancel()
	defer func() {
		if problem := recover(); problem != nil { // as in receive
			up, err = nil, fmt.Errorf("internal error: %v", problem)
		}
	}()
	o := one.order
	up, left, err := s.connect(ctx, &wanted{cluster: one.cluster, role: o.role, database: one.key.database, principal: o.principal, params: o.params})
	if len(left) > 0 {
		s.stuck.follow(left, s.pool.hold(one.key.admin))
	}
	if err == nil {
		err = up.SetDeadline(time.Time{})
	}
	return up, err
}

// hold takes the place of one spare of the cluster, and returns what gives the place back.
func (p *pool) hold(admin Admin) (release func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unfinished[admin]++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.unfinished[admin]--; p.unfinished[admin] == 0 {
			delete(p.unfinished, admin)
		}
	}
}
