package admission

import (
	"math"
	"net/netip"
	"sync"
	"time"
)

const (
	maxFailingAddresses = 4096
	maxHeld             = 1024 // answers held back, in all
	maxHeldPerAddress   = 32
	failureForgotten    = 10 * time.Second // one failure of an address is forgotten in this time
)

// Failures delays the answers to addresses that keep failing. Passwords are signatures, so
// guessing them is hopeless; the delay saves CPU time and space in the audit log. A timer delays
// the answer to a failure and nothing else: a peer at the same address with a credential is not
// slowed down, and no goroutine sleeps. Safe for concurrent use.
type Failures struct {
	delay, most time.Duration

	mu   sync.Mutex // guards what follows
	seen map[netip.Addr]failing
	held int
}

type failing struct {
	count float64
	at    time.Time
	held  int
}

// NewFailures returns Failures that delay the answer to an address's second failure by
// delay, and by twice as much each time, up to most.
func NewFailures(delay, most time.Duration) *Failures {
	return &Failures{delay: delay, most: most, seen: map[netip.Addr]failing{}}
}

// Hold counts a failure of address, and calls answer from another goroutine after the delay. The
// delay starts at since, so that it does not reveal how far a check got; zero means now.
func (f *Failures) Hold(address netip.Addr, since time.Time, answer func()) {
	now := time.Now()
	if since.IsZero() {
		since = now
	}
	f.mu.Lock()
	entry, known := f.seen[address]
	if !known && len(f.seen) >= maxFailingAddresses {
		for a, e := range f.seen { // any address that waits for no answer
			if e.held == 0 {
				delete(f.seen, a)
				break
			}
		}
	}
	entry.count = max(0, entry.count-now.Sub(entry.at).Seconds()/failureForgotten.Seconds()) + 1
	entry.at = now
	delay := f.delayAfter(entry.count)
	if f.held >= maxHeld || entry.held >= maxHeldPerAddress {
		f.mu.Unlock()
		answer()
		return
	}
	f.held++
	entry.held++
	f.seen[address] = entry
	f.mu.Unlock()

	time.AfterFunc(delay-now.Sub(since), func() {
		f.mu.Lock()
		f.held--
		if entry, ok := f.seen[address]; ok {
			entry.held--
			f.seen[address] = entry
		}
		f.mu.Unlock()
		answer()
	})
}

// delayAfter returns the delay after a number of failures, which a partly forgotten failure makes a
// fraction.
func (f *Failures) delayAfter(count float64) time.Duration {
	const longEnough = 16 // doublings, so that the shift does not overflow
	switch doublings := int(math.Round(count)) - 2; {
	case doublings < 0:
		return f.delay / 10
	case doublings < longEnough:
		return min(f.delay<<doublings, f.most)
	}
	return f.most
}

// Held returns how many answers are being delayed.
func (f *Failures) Held() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.held
}
