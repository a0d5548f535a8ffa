package etcdstore

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"

	"github.com/daypass/daypass/internal/registry"
)

// leaseMargin is how long before its end a lease no longer counts as held: clocks of two machines
// do not run at exactly the same speed.
const leaseMargin = time.Second

// Lease is a registry.Leased. Make it with Store.Lease; nothing can be written before Hold runs. Safe
// for concurrent use.
type Lease struct {
	store    *Store
	lifetime time.Duration
	again    chan struct{} // holds one element when the lease was found not to be held

	mu         sync.Mutex // guards what follows
	id         clientv3.LeaseID
	generation uint64    // grows with each lease
	renewed    time.Time // when the last renewal that succeeded was asked for
	resets     uint64    // of the store, before the lease was made
}

var _ registry.Leased = (*Lease)(nil)

// errNoLease is the cause when there is no lease to write under.
var errNoLease = errors.New("this server has no lease at the moment")

// Lease returns a lease that is kept by Hold.
func (s *Store) Lease(lifetime time.Duration) *Lease {
	return &Lease{store: s, lifetime: lifetime, again: make(chan struct{}, 1)}
}

// Hold keeps the lease alive until ctx is done. Then Hold revokes the lease, and all its records
// vanish.
func (l *Lease) Hold(ctx context.Context) {
	ticker := time.NewTicker(l.lifetime / 4)
	defer ticker.Stop()
	for ctx.Err() == nil {
		pause := ticker.C
		if l.renew(ctx) != nil {
			pause = time.After(registry.Beat / 2)
		}
		select {
		case <-ctx.Done():
		case <-l.again:
		case <-pause:
		}
	}
	l.mu.Lock()
	id := l.id
	l.id, l.renewed = 0, time.Time{}
	l.mu.Unlock()
	if id == 0 {
		return
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), attemptTimeout)
	defer cancel()
	link := l.store.use()
	defer link.calls.Done()
	_, _ = link.client.Revoke(last, id) // if this fails, the lease expires soon
}

// renew renews the lease, or makes another one.
func (l *Lease) renew(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, l.lifetime/4)
	defer cancel()
	link := l.store.use()
	defer link.calls.Done()
	l.mu.Lock()
	id, renewed, before := l.id, l.renewed, l.resets
	l.mu.Unlock()
	resets := l.store.wentBack()
	if id != 0 {
		asked := time.Now()
		answer, err := link.client.KeepAliveOnce(limited, id)
		switch {
		case err == nil && answer.TTL > 0:
			// A backup of etcd contains the lease, with the records as of the backup. So if
			// etcd went back, newer records are lost. They may also be lost if etcd was
			// unreachable for so long that it could have been restored.
			if resets != before || registry.Age(renewed) > l.lifetime {
				l.lost(id)
				break
			}
			l.mu.Lock()
			if l.id == id {
				l.renewed = asked
			}
			l.mu.Unlock()
			return nil
		case err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound):
			return err
		}
		l.lost(id)
	}
	asked := time.Now()
	granted, err := link.client.Grant(limited, int64(l.lifetime/time.Second))
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.id, l.renewed, l.resets = granted.ID, asked, resets
	l.generation++
	return nil
}

// hurry makes Hold renew the lease now.
func (l *Lease) hurry() {
	select {
	case l.again <- struct{}{}:
	default:
	}
}

// lost forgets a lease that has ended.
func (l *Lease) lost(id clientv3.LeaseID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.id == id {
		l.id, l.renewed = 0, time.Time{}
	}
}

// Held implements registry.Leased. It returns false if the process, or its machine, was stopped for
// too long.
func (l *Lease) Held() (generation uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.generation, l.heldLocked()
}

func (l *Lease) heldLocked() bool {
	return l.id != 0 && registry.Age(l.renewed) < l.lifetime-leaseMargin && l.resets == l.store.wentBack()
}

// wentBack returns how often reads of revocations found that etcd had gone back to an earlier state,
// or was another cluster.
func (s *Store) wentBack() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.resets
}

// Look implements registry.Leased.
func (l *Lease) Look(ctx context.Context, prefix string) (registry.Sight, error) {
	return l.store.sight(ctx, prefix)
}

// sight reads the records under prefix. It does not check whether etcd has gone back to an earlier
// state. Reads of revocations check that, and they must not miss it.
func (s *Store) sight(ctx context.Context, prefix string) (registry.Sight, error) {
	limited, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	first := s.prefix + prefix
	from, end := first, clientv3.GetPrefixRangeEnd(first)
	var seen registry.Sight
	var cause error = context.DeadlineExceeded
	for wait := attemptTimeout; ; wait *= 2 {
		attempt, done := context.WithTimeout(limited, wait)
		link := s.use()
		page, err := link.client.Get(attempt, from, clientv3.WithRange(end), clientv3.WithLimit(pageSize), clientv3.WithRev(seen.At.Revision))
		link.calls.Done()
		done()
		switch {
		case err == nil:
			if seen.At.Revision == 0 {
				seen.At = registry.Mark{Cluster: page.Header.ClusterId, Revision: page.Header.Revision}
			}
			if err := s.add(&seen, page.Kvs); err != nil || !page.More {
				return seen, err
			}
			from, wait = string(page.Kvs[len(page.Kvs)-1].Key)+"\x00", attemptTimeout/2
			continue
		case code(err) == codes.OutOfRange && seen.At.Revision != 0: // compacted between two pages, or restored
			seen, from, wait = registry.Sight{}, first, attemptTimeout/2
			continue
		case code(err) == codes.Unavailable:
			cause, wait = err, attemptTimeout/2
		case code(err) != codes.DeadlineExceeded:
			return registry.Sight{}, cmp.Or(ctx.Err(), s.explain(err))
		}
		select {
		case <-limited.Done():
			return registry.Sight{}, cmp.Or(ctx.Err(), s.explain(cause))
		case <-time.After(pause):
		}
	}
}

// add adds records to a Sight.
func (s *Store) add(seen *registry.Sight, kvs []*mvccpb.KeyValue) error {
	for _, kv := range kvs {
		record, err := s.parse(strings.TrimPrefix(string(kv.Key), s.prefix), kv.Value, kv.ModRevision)
		if err != nil {
			return err
		}
		seen.Records = append(seen.Records, record)
	}
	return nil
}

// Swap implements registry.Leased. It tries again while members do not answer. An attempt that
// arrives at etcd after a later one has succeeded does nothing, because it finds a record that has
// changed since, unless that record was deleted.
func (l *Lease) Swap(ctx context.Context, prefix, own string, value []byte, since registry.Mark) (registry.Sight, error) {
	change := leasedChange{store: l.store, prefix: prefix, own: own, value: value, since: since}
	limited, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var cause error = context.DeadlineExceeded
	pending := false
	for wait := attemptTimeout; ; wait *= 2 {
		l.mu.Lock()
		id, generation, held := l.id, l.generation, l.heldLocked()
		l.mu.Unlock()
		var answer *clientv3.TxnResponse
		err := errNoLease
		if held || value == nil { // a deletion needs no lease
			answer, err = change.attempt(limited, wait, id)
		}
		switch {
		case err == nil:
			seen, err := change.result(limited, answer)
			if seen.Written {
				seen.Generation = generation
			} else {
				seen.Pending = pending
			}
			return seen, err
		case errors.Is(err, errNoLease):
			l.hurry()
			cause, wait = errNoLease, attemptTimeout/2
		case errors.Is(err, rpctypes.ErrLeaseNotFound):
			l.lost(id)
			l.hurry()
			cause, wait = errNoLease, attemptTimeout/2
		case code(err) == codes.Unavailable:
			cause, wait, pending = err, attemptTimeout/2, true
		case code(err) == codes.DeadlineExceeded:
			pending = true
		default:
			return registry.Sight{}, cmp.Or(ctx.Err(), l.store.explain(err))
		}
		select {
		case <-limited.Done():
			return registry.Sight{}, l.store.explain(cause)
		case <-time.After(pause):
		}
	}
}

// leasedChange is what one Swap asks for: its parameters.
type leasedChange struct {
	store       *Store
	prefix, own string
	value       []byte
	since       registry.Mark
}

// attempt sends the change to one member of etcd, and waits for its answer no longer than wait.
func (c leasedChange) attempt(ctx context.Context, wait time.Duration, lease clientv3.LeaseID) (*clientv3.TxnResponse, error) {
	then := clientv3.OpDelete(c.store.prefix + c.own)
	if c.value != nil {
		then = clientv3.OpPut(c.store.prefix+c.own, format(c.own, c.value), clientv3.WithLease(lease))
	}
	all := c.store.prefix + c.prefix
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	link := c.store.use()
	defer link.calls.Done()
	return link.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(all), "<", c.since.Revision+1).WithPrefix()).
		Then(then).Else(clientv3.OpGet(all, clientv3.WithPrefix(), clientv3.WithLimit(pageSize))).Commit()
}

// result returns what etcd's answer to an attempt says. If the change was not made, it reads what
// the answer does not have.
func (c leasedChange) result(ctx context.Context, answer *clientv3.TxnResponse) (registry.Sight, error) {
	at := registry.Mark{Cluster: answer.Header.ClusterId, Revision: answer.Header.Revision}
	// If etcd was restored from a backup, or is another cluster, its revisions cannot be
	// compared with since.
	other := c.since != (registry.Mark{}) && (at.Cluster != c.since.Cluster || at.Revision < c.since.Revision) ||
		answer.Succeeded && at.Revision <= c.since.Revision
	if answer.Succeeded && !other {
		return registry.Sight{At: at, Written: true}, nil
	}
	if other || answer.Responses[0].GetResponseRange().More {
		return c.store.sight(ctx, c.prefix)
	}
	seen := registry.Sight{At: at}
	err := c.store.add(&seen, answer.Responses[0].GetResponseRange().Kvs)
	return seen, err
}
