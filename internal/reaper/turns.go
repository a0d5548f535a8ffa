package reaper

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/daypass/daypass/internal/registry"
)

// turnsPrefix is the prefix of the keys under which servers record whose turn it is to sweep a
// cluster:
//
//	sweep/examplecluster/db1-k3v9    1
const turnsPrefix = "sweep/"

const (
	// askFor bounds a call to the registry.
	askFor = 2 * time.Second
	// askedFor is how long an answer of the registry is used before it is asked again.
	askedFor = time.Second
)

// turn is what a server knows about who sweeps a cluster.
type turn int

const (
	// turnAlone means that there are no other servers, or that nothing is known about them. A sweep
	// by two servers at the same time does no harm: each only repeats what the other did.
	turnAlone turn = iota
	turnMine
	turnOthers
)

// Turns decides which of several servers sweeps a cluster. The server whose turn it is has a
// record under its lease, so when it stops, crashes, freezes or is cut off, another one takes its
// place. It rewrites the record after each sweep. A record that does not change is ignored after
// a while, whoever wrote it. Safe for concurrent use. A nil *Turns is for a server that is alone.
type Turns struct {
	store registry.Leased
	self  string

	mu   sync.Mutex                // guards the fields below
	held map[string]registry.Sight // what was written for a cluster
	news map[string]news           // of the other servers' records, by cluster
	seen registry.Sight
	at   time.Time // of seen; zero: seen is out of date
	mute time.Time // when a call to the registry last failed
}

// news is when a record was last seen to change.
type news struct {
	revision uint64
	since    time.Time
}

// NewTurns returns the turns of the server self, which must be a name that no other process has.
func NewTurns(store registry.Leased, self string) *Turns {
	return &Turns{store: store, self: self, held: map[string]registry.Sight{}, news: map[string]news{}}
}

// take returns whose turn it is to sweep a cluster. If it is no server's turn, this one takes it.
// A server that has not used its turn for as long as patience does not keep this one from
// sweeping.
func (t *Turns) take(ctx context.Context, cluster string, patience time.Duration) turn {
	if t == nil {
		return turnAlone
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	generation, holds := t.store.Held()
	if mine, ok := t.held[cluster]; ok && holds && mine.Generation == generation {
		return turnMine
	}
	delete(t.held, cluster)
	if !t.mute.IsZero() && time.Since(t.mute) < askedFor {
		return turnAlone // so that clusters do not each wait for a registry that does not answer
	}
	limited, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	if t.at.IsZero() || time.Since(t.at) > askedFor {
		seen, err := t.store.Look(limited, turnsPrefix)
		if err != nil {
			t.mute = time.Now()
			return turnAlone
		}
		t.seen, t.at = seen, time.Now()
	}
	prefix := turnsPrefix + cluster + "/"
	own := prefix + t.self
	since := registry.Mark{}
	for _, r := range t.seen.Records {
		switch {
		case r.Key == own: // from a write that seemed to fail, or from an earlier lease
			since = t.seen.At
		case strings.HasPrefix(r.Key, prefix):
			last := t.news[cluster]
			if last.revision != r.Revision {
				last = news{r.Revision, time.Now()}
				t.news[cluster] = last
			}
			if time.Since(last.since) > patience {
				return turnAlone
			}
			return turnOthers
		}
	}
	written, err := t.store.Swap(limited, prefix, own, []byte("1"), since)
	switch {
	case err != nil:
		t.mute = time.Now()
		return turnAlone
	case !written.Written: // another server was faster
		t.at = time.Time{}
		return turnOthers
	}
	t.held[cluster] = written
	return turnMine
}

// swept tells the other servers that this one is using its turn.
func (t *Turns) swept(ctx context.Context, cluster string) {
	if t == nil {
		return
	}
	t.mu.Lock()
	before, mine := t.held[cluster]
	t.mu.Unlock()
	if !mine {
		return
	}
	limited, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	prefix := turnsPrefix + cluster + "/"
	written, err := t.store.Swap(limited, prefix, prefix+t.self, []byte("1"), before.At)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil && written.Written {
		t.held[cluster] = written
	} else {
		delete(t.held, cluster) // take looks again
	}
}

// pass leaves a cluster to the other servers, if it is this one's turn.
func (t *Turns) pass(ctx context.Context, cluster string) {
	if t == nil {
		return
	}
	t.mu.Lock()
	_, mine := t.held[cluster]
	delete(t.held, cluster)
	t.at = time.Time{}
	t.mu.Unlock()
	if !mine {
		return
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), askFor)
	defer cancel()
	prefix := turnsPrefix + cluster + "/"
	if seen, err := t.store.Look(limited, prefix); err == nil {
		_, _ = t.store.Swap(limited, prefix, prefix+t.self, nil, seen.At) // if this fails, the record ends with the lease
	}
}
