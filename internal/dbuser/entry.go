package dbuser

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// entryAgain is how long a database that has refused the administrative login is
// not tried again.
const entryAgain = time.Minute

// entryError says that a database does not let the administrative login in: for
// want of CONNECT, by pg_hba.conf, a connection limit or a login event trigger.
type entryError struct {
	database string
	err      error
}

func (e *entryError) Error() string {
	return fmt.Sprintf("database %q does not let the administrative login in: run `daypass cluster check`: %.300s", e.database, plainError(e.err))
}

func (e *entryError) Unwrap() error { return e.err }

// refusal remembers an entryError.
type refusal struct {
	err   *entryError
	until time.Time
}

// enter connects to another database of the cluster. While it is known to refuse
// the login it is not asked: session roles of hundreds of users may own something
// there, and nothing but an operator can help.
func (a *Admin) enter(ctx context.Context, database string) (*conn, error) {
	a.mu.Lock()
	known := a.refusals[database]
	if known.err != nil && a.cfg.Now().Before(known.until) {
		a.mu.Unlock()
		return nil, known.err
	}
	delete(a.refusals, database)
	a.mu.Unlock()
	c, err := a.pool.openDatabase(ctx, database)
	if err == nil || !refusesEntry(err) {
		return c, err
	}
	refused := &entryError{database: database, err: err}
	a.mu.Lock()
	if len(a.refusals) < maxEnded {
		a.refusals[database] = refusal{refused, a.cfg.Now().Add(entryAgain)}
	}
	a.mu.Unlock()
	return nil, refused
}

// refusesEntry reports whether the server has answered for the database, rather
// than not at all, or for itself.
func refusesEntry(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return false
	}
	switch {
	case pg.Code == "3D000", strings.HasPrefix(pg.Code, "57P"), strings.HasPrefix(pg.Code, "08"):
		return false
	case pg.Code == "53300": // the server's, the login's or the database's
		return strings.Contains(pg.Message, "database")
	}
	return true
}
