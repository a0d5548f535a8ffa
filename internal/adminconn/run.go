package adminconn

import (
	"context"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
)

// Step is one statement of a change.
type Step struct {
	SQL string
	// Parameter is set if the statement sets a parameter: "does not exist" (42704) then
	// refers to the parameter, not to a role that has just been dropped.
	Parameter bool
	About     any // handed back in a StepError
}

// StepError names the statement that failed.
type StepError struct {
	Step
	err error
}

func (e *StepError) Error() string { return e.err.Error() }
func (e *StepError) Unwrap() error { return e.err }

// Run sends the statements in one message. With TestOnlyBefore it sends them one by one, so
// that a test can act between two of them.
func (p *Pool) Run(ctx context.Context, c *Conn, steps []Step) error {
	if p.TestOnlyBefore != nil {
		for _, s := range steps {
			p.TestOnlyBefore(s.SQL, c.PgConn())
			if err := runMessage(ctx, c, []Step{s}); err != nil {
				return err
			}
		}
		return nil
	}
	return runMessage(ctx, c, steps)
}

func runMessage(ctx context.Context, c *Conn, steps []Step) error {
	if len(steps) == 0 {
		return nil
	}
	var sql strings.Builder
	for _, s := range steps {
		sql.WriteString(s.SQL)
		sql.WriteString(";\n")
	}
	reader := c.PgConn().Exec(ctx, sql.String())
	done := 0
	for reader.NextResult() {
		if _, err := reader.ResultReader().Close(); err == nil {
			done++
		}
	}
	if err := reader.Close(); err != nil {
		return &StepError{Step: steps[min(done, len(steps)-1)], err: err}
	}
	return nil
}

// acquireAlive is Acquire for a statement that may take long. It first makes sure that the
// server answers, since later on silence could mean a slow statement or a dead server.
func (p *Pool) acquireAlive(ctx context.Context) (*Conn, error) {
	for {
		c, err := p.Acquire(ctx)
		if err != nil || !c.Reused || time.Since(c.used) < reusedAnswers {
			return c, err
		}
		asking, cancel := context.WithTimeout(ctx, reusedAnswers)
		err = c.PgConn().Exec(asking, "").Close()
		cancel()
		if err == nil {
			return c, nil
		}
		p.Discard(c)
		if ctx.Err() != nil {
			return nil, p.Unreachable(ctx.Err())
		}
		p.Flush()
	}
}

// Pause waits a little longer after each attempt, for a random time, so that gateways do not
// collide again. After a lock timeout it waits longer than the statement held the lane, so
// that others get most of the lane.
func Pause(ctx context.Context, attempt int, cause error) error {
	unit := 2 * time.Millisecond
	switch {
	case IsCode(cause, pgerrcode.LockNotAvailable):
		unit = 200 * time.Millisecond
		attempt++
	case attempt == 0:
		return ctx.Err()
	}
	wait := time.Duration((1 + rand.Float64()*float64(min(attempt, 5))) * float64(unit))
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Read runs read on a standing connection, and once more on a new one if the connection turns
// out to be dead, as after a restart of the server. Errors of read are returned unchanged,
// unless the connection broke.
func (p *Pool) Read(ctx context.Context, read func(context.Context, *Conn) error) error {
	for {
		c, err := p.Acquire(ctx)
		if err != nil {
			return err
		}
		// The query continues when the caller goes away: cancelling it would cost the
		// connection, and it takes less than a millisecond.
		deadline, _ := ctx.Deadline()
		if soon := time.Now().Add(reusedAnswers); c.Reused && soon.Before(deadline) {
			deadline = soon
		}
		query, cancel := context.WithDeadline(p.base, deadline)
		err = read(query, c)
		cancel()
		reused := c.Reused
		if err != nil && (ConnectionLost(err) || reused && c.IsClosed() && p.base.Err() == nil) {
			p.Discard(c)
			if reused {
				p.Flush()
				continue
			}
			return p.Unreachable(err)
		}
		p.Release(c)
		return err
	}
}
