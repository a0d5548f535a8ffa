package adminconn

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
const (
	entryAgain = time.Minute
	// maxRefusals bounds how many such databases are remembered.
	maxRefusals = 10000
)

// EntryError is returned where a database does not let the administrative login in:
// for lack of CONNECT, by pg_hba.conf, a connection limit or a login event trigger.
type EntryError struct {
	Database string
	err      error
}

func (e *EntryError) Error() string {
	return fmt.Sprintf("database %q does not let the administrative login in: run `daypass cluster check`: %.300s", e.Database, PlainError(e.err))
}

func (e *EntryError) Unwrap() error { return e.err }

// refusal remembers an EntryError.
type refusal struct {
	err   *EntryError
	until time.Time
}

// Enter connects to another database of the cluster. While it is known to refuse
// the login, Enter does not try again: session roles of hundreds of users may own
// something there, and only an operator can fix it.
func (p *Pool) Enter(ctx context.Context, database string) (*Conn, error) {
	p.mu.Lock()
	known := p.refusals[database]
	if known.err != nil && p.Now().Before(known.until) {
		p.mu.Unlock()
		return nil, known.err
	}
	delete(p.refusals, database)
	p.mu.Unlock()
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

// refusesEntry reports whether the error is about this database, rather than about the
// connection or the whole server.
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
