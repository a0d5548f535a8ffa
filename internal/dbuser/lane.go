package dbuser

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// laneWait is how long the lock is waited for before anybody asks who has it.
	laneWait = "1s"
	// lanePatience is how long a gateway that has it is waited for.
	lanePatience = 5 * time.Second
	// rowWait is how long a statement in the lane waits for a row or a table. Whoever
	// may log on can keep a row of his session role locked for as long as he likes:
	// the others in the lane are not to wait for that.
	rowWait = "100ms"
	// withoutLane is how long the lock is not waited for once somebody was found
	// to have it who is no gateway.
	withoutLane = time.Minute
)

// inLane runs f, and then the statements it returns, in one transaction that
// holds the cluster's advisory lock. One such transaction at a time uses
// a connection of this process; the others stay free for logons that change
// nothing.
//
// Anybody who may log on to the database of the administrative login may take
// an advisory lock there, this one too, and keep it. A gateway is waited for;
// nobody else is: the transaction goes on without the lock, and what two of
// them then do to the same rows is tried again.
func (a *Admin) inLane(ctx context.Context, f func(context.Context, *conn) ([]step, error)) error {
	select {
	case a.lane <- struct{}{}:
		defer func() { <-a.lane }()
	case <-ctx.Done():
		return a.pool.unreachable(ctx.Err())
	}
	c, err := a.acquireAlive(ctx)
	if err != nil {
		return err
	}
	defer a.pool.release(c)
	err = a.enterLane(ctx, c)
	var last []step
	if err == nil {
		last, err = f(ctx, c)
	}
	if err == nil {
		err = a.runSteps(ctx, c, append(last, step{sql: "commit"}))
	}
	if err != nil && !c.IsClosed() {
		rollback(ctx, c)
	}
	return err
}

// enterLane begins the transaction and takes the lock, unless it is held by
// somebody who is no gateway. Its caller has the token of a.lane.
func (a *Admin) enterLane(ctx context.Context, c *conn) error {
	began := time.Now()
	for a.laneless.Before(a.cfg.Now()) {
		err := a.runSteps(ctx, c, []step{
			{sql: "begin"},
			{sql: "set local lock_timeout = '" + laneWait + "'"},
			{sql: fmt.Sprintf("select pg_advisory_xact_lock(%d)", LaneKey)},
			{sql: "set local lock_timeout = '" + rowWait + "'"},
		})
		var pg *pgconn.PgError
		if err == nil || !errors.As(err, &pg) || pg.Code != "55P03" {
			return err
		}
		rollback(ctx, c)
		holder, outsider, err := laneHolder(ctx, c)
		switch {
		case err != nil:
			return err
		case outsider:
			a.laneless = a.cfg.Now().Add(withoutLane)
			a.cfg.Log.Warn("another login holds the lock of the role DDL; going on without it",
				"cluster", a.cfg.Cluster, "database", a.pool.config.Database, "key", LaneKey, "holder", holder)
		case time.Since(began) > lanePatience:
			return &pgconn.PgError{Severity: "ERROR", Code: "55P03", Message: "another gateway changes roles"}
		}
	}
	return a.runSteps(ctx, c, []step{
		{sql: "begin"},
		{sql: "set local lock_timeout = '" + rowWait + "'"},
		{sql: fmt.Sprintf("select pg_try_advisory_xact_lock(%d)", LaneKey)},
	})
}

// laneHolder names who has the lock, and whether that is another login than
// ours: a session of it, or a prepared transaction, which has no session.
func laneHolder(ctx context.Context, c *conn) (holder string, outsider bool, err error) {
	err = c.QueryRow(ctx, fmt.Sprintf(`
		select coalesce(a.usename::text || ' (pid ' || l.pid || ')', 'a prepared transaction'),
			a.usename is distinct from session_user
		from pg_locks l left join pg_stat_activity a on a.pid = l.pid
		where l.locktype = 'advisory' and l.granted and l.objsubid = 1
			and l.classid = %d and l.objid = %d
			and l.database = (select oid from pg_database where datname = current_database())
		union all select '', false
		order by 2 desc limit 1`, uint32(LaneKey>>32), uint32(LaneKey&0xffffffff))).Scan(&holder, &outsider)
	return holder, outsider, err
}

func rollback(ctx context.Context, c *conn) {
	_, _ = c.PgConn().Exec(ctx, "rollback").ReadAll() // or release closes the connection
}
