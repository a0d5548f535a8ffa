package admission

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"
)

// What Room.Admit returns when there is no place.
var (
	// ErrShare means that the visitor's own address holds all it may.
	ErrShare = errors.New("the address has too many connections")
	// ErrClosed means that the room is closed, or that the visitor is not in it.
	ErrClosed = errors.New("closed")
)

// Room bounds the number of visitors at a time, in all and for each address.
// Safe for concurrent use.
type Room struct {
	limit, perAddress int

	mu        sync.Mutex // guards what follows
	visitors  map[*Visitor]bool
	addresses map[netip.Addr]int
	closed    bool
	refused   uint64
}

// NewRoom returns a room of limit places, perAddress of them for one address.
func NewRoom(limit, perAddress int) *Room {
	return &Room{limit: limit, perAddress: perAddress,
		visitors: map[*Visitor]bool{}, addresses: map[netip.Addr]int{}}
}

// Admit waits for a place and gives it to v. The errors are ErrShare, ErrClosed and
// ctx's.
func (r *Room) Admit(ctx context.Context, v *Visitor) error {
	for {
		wait, err := r.Enter(v)
		if err != nil || wait == 0 {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			r.mu.Lock()
			r.refused++
			r.mu.Unlock()
			return ctx.Err()
		}
	}
}

// Enter gives v a place if there is one, or if another visitor can make room. If not,
// wait is the time after which to call it again. The errors are ErrShare and ErrClosed.
func (r *Room) Enter(v *Visitor) (wait time.Duration, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0, ErrClosed
	}
	if !r.fitsShareLocked(v) {
		r.refused++
		return 0, ErrShare
	}
	if len(r.visitors) >= r.limit {
		evicted, wait := r.evictLocked(everyVisitor)
		if !evicted && !r.evictFromCrowdLocked(v) {
			return wait, nil
		}
	}
	r.addLocked(v)
	return 0, nil
}

// Move counts v under another address from now on, because a proxy has named the client. If exempt
// is true, v is not counted under any address. Move returns ErrClosed if v is not in the room. If
// the address has used up its share, it removes v and returns ErrShare.
func (r *Room) Move(v *Visitor, address netip.Addr, exempt bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.visitors[v] {
		return ErrClosed // it was evicted
	}
	r.removeLocked(v)
	v.Address, v.Exempt = Network(address), exempt
	if !r.fitsShareLocked(v) {
		r.refused++
		return ErrShare
	}
	r.addLocked(v)
	return nil
}

// fitsShareLocked reports whether the share of the visitor's address has a place for it. If need be,
// another visitor from there makes room.
func (r *Room) fitsShareLocked(v *Visitor) bool {
	if v.Exempt || r.addresses[v.Address] < r.perAddress {
		return true
	}
	evicted, _ := r.evictLocked(func(o *Visitor) bool { return !o.Exempt && o.Address == v.Address })
	return evicted
}

func everyVisitor(*Visitor) bool { return true }

// Leave takes v out. It does nothing for a visitor that was evicted.
func (r *Room) Leave(v *Visitor) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.removeLocked(v)
}

// Evict closes the visitor that has kept the server waiting longest.
func (r *Room) Evict() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.evictLocked(everyVisitor)
}

// Close evicts all visitors that are not being served, and admits no more.
func (r *Room) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for v := range r.visitors {
		if !v.served.Load() {
			r.removeLocked(v)
			v.turnOut()
		}
	}
}

// Stats are a snapshot of a Room.
type Stats struct {
	Limit, Open int
	Refused     uint64 // turned away since the start
}

// Stats takes a snapshot.
func (r *Room) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Stats{Limit: r.limit, Open: len(r.visitors), Refused: r.refused}
}

func (r *Room) addLocked(v *Visitor) {
	v.placed.Store(time.Now().UnixNano())
	r.visitors[v] = true
	if !v.Exempt {
		r.addresses[v.Address]++
	}
}

func (r *Room) removeLocked(v *Visitor) {
	if !r.visitors[v] {
		return
	}
	delete(r.visitors, v)
	if v.Exempt {
		return
	}
	if r.addresses[v.Address]--; r.addresses[v.Address] == 0 {
		delete(r.addresses, v.Address)
	}
}

// choice is the visitor that is to make room, among those considered so far.
type choice struct {
	visitor *Visitor
	known   bool
	waited  time.Duration // another visitor must have waited longer to be chosen
}

// consider chooses v if it has to go before the visitor chosen so far.
func (c *choice) consider(v *Visitor, waited, least time.Duration) {
	if waited < least {
		return
	}
	known := v.known.Load()
	if c.visitor == nil || c.known && !known || c.known == known && waited > c.waited {
		c.visitor, c.known, c.waited = v, known, waited
	}
}

// evictLocked evicts one visitor, if the patience with one is used up. If not, wait is
// the shortest time until it may be. It looks at all visitors, whose number is bounded,
// and is called only when the room is full.
func (r *Room) evictLocked(candidate func(*Visitor) bool) (evicted bool, wait time.Duration) {
	const longest = 20 * time.Millisecond
	var victim choice
	next, now := longest, time.Now()
	strangers := false
	for v := range r.visitors {
		if !candidate(v) {
			continue
		}
		over, left := v.overdue(now)
		if left == 0 {
			victim.consider(v, over, 0)
		}
		next = min(next, max(left, time.Millisecond))
		strangers = strangers || !v.known.Load() && !v.served.Load()
	}
	if victim.visitor == nil || victim.known && strangers {
		return false, next
	}
	r.turnOutLocked(victim.visitor)
	return true, 0
}

// crowd is how many times more connections than a newcomer's address another address
// must have for one of them to make room for the newcomer.
const crowd = 16

// evictFromCrowdLocked looks for a crowd: the address with the most visitors, if they are crowd times as
// many as the newcomer's address has. Of these visitors it evicts the one that has kept the
// server waiting longest, if that is longer than an honest peer needs. It reports whether it
// evicted one.
func (r *Room) evictFromCrowdLocked(newcomer *Visitor) bool {
	if newcomer.Exempt {
		return false
	}
	var crowded netip.Addr
	least := crowd * (r.addresses[newcomer.Address] + 1)
	most := least
	for address, n := range r.addresses {
		if n > most {
			crowded, most = address, n
		}
	}
	if most == least {
		return false
	}
	var victim choice
	now := time.Now()
	for v := range r.visitors {
		if !v.Exempt && v.Address == crowded {
			victim.consider(v, v.kept(now), patienceSilent+1)
		}
	}
	if victim.visitor == nil || victim.known {
		return false
	}
	r.turnOutLocked(victim.visitor)
	return true
}

func (r *Room) turnOutLocked(v *Visitor) {
	r.removeLocked(v)
	v.turnOut()
}
