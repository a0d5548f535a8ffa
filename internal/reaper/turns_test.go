package reaper_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/internal/reaper"
	"github.com/daypass/daypass/internal/registry/etcdstore"
	"github.com/daypass/daypass/test/etcdtest"
	"github.com/daypass/daypass/test/pgtest"
)

const lifetime = 5 * time.Second

// several is one of several servers with clusters to sweep.
type several struct {
	clusters map[string]*sweeper
	passed   atomic.Int64
	stop     func() // in good order
	crash    func() // as a process that is killed, or frozen: nothing is given back
}

func startSeveral(t *testing.T, etcd *etcdtest.Server, name string, interval time.Duration, clusters ...string) *several {
	t.Helper()
	store, err := etcdstore.Open(etcdstore.Config{Endpoints: []string{etcd.URL}, Prefix: "daypass/"})
	if err != nil {
		t.Fatal(err)
	}
	s := &several{clusters: map[string]*sweeper{}}
	sweepers := map[string]reaper.Sweeper{}
	for _, id := range clusters {
		s.clusters[id] = &sweeper{}
		sweepers[id] = s.clusters[id]
	}
	lease := store.Lease(lifetime)
	holding, release := context.WithCancel(context.Background())
	sweeping, cancel := context.WithCancel(context.Background())
	var held, swept sync.WaitGroup
	held.Go(func() { lease.Hold(holding) })
	swept.Go(func() {
		_ = reaper.Run(sweeping, reaper.Config{Clusters: func() map[string]reaper.Sweeper { return sweepers }, Interval: interval,
			Turns: reaper.NewTurns(lease, name), Passed: func(string) { s.passed.Add(1) }})
	})
	end := sync.OnceFunc(func() { cancel(); swept.Wait(); release(); held.Wait(); _ = store.Close() })
	s.stop = end
	s.crash = func() { _ = store.Close(); end() }
	t.Cleanup(end)
	return s
}

func (s *several) swept(id string) int64 { return s.clusters[id].swept.Load() }

// TestOneSweeps: one of three servers at a time sweeps a cluster, and the others only call Tend.
// If it stops, another one takes over at once; if it crashes, when its lease has expired.
func TestOneSweeps(t *testing.T) {
	t.Parallel()
	const interval = 500 * time.Millisecond
	etcd := etcdtest.Start(t)
	servers := []*several{}
	for _, name := range []string{"a", "b", "c"} {
		servers = append(servers, startSeveral(t, etcd, name, interval, "one", "two"))
	}
	// sweeper returns the server that sweeps the cluster, among those that run. No other one may
	// sweep in 6 intervals, unless etcd was so busy that they took it for unavailable.
	sweeper := func(id string) *several {
		t.Helper()
		var found *several
		pgtest.Eventually(t, "one server to sweep", func() bool {
			began, before := time.Now(), map[*several]int64{}
			for _, s := range servers {
				before[s] = s.swept(id)
			}
			time.Sleep(6 * interval)
			found = nil
			sweeping := 0
			for _, s := range servers {
				if n := s.swept(id) - before[s]; n > 0 {
					found, sweeping = s, sweeping+1
					if took := time.Since(began); n > int64(took/interval)*3/2 {
						t.Errorf("a server swept %d times in %v", n, took)
					}
				}
			}
			return sweeping == 1
		})
		return found
	}
	first := sweeper("one")
	for _, s := range servers {
		if s != first && s.clusters["one"].tended.Load() == 0 {
			t.Error("a server that does not sweep never does what only it can")
		}
	}
	without := func(gone *several) {
		var left []*several
		for _, s := range servers {
			if s != gone {
				left = append(left, s)
			}
		}
		servers = left
	}
	total := func() (n int64) {
		for _, s := range servers {
			n += s.swept("one")
		}
		return n
	}
	without(first)
	n := total()
	stopped := time.Now()
	first.stop()
	pgtest.Eventually(t, "another server to sweep", func() bool { return total() > n })
	t.Logf("after a stop another one swept in %v", time.Since(stopped).Round(time.Millisecond))
	second := sweeper("one")
	without(second)
	n = total()
	crashed := time.Now()
	second.crash()
	pgtest.Eventually(t, "the last server to sweep", func() bool { return total() > n })
	took := time.Since(crashed)
	t.Logf("after a crash another one swept in %v", took.Round(time.Millisecond))
	if took > lifetime+2*time.Second+20*time.Second {
		t.Errorf("%v after a crash, want the lease's %v, a look every 2 s, and a little", took, lifetime)
	}
	if last := servers[0]; last.passed.Load() == 0 {
		t.Error("a server was not told that another one sweeps")
	}
}

// TestSweepsWithoutRegistry: while etcd is unavailable every server sweeps, as if it were alone.
// Afterwards only one does.
func TestSweepsWithoutRegistry(t *testing.T) {
	t.Parallel()
	const interval = 500 * time.Millisecond
	etcd := etcdtest.Start(t)
	a := startSeveral(t, etcd, "a", interval, "one")
	pgtest.Eventually(t, "a sweep", func() bool { return a.swept("one") > 0 })
	b := startSeveral(t, etcd, "b", interval, "one")
	pgtest.Eventually(t, "the second server to leave it to the first", func() bool { return b.passed.Load() > 0 })
	etcd.Stop()
	n := b.swept("one")
	pgtest.Eventually(t, "both to sweep", func() bool { return b.swept("one") > n+1 })
	etcd.Start()
	pgtest.Eventually(t, "one to sweep", func() bool {
		na, nb := a.swept("one"), b.swept("one")
		time.Sleep(4 * interval)
		return (a.swept("one") == na) != (b.swept("one") == nb)
	})
}

// TestUnusedTurn: a record whose server does not sweep, such as one that someone else wrote, does
// not prevent sweeps for long.
func TestUnusedTurn(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	store, err := etcdstore.Open(etcdstore.Config{Endpoints: []string{etcd.URL}, Prefix: "daypass/"})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if _, err := store.Create(t.Context(), "sweep/one/nobody", []byte("1")); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	a := startSeveral(t, etcd, "a", 500*time.Millisecond, "one", "two")
	pgtest.Eventually(t, "the record to count at first", func() bool { return a.swept("two") > 0 && a.passed.Load() > 0 })
	// Within 2 seconds no call has failed for lack of an answer.
	if a.swept("one") != 0 && time.Since(began) < 2*time.Second {
		t.Error("a cluster is swept although another server seems to do so")
	}
	pgtest.Eventually(t, "a sweep all the same", func() bool { return a.swept("one") > 1 })
}

// TestUnreachableFromHere: a server that cannot sweep a cluster, or reaches only a standby of it,
// leaves the cluster to a server that can sweep it.
func TestUnreachableFromHere(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	a := startSeveral(t, etcd, "a", 500*time.Millisecond, "one", "two")
	pgtest.Eventually(t, "sweeps", func() bool { return a.swept("one") > 0 && a.swept("two") > 0 })
	b := startSeveral(t, etcd, "b", 500*time.Millisecond, "one", "two")
	pgtest.Eventually(t, "the second server to leave both to the first", func() bool { return b.passed.Load() > 1 })
	one, two := b.swept("one"), b.swept("two")
	a.clusters["one"].fail.Store(true)
	a.clusters["two"].aside.Store(true)
	pgtest.Eventually(t, "the second server to sweep", func() bool { return b.swept("one") > one && b.swept("two") > two })
}

var _ reaper.Sweeper = (*handover.Admin)(nil)
