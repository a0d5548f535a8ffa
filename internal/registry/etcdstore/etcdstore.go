// Package etcdstore keeps a registry in etcd. It is the store of an installation with several
// servers.
//
// It polls instead of using etcd's watches. Each look of a Watch is one linearizable read.
// etcd answers it only after a majority of its members has confirmed the leader, so a member
// that is cut off from the others cannot report that nothing has changed. An etcd watch
// cannot confirm that either: its silence, its progress notifications and its client's quiet
// reconnection look the same on both sides of a network partition. A look costs one round
// trip, four times a second, and needs only the right to read the keys. A look does not wait for
// the answer to the one before, so what a Watch reports is as old as one round trip, however long
// that takes.
//
// A look asks for the records that were written after the last known revision, and for the number
// of all records. If that number differs from the number of known and new records, a record was
// deleted, and all records are read again.
//
// Layout: key PREFIX + the record's key, value "1 " (the version), CRC-32C of key
// and value in hex, a space, the record's value:
//
//	daypass/revocation/all → 1 4a17b156 {"version":1,"all":true,…}
//
// Revisions are etcd's. If they go back, etcd was restored from a backup, or this is another
// cluster. That is reported as an error once, and from then on its present content is the
// registry.
package etcdstore

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/crc32"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/registry"
)

// Config is the address of etcd and the login. Endpoints and Prefix are required.
type Config struct {
	Endpoints []string // URLs of members, all with the same scheme
	Prefix    string   // prefix of every key; no other program writes under it
	TLS       *tls.Config
	// Authorities are the certificates, in PEM form, that TLS trusts. Renew compares
	// them to see whether TLS has changed. Empty: the system's.
	Authorities []byte
	Username    string // optional: a client certificate may contain the name
	Password    keyring.Secret
}

// Store is a registry.Store. Make it with Open, and Close it. Safe for concurrent use.
type Store struct {
	prefix string
	hosts  string // for messages
	base   context.Context
	stop   context.CancelFunc
	work   sync.WaitGroup // goroutines of the Store

	mu      sync.Mutex
	link    *link         // used by new calls; guarded by mu
	config  Config        // the configuration that link should have; guarded by mu
	renewal *renewal      // the change of link in progress, or nil; guarded by mu
	written chan struct{} // closed and replaced at each write; guarded by mu
	latest  moment        // the latest that etcd has answered with; guarded by mu
	resets  uint64        // how often etcd was found to have gone back; guarded by mu
}

var _ registry.Store = (*Store)(nil)

// moment is a point in the history of a cluster.
type moment struct {
	cluster  uint64
	revision int64
}

const (
	version = "1"

	// callTimeout bounds a call. A request without an answer is sent again after attemptTimeout, and
	// then after twice as long each time. At most mostAttempts of them wait for answers at once.
	callTimeout    = 5 * time.Second
	attemptTimeout = registry.Beat
	mostAttempts   = 4

	// pause is the time between two attempts.
	pause = 50 * time.Millisecond

	// pageSize records of the largest size, with their keys, fit into maxMessage. Most
	// records have some hundred bytes.
	pageSize   = 200
	maxRecord  = 64<<10 + 2<<10
	maxMessage = 14 << 20
	_          = uint(maxMessage - pageSize*maxRecord) // does not compile if they would not fit
)

// Open makes a Store. It contacts etcd only if there is a password; otherwise an unreachable
// etcd fails the first call.
func Open(config Config) (*Store, error) {
	s := &Store{prefix: config.Prefix, config: config, written: make(chan struct{})}
	hosts := make([]string, len(config.Endpoints))
	for i, endpoint := range config.Endpoints {
		_, hosts[i], _ = strings.Cut(endpoint, "://")
	}
	s.hosts = strings.Join(hosts, ", ")
	s.base, s.stop = context.WithCancel(context.Background())
	l, err := dial(config)
	if err != nil {
		return nil, fmt.Errorf("opening the registry: %w", s.explain(err))
	}
	s.link = l
	return s, nil
}

// withoutWaiting makes a call fail if no member can be reached. By default the client would
// wait for one, and the reason would be lost.
func withoutWaiting(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	return invoke(ctx, method, req, reply, conn, append(options, grpc.WaitForReady(false))...)
}

// Close ends the connections. Calls in progress fail.
func (s *Store) Close() error {
	s.stop()
	s.work.Wait()
	s.mu.Lock()
	l := s.link
	s.mu.Unlock()
	return l.close()
}

// Get implements registry.Store.
func (s *Store) Get(ctx context.Context, key string) (registry.Record, error) {
	answer, err := s.read(ctx, time.Now().Add(callTimeout), s.prefix+key)
	if err != nil {
		return registry.Record{}, err
	}
	if len(answer.Kvs) == 0 {
		return registry.Record{}, registry.ErrNotFound
	}
	return s.parse(key, answer.Kvs[0].Value, answer.Kvs[0].ModRevision)
}

// List implements registry.Store.
func (s *Store) List(ctx context.Context, prefix string) ([]registry.Record, error) {
	list, _, err := s.list(ctx, time.Now().Add(callTimeout), prefix)
	return list, err
}

// list also returns the revision at which it read the records.
func (s *Store) list(ctx context.Context, until time.Time, prefix string) (list []registry.Record, revision int64, err error) {
	first := s.prefix + prefix
	from, end := first, clientv3.GetPrefixRangeEnd(first)
	for {
		page, err := s.read(ctx, until, from, clientv3.WithRange(end), clientv3.WithLimit(pageSize), clientv3.WithRev(revision))
		if code(err) == codes.OutOfRange && revision != 0 {
			// etcd was compacted between two pages, or restored.
			list, revision, from = nil, 0, first
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		if revision == 0 {
			revision = page.Header.Revision
		}
		for _, kv := range page.Kvs {
			record, err := s.parse(strings.TrimPrefix(string(kv.Key), s.prefix), kv.Value, kv.ModRevision)
			if err != nil {
				return nil, 0, err
			}
			list = append(list, record)
			from = string(kv.Key) + "\x00"
		}
		if !page.More {
			return list, revision, nil
		}
	}
}

// Create implements registry.Store.
func (s *Store) Create(ctx context.Context, key string, value []byte) (registry.Record, error) {
	// In etcd, a key that does not exist has revision 0.
	return s.Replace(ctx, registry.Record{Key: key}, value)
}

// Replace implements registry.Store.
func (s *Store) Replace(ctx context.Context, old registry.Record, value []byte) (registry.Record, error) {
	revision, err := s.swap(ctx, old, clientv3.OpPut(s.prefix+old.Key, format(old.Key, value)))
	if err != nil {
		return registry.Record{}, err
	}
	return registry.Record{Key: old.Key, Value: bytes.Clone(value), Revision: uint64(revision)}, nil
}

// Delete implements registry.Store.
func (s *Store) Delete(ctx context.Context, old registry.Record) error {
	_, err := s.swap(ctx, old, clientv3.OpDelete(s.prefix+old.Key))
	return err
}

// swap makes the change if old is unchanged. It does not retry: an attempt without an
// answer may have succeeded.
func (s *Store) swap(ctx context.Context, old registry.Record, then clientv3.Op) (revision int64, err error) {
	limited, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	l := s.use()
	defer l.calls.Done()
	answer, err := l.client.Txn(limited).
		If(clientv3.Compare(clientv3.ModRevision(s.prefix+old.Key), "=", int64(old.Revision))).
		Then(then).
		Commit()
	switch {
	case err != nil:
		return 0, cmp.Or(ctx.Err(), s.explain(err))
	case !answer.Succeeded:
		return 0, registry.ErrConflict
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advanceLocked(moment{answer.Header.ClusterId, answer.Header.Revision})
	close(s.written)
	s.written = make(chan struct{})
	return answer.Header.Revision, nil
}

// read asks etcd until it answers or time is up. A request without an answer is sent again, to
// another member if there is one. Answers to the earlier requests are still accepted.
func (s *Store) read(ctx context.Context, until time.Time, key string, options ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	limited, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	type result struct {
		answer *clientv3.GetResponse
		err    error
	}
	results := make(chan result, mostAttempts)
	cause := s.explain(context.DeadlineExceeded)
	open, next, wait := 0, time.NewTimer(0), attemptTimeout
	defer next.Stop()
	for {
		select {
		case <-limited.Done():
			return nil, cmp.Or(ctx.Err(), cause)
		case <-next.C:
			if open == mostAttempts {
				continue
			}
			open++
			go func() {
				answer, err := s.ask(limited, key, options...)
				results <- result{answer, err}
			}()
			next.Reset(wait)
			wait *= 2
		case r := <-results:
			open--
			switch code(r.err) {
			case codes.Unavailable:
				cause, wait = r.err, attemptTimeout
				next.Reset(pause)
			case codes.DeadlineExceeded:
			default:
				return r.answer, cmp.Or(ctx.Err(), r.err)
			}
		}
	}
}

// ask sends one question to one member.
func (s *Store) ask(ctx context.Context, key string, options ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	s.mu.Lock()
	before := s.latest
	s.mu.Unlock()
	l := s.use()
	defer l.calls.Done()
	answer, err := l.client.Get(ctx, key, options...)
	if err != nil {
		return nil, s.explain(err)
	}
	return answer, s.follow(before, answer.Header)
}

// follow records the revision of an answer. The answer to a request that was sent after
// before was recorded cannot have an older revision.
func (s *Store) follow(before moment, header *etcdserverpb.ResponseHeader) error {
	now := moment{header.ClusterId, header.Revision}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case before != (moment{}) && before.cluster != now.cluster:
		s.latest = now
		s.resets++
		return s.explain(errors.New("another cluster answers than before: what was revoked may be forgotten with it: `daypass revoke --all`"))
	case before.revision > now.revision:
		s.latest = now
		s.resets++
		return s.explain(fmt.Errorf("the cluster has gone back from revision %d to %d, as one that was restored from a backup: "+
			"what was revoked since then is forgotten with it: `daypass revoke --all`", before.revision, now.revision))
	}
	s.advanceLocked(now)
	return nil
}

// advanceLocked records a later moment.
func (s *Store) advanceLocked(now moment) {
	if s.latest == (moment{}) || s.latest.cluster == now.cluster && s.latest.revision < now.revision {
		s.latest = now
	}
}

// code returns the gRPC status code of an error.
func code(err error) codes.Code {
	var known rpctypes.EtcdError
	switch {
	case errors.As(err, &known):
		return known.Code()
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	}
	return status.Code(err)
}

// transportPattern finds the cause in gRPC's error text, and portPattern the part that
// differs from one connection to the next:
//
//	last connection error: connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:2379: connect: connection refused"
//	error reading from server: read tcp 127.0.0.1:39752->127.0.0.1:2379: read: connection reset by peer
var (
	transportPattern = regexp.MustCompile(`desc = (".*")$`)
	portPattern      = regexp.MustCompile(`\S+ tcp \S+->\S+: `)
)

// explain adds etcd's address and the operator's next step.
func (s *Store) explain(err error) error {
	reason := strings.TrimPrefix(status.Convert(err).Message(), "etcdserver: ")
	if match := transportPattern.FindStringSubmatch(reason); match != nil {
		if plain, err := strconv.Unquote(match[1]); err == nil {
			reason = strings.TrimPrefix(strings.TrimPrefix(plain, "transport: "), "Error while dialing: ")
		}
	}
	reason = portPattern.ReplaceAllString(reason, "")
	switch {
	case code(err) == codes.DeadlineExceeded, strings.HasSuffix(reason, "use of closed network connection"): // gRPC closed a silent connection
		reason = "no member has answered in time: has the cluster lost its quorum?"
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		reason += fmt.Sprintf(": `etcdctl role grant-permission ROLE readwrite %s --prefix`", s.prefix)
	case errors.Is(err, rpctypes.ErrNoSpace):
		reason += ": compact and defragment it, then `etcdctl alarm disarm`"
	}
	return &problem{s.hosts, reason, err}
}

// problem is an error of a call to etcd.
type problem struct {
	hosts, reason string
	cause         error
}

func (p *problem) Error() string { return "etcd at " + p.hosts + ": " + p.reason }
func (p *problem) Unwrap() error { return p.cause }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(key string, value []byte) uint32 {
	return crc32.Update(crc32.Update(0, castagnoli, []byte(key)), castagnoli, value)
}

func format(key string, value []byte) string {
	return fmt.Sprintf("%s %08x %s", version, checksum(key, value), value)
}

// parse parses a record. An unknown form is an error: it might revoke a credential.
func (s *Store) parse(key string, stored []byte, revision int64) (registry.Record, error) {
	first, rest, _ := bytes.Cut(stored, []byte(" "))
	sum, value, found := bytes.Cut(rest, []byte(" "))
	other, err := strconv.ParseUint(string(first), 10, 32)
	switch {
	case found && err == nil && string(first) != version:
		return registry.Record{}, s.explain(fmt.Errorf("record %s has version %d, and this program knows %s: run the newer program that wrote it", key, other, version))
	case !found || string(first) != version || string(sum) != fmt.Sprintf("%08x", checksum(key, value)):
		return registry.Record{}, s.explain(fmt.Errorf("record %s is damaged, or another program wrote it: `etcdctl del %s`, then `daypass revoke --all`", key, s.prefix+key))
	}
	return registry.Record{Key: key, Value: value, Revision: uint64(revision)}, nil
}
