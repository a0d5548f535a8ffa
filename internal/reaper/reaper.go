// Package reaper cleans up after sessions: a session role without a session loses its user and
// groups, its objects go to its user, and session roles that are no longer used are dropped.
//
// A gateway hands over the objects of its own sessions when they end. The reaper does the same
// for sessions that outlived their gateway: it sweeps each cluster once at start, so that a crash
// is cleaned up within seconds of the next start, and then at every interval. It keeps no list of
// its own. Each step reads the current state from the database (internal/handover), so it never
// removes what is in use, whatever a restored backup, a second gateway or an operator has
// changed.
//
// If several servers share a registry, one of them at a time sweeps a cluster (Turns). When it
// disappears, another one takes over within the time of a lease plus takeover. This saves the
// target work, and safety does not depend on it: two sweeps at the same time, or one that froze
// in the middle and resumes, do nothing that a single sweep would not do. So a server that cannot
// reach the registry sweeps as if it were alone.
//
// Every cluster has its own goroutine, so a cluster that does not answer does not delay the
// others. Nothing waits for the reaper, and it takes no lock that a logon without changes would
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
	// DefaultUnused is how long a session role is kept after the last logon. After that, a logon
	// has to create it again, which takes a millisecond or two. People who log on daily never
	// have to wait for that.
	DefaultUnused = 24 * time.Hour
	// maxBackoff bounds the pause after sweeps that failed.
	maxBackoff = time.Minute
	// eachRole bounds the time in which a sweep hands over the objects of one role: a holder who
	// keeps them locked must not use up the time of others.
	eachRole = 3 * time.Second
	// takeover is how often a server checks whether another one still sweeps a cluster.
	takeover = 2 * time.Second
	// missed is the number of intervals after which a server that has not swept no longer keeps
	// the others from sweeping.
	missed = 4
	// sweepTimeout bounds one sweep of one cluster.
	sweepTimeout = 10 * time.Minute
)

// Sweeper is a cluster to be swept: a *handover.Admin.
type Sweeper interface {
	Sweep(context.Context, handover.SweepOptions) (handover.SweepReport, error)
	// Tend does the part of a sweep that only this process can do. While another server sweeps
	// the cluster, it is called instead of Sweep, just as often.
	Tend(context.Context)
}

// Config lists the clusters to sweep and how often. Zero durations mean the defaults.
type Config struct {
	// Clusters returns the clusters of the running configuration, by identifier.
	// It is called every second or so, and may give an identifier another
	// Sweeper at any time.
	Clusters func() map[string]Sweeper
	Interval time.Duration
	Unused   time.Duration
	Turns    *Turns       // of several servers; nil: there is one
	Log      *slog.Logger // default: discarded
	// Observe gets the result of each sweep; it must not block. Optional.
	Observe func(cluster string, report handover.SweepReport, took time.Duration, err error)
	// Passed is called when another server takes over a cluster that this one swept; it must not
	// block. Optional.
	Passed func(cluster string)
}

// Run sweeps until ctx ends, and returns when the last sweep has ended. It returns ctx.Err().
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

// cluster is the goroutine that sweeps one cluster.
type cluster struct {
	sweeper Sweeper
	cancel  context.CancelFunc
	done    chan struct{}
}

func start(ctx context.Context, c Config, id string, s Sweeper) *cluster {
	ctx, cancel := context.WithCancel(ctx)
	r := &cluster{sweeper: s, cancel: cancel, done: make(chan struct{})}
	k := keeper{c: c, id: id, s: s, log: c.Log.With("cluster", id)}
	go func() {
		defer close(r.done)
		k.run(ctx)
	}()
	return r
}

func (r *cluster) stop() {
	r.cancel()
	<-r.done
}

// apart shortens a pause a little at random, so that the sweeps of many clusters, or by servers
// that do not know of one another, do not run in step.
func apart(pause time.Duration) time.Duration {
	return pause - time.Duration(rand.Int64N(int64(pause)/10+1))
}

// keeper sweeps one cluster. It logs a repeated problem once: a role that cannot be dropped would
// otherwise be a line every few seconds.
type keeper struct {
	c        Config
	id       string
	s        Sweeper
	log      *slog.Logger
	said     map[handover.KeptRole]bool
	failures int  // in a row
	standby  bool // the last sweep found only a standby
}

// run sweeps the cluster until ctx ends, whenever it is this server's turn.
func (k *keeper) run(ctx context.Context) {
	defer k.c.Turns.pass(ctx, k.id)
	var due time.Time // the next sweep, or the next Tend
	last := turnAlone
	for {
		turn := k.c.Turns.take(ctx, k.id, missed*k.c.Interval)
		switch {
		case turn == turnMine && last == turnOthers:
			due = time.Time{} // the server whose turn it was may have stopped in the middle
		case turn == turnOthers && last != turnOthers:
			k.said, k.failures, k.standby = nil, 0, false
			if k.c.Passed != nil {
				k.c.Passed(k.id)
			}
		}
		last = turn
		if wait := time.Until(due); wait > 0 {
			if sleep(ctx, min(wait, takeover)) != nil {
				return
			}
			continue
		}
		pause := k.c.Interval
		if turn == turnOthers {
			k.s.Tend(ctx)
		} else if done := k.sweep(ctx); !done && ctx.Err() == nil {
			k.c.Turns.pass(ctx, k.id) // another server may reach the cluster, or its primary
			pause = max(pause, min(pause<<min(k.failures, 8), maxBackoff))
			if sleep(ctx, apart(pause)) != nil {
				return
			}
			continue
		}
		if ctx.Err() != nil {
			return
		}
		if turn == turnMine {
			k.c.Turns.swept(ctx, k.id)
		}
		due = time.Now().Add(apart(pause))
	}
}

// sweep reports whether the cluster was swept. One whose primary does not answer was not.
func (k *keeper) sweep(ctx context.Context) bool {
	began := time.Now()
	once, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	report, err := k.s.Sweep(once, handover.SweepOptions{Unused: k.c.Unused, Each: eachRole})
	if ctx.Err() != nil {
		return false
	}
	if k.c.Observe != nil {
		k.c.Observe(k.id, report, time.Since(began), err)
	}
	if len(report.Stripped)+len(report.HandedOver)+len(report.Dropped) > 0 {
		k.log.Info("swept", "stripped", len(report.Stripped), "handed_over", len(report.HandedOver), "dropped", len(report.Dropped))
	}
	kept := map[handover.KeptRole]bool{}
	for _, one := range report.Kept {
		role := one.Role
		if one.Database != "" {
			one.Role = "" // one line for all roles that own something there
		}
		if !k.said[one] && !kept[one] {
			k.log.Warn("session role not cleaned up", "role", role, "reason", one.Reason)
		}
		kept[one] = true
	}
	k.said = kept
	if err == nil {
		if report.Standby && !k.standby {
			k.log.Warn("cluster not swept: no host of it takes writes")
		}
		k.failures, k.standby = 0, report.Standby
		return !report.Standby
	}
	if k.failures == 0 {
		k.log.Warn("cluster not swept", "err", err)
	}
	k.failures++
	return false
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
