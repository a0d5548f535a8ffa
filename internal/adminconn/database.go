package adminconn

import (
	"context"
)

// databaseLock bounds how long a statement waits for a table that is in use, and so how long
// others wait behind that statement.
const databaseLock = "300ms"

// Transaction runs f in one transaction of a database, in the lane. lane is the connection to
// the administrative login's database, and c the one to the transaction's database. If that is
// the same database, lane and c are the same connection.
type Transaction func(f func(ctx context.Context, lane, c *Conn) error) error

// OnDatabase connects to a database and calls use with a function that runs a transaction
// there. Only one connection to another database than the login's own is open at a time.
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
