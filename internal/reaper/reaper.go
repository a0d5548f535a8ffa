// Package reaper cleans up after sessions: a session role without a session loses its
// user and groups, its objects go to its user, and session roles that are no longer
// used are dropped.
//
// A gateway hands over the objects of its own sessions when they end. The reaper does
// the same for sessions that outlived their gateway: it sweeps each cluster once at
// start, so that a crash is cleaned up within seconds of the next start, and then at
// every interval. It keeps no list of its own. Each step reads the current state from
// the database (internal/handover), so it never removes what is in use, whatever a
// restored backup, a second gateway or an operator has changed.
//
// Every cluster has its own goroutine, so one that does not answer delays no other.
// Nothing waits for the reaper, and it takes no lock that a logon without changes would
// wait for.
package reaper

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/daypass/daypass/internal/handover"
)

const (
	// DefaultInterval is how often a cluster is swept.
	DefaultInterval = 15 * time.Second
	// DefaultUnused is how long a session role is kept after the last logon. The next
	// logon creates it again in a millisecond or two, which a day saves people who log
	// on daily.
	DefaultUnused = 24 * time.Hour
	// maxBackoff bounds the pause after sweeps that failed.
	maxBackoff = time.Minute
	// eachRole bounds how long the objects of one role are handed over in a sweep:
	// a holder who keeps them locked must not use up the time of others.
	eachRole = 3 * time.Second
	// sweepTimeout bounds one sweep of one cluster.
	sweepTimeout = 10 * time.Minute
)

// Sweeper is a cluster to be swept: a *handover.Admin.
type Sweeper interface {
	Sweep(context.Context, handover.SweepOptions) (handover.SweepReport, error)
}

// Config lists the clusters to sweep and how often. Zero durations mean the defaults.
type Config struct {
	// Clusters returns the clusters of the running configuration, by identifier.
	// It is called every second or so, and may give an identifier another
	// Sweeper at any time.
	Clusters func() map[string]Sweeper
	Interval time.Duration
	Unused   time.Duration
	Log      *slog.Logger // default: discarded
	// Observe gets the result of each sweep; it must not block. Optional.
	Observe func(cluster string, report handover.SweepReport, took time.Duration, err error)
}

// Run sweeps until ctx ends, and returns when the last sweep has. It returns
// ctx.Err().
func Run(ctx context.Context, c Config) error {
	if c.Interval <= 0 {
		c.Interval = DefaultInterval
	}
	if c.Unused == 0 {
		c.Unused = DefaultUnused
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	running := map[string]*cluster{}
	defer func() {
		for _, r := range running {
			r.stop()
		}
	}()
	for {
		now := c.Clusters()
		for id, r := range running {
			if now[id] != r.sweeper {
				r.stop()
				delete(running, id)
			}
		}
		for id, s := range now {
			if running[id] == nil {
				running[id] = start(ctx, c, id, s)
			}
		}
		if err := sleep(ctx, time.Second); err != nil {
			return err
		}
	}
}

// cluster is the goroutine that sweeps one.
type cluster struct {
	sweeper Sweeper
	cancel  context.CancelFunc
	done    chan struct{}
}

func start(ctx context.Context, c Config, id string, s Sweeper) *cluster {
	ctx, cancel := context.WithCancel(ctx)
	r := &cluster{sweeper: s, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		sweepAll(ctx, c, id, s)
	}()
	return r
}

func (r *cluster) stop() {
	r.cancel()
	<-r.done
}

// sweepAll sweeps one cluster until ctx ends. It logs a repeated problem once: a role
// that cannot be dropped would otherwise be a line every few seconds.
func sweepAll(ctx context.Context, c Config, id string, s Sweeper) {
	log := c.Log.With("cluster", id)
	said := map[handover.KeptRole]bool{}
	failures := 0
	for {
		began := time.Now()
		once, cancel := context.WithTimeout(ctx, sweepTimeout)
		report, err := s.Sweep(once, handover.SweepOptions{Unused: c.Unused, Each: eachRole})
		cancel()
		if ctx.Err() != nil {
			return
		}
		if c.Observe != nil {
			c.Observe(id, report, time.Since(began), err)
		}
		if len(report.Stripped)+len(report.HandedOver)+len(report.Dropped) > 0 {
			log.Info("swept", "stripped", len(report.Stripped), "handed_over", len(report.HandedOver), "dropped", len(report.Dropped))
		}
		kept := map[handover.KeptRole]bool{}
		for _, k := range report.Kept {
			role := k.Role
			if k.Database != "" {
				k.Role = "" // one line for all roles that own something there
			}
			if !said[k] && !kept[k] {
				log.Warn("session role not cleaned up", "role", role, "reason", k.Reason)
			}
			kept[k] = true
		}
		said = kept
		pause := c.Interval
		if err != nil {
			if failures == 0 {
				log.Warn("cluster not swept", "err", err)
			}
			failures++
			pause = min(c.Interval<<min(failures, 8), maxBackoff)
			pause = max(pause, c.Interval)
		} else {
			failures = 0
		}
		// A little apart, so that many clusters, or gateways of one, do not
		// sweep in step.
		if sleep(ctx, pause-time.Duration(rand.Int64N(int64(pause)/10+1))) != nil {
			return
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
