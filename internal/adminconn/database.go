package adminconn

import (
	"context"
)

// databaseLock bounds how long a statement waits for a table that is in use, and with
// it how long it keeps others waiting behind it.
const databaseLock = "300ms"

// Transaction runs f in one transaction of a database, in the lane. The lane's own
// connection is to the database of the administrative login; c is it, or one to
// another database.
type Transaction func(f func(ctx context.Context, lane, c *Conn) error) error

// OnDatabase connects to a database and calls use with a function that runs a
// transaction there. It connects to one database at a time, besides the login's own.
func (p *Pool) OnDatabase(ctx context.Context, database string, use func(Transaction) error) error {
	begin := Step{SQL: "set local lock_timeout = '" + databaseLock + "'"}
	if database == "" || database == p.config.Database {
		return use(func(f func(ctx context.Context, lane, c *Conn) error) error {
			return p.InLane(ctx, func(ctx context.Context, lane *Conn) ([]Step, error) {
				if err := p.Run(ctx, lane, []Step{begin}); err != nil {
					return nil, err
				}
				return nil, f(ctx, lane, lane)
			})
		})
	}
	select {
	case p.elsewhere <- struct{}{}:
		defer func() { <-p.elsewhere }()
	case <-ctx.Done():
		return ctx.Err()
	}
	c, err := p.Enter(ctx, database)
	if err != nil {
		return err
	}
	defer p.Discard(c)
	return use(func(f func(ctx context.Context, lane, c *Conn) error) error {
		return p.InLane(ctx, func(ctx context.Context, lane *Conn) ([]Step, error) {
			err := p.Run(ctx, c, []Step{{SQL: "begin"}, begin})
			if err == nil {
				err = f(ctx, lane, c)
			}
			if err == nil {
				err = p.Run(ctx, c, []Step{{SQL: "commit"}})
			}
			if err != nil && !c.IsClosed() {
				rollback(ctx, c)
			}
			return nil, err
		})
	})
}

// InDatabase runs f in one transaction of a database, in the lane.
func (p *Pool) InDatabase(ctx context.Context, database string, f func(ctx context.Context, lane, c *Conn) error) error {
	return p.OnDatabase(ctx, database, func(do Transaction) error { return do(f) })
}
