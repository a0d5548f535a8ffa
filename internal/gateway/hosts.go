package gateway

import (
	"slices"
	"sync"
	"time"
)

const (
	// silenceLimit is how long a logon waits for one of several hosts before it tries
	// the next one. The last one has all the time that is left.
	silenceLimit = 2 * time.Second
	// silenceFor is how long a host that did not answer goes to the end of the list.
	silenceFor = 30 * time.Second
)

// silentHosts remembers the hosts that did not answer, such as a primary whose
// machine has failed, so that after a failover only the first logons wait for it.
// The zero value remembers none. Safe for concurrent use.
type silentHosts struct {
	mu    sync.Mutex
	until map[string]time.Time // by address
}

// order returns the targets with the silent hosts last.
func (h *silentHosts) order(list []*target) []*target {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.until) == 0 {
		return list
	}
	now := time.Now()
	ordered := slices.Clone(list)
	slices.SortStableFunc(ordered, func(a, b *target) int {
		silent := func(t *target) int {
			if now.Before(h.until[t.address]) {
				return 1
			}
			return 0
		}
		return silent(a) - silent(b)
	})
	return ordered
}

func (h *silentHosts) note(address string, silent bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case !silent:
		delete(h.until, address)
	case h.until == nil:
		h.until = map[string]time.Time{}
		fallthrough
	default:
		h.until[address] = time.Now().Add(silenceFor)
	}
}
