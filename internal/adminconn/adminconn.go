// Package adminconn holds the connections of the administrative login of one cluster. It
// finds out which host is the primary, limits what a hostile server or database can do to a
// connection, and keeps a small pool of standing connections and the lane, in which the roles
// of the cluster are changed one transaction at a time.
//
// The packages above decide which statements are sent. This package knows neither database
// users nor session roles.
package adminconn

import (
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/keyring"
)

// LaneKey is the key of the advisory lock (pg_advisory_xact_lock) under which roles of a
// cluster are changed: "daypass" in ASCII. Advisory locks belong to a database, so all
// gateways of a cluster should name the same database in their administrative connection. If
// they do not, retries still give the right result.
const LaneKey int64 = 0x0064617970617373

const (
	defaultMaxConns = 3
	// minMaxConns leaves one connection for logons while the lane holds another.
	minMaxConns = 2
	// reusedAnswers is how long a connection that was idle may take to show that it is alive.
	// After a failover the old server may not answer at all.
	reusedAnswers = time.Second
)

// Config says how to connect to one cluster.
type Config struct {
	Cluster string          // identifier, for errors and logs
	Conn    *pgx.ConnConfig // the administrative login; made by pgx.ParseConfig
	// Password reads the password of the administrative login again, after the server has
	// refused the one in Conn. Optional.
	Password func() (keyring.Secret, error)
	// TargetSessionAttrs is libpq's setting target_session_attrs for the sessions. See
	// AwaitReplay.
	TargetSessionAttrs string
	// State returns a query for a version of the server (150018). Each connection prepares it
	// as StateStatement. Optional.
	State func(version int) string

	MaxConns int              // standing connections; default 3, at least 2
	Now      func() time.Time // default time.Now; for the times of retries, never for validity
	Log      *slog.Logger     // default: discarded
}

// StateStatement is the name of the prepared statement Config.State.
const StateStatement = "daypass_state"
