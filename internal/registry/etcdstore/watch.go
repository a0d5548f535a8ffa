package etcdstore

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"

	"github.com/daypass/daypass/internal/registry"
)

const (
	// patience is how old the last answer may be before a Watch gives up. Most leader elections
	// take less. It is shorter than registry.StaleAfter, so that the reason is known when logons
	// are refused.
	patience = registry.StaleAfter - 100*time.Millisecond
	// mostLooks bounds the looks of one Watch that wait for an answer.
	mostLooks = int(patience / (registry.Beat / 2))
)

// answer is what etcd says to a look, or to a list.
type answer struct {
	asked    time.Time // etcd has answered with its state at this time or later
	full     bool      // records are all of them; otherwise those that have changed
	records  []registry.Record
	count    int // of all records
	revision int64
	err      error
}

// watch is the state of one Watch.
type watch struct {
	store  *Store
	prefix string
	see    func([]registry.Record, bool, time.Time)

	answers chan answer
	open    int  // looks and lists that wait for an answer
	listing bool // one of them is a list

	records  []registry.Record // as reported, sorted by key
	revision int64             // of records; 0: nothing was read yet
	asOf     time.Time         // of the last report
	partial  bool              // the changes since revision are more than a look has shown
	cause    error             // why the last look has no answer
}

// Watch implements registry.Store. It sends a look several times a second, also while earlier ones
// wait for their answers: a slow etcd delays the answers and does not make them fewer. It returns
// before its last report is older than patience; only the first look may take longer.
func (s *Store) Watch(ctx context.Context, prefix string, see func([]registry.Record, bool, time.Time)) error {
	asking, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	w := &watch{store: s, prefix: prefix, see: see, answers: make(chan answer, mostLooks+1), cause: s.explain(context.DeadlineExceeded)}
	ask := func(question func(context.Context) answer) {
		w.open++
		work.Go(func() { w.answers <- question(asking) })
	}
	ticker := time.NewTicker(registry.Beat / 2)
	defer ticker.Stop()
	limit := time.NewTimer(callTimeout)
	defer limit.Stop()
	written := s.nextWrite()
	w.listing = true
	ask(w.list)
	for {
		again := false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-limit.C:
			return w.cause
		case <-written:
			written, again = s.nextWrite(), true
		case <-ticker.C:
			again = true
		case a := <-w.answers:
			w.open--
			before := w.asOf
			if err := w.take(a); err != nil {
				return cmp.Or(ctx.Err(), err)
			}
			switch {
			case before.IsZero() && !w.asOf.IsZero(): // the first look begins now, and its answer may be as slow
				limit.Reset(callTimeout)
			case !w.asOf.Equal(before):
				limit.Reset(patience - registry.Age(w.asOf))
			}
			if w.partial && !w.listing {
				w.listing = true
				ask(w.list)
			}
		}
		if again && w.revision != 0 && w.open < mostLooks {
			revision := w.revision
			ask(func(ctx context.Context) answer { return w.look(ctx, revision) })
		}
	}
}

// nextWrite returns a channel that is closed at the next write of this Store.
func (s *Store) nextWrite() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.written
}

// take uses an answer. It returns an error that ends the Watch.
func (w *watch) take(a answer) error {
	if a.full {
		w.listing = false
	}
	switch {
	case code(a.err) == codes.DeadlineExceeded: // keep an earlier cause, which says more
		return nil
	case a.err != nil && (code(a.err) == codes.Unknown || w.revision == 0):
		return a.err // the answer is unusable, or nothing was read yet
	case a.err != nil:
		w.cause = a.err // etcd refused this call; the next one may succeed
		return nil
	case a.revision < w.revision: // a later answer came first
		return nil
	case a.full:
		w.records, w.revision, w.partial = a.records, a.revision, false
		w.report(true, a.asked)
		return nil
	case len(a.records) == pageSize: // there may be more
		w.partial = true
		return nil
	}
	changed := w.merge(a.records)
	// If the counts differ, a record was deleted. Then w.records has all existing records and also
	// some that no longer exist.
	w.revision, w.partial = a.revision, a.count != len(w.records)
	w.report(changed, a.asked)
	return nil
}

func (w *watch) report(changed bool, asked time.Time) {
	if asked.After(w.asOf) {
		w.asOf = asked
	} else if !changed {
		return // already confirmed as of a later time
	}
	if changed {
		w.see(slices.Clone(w.records), true, w.asOf)
	} else {
		w.see(nil, false, w.asOf)
	}
}

// merge puts new and changed records among those that are known, and reports whether there are any.
func (w *watch) merge(changes []registry.Record) (changed bool) {
	for _, record := range changes {
		at, found := slices.BinarySearchFunc(w.records, record.Key, func(r registry.Record, key string) int { return cmp.Compare(r.Key, key) })
		switch {
		case !found:
			w.records = slices.Insert(w.records, at, record)
		case w.records[at].Revision < record.Revision:
			w.records[at] = record
		default:
			continue
		}
		changed = true
	}
	return changed
}

// list asks for all records.
func (w *watch) list(ctx context.Context) answer {
	asked := time.Now()
	records, revision, err := w.store.list(ctx, asked.Add(callTimeout), w.prefix)
	return answer{asked: asked, full: true, records: records, revision: revision, err: err}
}

// look asks for the records that were written after revision, and for the number of all.
func (w *watch) look(ctx context.Context, revision int64) answer {
	asked := time.Now()
	limited, cancel := context.WithDeadline(ctx, asked.Add(patience))
	defer cancel()
	page, err := w.store.ask(limited, w.store.prefix+w.prefix, clientv3.WithPrefix(), clientv3.WithMinModRev(revision+1), clientv3.WithLimit(pageSize))
	if err != nil {
		return answer{err: err}
	}
	a := answer{asked: asked, count: int(page.Count), revision: page.Header.Revision} // Count includes all records, whatever the limits
	for _, kv := range page.Kvs {
		record, err := w.store.parse(strings.TrimPrefix(string(kv.Key), w.store.prefix), kv.Value, kv.ModRevision)
		if err != nil {
			return answer{err: err}
		}
		a.records = append(a.records, record)
	}
	return a
}
