package reaper_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/internal/reaper"
)

type sweeper struct {
	swept  atomic.Int64
	tended atomic.Int64
	err    error
	fail   atomic.Bool
	aside  atomic.Bool // only a standby answers
	report handover.SweepReport
	block  bool
}

func (s *sweeper) Sweep(ctx context.Context, o handover.SweepOptions) (handover.SweepReport, error) {
	s.swept.Add(1)
	if s.block {
		<-ctx.Done()
	}
	if s.fail.Load() {
		return s.report, errors.New("down")
	}
	report := s.report
	report.Standby = s.aside.Load()
	return report, s.err
}

func (s *sweeper) Tend(context.Context) { s.tended.Add(1) }

func TestSweepsAtOnceAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		good := &sweeper{report: handover.SweepReport{Kept: []handover.KeptRole{{Role: "IAM:alice", Reason: "somebody granted to it"},
			{Role: "IAM:alice", Reason: "it is shut", Database: "shut"}, {Role: "IAM:bob", Reason: "it is shut", Database: "shut"}}}}
		bad, stuck := &sweeper{err: errors.New("down")}, &sweeper{block: true}
		var log bytes.Buffer
		clusters := atomic.Pointer[map[string]reaper.Sweeper]{}
		clusters.Store(&map[string]reaper.Sweeper{"good": good, "bad": bad, "stuck": stuck})
		done := make(chan error)
		var told atomic.Int64
		go func() {
			done <- reaper.Run(ctx, reaper.Config{
				Clusters: func() map[string]reaper.Sweeper { return *clusters.Load() },
				Log:      slog.New(slog.NewTextHandler(&log, nil)),
				Observe: func(cluster string, report handover.SweepReport, _ time.Duration, err error) {
					if told.Add(1); (cluster == "bad") != (err != nil) {
						t.Errorf("told of cluster %s: %+v, %v", cluster, report, err)
					}
				},
			})
		}()
		synctest.Wait()
		for name, s := range map[string]*sweeper{"good": good, "bad": bad, "stuck": stuck} {
			if s.swept.Load() != 1 {
				t.Errorf("%s: swept %d times at the start, want once", name, s.swept.Load())
			}
		}
		time.Sleep(5 * time.Minute)
		if n := good.swept.Load(); n < 20 || n > 24 {
			t.Errorf("a good cluster was swept %d times in 5 minutes, want every 15 s", n)
		}
		if n := bad.swept.Load(); n > 9 {
			t.Errorf("a cluster that is down was swept %d times", n)
		}
		late := &sweeper{}
		clusters.Store(&map[string]reaper.Sweeper{"good": late})
		time.Sleep(2 * time.Second)
		before := good.swept.Load()
		time.Sleep(time.Minute)
		if late.swept.Load() == 0 || good.swept.Load() != before {
			t.Error("a reload does not reach the reaper")
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v", err)
		}
		if n, want := told.Load(), good.swept.Load()+bad.swept.Load()+late.swept.Load(); n != want {
			t.Errorf("told of %d sweeps, want %d", n, want)
		}
		if n := strings.Count(log.String(), "somebody granted"); n != 1 {
			t.Errorf("what cannot be done was logged %d times, want once:\n%s", n, &log)
		}
		if n := strings.Count(log.String(), "it is shut"); n != 1 {
			t.Errorf("a database that refuses the login was logged %d times, want once for all roles:\n%s", n, &log)
		}
		if n := strings.Count(log.String(), "not swept"); n != 1 {
			t.Errorf("an outage was logged %d times, want once", n)
		}
	})
}

// TestStandbyIsLogged: a cluster of which only a standby answers is tried at every interval, and the
// log says so once.
func TestStandbyIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := &sweeper{}
		s.aside.Store(true)
		var log bytes.Buffer
		done := make(chan error)
		go func() {
			done <- reaper.Run(ctx, reaper.Config{
				Clusters: func() map[string]reaper.Sweeper { return map[string]reaper.Sweeper{"one": s} },
				Log:      slog.New(slog.NewTextHandler(&log, nil)),
			})
		}()
		time.Sleep(5 * time.Minute)
		if n := s.swept.Load(); n < 20 || n > 24 {
			t.Errorf("swept %d times in 5 minutes, want every 15 s", n)
		}
		s.aside.Store(false)
		time.Sleep(time.Minute)
		s.aside.Store(true)
		time.Sleep(time.Minute)
		cancel()
		<-done
		if n := strings.Count(log.String(), "no host of it takes writes"); n != 2 {
			t.Errorf("a standby was logged %d times, want once for each time:\n%s", n, &log)
		}
	})
}
