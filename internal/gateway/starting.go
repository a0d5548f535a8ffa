package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// maxStarting is how many sessions a server may be starting for this gateway at a time. PostgreSQL
// accepts 100 connections by default.
const maxStarting = 64

// errNoPlace means that a server is starting too many sessions for one more.
var errNoPlace = errors.New("too many sessions that do not begin")

// starting bounds how many sessions each server is starting. Safe for concurrent use.
//
// A session takes a place at the server's address before the gateway connects. It leaves the place when it
// has begun or failed; if its logon was given up, when the server has closed the connection (see
// unfinished). Without this bound, someone who keeps a database locked could make the server wait in as
// many processes as it accepts connections, and no list of sessions would show them.
//
// While n places are free, a database or principal that has n places gets no more. So one locked database
// takes at most half of the places, two take two thirds, and some are left for others. The sessions of an
// IAM role, whose names callers may choose, together get up to three times as many as are free.
type starting struct {
	max int // for each server

	mu      sync.Mutex             // guards what follows
	servers map[string]*startingAt // by address
}

func newStarting(most int) *starting { return &starting{max: most, servers: map[string]*startingAt{}} }

// startingAt has the places at one server. It is guarded by starting.mu.
type startingAt struct {
	max     int
	all     places
	of      map[placeHolder]*places
	waiting []*startPlace // in the order of their arrival
}

// placeHolder is a database, a principal, or all sessions of an IAM role.
type placeHolder struct {
	kind byte
	name string
}

// The kinds of a placeHolder.
const (
	holderDatabase = iota
	holderPrincipal
	holderRole
	holderKinds
)

// places counts the places that someone has.
type places struct {
	taken, given int // given: of those taken, by logons that were given up
	refs         int // places that are taken or waited for
}

// startPlace is the place of a session that a server is starting.
type startPlace struct {
	starting *starting
	address  string
	holders  [holderKinds]placeHolder
	counts   [holderKinds]*places
	given    bool
	ready    chan error // for the result of the wait
}

// take waits for a place until ctx is done. It fails at once if logons that were given up have the places
// that are missing, because those may stay for hours.
func (s *starting) take(ctx context.Context, address, database, principal string) (*startPlace, error) {
	p := &startPlace{starting: s, address: address, holders: [holderKinds]placeHolder{
		{holderDatabase, database}, {holderPrincipal, principal}, {holderRole, principalKey(principal)}}}
	s.mu.Lock()
	at := s.enterLocked(p)
	decided, err := at.decideLocked(p)
	if decided {
		if err != nil {
			s.exitLocked(p)
		}
		s.mu.Unlock()
		return p, err
	}
	p.ready = make(chan error, 1)
	at.waiting = append(at.waiting, p)
	s.mu.Unlock()
	select {
	case err = <-p.ready:
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		select {
		case err = <-p.ready: // just now
		default:
			at.waiting = slices.DeleteFunc(at.waiting, func(other *startPlace) bool { return other == p })
			s.exitLocked(p)
			err = fmt.Errorf("%w: %w", errNoPlace, ctx.Err())
		}
	}
	return p, err
}

// decideLocked gives p its place, or refuses it. It does neither if p has to wait.
func (at *startingAt) decideLocked(p *startPlace) (decided bool, err error) {
	given := func(c *places) int { return c.given }
	switch {
	case at.fits(p, func(c *places) int { return c.taken }):
		at.countLocked(p, func(c *places) { c.taken++ })
		return true, nil
	case !at.fits(p, given): // nor if all others left
		return true, errNoPlace
	}
	return false, nil
}

// fits reports whether p could have a place if only those that count returns were taken.
func (at *startingAt) fits(p *startPlace, count func(*places) int) bool {
	free := at.max - count(&at.all)
	return free > 0 && count(p.counts[holderDatabase]) < free && count(p.counts[holderPrincipal]) < free && count(p.counts[holderRole]) < 3*free
}

func (at *startingAt) countLocked(p *startPlace, change func(*places)) {
	change(&at.all)
	for _, c := range p.counts {
		change(c)
	}
}

// give records that the logon was given up. The place still has to be left.
func (p *startPlace) give() {
	p.starting.mu.Lock()
	defer p.starting.mu.Unlock()
	at := p.starting.servers[p.address]
	p.given = true
	at.countLocked(p, func(c *places) { c.given++ })
	p.starting.admitLocked(at)
}

// leave frees the place.
func (p *startPlace) leave() {
	p.starting.mu.Lock()
	defer p.starting.mu.Unlock()
	at := p.starting.servers[p.address]
	at.countLocked(p, func(c *places) {
		c.taken--
		if p.given {
			c.given--
		}
	})
	p.starting.admitLocked(at)
	p.starting.exitLocked(p)
}

// admitLocked gives places to those that wait, and refuses those that would wait in vain.
func (s *starting) admitLocked(at *startingAt) {
	at.waiting = slices.DeleteFunc(at.waiting, func(p *startPlace) bool {
		decided, err := at.decideLocked(p)
		if !decided {
			return false
		}
		if err != nil {
			s.exitLocked(p)
		}
		p.ready <- err
		return true
	})
}

// enterLocked finds the counts for p.
func (s *starting) enterLocked(p *startPlace) *startingAt {
	at := s.servers[p.address]
	if at == nil {
		at = &startingAt{max: s.max, of: map[placeHolder]*places{}}
		s.servers[p.address] = at
	}
	for i, holder := range p.holders {
		if at.of[holder] == nil {
			at.of[holder] = &places{}
		}
		p.counts[i] = at.of[holder]
	}
	at.countLocked(p, func(c *places) { c.refs++ })
	return at
}

// exitLocked forgets the counts that no one needs any more.
func (s *starting) exitLocked(p *startPlace) {
	at := s.servers[p.address]
	at.countLocked(p, func(c *places) { c.refs-- })
	for i, holder := range p.holders {
		if p.counts[i].refs == 0 {
			delete(at.of, holder)
		}
	}
	if at.all.refs == 0 {
		delete(s.servers, p.address)
	}
}
