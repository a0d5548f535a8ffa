package etcdstore

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// link is one client of etcd. A Store that gets another password or other authorities makes a
// new link; calls in progress keep the old one.
type link struct {
	client *clientv3.Client
	calls  sync.WaitGroup
}

// dial makes a client. It does not contact etcd unless there is a password.
func dial(config Config) (*link, error) {
	client, err := clientv3.New(clientv3.Config{
		Endpoints:   config.Endpoints,
		TLS:         config.TLS,
		Username:    config.Username,
		Password:    config.Password.Reveal(),
		DialTimeout: callTimeout,
		// If a member vanishes without a word, TCP gives up the connection after the
		// keep-alive timeout.
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
		MaxCallSendMsgSize:   2 * maxRecord,
		MaxCallRecvMsgSize:   maxMessage,
		// An expired token needs this many attempts. All other retries happen in this
		// package, which keeps the cause of a failure.
		MaxUnaryRetries: 3,
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			// By default gRPC waits up to two minutes between attempts.
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: patience,
		}), grpc.WithChainUnaryInterceptor(withoutWaiting)},
		Logger: zap.NewNop(), // errors have the reasons
	})
	if err != nil {
		return nil, err
	}
	return &link{client: client}, nil
}

func (l *link) close() error {
	if err := l.client.Close(); err != nil && !errors.Is(err, context.Canceled) { // Close cancels its own context
		return err
	}
	return nil
}

// use returns the link for one call. The caller ends the call with calls.Done.
func (s *Store) use() *link {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.link.calls.Add(1)
	return s.link
}

// renewal is the change to another link.
type renewal struct{ cancel context.CancelFunc }

// renewPause is the time between two attempts to change the link.
const renewPause = time.Second

// Renew makes the Store use another password and other authorities once etcd accepts
// them. Until then it keeps the present connection, so the file and etcd may be changed
// in either order. refused is called once with the reason why etcd does not accept them
// yet; it is optional. Renew returns at once, and does nothing if config is unchanged.
func (s *Store) Renew(config Config, refused func(error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.base.Err() != nil || s.config.same(config) {
		return
	}
	if s.renewal != nil {
		s.renewal.cancel()
	}
	ctx, cancel := context.WithCancel(s.base)
	mine := &renewal{cancel}
	s.config, s.renewal = config, mine
	s.work.Go(func() {
		defer cancel()
		for first := true; ; first = false {
			l, err := s.try(ctx, config)
			if err == nil {
				s.change(l, mine)
				return
			}
			if first && refused != nil && ctx.Err() == nil {
				refused(s.explain(err))
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(renewPause):
			}
		}
	})
}

// same reports whether two configurations need the same link.
func (c Config) same(other Config) bool {
	return c.Username == other.Username && c.Password == other.Password && bytes.Equal(c.Authorities, other.Authorities) &&
		slices.Equal(c.Endpoints, other.Endpoints)
}

// try makes a link, and returns it if etcd answers over it.
func (s *Store) try(ctx context.Context, config Config) (*link, error) {
	l, err := dial(config)
	if err != nil {
		return nil, err
	}
	asking, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := l.client.Get(asking, s.prefix, clientv3.WithCountOnly()); err != nil {
		_ = l.close()
		return nil, err
	}
	return l, nil
}

// change replaces the link. The previous one is closed when its last call has ended.
func (s *Store) change(l *link, mine *renewal) {
	s.mu.Lock()
	if s.renewal != mine { // another one has begun since
		s.mu.Unlock()
		_ = l.close()
		return
	}
	before := s.link
	s.link, s.renewal = l, nil
	s.mu.Unlock()
	before.calls.Wait()
	_ = before.close()
}
