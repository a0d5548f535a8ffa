package adminconn

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// laneWait is how long to wait for the lock before looking up who holds it.
	laneWait = "1s"
	// lanePatience is how long to wait for another gateway that holds the lock.
	lanePatience = 5 * time.Second
	// rowWait is how long a statement in the lane waits for a row or a table. A holder can
	// keep the row of their session role locked for as long as they like, and other changes
	// must not wait for that.
	rowWait = "100ms"
	// laneIdle is how long the holder of the lock may pause between two statements. A gateway that
	// is frozen or cut off then loses the lock, before the others run out of patience.
	laneIdle = "3s"
	// withoutLane is how long the lock is ignored after a login other than a gateway's was
	// found to hold it.
	withoutLane = time.Minute
)

// InLane runs f, and then the statements it returns, in one transaction that
// holds the cluster's advisory lock. One such transaction at a time uses
// a connection of this process; the others stay free for logons that change
// nothing.
//
// Any login of that database can take this advisory lock too, and keep it. InLane waits for
// another gateway, but not for any other login: the transaction then goes on without the
// lock, and retries resolve conflicts between two changes of the same rows.
func (p *Pool) InLane(ctx context.Context, f func(context.Context, *Conn) ([]Step, error)) error {
	select {
	case p.lane <- struct{}{}:
		defer func() { <-p.lane }()
	case <-ctx.Done():
		return p.Unreachable(ctx.Err())
	}
	c, err := p.acquireAlive(ctx)
	if err != nil {
		return err
	}
	defer p.Release(c)
	err = p.enterLane(ctx, c)
	var last []Step
	if err == nil {
		last, err = f(ctx, c)
	}
	if err == nil {
		err = p.Run(ctx, c, append(last, Step{SQL: "commit"}))
	}
	if err != nil && !c.IsClosed() {
		rollback(ctx, c)
	}
	return err
}

// enterLane begins the transaction and takes the lock, unless a login other than a gateway's
// holds it. The caller holds the token of p.lane.
func (p *Pool) enterLane(ctx context.Context, c *Conn) error {
	began := time.Now()
	for p.laneless.Before(p.Now()) {
		err := p.Run(ctx, c, []Step{
			{SQL: "begin"},
			{SQL: "set local lock_timeout = '" + laneWait + "'"},
			{SQL: fmt.Sprintf("select pg_advisory_xact_lock(%d)", LaneKey)},
			{SQL: "set local lock_timeout = '" + rowWait + "'"},
			{SQL: "set local idle_in_transaction_session_timeout = '" + laneIdle + "'"},
		})
		if !IsCode(err, pgerrcode.LockNotAvailable) {
			return err
		}
		rollback(ctx, c)
		holder, outsider, err := laneHolder(ctx, c)
		switch {
		case err != nil:
			return err
		case outsider:
			p.laneless = p.Now().Add(withoutLane)
			p.Log.Warn("another login holds the lock of the role DDL; going on without it",
				"cluster", p.Cluster, "database", p.config.Database, "key", LaneKey, "holder", holder)
		case time.Since(began) > lanePatience:
			return &pgconn.PgError{Severity: "ERROR", Code: pgerrcode.LockNotAvailable, Message: "another gateway changes roles"}
		}
	}
	return p.Run(ctx, c, []Step{
		{SQL: "begin"},
		{SQL: "set local lock_timeout = '" + rowWait + "'"},
		{SQL: fmt.Sprintf("select pg_try_advisory_xact_lock(%d)", LaneKey)},
	})
}

// laneHolder returns who holds the lock and whether that is another login than ours. A
// prepared transaction, which has no session, counts as another login.
func laneHolder(ctx context.Context, c *Conn) (holder string, outsider bool, err error) {
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

func rollback(ctx context.Context, c *Conn) {
	_, _ = c.PgConn().Exec(ctx, "rollback").ReadAll() // if this fails, Release closes the connection
}

// Retried is InLane with retries after temporary errors.
func (p *Pool) Retried(ctx context.Context, f func(context.Context, *Conn) ([]Step, error)) error {
	for attempt := 0; ; attempt++ {
		err := p.InLane(ctx, f)
		if err == nil || !Transient(err) && !ConnectionLost(err) || attempt == 5 {
			return err
		}
		if pauseErr := Pause(ctx, attempt, err); pauseErr != nil {
			return err
		}
	}
}
