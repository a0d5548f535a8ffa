package adminconn

import (
	"context"
)

// Stats describe the administrative connections of a cluster.
type Stats struct {
	Limit    int   // the most connections there may be
	InUse    int   // in use, or being opened
	Idle     int   // standing and not in use
	Waiting  int   // calls that wait for one
	Connects int   // attempts to connect since New
	Reached  bool  // a connection has ever been made
	Err      error // why the last attempt to connect failed; nil if it succeeded
}

// Stats returns the present state without asking the cluster.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Stats{
		Limit: cap(p.slots), InUse: len(p.slots), Idle: len(p.idle), Waiting: p.waiting,
		Connects: p.connects, Reached: p.reached, Err: p.failure,
	}
}

// Ping asks the cluster for an answer on a standing connection. Its errors are those of
// Ensure; while the circuit is open, they come at once.
func (p *Pool) Ping(ctx context.Context) error {
	for {
		c, err := p.Acquire(ctx)
		if err != nil {
			return err
		}
		reused := c.Reused
		if err = c.Ping(ctx); err == nil {
			p.Release(c)
			return nil
		}
		p.Discard(c)
		if !reused || ctx.Err() != nil {
			return p.Unreachable(err)
		}
		p.Flush() // the server was restarted in between
	}
}
