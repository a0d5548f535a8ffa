package adminconn

import (
	"context"
)

// Stats describe the administrative connections of a cluster.
type Stats struct {
	Limit    int   // connections there may be
	InUse    int   // at work, or being opened
	Idle     int   // standing by
	Waiting  int   // calls that wait for one
	Connects int   // attempts to connect since New
	Reached  bool  // a connection has been made, ever
	Err      error // why the last attempt to connect failed; nil if it succeeded
}

// Stats takes a moment's picture, without asking the cluster.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Stats{
		Limit: cap(p.slots), InUse: len(p.slots), Idle: len(p.idle), Waiting: p.waiting,
		Connects: p.connects, Reached: p.reached, Err: p.failure,
	}
}

// Ping asks the cluster whether it answers, on a standing connection. The error
// is as Ensure's; while the circuit is open it comes at once.
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
