package dbuser

import (
	"context"
	"errors"
	"time"
)

// handOverLock bounds how long a change of owner waits for a table that is in use,
// and with it how long it keeps others waiting behind it.
const handOverLock = "300ms"

// Ownership is what a session role owns in one database. An empty Database
// means what belongs to the whole cluster, such as a database.
type Ownership struct {
	Role     string `json:"role"`
	User     string `json:"user"`
	Database string `json:"database,omitempty"`
}

// KeptRole is a session role that could not be handed over or dropped, and why.
type KeptRole struct {
	Role   string `json:"role"`
	Reason string `json:"reason"`
	// Database is set when the reason is that this database does not let the
	// administrative login in: it is the same for all roles.
	Database string `json:"database,omitempty"`
}

// errMore is why a hand-over is to be continued: its time is up.
var errMore = errors.New("there is more to hand over")

// handOver gives what a session role owns in one database to its user, when the
// role has no session: at one stroke, and object by object where that does not work
// or would be too much. It ends with errMore soon after limit, if that is not zero,
// and with errInUse when there is a session.
func (a *Admin) handOver(ctx context.Context, role, database string, limit time.Duration) (user string, err error) {
	until := time.Time{}
	if limit > 0 {
		until = time.Now().Add(limit)
	}
	err = a.onDatabase(ctx, database, func(do transaction) error {
		h := handingOver{a: a, role: role, until: until, do: do, lend: func(ctx context.Context, lane, c *conn) (l lent, err error) {
			live, err := a.liveAmong(ctx, lane, []string{role})
			if err == nil && len(live) > 0 {
				err = errInUse
			}
			if err != nil {
				return l, err
			}
			if user, err = a.userOf(ctx, lane, role); err != nil {
				return l, err
			}
			return a.readLent(ctx, lane, c, role, user)
		}}
		if database != "" {
			if err := h.surplus(); err != nil {
				return err
			}
		}
		whole := h.whole()
		if database == "" || !isCode(whole, "53200", "55P03") && !refused(whole) {
			return whole
		}
		if _, err := h.pieces(whole); err != nil {
			return err
		}
		return h.whole() // what ALTER has no words for, as extensions
	})
	return user, err
}

// transaction runs f in one transaction of a database, in the lane. The lane's own
// connection is to the database of the administrative login; c is it, or one to
// another database.
type transaction func(f func(ctx context.Context, lane, c *conn) error) error

// onDatabase connects to a database, and runs use with what runs a transaction
// there. Of other databases than the login's, one at a time is connected to.
func (a *Admin) onDatabase(ctx context.Context, database string, use func(transaction) error) error {
	begin := step{sql: "set local lock_timeout = '" + handOverLock + "'"}
	if database == "" || database == a.pool.config.Database {
		return use(func(f func(ctx context.Context, lane, c *conn) error) error {
			return a.inLane(ctx, func(ctx context.Context, lane *conn) ([]step, error) {
				if err := a.runSteps(ctx, lane, []step{begin}); err != nil {
					return nil, err
				}
				return nil, f(ctx, lane, lane)
			})
		})
	}
	select {
	case a.errand <- struct{}{}:
		defer func() { <-a.errand }()
	case <-ctx.Done():
		return ctx.Err()
	}
	c, err := a.enter(ctx, database)
	if err != nil {
		return err
	}
	defer a.pool.discard(c)
	return use(func(f func(ctx context.Context, lane, c *conn) error) error {
		return a.inLane(ctx, func(ctx context.Context, lane *conn) ([]step, error) {
			err := a.runSteps(ctx, c, []step{{sql: "begin"}, begin})
			if err == nil {
				err = f(ctx, lane, c)
			}
			if err == nil {
				err = a.runSteps(ctx, c, []step{{sql: "commit"}})
			}
			if err != nil && !c.IsClosed() {
				rollback(ctx, c)
			}
			return nil, err
		})
	})
}

// inDatabase runs f in one transaction of a database, in the lane.
func (a *Admin) inDatabase(ctx context.Context, database string, f func(ctx context.Context, lane, c *conn) error) error {
	return a.onDatabase(ctx, database, func(do transaction) error { return do(f) })
}
