package adminconn

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

const (
	// replayFor bounds how long a logon waits for the standby it goes to.
	replayFor   = 4 * time.Second
	replayAgain = 10 * time.Millisecond
	// standbyAnswers is how long the standby may take for one answer, and standbyOpens how long a
	// connection to it may take, which other hosts may delay. A standby that takes longer is left
	// alone for standbyAgain.
	standbyAnswers = time.Second
	standbyOpens   = 2 * time.Second
	standbyAgain   = 5 * time.Second
)

// replica is a standing connection to the host that sessions go to, if that may be a standby.
// Session roles are changed on the primary and reach a standby later.
type replica struct {
	turn  chan struct{} // one token: permission to use the other fields
	c     *Conn
	after time.Time // do not connect before
}

// follows reports whether sessions may go to a standby at all.
func (p *Pool) follows() bool {
	if p.anyHost() && p.primary() == 0 {
		return false // sessions go to the first host that answers: the primary
	}
	return len(p.hosts) > 1 && !slices.Contains([]string{"read-write", "primary"}, p.sessionAttrs)
}

func (p *Pool) anyHost() bool {
	return p.sessionAttrs == "" || p.sessionAttrs == "any"
}

// AwaitReplay waits until the standby that sessions go to has replayed what was just
// committed on the primary, and returns ErrLagging if that takes too long. It does not wait
// for a standby that does not answer: the session's own logon will report that.
func (p *Pool) AwaitReplay(ctx context.Context) error {
	if !p.follows() {
		return nil
	}
	c, err := p.Acquire(ctx)
	if err != nil {
		return err
	}
	var position *string
	err = c.QueryRow(ctx, "select case when pg_is_in_recovery() then null else pg_current_wal_flush_lsn()::text end").Scan(&position)
	p.Release(c)
	if err != nil {
		return p.Unreachable(err)
	}
	if position == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, replayFor)
	defer cancel()
	for {
		there, err := p.replayed(ctx, *position)
		if err != nil || there {
			return nil
		}
		select {
		case <-time.After(replayAgain):
		case <-ctx.Done():
			return &Error{Kind: ErrLagging, Cause: ctx.Err(),
				Message: fmt.Sprintf("the standby of cluster %q has not received the session role yet; try again", p.Cluster)}
		}
	}
}

// replayed asks whether the standby has replayed up to a position.
func (p *Pool) replayed(ctx context.Context, position string) (there bool, err error) {
	r := &p.replica
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return false, nil
	}
	if r.c == nil && (time.Now().Before(r.after) || p.base.Err() != nil) {
		return false, errNoStandby
	}
	if r.c == nil {
		opening, cancel := context.WithTimeout(ctx, standbyOpens)
		defer cancel()
		if r.c, err = p.openReplica(opening); err != nil {
			r.after = time.Now().Add(standbyAgain)
			return false, err
		}
	}
	asking, cancel := context.WithTimeout(ctx, standbyAnswers)
	defer cancel()
	err = r.c.QueryRow(asking, "select not pg_is_in_recovery() or coalesce(pg_last_wal_replay_lsn() >= $1::text::pg_lsn, true)", position).Scan(&there)
	if err != nil {
		r.c.CloseNow()
		r.c = nil
		if ctx.Err() != nil {
			return false, nil // time is up; the standby may still be alive
		}
	}
	return there, err
}

// errNoStandby means that there is no standby to wait for.
var errNoStandby = errors.New("no standby answers")

// openReplica connects where the gateway's sessions go: to the first host, in
// the order given, that answers and is of the right kind.
func (p *Pool) openReplica(ctx context.Context) (*Conn, error) {
	var last error
	deadline, _ := ctx.Deadline()
	for i, host := range p.hosts {
		// A host that hangs must leave time for the others.
		asking, cancel := context.WithTimeout(ctx, time.Until(deadline)/time.Duration(len(p.hosts)-i))
		c, err := host.connect(asking, "")
		cancel()
		if err != nil {
			last = err
			continue
		}
		if c.Standby || p.anyHost() {
			return c, nil
		}
		c.CloseNow()
	}
	return nil, errors.Join(errNoStandby, last)
}

// closeReplica ends the standing connection.
func (p *Pool) closeReplica() {
	p.replica.turn <- struct{}{}
	defer func() { <-p.replica.turn }()
	if p.replica.c != nil {
		p.replica.c.CloseNow()
		p.replica.c = nil
	}
}
