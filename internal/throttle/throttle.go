// Package throttle bounds what callers can take from a server: Keys gives each of
// them token buckets of calls and of bytes, and a number of calls at a time, Lines
// bounds what is written down of strangers, Gate bounds the work that is done at once
// and the queue before it.
//
// Who is over a limit is told so at once. A queue that is longer than the work it
// waits for only makes everybody late, so there is hardly one. All of it is bounded
// memory: a full table forgets the keys that have most of their limit left.
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
	Bytes      float64 // bytes per second that are written down of the calls; 0: no limit
	BytesBurst int     // bytes at once after a pause
}

// Share returns the limit divided by n, which is what one of many may take.
func (l Limit) Share(n int) Limit {
	least := func(whole int) int {
		if whole == 0 {
			return 0
		}
		return max(1, whole/n)
	}
	return Limit{l.Rate / float64(n), least(l.Burst), least(l.Concurrent), l.Bytes / float64(n), least(l.BytesBurst)}
}

// Most is how many bytes can be written of one caller within a time, if no call writes
// more than line.
func (l Limit) Most(within time.Duration, line int) int64 {
	return int64(l.Bytes*within.Seconds()) + int64(l.BytesBurst) + int64(l.Concurrent)*int64(line)
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
	calls   *rate.Limiter // nil: the limit has no rate
	bytes   *rate.Limiter // nil: the limit has none of bytes
	limit   *Limit        // that the buckets were made for
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
	p := s.passLocked(key, limit, k.most, now)
	if p == nil {
		// Every key in the table is at work: no room to count one more.
		return nil, RefusedAgain
	}
	if limit.Concurrent > 0 && p.running >= limit.Concurrent ||
		p.bytes != nil && p.bytes.TokensAt(now) <= 0 || p.calls != nil && !p.calls.AllowN(now, 1) {
		if since := now.Sub(p.told); since >= 0 && since < time.Second {
			return nil, RefusedAgain
		}
		p.told = now
		return nil, Refused
	}
	p.running++
	return p, Admitted
}

// passLocked finds the pass of key, or makes one. It returns nil when the table is
// full of keys at work.
func (s *shard[K]) passLocked(key K, limit *Limit, most int, now time.Time) *Pass {
	p := s.keys[key]
	if p == nil {
		if len(s.keys) >= most && !s.evict(now) {
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

// Charge takes bytes from the bucket of key, which may be in debt afterwards: then
// Enter refuses calls until it is paid. Calls that are at work when it begins are at
// most as many as the limit lets run at a time.
func (k *Keys[K]) Charge(key K, bytes int, now time.Time) {
	limit := k.limit.Load()
	if limit.Bytes == 0 {
		return
	}
	s := &k.shards[maphash.Comparable(k.seed, key)%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.passLocked(key, limit, k.most, now); p != nil && p.bytes != nil {
		p.bytes.ReserveN(now, min(bytes, p.bytes.Burst()))
	}
}

// Take takes one call and bytes for key, or nothing, and reports whether there was
// enough. It does not look at calls that run.
func (k *Keys[K]) Take(key K, bytes int, now time.Time) bool {
	limit := k.limit.Load()
	s := &k.shards[maphash.Comparable(k.seed, key)%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.passLocked(key, limit, k.most, now)
	if p == nil || p.bytes != nil && p.bytes.TokensAt(now) < float64(bytes) || p.calls != nil && !p.calls.AllowN(now, 1) {
		return false
	}
	if p.bytes != nil {
		p.bytes.AllowN(now, bytes)
	}
	return true
}

// Leave gives a pass of key back.
func (k *Keys[K]) Leave(key K, p *Pass) {
	s := &k.shards[maphash.Comparable(k.seed, key)%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.running--; p.running == 0 && p.calls == nil && p.bytes == nil && s.keys[key] == p {
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

// evict makes room: of a few, the key that has the most left of its limit, so that one
// that has used its own up stays. It reports whether there was any that is not at
// work.
func (s *shard[K]) evict(now time.Time) bool {
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

// left is how full the emptier one of the buckets is, 1: full.
func (p *Pass) left(now time.Time) float64 {
	left := 1.0
	for _, bucket := range []*rate.Limiter{p.calls, p.bytes} {
		if bucket != nil {
			left = min(left, bucket.TokensAt(now)/float64(bucket.Burst()))
		}
	}
	return left
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
