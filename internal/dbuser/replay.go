package dbuser

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
	// standbyAnswers is how long the standby may take for one answer; one that
	// does not is left alone for standbyAgain.
	standbyAnswers = time.Second
	standbyAgain   = 5 * time.Second
)

// replica is where sessions go when it may be a standby: session roles are
// changed on the primary and reach it later. It holds one standing connection.
type replica struct {
	turn  chan struct{} // one token: who uses the rest
	c     *conn
	after time.Time // not to be asked before
}

// follows reports whether sessions may go to a standby at all.
func (a *Admin) follows() bool {
	if a.anyHost() && a.pool.primary() == 0 {
		return false // sessions go to the first host that answers: the primary
	}
	return len(a.pool.hosts) > 1 && !slices.Contains([]string{"read-write", "primary"}, a.cfg.TargetSessionAttrs)
}

func (a *Admin) anyHost() bool {
	return a.cfg.TargetSessionAttrs == "" || a.cfg.TargetSessionAttrs == "any"
}

// awaitReplay waits until the standby that sessions go to has what was just
// committed on the primary. ErrLagging says that it takes too long. A standby
// that cannot be asked is not waited for: the session's own logon will say what
// is the matter with it.
func (a *Admin) awaitReplay(ctx context.Context) error {
	if !a.follows() {
		return nil
	}
	c, err := a.pool.acquire(ctx)
	if err != nil {
		return err
	}
	var position *string
	err = c.QueryRow(ctx, "select case when pg_is_in_recovery() then null else pg_current_wal_flush_lsn()::text end").Scan(&position)
	a.pool.release(c)
	if err != nil {
		return a.pool.unreachable(err)
	}
	if position == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, replayFor)
	defer cancel()
	for {
		there, err := a.replayed(ctx, *position)
		if err != nil || there {
			return nil
		}
		timer := time.NewTimer(replayAgain)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return &Error{Kind: ErrLagging, Cause: ctx.Err(),
				Message: fmt.Sprintf("the standby of cluster %q has not received the session role yet; try again", a.cfg.Cluster)}
		}
	}
}

// replayed asks whether the standby has replayed up to a position.
func (a *Admin) replayed(ctx context.Context, position string) (there bool, err error) {
	r := &a.replica
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return false, nil
	}
	asking, cancel := context.WithTimeout(ctx, standbyAnswers)
	defer cancel()
	if r.c == nil && time.Now().Before(r.after) {
		return false, errNoStandby
	}
	if r.c == nil {
		if r.c, err = a.openReplica(asking); err != nil {
			r.after = time.Now().Add(standbyAgain)
			return false, err
		}
	}
	err = r.c.QueryRow(asking, "select not pg_is_in_recovery() or coalesce(pg_last_wal_replay_lsn() >= $1::text::pg_lsn, true)", position).Scan(&there)
	if err != nil {
		closeConn(r.c)
		r.c = nil
		if ctx.Err() != nil {
			return false, nil // the time is up, not the standby down
		}
	}
	return there, err
}

// errNoStandby is why there is nothing to wait for.
var errNoStandby = errors.New("no standby answers")

// openReplica connects where the gateway's sessions go: to the first host, in
// the order given, that answers and is of the right kind.
func (a *Admin) openReplica(ctx context.Context) (*conn, error) {
	var last error
	for _, host := range a.pool.hosts {
		c, err := host.connect(ctx, "")
		if err != nil {
			last = err
			continue
		}
		if c.standby || a.anyHost() {
			return c, nil
		}
		closeConn(c)
	}
	return nil, errors.Join(errNoStandby, last)
}

// closeReplica ends the standing connection.
func (a *Admin) closeReplica() {
	a.replica.turn <- struct{}{}
	defer func() { <-a.replica.turn }()
	if a.replica.c != nil {
		closeConn(a.replica.c)
		a.replica.c = nil
	}
}
