package seats_test

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/daypass/daypass/internal/registry"
	"github.com/daypass/daypass/internal/seats"
)

// script is a registry.Leased that does what its function says. Its lease is always held.
type script func(own string, value []byte, since registry.Mark) registry.Sight

func (s script) Held() (uint64, bool) { return 1, true }

func (s script) Look(context.Context, string) (registry.Sight, error) {
	return s("", nil, registry.Mark{}), nil
}

func (s script) Swap(_ context.Context, _, own string, value []byte, since registry.Mark) (registry.Sight, error) {
	return s(own, value, since), nil
}

// TestLoweredLimit: once a limit has been lowered, no session begins beyond it, even if this
// server's record still counts the seat of a session that has just ended.
func TestLoweredLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := seats.Place{Cluster: "examplecluster", User: "alice"}
		var limit atomic.Int64
		limit.Store(20)
		revision := int64(0)
		s := seats.New(seats.Config{Self: "a", Limit: func(seats.Place) int { return int(limit.Load()) }, Store: script(func(own string, value []byte, since registry.Mark) registry.Sight {
			revision++
			return registry.Sight{At: registry.Mark{Cluster: 1, Revision: revision}, Written: own != "", Generation: 1}
		})})
		for range 8 {
			if wait, _ := s.Take(p); wait != nil && wait(t.Context()) != nil {
				t.Fatal("no seat")
			}
		}
		s.Leave(p)
		limit.Store(5)
		wait, likely := s.Take(p)
		if wait == nil || likely {
			t.Fatal("a session begins beyond a limit that was lowered")
		}
		if err := wait(t.Context()); !full(err, p, 5) {
			t.Errorf("Take = %v", err)
		}
		synctest.Wait()
	})
}

// TestPendingWrite: a write that got no answer may still be carried out later. A changed record of
// another server makes its condition fail, but only until that record is deleted. So this server
// writes its own record again before logons rely on it.
func TestPendingWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := seats.Place{Cluster: "examplecluster", User: "alice"}
		var mu sync.Mutex // guards what follows
		revision, pending, left := int64(0), time.Time{}, false
		var after []time.Duration
		record := func(key string, n int) registry.Record {
			return registry.Record{Key: key, Value: strconv.AppendInt(nil, int64(n), 10)}
		}
		s := seats.New(seats.Config{Self: "a", Limit: func(seats.Place) int { return 100 }, Store: script(func(own string, value []byte, since registry.Mark) registry.Sight {
			mu.Lock()
			defer mu.Unlock()
			revision++
			at := registry.Mark{Cluster: 1, Revision: revision}
			switch {
			case !pending.IsZero():
				after = append(after, time.Since(pending))
			case left && string(value) == "2":
				pending = time.Now()
				return registry.Sight{At: at, Pending: true, Records: []registry.Record{record(own, 5), record("seats/examplecluster/alice/b", 1)}}
			}
			return registry.Sight{At: at, Written: own != "", Generation: 1}
		})})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); s.Run(ctx) }()
		for range 5 {
			if wait, _ := s.Take(p); wait != nil && wait(t.Context()) != nil {
				t.Fatal("no seat")
			}
		}
		mu.Lock()
		left = true
		mu.Unlock()
		for range 3 {
			s.Leave(p)
		}
		time.Sleep(5 * time.Second)
		stop()
		<-ended
		mu.Lock()
		defer mu.Unlock()
		if pending.IsZero() || len(after) == 0 || after[0] != 0 {
			t.Errorf("the record was written again %v after a write that is pending", after)
		}
	})
}
