package gateway

import (
	"maps"
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
//
// A host whose process answered and then fell silent goes to the end for logons to the same database
// only: the owner of a database can keep it locked, and must not lead other people's sessions to
// another host, which may be a standby.
type silentHosts struct {
	mu    sync.Mutex
	until map[silence]time.Time
}

type silence struct {
	address  string
	database string // empty: all
}

// order returns the targets for a logon to a database, with the silent hosts last. When a host's time
// is over, one logon tries it, and for the others it stays last meanwhile.
func (h *silentHosts) order(list []*target, database string) []*target {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.until) == 0 {
		return list
	}
	now := time.Now()
	silent := map[string]int{}
	for _, t := range list {
		if _, known := silent[t.address]; known {
			continue
		}
		silent[t.address] = 0
		for _, one := range []silence{{t.address, ""}, {t.address, database}} {
			switch until, there := h.until[one]; {
			case !there:
			case now.Before(until):
				silent[t.address] = 1
			default:
				h.until[one] = now.Add(2 * silenceLimit)
			}
		}
	}
	ordered := slices.Clone(list)
	slices.SortStableFunc(ordered, func(a, b *target) int { return silent[a.address] - silent[b.address] })
	return ordered
}

// note records the outcome of a logon at a host.
func (h *silentHosts) note(t *target, database string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	switch one := (silence{address: t.address}); {
	case timedOut(err):
		if answeredOnce(err) {
			one.database = database
		}
		if h.until == nil {
			h.until = map[silence]time.Time{}
		}
		maps.DeleteFunc(h.until, func(_ silence, until time.Time) bool { return now.After(until.Add(silenceFor)) })
		h.until[one] = now.Add(silenceFor)
	case len(h.until) > 0:
		delete(h.until, one)
		delete(h.until, silence{t.address, database})
	}
}
