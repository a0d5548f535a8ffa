package etcdstore

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Announce keeps a record under an etcd lease until ctx is done. It calls value and writes
// the record several times per lifetime, and each time again is signalled. It deletes the
// record when ctx is done. If the process crashes or loses its connection, the record expires
// after lifetime. Failed writes are retried; tell gets the error, and nil once writing
// works again.
func (s *Store) Announce(ctx context.Context, key string, lifetime time.Duration, value func() []byte, again <-chan struct{}, tell func(error)) {
	ticker := time.NewTicker(lifetime / 4)
	defer ticker.Stop()
	var lease clientv3.LeaseID
	for {
		next, err := s.announce(ctx, lease, key, lifetime, value())
		if ctx.Err() != nil {
			break
		}
		lease = next
		tell(err)
		select {
		case <-ctx.Done():
		case <-again:
		case <-ticker.C:
		}
		if ctx.Err() != nil {
			break
		}
	}
	if lease == 0 {
		return
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), attemptTimeout)
	defer cancel()
	l := s.use()
	defer l.calls.Done()
	_, _ = l.client.Revoke(last, lease) // if this fails, the lease expires soon
}

// announce writes the record once, under a lease that it renews or replaces. It returns lease
// 0 when the next attempt needs a new one.
func (s *Store) announce(ctx context.Context, lease clientv3.LeaseID, key string, lifetime time.Duration, value []byte) (clientv3.LeaseID, error) {
	limited, cancel := context.WithTimeout(ctx, lifetime/2) // three calls to an etcd that is slow
	defer cancel()
	l := s.use()
	defer l.calls.Done()
	if lease != 0 {
		if _, err := l.client.KeepAliveOnce(limited, lease); err != nil {
			lease = 0
			if limited.Err() != nil {
				return 0, s.explain(err)
			}
		}
	}
	if lease == 0 {
		granted, err := l.client.Grant(limited, int64(lifetime/time.Second))
		if err != nil {
			return 0, s.explain(err)
		}
		lease = granted.ID
	}
	_, err := l.client.Put(limited, s.prefix+key, format(key, value), clientv3.WithLease(lease))
	if err != nil {
		return 0, s.explain(err)
	}
	return lease, nil
}
