package seats_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/daypass/daypass/internal/registry/etcdstore"
	"github.com/daypass/daypass/internal/seats"
	"github.com/daypass/daypass/test/etcdtest"
	"github.com/daypass/daypass/test/pgtest"
)

const lifetime = 5 * time.Second

// server is one server's seats, with a lease of its own.
type server struct {
	*seats.Seats
	crash func() // acts as if the process was killed: nothing is given back
}

// begin starts a server. limit returns its limits.
func begin(t testing.TB, etcd *etcdtest.Server, name string, limit func(seats.Place) int) *server {
	t.Helper()
	store, err := etcdstore.Open(etcdstore.Config{Endpoints: []string{etcd.URL}, Prefix: "daypass/"})
	if err != nil {
		t.Fatal(err)
	}
	lease := store.Lease(lifetime)
	s := &server{Seats: seats.New(seats.Config{Store: lease, Self: name, Limit: limit})}
	running, cancel := context.WithCancel(context.Background())
	var held, ran sync.WaitGroup
	ran.Go(func() { s.Run(running) })
	holding, release := context.WithCancel(context.Background())
	held.Go(func() { lease.Hold(holding) })
	s.crash = sync.OnceFunc(func() { cancel(); _ = store.Close(); ran.Wait(); release(); held.Wait() })
	t.Cleanup(func() { cancel(); ran.Wait(); release(); held.Wait(); s.crash() })
	return s
}

func (s *server) take(t testing.TB, p seats.Place) error {
	wait, _ := s.Take(p)
	if wait == nil {
		return nil
	}
	return wait(t.Context())
}

// refuse waits until the server knows that the place is full. It fails the test if a session may
// begin there.
func (s *server) refuse(t testing.TB, p seats.Place, limit int, when string) {
	t.Helper()
	pgtest.Eventually(t, "a refusal "+when, func() bool {
		err := s.take(t, p)
		if err == nil {
			t.Fatalf("a session beyond the limit may begin %s", when)
		}
		return full(err, p, limit)
	})
}

// full reports whether an error is the right *seats.Full.
func full(err error, p seats.Place, limit int) bool {
	f, ok := errors.AsType[*seats.Full](err)
	return ok && *f == seats.Full{Place: p, Limit: limit}
}

// TestStampede: logons at three servers take and leave seats as fast as they can. There are never
// more sessions than the limit, and in the end all seats are free.
func TestStampede(t *testing.T) {
	t.Parallel()
	const limit = 7
	etcd := etcdtest.Start(t)
	p := seats.Place{Cluster: "examplecluster", User: "a/b %?"}
	var servers []*server
	for i := range 3 {
		servers = append(servers, begin(t, etcd, fmt.Sprintf("server-%d", i), func(seats.Place) int { return limit }))
	}
	var now, most, taken, refused, unanswered atomic.Int64
	var all sync.WaitGroup
	for _, s := range servers {
		for range 20 {
			all.Go(func() {
				for range 30 {
					switch err := s.take(t, p); {
					case full(err, p, limit):
						refused.Add(1)
					case err != nil: // a busy etcd may be silent for longer than a logon waits
						t.Logf("Take: %v", err)
						unanswered.Add(1)
					default:
						n := now.Add(1)
						for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
						}
						taken.Add(1)
						time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
						now.Add(-1)
						s.Leave(p)
					}
				}
			})
		}
	}
	all.Wait()
	t.Logf("%d sessions and %d refusals, %d unanswered, %d sessions at a time", taken.Load(), refused.Load(), unanswered.Load(), most.Load())
	if most.Load() > limit || taken.Load() == 0 || refused.Load() == 0 {
		t.Errorf("%d sessions, %d refused, %d at a time, want some, some, and at most %d", taken.Load(), refused.Load(), most.Load(), limit)
	}
	had := 0
	pgtest.Eventually(t, "all seats at one server", func() bool {
		for ; had < limit && servers[1].take(t, p) == nil; had++ {
		}
		return had == limit
	})
	servers[0].refuse(t, p, limit, "when one server has all seats")
}

// TestServersGo: the seats of a crashed server are free when its lease has expired, and no
// sooner. Sessions that survive an outage of etcd still count after it, and give their seats back
// when they end.
func TestServersGo(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	p := seats.Place{Cluster: "examplecluster"}
	limit := func(seats.Place) int { return 3 }
	a, b := begin(t, etcd, "a", limit), begin(t, etcd, "b", limit)
	for _, s := range []*server{a, a, b} {
		pgtest.Eventually(t, "a seat", func() bool { return s.take(t, p) == nil })
	}
	b.refuse(t, p, 3, "when three have begun")
	etcd.Stop()
	if err := b.take(t, p); err == nil || full(err, p, 3) {
		t.Errorf("Take without etcd = %v, want that it is not known", err)
	}
	pgtest.Eventually(t, "the servers to take their leases for expired", func() bool { return !a.Held(p) && !b.Held(p) })
	etcd.Start()
	for _, s := range []*server{a, b} {
		pgtest.Eventually(t, "the records to be written again", func() bool { return s.Held(p) })
	}
	b.refuse(t, p, 3, "after an outage")
	b.Leave(p)
	pgtest.Eventually(t, "the seat of a session that ended", func() bool { return a.take(t, p) == nil })

	began := time.Now()
	a.crash()
	if err := b.take(t, p); err == nil && time.Since(began) < time.Second {
		t.Error("the seats of a server that crashed are free while its lease lasts")
	}
	pgtest.Eventually(t, "the seats of a server that crashed", func() bool { return b.take(t, p) == nil })
	t.Logf("free %v after the crash", time.Since(began).Round(time.Millisecond))
	if took := time.Since(began); took > lifetime+20*time.Second {
		t.Errorf("seats were free %v after a crash, want the lease's %v and a little", took, lifetime)
	}
}

// TestLimitsComeAndGo: if a limit is set while sessions are running, those sessions count, at every
// server. Once a limit is removed, no record is left.
func TestLimitsComeAndGo(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	p := seats.Place{Cluster: "examplecluster", User: "alice"}
	var limit atomic.Int64
	now := func(seats.Place) int { return int(limit.Load()) }
	a, b := begin(t, etcd, "a", now), begin(t, etcd, "b", now)
	for range 5 {
		if wait, _ := a.Take(p); wait != nil {
			t.Fatal("without a limit a logon waits")
		}
	}
	limit.Store(2)
	pgtest.Eventually(t, "sessions of before to be counted", func() bool {
		err := b.take(t, p)
		if err == nil {
			b.Leave(p)
		}
		return full(err, p, 2)
	})
	for range 4 {
		a.Leave(p)
	}
	pgtest.Eventually(t, "a seat", func() bool { return b.take(t, p) == nil })
	a.refuse(t, p, 2, "when two have begun")
	records := func() int64 {
		answer, err := etcd.Client().Get(t.Context(), "daypass/"+seats.Prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil {
			t.Fatal(err)
		}
		return answer.Count
	}
	if n := records(); n != 2 {
		t.Errorf("%d records, want 2", n)
	}
	limit.Store(0)
	pgtest.Eventually(t, "no record", func() bool { return records() == 0 })
	a.Leave(p)
	b.Leave(p)
}

// TestFewWrites: a client that opens and closes sessions in a loop does not cause a write for
// each.
func TestFewWrites(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	p := seats.Place{Cluster: "examplecluster", User: "alice"}
	a := begin(t, etcd, "a", func(seats.Place) int { return 20 })
	pgtest.Eventually(t, "a seat", func() bool { return a.take(t, p) == nil })
	revision := func() int64 {
		answer, err := etcd.Client().Get(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		return answer.Header.Revision
	}
	before, waited := revision(), 0
	for range 1000 {
		a.Leave(p)
		if wait, _ := a.Take(p); wait != nil { // the seat has been kept for long enough
			waited++
			if wait(t.Context()) != nil {
				pgtest.Eventually(t, "a seat again", func() bool { return a.take(t, p) == nil })
			}
		}
	}
	if n := revision() - before; n > 20 || waited > 10 {
		t.Errorf("1000 sessions made %d writes, and %d waited", n, waited)
	}
}

// TestNonsense: a record that is not from this program keeps logons out until it is deleted, and
// the error names it.
func TestNonsense(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	p := seats.Place{Cluster: "examplecluster", User: "alice"}
	a := begin(t, etcd, "a", func(seats.Place) int { return 20 })
	client := etcd.Client()
	for _, value := range []string{"x", "1 00000000 5", ""} {
		if _, err := client.Put(t.Context(), "daypass/seats/examplecluster/alice/b", value); err != nil {
			t.Fatal(err)
		}
		pgtest.Eventually(t, "an error that names the record", func() bool {
			err := a.take(t, p)
			return err != nil && strings.Contains(err.Error(), "seats/examplecluster/alice/b")
		})
	}
	if _, err := client.Delete(t.Context(), "daypass/seats/examplecluster/alice/b"); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, "a seat", func() bool { return a.take(t, p) == nil })
}

// BenchmarkTake measures how long a logon waits for a seat that needs a write to etcd, for one
// that has just become free, and in a place without a limit over all servers.
func BenchmarkTake(b *testing.B) {
	etcd := etcdtest.Start(b)
	for name, limit := range map[string]int{"written": 1_000_000, "left": 1_000_000, "no limit": 0} {
		b.Run(name, func(b *testing.B) {
			p := seats.Place{Cluster: "examplecluster", User: name}
			s := begin(b, etcd, "a", func(seats.Place) int { return limit })
			pgtest.Eventually(b, "a seat", func() bool { return s.take(b, p) == nil })
			for b.Loop() {
				if name == "left" {
					s.Leave(p)
				}
				if err := s.take(b, p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
