package dbuser

import (
	"context"
	"time"
)

// Operation is what Config.Observe is told the time of.
type Operation string

const (
	Look   Operation = "look"   // the query of every logon, with the wait for a connection
	Change Operation = "change" // making or mending a session role, with the wait for its turn
)

// Stats say how the administrative connections of a cluster are.
type Stats struct {
	Limit    int   // connections there may be
	InUse    int   // at work, or being opened
	Idle     int   // standing by
	Waiting  int   // calls that wait for one
	Connects int   // attempts to connect since New
	Reached  bool  // a connection has been made, ever
	Err      error // why the last attempt to connect failed; nil: it did not
}

// Stats takes a moment's picture, without asking the cluster.
func (a *Admin) Stats() Stats {
	p := a.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	return Stats{
		Limit: cap(p.slots), InUse: len(p.slots), Idle: len(p.idle), Waiting: p.waiting,
		Connects: p.connects, Reached: p.reached, Err: p.failure,
	}
}

// Ping asks the cluster whether it answers, on a standing connection. The error
// is as Ensure's; while the circuit is open it comes at once.
func (a *Admin) Ping(ctx context.Context) error {
	for {
		c, err := a.pool.acquire(ctx)
		if err != nil {
			return err
		}
		reused := c.reused
		if err = c.Ping(ctx); err == nil {
			a.pool.release(c)
			return nil
		}
		a.pool.discard(c)
		if !reused || ctx.Err() != nil {
			return a.pool.unreachable(err)
		}
		a.pool.flush() // the server was restarted in between
	}
}

// observe tells how long something took, when somebody asks.
func (a *Admin) observe(op Operation, start time.Time, err error) {
	if a.cfg.Observe != nil {
		a.cfg.Observe(op, time.Since(start), err)
	}
}
