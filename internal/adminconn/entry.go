package adminconn

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// entryAgain is the time between two attempts to connect to a database that refuses the
	// administrative login.
	entryAgain = time.Minute
	// maxRefusals limits how many such databases are remembered.
	maxRefusals = 10000
)

// EntryError is returned when a database refuses the administrative login, because the login
// lacks CONNECT or because of pg_hba.conf, a connection limit or a login event trigger, and when
// the database is locked.
type EntryError struct {
	Database string
	err      error
}

func (e *EntryError) Error() string {
	if errors.Is(e.err, errLocked) {
		return fmt.Sprintf("database %q is locked, so that no session can begin there, perhaps by an ALTER DATABASE that is not committed: pg_locks names the process", e.Database)
	}
	return fmt.Sprintf("database %q does not let the administrative login in: run `daypass cluster check`: %.300s", e.Database, PlainError(e.err))
}

func (e *EntryError) Unwrap() error { return e.err }

// refusal remembers an EntryError.
type refusal struct {
	err   *EntryError
	until time.Time
}

// errLocked is the cause of an EntryError: the database is locked.
var errLocked = errors.New("the database is locked")

// lockedQuery reports whether a new session in a database would have to wait for a lock on it.
const lockedQuery = `select exists (select from pg_locks l where l.locktype = 'object' and l.classid = 'pg_database'::regclass
  and l.objid = (select oid from pg_database where datname = $1::text::name)
  and l.mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'))`

// locked reports whether a new session in a database would have to wait for a lock.
func (p *Pool) locked(ctx context.Context, database string) (locked bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, ConnectTimeout)
	defer cancel()
	err = p.Read(ctx, func(ctx context.Context, c *Conn) error {
		return c.QueryRow(ctx, lockedQuery, database).Scan(&locked)
	})
	return locked, err
}

// Enter connects to another database of the cluster. It does not retry a database that
// refused the login recently: the session roles of hundreds of users may own objects there,
// and only an operator can fix the refusal.
//
// It does not connect to a database that is locked. The owner of a database can keep it locked, and
// a process of the server that waits for the lock stays when its client gives up. With one more at each
// attempt, the server would soon have no connection left.
func (p *Pool) Enter(ctx context.Context, database string) (*Conn, error) {
	p.mu.Lock()
	known := p.refusals[database]
	if known.err != nil && p.Now().Before(known.until) {
		p.mu.Unlock()
		return nil, known.err
	}
	delete(p.refusals, database)
	p.mu.Unlock()
	if locked, err := p.locked(ctx, database); err != nil {
		return nil, err
	} else if locked {
		return nil, &EntryError{Database: database, err: errLocked}
	}
	c, err := p.OpenDatabase(ctx, database)
	if err == nil || !refusesEntry(err) {
		return c, err
	}
	refused := &EntryError{Database: database, err: err}
	p.mu.Lock()
	if len(p.refusals) < maxRefusals {
		p.refusals[database] = refusal{refused, p.Now().Add(entryAgain)}
	}
	p.mu.Unlock()
	return nil, refused
}

// refusesEntry reports whether the error is about this database, not about the connection or
// the whole server.
func refusesEntry(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return false
	}
	switch {
	case pg.Code == pgerrcode.InvalidCatalogName, strings.HasPrefix(pg.Code, "57P"), strings.HasPrefix(pg.Code, "08"):
		return false
	case pg.Code == pgerrcode.TooManyConnections: // a limit of the server, the login or the database
		return strings.Contains(pg.Message, "database")
	}
	return true
}
