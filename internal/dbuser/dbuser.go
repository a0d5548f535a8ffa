// Package dbuser makes and keeps the PostgreSQL roles that the gateway logs on
// as. Package handover takes their rights away again.
//
// A session role stands for one database user and one set of groups. It is a
// LOGIN role that is a member of that user, of those groups and of the marker
// role [MarkerRole], and of nothing else, so whatever a session does it has
// exactly these rights. Ensure looks at the role with one query per logon, on
// one of a few standing connections of the administrative login, and rewrites
// it only when something differs. Everything that changes a role of a cluster
// runs in one transaction that holds one advisory lock ([adminconn.LaneKey]); "already
// there" and "already gone" are success.
//
// The package never alters an attribute or a setting of a database user, except that
// RemovePasswords can disable passwords. It never grants anything on an object, and
// never reads a query.
package dbuser

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/keyring"
)

// MarkerRole is the NOLOGIN group that all session roles are in. The sweep, pg_hba.conf
// and operators recognise session roles by it; a name alone is never taken as proof.
const MarkerRole = "daypass_session_roles"

// Config describes one cluster and how to administer it.
type Config struct {
	Cluster string          // identifier, for errors and logs
	Conn    *pgx.ConnConfig // the administrative login; made by pgx.ParseConfig
	Key     [32]byte        // upstream passwords are derived from it
	// Password reads the password of the administrative login again after the server refused the
	// one in Conn. Optional.
	Password func() (keyring.Secret, error)

	// TargetSessionAttrs is libpq's setting target_session_attrs for the sessions. If
	// Conn has several hosts and sessions may go to a standby, a logon that changes a role
	// waits until the standby has replayed the change. Administration always goes to the
	// primary.
	TargetSessionAttrs string

	AllowSuperusers      bool // DbUser may name a superuser
	AllowPredefinedRoles bool // DbGroups may name pg_* roles
	RemovePasswords      PasswordRemoval
	// NeverLend names roles that are lent neither as users nor as groups; a * in a
	// name stands for any characters.
	NeverLend []string

	MaxConns int              // standing connections; default 3
	Timeout  time.Duration    // one Ensure, all in all; default 8 s
	Now      func() time.Time // default time.Now; schedules retries, never decides validity
	Log      *slog.Logger     // default: discarded
	// Observe is called with the duration of each operation. It must not block. Optional.
	Observe func(op Operation, took time.Duration, err error)
}

// Operation is an operation whose duration is passed to Config.Observe.
type Operation string

const (
	Look   Operation = "look"   // the query of every logon, with the wait for a connection
	Change Operation = "change" // making or mending a session role, with the wait for its turn
)

// Need is what one logon asks for.
type Need struct {
	User       string   // the database user, bare
	Groups     []string // for this session only; order and repetition do not matter
	AutoCreate bool     // make User when it does not exist
	Identity   bool     // User is a full identity name, "IAM:ana" or "IAMR:etl"; implies AutoCreate
	Database   string   // the database the session will log on to; may be empty
}

// SessionRole is the role that the gateway logs on as.
type SessionRole struct {
	Name          string
	User          string // the role that a new session works as (ALTER ROLE … SET role); empty: the session role itself
	Password      keyring.Secret
	ServerVersion int // as server_version_num: 150018
	// Seen is a hash of the state that was found to be correct: roles, memberships,
	// settings, the right to connect to the database, and when the server last read its
	// configuration. As long as it does not change, a new session of the role would
	// begin with the same rights and settings. Zero: the state was changed, or is about
	// to be.
	Seen [sha256.Size]byte
	// Sources are from where such a session would get settings. Seen covers them.
	Sources SettingSources
	// LoginTrigger is set where the database may have a login event trigger, which can
	// refuse each new session.
	LoginTrigger bool
	// Superuser is set if the role can become a superuser, or has rights that amount to one's. Seen
	// covers it.
	Superuser bool
}

// SettingSources is a set of the rows of pg_db_role_setting that set something for a session.
type SettingSources uint8

const (
	fromAll SettingSources = 1 << iota
	fromDatabase
	fromRole
	fromRoleInDatabase
)

// Has reports whether the set contains a source as pg_settings names it.
func (s SettingSources) Has(source string) bool {
	switch source {
	case "global":
		return s&fromAll != 0
	case "database":
		return s&fromDatabase != 0
	case "user":
		return s&fromRole != 0
	case "database user":
		return s&fromRoleInDatabase != 0
	}
	return false
}

// Ensure makes sure that the session role for n exists with exactly the rights
// n asks for, and returns it. When nothing has to change it costs one query on
// a standing connection. Errors are *adminconn.Error with one of the sentinels of this
// package. Safe for concurrent use; calls with equal needs share the work.
//
// Until Opened is called for the role that it returned, this process does not take
// the role's rights away.
func (a *Admin) Ensure(ctx context.Context, n Need) (SessionRole, error) {
	n, err := n.normalize()
	if err != nil {
		return SessionRole{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	s := a.cfg.names(n)
	o, err := a.beginOpening(ctx, n, s)
	if err != nil {
		return SessionRole{}, err
	}
	role, err := a.ensure(ctx, n, s)
	if err != nil {
		a.endOpening(o)
		return SessionRole{}, err
	}
	a.mu.Lock()
	o.version = role.ServerVersion
	a.mu.Unlock()
	return role, nil
}

// Seen returns the present value of SessionRole.Seen, and changes nothing. It is zero if an
// Ensure of n would change something or fail.
func (a *Admin) Seen(ctx context.Context, n Need) ([sha256.Size]byte, error) {
	n, err := n.normalize()
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	s := a.cfg.names(n)
	st, err := a.look(ctx, n, s)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	p, err := a.planFor(st, &request{need: n, names: s})
	if err != nil || len(p.steps) > 0 || p.foreign {
		return [sha256.Size]byte{}, nil // a logon would fail, or change it
	}
	return st.seen, nil
}

// Heal is Ensure after the upstream refused the password (28P01): it rewrites
// the verifier whether or not anything else differs, since the administrative
// login cannot see that the holder changed it. It is part of the logon that Ensure
// began.
func (a *Admin) Heal(ctx context.Context, n Need) (SessionRole, error) {
	n, err := n.normalize()
	if err != nil {
		return SessionRole{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	return a.join(ctx, n, a.cfg.names(n), toHeal)
}

// observe reports how long an operation took.
func (a *Admin) observe(op Operation, start time.Time, err error) {
	if a.cfg.Observe != nil {
		a.cfg.Observe(op, time.Since(start), err)
	}
}
