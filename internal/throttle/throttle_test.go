package throttle_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/daypass/daypass/internal/throttle"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// admitted counts how many of n calls of key are let through at now.
func admitted(k *throttle.Keys[string], key string, n int, now time.Time) int {
	count := 0
	for range n {
		if p, v := k.Enter(key, now); v == throttle.Admitted {
			k.Leave(key, p)
			count++
		}
	}
	return count
}

func TestRate(t *testing.T) {
	k := throttle.NewKeys[string](throttle.Limit{Rate: 10, Burst: 5}, 1000)
	for _, row := range []struct {
		after time.Duration
		key   string
		want  int
	}{
		{0, "ana", 5},
		{0, "ana", 0},
		{0, "bob", 5}, // has its own bucket
		{100 * time.Millisecond, "ana", 1},
		{time.Second, "ana", 5},               // no more than the burst
		{-time.Hour, "ana", 0},                // a clock that is set back gives nothing
		{time.Second, "ana", 0},               // nor does it when it is right again
		{time.Second + time.Hour, "ana", 5},   // forward: a full bucket, no more
		{time.Second + 2*time.Hour, "bob", 5}, // and for those who have waited
	} {
		if got := admitted(k, row.key, 8, noon.Add(row.after)); got != row.want {
			t.Errorf("after %v %s made %d calls, want %d", row.after, row.key, got, row.want)
		}
	}
	k.SetLimit(throttle.Limit{})
	if got := admitted(k, "ana", 100, noon); got != 100 {
		t.Errorf("without a limit %d of 100 calls were let through", got)
	}
	if k.Len() != 1 { // ana left nothing, bob has not called since
		t.Errorf("%d keys are kept, want bob's only", k.Len())
	}
}

// TestLateCalls: a call that began long ago, for example because its body arrived slowly, gives back
// nothing of what has been used since.
func TestLateCalls(t *testing.T) {
	const line = 100
	limit := throttle.Limit{Rate: 10, Burst: 50, Bytes: 10 * line, BytesBurst: 50 * line}
	late := func(second int) time.Time { return noon.Add(time.Duration(second-29) * time.Second) }
	const seconds = 60
	most := limit.Burst + int(limit.Rate)*seconds

	keys := throttle.NewKeys[string](limit, 1000)
	charged := throttle.NewKeys[string](throttle.Limit{Bytes: limit.Bytes, BytesBurst: limit.BytesBurst}, 1000)
	lines := throttle.NewLines(limit, throttle.Limit{Rate: 1000, Burst: 1000, Bytes: 1000 * line, BytesBurst: 1000 * line})
	for name, call := range map[string]func(now time.Time) bool{
		"Enter": func(now time.Time) bool { return admitted(keys, "ana", 1, now) == 1 },
		"Charge": func(now time.Time) bool {
			if admitted(charged, "ana", 1, now) == 0 {
				return false
			}
			charged.Charge("ana", line, now)
			return true
		},
		"Next": func(now time.Time) bool {
			write, _ := lines.Next(throttle.Stranger{Name: "ana"}, line, now)
			return write
		},
	} {
		made := 0
		for second := range seconds {
			now := noon.Add(time.Duration(second) * time.Second)
			for i := range 100 {
				at := now
				if i%5 == 0 {
					at = late(second)
				}
				if call(at) {
					made++
				}
			}
		}
		if made > most {
			t.Errorf("%s: %d calls in %d seconds, want %d at most", name, made, seconds, most)
		}
	}
}

func TestRefusalsAreToldApart(t *testing.T) {
	k := throttle.NewKeys[string](throttle.Limit{Rate: 0.001, Burst: 1}, 1000)
	admitted(k, "ana", 1, noon)
	for _, row := range []struct {
		after time.Duration
		want  throttle.Verdict
	}{
		{0, throttle.Refused},
		{time.Millisecond, throttle.RefusedAgain},
		{999 * time.Millisecond, throttle.RefusedAgain},
		{time.Second, throttle.Refused},
		{-time.Hour, throttle.RefusedAgain}, // a call that began long ago
		{1999 * time.Millisecond, throttle.RefusedAgain},
		{2 * time.Second, throttle.Refused},
	} {
		if _, got := k.Enter("ana", noon.Add(row.after)); got != row.want {
			t.Errorf("after %v: %v, want %v", row.after, got, row.want)
		}
	}
}

func TestConcurrent(t *testing.T) {
	k := throttle.NewKeys[string](throttle.Limit{Concurrent: 2}, 1000)
	first, _ := k.Enter("ana", noon)
	second, _ := k.Enter("ana", noon)
	if _, v := k.Enter("ana", noon); v == throttle.Admitted {
		t.Error("a third call at a time was let through")
	}
	if admitted(k, "bob", 1, noon) != 1 {
		t.Error("ana's calls keep bob out")
	}
	k.Leave("ana", first)
	third, v := k.Enter("ana", noon)
	if v != throttle.Admitted {
		t.Error("a call is not let through after another has ended")
	}
	k.Leave("ana", second)
	k.Leave("ana", third)
	if k.Len() != 0 {
		t.Errorf("%d keys are kept after the last call", k.Len())
	}
}

// TestTableIsBounded floods the table with keys; a key that has used up its tokens is not
// forgotten.
func TestTableIsBounded(t *testing.T) {
	const most = 1600
	k := throttle.NewKeys[string](throttle.Limit{Rate: 0.001, Burst: 3}, most)
	admitted(k, "greedy", 3, noon)
	for i := range 20 * most {
		admitted(k, fmt.Sprint("key ", i), 1, noon)
	}
	if n := k.Len(); n > most {
		t.Errorf("%d keys are kept, want %d at most", n, most)
	}
	if got := admitted(k, "greedy", 3, noon); got != 0 {
		t.Errorf("greedy was forgotten: %d more calls", got)
	}

	// A key at work is not forgotten, or it would be counted wrongly.
	busy := throttle.NewKeys[int](throttle.Limit{Concurrent: 1}, 160)
	in := 0
	for i := range 1000 {
		if _, v := busy.Enter(i, noon); v == throttle.Admitted {
			in++
		}
	}
	if in > 160 || busy.Len() != in {
		t.Errorf("%d were let in and %d are kept, want 160 at most", in, busy.Len())
	}
}

func TestKeysConcurrently(t *testing.T) {
	k := throttle.NewKeys[int](throttle.Limit{Rate: 1e9, Burst: 1e9, Concurrent: 3}, 64)
	var running [8]struct {
		sync.Mutex
		n, most int
	}
	var wg sync.WaitGroup
	for g := range 32 {
		wg.Go(func() {
			for i := range 500 {
				key := (g + i) % len(running)
				p, v := k.Enter(key, noon)
				if v != throttle.Admitted {
					continue
				}
				r := &running[key]
				r.Lock()
				r.n++
				r.most = max(r.most, r.n)
				r.Unlock()
				r.Lock()
				r.n--
				r.Unlock()
				k.Leave(key, p)
			}
		})
	}
	wg.Wait()
	for key := range running {
		if running[key].most > 3 {
			t.Errorf("key %d had %d calls at a time, want 3 at most", key, running[key].most)
		}
	}
}

func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := throttle.NewGate(2, 1, time.Second)
		ctx := t.Context()
		for range 2 {
			if !g.Enter(ctx) {
				t.Fatal("a gate with room is shut")
			}
		}
		queued := make(chan bool, 1)
		go func() { queued <- g.Enter(ctx) }()
		synctest.Wait()
		start := time.Now()
		if g.Enter(ctx) || time.Since(start) != 0 {
			t.Error("a call beyond the queue was not turned away at once")
		}
		g.Leave()
		if !<-queued {
			t.Error("who waited did not get the place that was given up")
		}
		if g.Enter(ctx) || time.Since(start) != time.Second {
			t.Errorf("a call waited %v for its turn, want a second", time.Since(start))
		}
		gone, cancel := context.WithCancel(ctx)
		cancel()
		if g.Enter(gone) {
			t.Error("a caller who has gone was let in")
		}
		if s := g.Stats(); s != (throttle.GateStats{Slots: 2, Busy: 2, Shed: 3}) {
			t.Errorf("Stats() = %+v", s)
		}
	})
}

func BenchmarkEnter(b *testing.B) {
	k := throttle.NewKeys[string](throttle.Limit{Rate: 1e9, Burst: 1e9, Concurrent: 1e6}, 1<<16)
	g := throttle.NewGate(64, 64, time.Second)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		now := time.Now()
		for pb.Next() {
			p, _ := k.Enter("arn:aws:iam::123456789012:user/ana", now)
			g.Enter(context.Background())
			g.Leave()
			k.Leave("arn:aws:iam::123456789012:user/ana", p)
		}
	})
}
