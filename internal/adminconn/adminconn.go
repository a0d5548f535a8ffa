// Package adminconn holds the connections of the administrative login of one
// cluster: which of its hosts is the primary, what a hostile server or database may
// do to a connection, a small pool of standing ones, and the lane, in which the
// roles of the cluster are changed one transaction at a time.
//
// What is sent over them is the business of the packages above: it knows neither
// database users nor session roles.
package adminconn

import (
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/keyring"
)

// LaneKey is the key of the advisory lock (pg_advisory_xact_lock) under which
// all role DDL of a cluster runs: "daypass" in ASCII. Advisory locks belong to
// a database, so every gateway of one cluster should name the same database in
// its administrative connection; where they do not, retries still keep the
// outcome right.
const LaneKey int64 = 0x0064617970617373

const (
	defaultMaxConns = 3
	// minMaxConns leaves one connection for logons while the lane holds another.
	minMaxConns = 2
	// reusedAnswers is how long a connection that has stood idle may take to show
	// that it is alive. After a failover the old server may not answer at all.
	reusedAnswers = time.Second
)

// Config says how to connect to one cluster.
type Config struct {
	Cluster string          // identifier, for errors and logs
	Conn    *pgx.ConnConfig // the administrative login; made by pgx.ParseConfig
	// Password reads the password of the administrative login again, when the server
	// has refused the one in Conn. Optional.
	Password func() (keyring.Secret, error)
	// TargetSessionAttrs is libpq's setting of that name for the sessions. See AwaitReplay.
	TargetSessionAttrs string
	// State is a query that is prepared on each connection as StateStatement, for a
	// version of the server (150018). Optional.
	State func(version int) string

	MaxConns int              // standing connections; default 3, at least 2
	Now      func() time.Time // default time.Now; schedules retries, never decides validity
	Log      *slog.Logger     // default: discarded
}

// StateStatement is the name of the prepared statement Config.State.
const StateStatement = "daypass_state"
