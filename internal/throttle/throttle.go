// Package throttle bounds what callers can take from a server. Keys gives each caller
// token buckets of calls and of bytes, and a number of calls at a time. Lines bounds
// what is written about strangers. Gate bounds how much work is done at once, and the
// queue for it.
//
// A caller over its limit is refused at once: a long queue would only make every caller
// wait. Memory is bounded: a full table forgets the keys that have most of their limit
// left.
//
// The time that is passed in may be that of the beginning of a call: one that is before the
// latest of a key counts as the latest. It should be time.Now's, because its monotonic reading
// does not jump. With another clock that is set back, an empty bucket stays empty until the
// clock has caught up.
package throttle

import (
	"context"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Limit is what one caller may take. The zero Limit limits nothing.
type Limit struct {
	Rate       float64 // calls per second in the long run; 0: no limit
	Burst      int     // calls at once after a pause; at least 1 counts
	Concurrent int     // calls at a time; 0: no limit
	Bytes      float64 // bytes per second that are written about the calls; 0: no limit
	BytesBurst int     // bytes at once after a pause
}

// Share returns the limit divided by n: the share of one of n callers.
func (l Limit) Share(n int) Limit {
	least := func(whole int) int {
		if whole == 0 {
			return 0
		}
		return max(1, whole/n)
	}
	return Limit{l.Rate / float64(n), least(l.Burst), least(l.Concurrent), l.Bytes / float64(n), least(l.BytesBurst)}
}

// Most returns how many bytes can be written about one caller within a time, if no call
// writes more than line.
func (l Limit) Most(within time.Duration, line int) int64 {
	return int64(l.Bytes*within.Seconds()) + int64(l.BytesBurst) + int64(l.Concurrent)*int64(line)
}

// shards is the number of locks, so that callers seldom wait for one another.
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
	_    [48]byte // the rest of a cache line, which no other shard is in
}

// Pass is the permission for a call. It has to be returned with Leave.
type Pass struct {
	calls   *rate.Limiter // nil: the limit has no rate
	bytes   *rate.Limiter // nil: the limit has no bytes
	limit   *Limit        // the limit that the buckets were made for
	running int
	latest  time.Time // that was passed in
	told    time.Time // when Enter last returned Refused
}

// at returns the time that counts as now. rate.Limiter would go back to an earlier one, and then
// fill the bucket a second time for what has passed since.
func (p *Pass) at(now time.Time) time.Time {
	if now.After(p.latest) {
		p.latest = now
	}
	return p.latest
}

func (k *Keys[K]) shard(key K) *shard[K] { return &k.shards[maphash.Comparable(k.seed, key)%shards] }

// NewKeys returns a table of roughly most keys at most.
func NewKeys[K comparable](limit Limit, most int) *Keys[K] {
	k := &Keys[K]{most: max(1, most/shards), seed: maphash.MakeSeed()}
	for i := range k.shards {
		k.shards[i].keys = map[K]*Pass{}
	}
	k.SetLimit(limit)
	return k
}

// SetLimit changes the limit of every key, from the next Enter on.
func (k *Keys[K]) SetLimit(limit Limit) { k.limit.Store(&limit) }

// Verdict is the result of Enter.
type Verdict int

const (
	Admitted     Verdict = iota
	Refused              // over the limit, for the first time within a second
	RefusedAgain         // over the limit, less than a second after Refused
)

// Enter starts a call of key. If the verdict is Admitted, return the pass with Leave when the
// call is done; otherwise the pass is nil.
func (k *Keys[K]) Enter(key K, now time.Time) (*Pass, Verdict) {
	limit := k.limit.Load()
	s := k.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.passLocked(key, limit, k.most, now)
	if p == nil {
		// Every key in the table has calls running: there is no room for another.
		return nil, RefusedAgain
	}
	now = p.at(now)
	if limit.Concurrent > 0 && p.running >= limit.Concurrent ||
		p.bytes != nil && p.bytes.TokensAt(now) <= 0 || p.calls != nil && !p.calls.AllowN(now, 1) {
		if now.Sub(p.told) < time.Second {
			return nil, RefusedAgain
		}
		p.told = now
		return nil, Refused
	}
	p.running++
	return p, Admitted
}

// passLocked finds the pass of key, or makes one. It returns nil when the table is
// full of keys with running calls.
func (s *shard[K]) passLocked(key K, limit *Limit, most int, now time.Time) *Pass {
	p := s.keys[key]
	if p == nil {
		if len(s.keys) >= most && !s.evictLocked(now) {
			return nil
		}
		p = &Pass{}
		s.keys[key] = p
	}
	if p.limit != limit { // new, or the limit was changed: starts with full buckets
		p.limit, p.calls, p.bytes = limit, nil, nil
		if limit.Rate > 0 {
			p.calls = rate.NewLimiter(rate.Limit(limit.Rate), max(1, limit.Burst))
		}
		if limit.Bytes > 0 {
			p.bytes = rate.NewLimiter(rate.Limit(limit.Bytes), max(1, limit.BytesBurst))
		}
	}
	return p
}

// Charge takes bytes from the bucket of key, which may go below zero. Enter then refuses calls
// until it is above zero again. Running calls are not stopped; the limit bounds their number.
func (k *Keys[K]) Charge(key K, bytes int, now time.Time) {
	limit := k.limit.Load()
	if limit.Bytes == 0 {
		return
	}
	s := k.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.passLocked(key, limit, k.most, now); p != nil && p.bytes != nil {
		p.bytes.ReserveN(p.at(now), min(bytes, p.bytes.Burst()))
	}
}

// Take takes one call and bytes for key, or neither, and reports whether there was
// enough. Running calls do not matter.
func (k *Keys[K]) Take(key K, bytes int, now time.Time) bool {
	limit := k.limit.Load()
	s := k.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.passLocked(key, limit, k.most, now)
	if p == nil {
		return false
	}
	now = p.at(now)
	if p.bytes != nil && p.bytes.TokensAt(now) < float64(bytes) || p.calls != nil && !p.calls.AllowN(now, 1) {
		return false
	}
	if p.bytes != nil {
		p.bytes.AllowN(now, bytes)
	}
	return true
}

// Leave returns a pass of key.
func (k *Keys[K]) Leave(key K, p *Pass) {
	s := k.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.running--; p.running == 0 && p.calls == nil && p.bytes == nil && s.keys[key] == p {
		delete(s.keys, key) // there is nothing to remember
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

// evictLocked makes room: it looks at a few keys and forgets the one that has most of its limit left,
// so that keys that have used up their limit stay. It reports whether it found a key without a
// running call.
func (s *shard[K]) evictLocked(now time.Time) bool {
	var victim K
	best, looked, found := 0.0, 0, false
	for key, p := range s.keys { // in no order
		if p.running > 0 {
			continue
		}
		if left := p.left(now); !found || left > best {
			victim, best, found = key, left, true
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

// left returns how full the emptier of the buckets is; 1 means full.
func (p *Pass) left(now time.Time) float64 {
	left := 1.0
	for _, bucket := range []*rate.Limiter{p.calls, p.bytes} {
		if bucket != nil {
			left = min(left, bucket.TokensAt(now)/float64(bucket.Burst()))
		}
	}
	return left
}

// Gate bounds how many callers work at a time. Safe for concurrent use.
type Gate struct {
	slots   chan struct{}
	wait    time.Duration
	queue   int64
	waiting atomic.Int64
	shed    atomic.Uint64
}

// NewGate returns a gate that admits slots callers at a time. Up to queue more wait for their
// turn, each for at most wait.
func NewGate(slots, queue int, wait time.Duration) *Gate {
	return &Gate{slots: make(chan struct{}, slots), queue: int64(queue), wait: wait}
}

// Enter waits for a turn, and reports whether the caller has one. Leave ends it.
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

// Leave ends a turn.
func (g *Gate) Leave() { <-g.slots }

// GateStats are a snapshot of a Gate.
type GateStats struct {
	Slots, Busy, Waiting int
	Shed                 uint64 // turned away since the start
}

// Stats takes a snapshot.
func (g *Gate) Stats() GateStats {
	return GateStats{Slots: cap(g.slots), Busy: len(g.slots), Waiting: int(g.waiting.Load()), Shed: g.shed.Load()}
}
