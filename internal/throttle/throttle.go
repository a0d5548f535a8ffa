// Package throttle bounds what callers can take from a server: Keys gives each of
// them a token bucket and a number of calls at a time, Gate bounds the work that is
// done at once and the queue before it, Connections the connections of a listener.
//
// Who is over a limit is told so at once. A queue that is longer than the work it
// waits for only makes everybody late, so there is hardly one. All of it is bounded
// memory: a table that is full forgets whoever has nothing to be remembered for.
//
// Time is passed in, and should be time.Now's, whose monotonic reading no clock
// step moves: after a step back of another clock an empty bucket stays empty until
// the clock is where it was.
package throttle

import (
	"context"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Limit is what one caller may take. The zero Limit is none.
type Limit struct {
	Rate       float64 // calls per second in the long run; 0: no limit
	Burst      int     // calls at once after a pause; at least 1 counts
	Concurrent int     // calls at a time; 0: no limit
}

// shards keep callers from waiting for one another's locks.
const shards = 16

// Keys limits callers by key. Safe for concurrent use.
type Keys[K comparable] struct {
	limit  atomic.Pointer[Limit]
	most   int // keys in a shard
	seed   maphash.Seed
	shards [shards]shard[K]
}

type shard[K comparable] struct {
	mu   sync.Mutex // guards what follows
	keys map[K]*Pass
	_    [40]byte
}

// Pass is the leave to make a call, given back with Leave.
type Pass struct {
	bucket  *rate.Limiter // nil: the limit has no rate
	limit   *Limit        // that bucket was made for
	running int
	told    time.Time // when Enter last said no
}

// NewKeys returns a table of at most about most keys.
func NewKeys[K comparable](limit Limit, most int) *Keys[K] {
	k := &Keys[K]{most: max(1, most/shards), seed: maphash.MakeSeed()}
	for i := range k.shards {
		k.shards[i].keys = map[K]*Pass{}
	}
	k.SetLimit(limit)
	return k
}

// SetLimit changes the limit of everybody, from the next Enter on.
func (k *Keys[K]) SetLimit(limit Limit) { k.limit.Store(&limit) }

// Verdict is what Enter says.
type Verdict int

const (
	Admitted     Verdict = iota
	Refused              // over the limit, and told so for the first time within a second
	RefusedAgain         // over the limit, as was said a moment ago
)

// Enter asks leave for a call of key. When it is Admitted the pass must be given
// back with Leave; otherwise there is none.
func (k *Keys[K]) Enter(key K, now time.Time) (*Pass, Verdict) {
	limit := k.limit.Load()
	s := &k.shards[maphash.Comparable(k.seed, key)%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.keys[key]
	if p == nil {
		if len(s.keys) >= k.most && !s.evict(now) {
			// Everybody in the table is at work: no room to count one more.
			return nil, RefusedAgain
		}
		p = &Pass{}
		s.keys[key] = p
	}
	if p.limit != limit { // new, or the limit was changed: starts with a full bucket
		p.limit, p.bucket = limit, nil
		if limit.Rate > 0 {
			p.bucket = rate.NewLimiter(rate.Limit(limit.Rate), max(1, limit.Burst))
		}
	}
	if limit.Concurrent > 0 && p.running >= limit.Concurrent || p.bucket != nil && !p.bucket.AllowN(now, 1) {
		if since := now.Sub(p.told); since >= 0 && since < time.Second {
			return nil, RefusedAgain
		}
		p.told = now
		return nil, Refused
	}
	p.running++
	return p, Admitted
}

// Leave gives a pass of key back.
func (k *Keys[K]) Leave(key K, p *Pass) {
	s := &k.shards[maphash.Comparable(k.seed, key)%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.running--; p.running == 0 && p.bucket == nil && s.keys[key] == p {
		delete(s.keys, key) // nothing to be remembered for
	}
}

// Len returns the number of keys in the table.
func (k *Keys[K]) Len() int {
	n := 0
	for i := range k.shards {
		s := &k.shards[i]
		s.mu.Lock()
		n += len(s.keys)
		s.mu.Unlock()
	}
	return n
}

// evict makes room: of a few, the one that has the most tokens, so that whoever
// has used his up stays. It reports whether there was anyone who is not at work.
func (s *shard[K]) evict(now time.Time) bool {
	var victim K
	best, looked, found := 0.0, 0, false
	for key, p := range s.keys { // in no order
		if p.running > 0 {
			continue
		}
		if p.bucket == nil { // it only waits to be deleted
			victim, found = key, true
			break
		}
		if tokens := p.bucket.TokensAt(now); !found || tokens > best {
			victim, best, found = key, tokens, true
		}
		if looked++; looked == 8 {
			break
		}
	}
	if found {
		delete(s.keys, victim)
	}
	return found
}

// Gate bounds how much is done at a time. Safe for concurrent use.
type Gate struct {
	slots   chan struct{}
	wait    time.Duration
	queue   int64
	waiting atomic.Int64
	shed    atomic.Uint64
}

// NewGate lets slots through at a time; queue more may wait for their turn, no
// longer than wait.
func NewGate(slots, queue int, wait time.Duration) *Gate {
	return &Gate{slots: make(chan struct{}, slots), queue: int64(queue), wait: wait}
}

// Enter waits for a turn, and reports whether it came. Leave ends it.
func (g *Gate) Enter(ctx context.Context) bool {
	select {
	case g.slots <- struct{}{}:
		return true
	default:
	}
	defer g.waiting.Add(-1)
	if g.waiting.Add(1) > g.queue {
		g.shed.Add(1)
		return false
	}
	timer := time.NewTimer(g.wait)
	defer timer.Stop()
	select {
	case g.slots <- struct{}{}:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	g.shed.Add(1)
	return false
}

// Leave ends what Enter let through.
func (g *Gate) Leave() { <-g.slots }

// GateStats are a moment's picture of a Gate.
type GateStats struct {
	Slots, Busy, Waiting int
	Shed                 uint64 // turned away since the start
}

// Stats takes one.
func (g *Gate) Stats() GateStats {
	return GateStats{Slots: cap(g.slots), Busy: len(g.slots), Waiting: int(g.waiting.Load()), Shed: g.shed.Load()}
}
