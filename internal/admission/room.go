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
	// ErrClosed means that the room takes no one in any more.
	ErrClosed = errors.New("closed")
)

// Room bounds the visitors that are there at a time, in all and for each address.
// Safe for concurrent use.
type Room struct {
	limit, perAddress int

	mu        sync.Mutex // guards what follows
	visitors  map[*Visitor]struct{}
	addresses map[netip.Addr]int
	closed    bool
	refused   uint64
}

// NewRoom returns a room of limit places, perAddress of them for one address.
func NewRoom(limit, perAddress int) *Room {
	return &Room{limit: limit, perAddress: perAddress,
		visitors: map[*Visitor]struct{}{}, addresses: map[netip.Addr]int{}}
}

// Admit takes v in, and waits until there is a place. The errors are ErrShare,
// ErrClosed and ctx's.
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

// Enter takes v in if there is a place, or one can be made. If not, wait is when to
// ask again. The errors are ErrShare and ErrClosed.
func (r *Room) Enter(v *Visitor) (wait time.Duration, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0, ErrClosed
	}
	if r.shareLocked(v) {
		r.refused++
		return 0, ErrShare
	}
	if len(r.visitors) >= r.limit {
		wait := r.evictLocked(func(*Visitor) bool { return true })
		if wait > 0 && !r.crowdLocked(v) {
			return wait, nil
		}
	}
	r.addLocked(v)
	return 0, nil
}

// Move counts v for another address from now on, or for none: a proxy has said whose
// connection it is. v must be in the room, or Move returns ErrClosed. When the address
// holds all it may, Move returns ErrShare, and v is not in the room any more.
func (r *Room) Move(v *Visitor, address netip.Addr, exempt bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, there := r.visitors[v]; !there {
		return ErrClosed // it was turned out
	}
	r.removeLocked(v)
	v.Address, v.Exempt = Network(address), exempt
	if r.shareLocked(v) {
		r.refused++
		return ErrShare
	}
	r.addLocked(v)
	return nil
}

// shareLocked reports whether the visitor's address holds all it may, and none of its
// visitors makes room.
func (r *Room) shareLocked(v *Visitor) bool {
	return !v.Exempt && r.addresses[v.Address] >= r.perAddress &&
		r.evictLocked(func(o *Visitor) bool { return !o.Exempt && o.Address == v.Address }) > 0
}

// Leave takes v out. It may have been turned out before.
func (r *Room) Leave(v *Visitor) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.removeLocked(v)
}

// Evict turns out the visitor that has kept the server waiting longest.
func (r *Room) Evict() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.evictLocked(func(*Visitor) bool { return true })
}

// Close turns out all visitors that are not being served, and keeps newcomers out.
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

// Stats are a moment's picture of a Room.
type Stats struct {
	Limit, Open int
	Refused     uint64 // turned away since the start
}

// Stats takes one.
func (r *Room) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Stats{Limit: r.limit, Open: len(r.visitors), Refused: r.refused}
}

func (r *Room) addLocked(v *Visitor) {
	v.placed.Store(time.Now().UnixNano())
	r.visitors[v] = struct{}{}
	if !v.Exempt {
		r.addresses[v.Address]++
	}
}

func (r *Room) removeLocked(v *Visitor) {
	if _, ok := r.visitors[v]; !ok {
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

// choice is the visitor that makes room, as far as one has been looked for.
type choice struct {
	visitor *Visitor
	known   bool
	waited  time.Duration // more than this, for another one to be chosen
}

// consider takes v if it is to go before the one that was chosen.
func (c *choice) consider(v *Visitor, waited, least time.Duration) {
	if waited < least {
		return
	}
	known := v.known.Load()
	if c.visitor == nil || c.known && !known || c.known == known && waited > c.waited {
		c.visitor, c.known, c.waited = v, known, waited
	}
}

// evictLocked turns one visitor out, and returns 0; or it returns how long it takes
// at least until the patience with one is used up. It looks at all of them, which is
// bounded and happens only when the room is full.
func (r *Room) evictLocked(candidate func(*Visitor) bool) time.Duration {
	const longest = 20 * time.Millisecond
	var victim choice
	next, now := longest, time.Now()
	strangers := false
	for v := range r.visitors {
		if !candidate(v) {
			continue
		}
		impatience := v.impatience(now)
		victim.consider(v, impatience, 0)
		next = min(next, max(-impatience, time.Millisecond))
		strangers = strangers || !v.known.Load() && !v.served.Load()
	}
	if victim.visitor == nil || victim.known && strangers {
		return next
	}
	r.turnOutLocked(victim.visitor)
	return 0
}

// crowd is how many times more connections than a newcomer's an address has, when
// one of them makes room for the newcomer.
const crowd = 16

// crowdLocked turns out a visitor of the address that has most, where those are a
// crowd beside the newcomer's: the one that has kept the server waiting longest, if
// that is longer than a peer needs that is on its way.
func (r *Room) crowdLocked(newcomer *Visitor) bool {
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
