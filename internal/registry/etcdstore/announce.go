package etcdstore

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Announce keeps a record under an etcd lease until ctx is done. It writes the record again
// several times per lifetime, and whenever again is signalled. The record disappears with its
// writer: at once when ctx is done, and after lifetime if the process crashed or is cut off.
// value is called for each write. Errors are reported, and nil once the write works again;
// failed writes are retried.
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
	_, _ = l.client.Revoke(last, lease) // or its time is over soon
}

// announce writes the record once, under a lease that it renews or replaces. The
// lease is 0 when the next attempt needs another one.
func (s *Store) announce(ctx context.Context, lease clientv3.LeaseID, key string, lifetime time.Duration, value []byte) (clientv3.LeaseID, error) {
	limited, cancel := context.WithTimeout(ctx, lifetime/4)
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
