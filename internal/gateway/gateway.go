// Package gateway is the PostgreSQL front door: clients log on here with the
// credential that GetClusterCredentials gave them, and work in a real PostgreSQL
// session that the gateway opened for them.
//
// A logon, step by step:
//
//	client → gateway    SSLRequest, GSSENCRequest, or TLS at once; CancelRequest
//	client → gateway    start-up message: user, database, parameters
//	gateway → client    AuthenticationCleartextPassword, inside TLS
//	client → gateway    password message: the credential, checked offline
//	gateway → upstream  session role ensured, start-up, SCRAM-SHA-256, parameters
//	gateway → client    AuthenticationOk, what the upstream said, a cancel key of ours
//
// After that package session copies bytes. User, database and groups come from the
// signed credential; what the client says must agree with it. Safety does not rest on
// reading SQL: the session is logged on as a role that has the holder's rights and no
// others.
//
// The protocol is in package pgwire, the life of a session in package session. Which
// SQLSTATE and text a refusal has is in errors.go.
package gateway

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/session"
)

// Config is what a Server needs. Check, Cluster, Audit and TLS are required.
type Config struct {
	// TLS holds the certificates; a GetCertificate function serves ones that
	// change. The Server works on a copy, with the protocol's ALPN name and TLS
	// 1.2 or newer.
	TLS *tls.Config

	// Cluster finds a cluster by identifier. It is called once for each logon,
	// so that a reload is in force with the next one. Safe for concurrent use.
	Cluster func(identifier string) (*Cluster, bool)

	// Check opens a password. Its errors wrap the sentinels of package credential, or
	// ErrKeysUnknown; after any other error the logon is refused like one with a forged
	// password. Safe for concurrent use.
	Check func(password string) (credential.Grant, error)

	// Revoked reports whether a credential was revoked. It is called at each logon,
	// and for every session once a second and at Recheck. The grant has only its ID,
	// Principal, Cluster, DBUser and times set, and must not be kept. If Revoked returns an
	// error, logons are refused and sessions continue. It must be cheap, and safe for
	// concurrent use. Optional.
	Revoked func(*credential.Grant) (bool, error)

	// Proxies reports whether connections from an address must begin with a PROXY protocol
	// header. The connection then counts as that of the client in the header. Safe for
	// concurrent use. Optional: without it no connection has a header.
	Proxies func(netip.Addr) bool

	// Mark reports whether this server may give out a cancel key with these first four bytes;
	// about one random key in a few hundred must qualify. Other servers use it to tell whose key
	// it is. Optional: without it all keys qualify.
	Mark func(key []byte) bool

	// Elsewhere passes on a cancel request that matches no session here, and reports whether
	// another server has the session. It returns within seconds. Optional.
	Elsewhere func(request []byte) bool

	// Everywhere counts the sessions of all servers. Optional: without it limits hold for the
	// sessions of this Server.
	Everywhere Everywhere

	// Audit writes the record of logons and sessions.
	Audit Auditor

	// Observe is called with the outcome of each attempt to log on, after its record is
	// written. It must not block. Optional.
	Observe func(LogonEvent)

	Limits Limits
	Now    func() time.Time // Optional. Default time.Now; for records, not for socket deadlines.
	Log    *slog.Logger     // Optional. Default: discarded.
}

// Auditor writes the audit log; *audit.Writer is one. A logon fails when its line
// cannot be written. Both return the length of the line, whether it was written or not. Safe for
// concurrent use.
type Auditor interface {
	Logon(*audit.LogonRecord) (size int, err error)
	SessionEnd(*audit.SessionRecord) (size int, err error)
}

// Admin prepares the session roles of one cluster; *handover.Admin is one. Errors
// wrap the sentinels of package dbuser. Safe for concurrent use.
type Admin interface {
	// Ensure makes sure that the session role exists and is right.
	Ensure(ctx context.Context, need dbuser.Need) (dbuser.SessionRole, error)
	// Heal rewrites the session role's password after the upstream refused it.
	Heal(ctx context.Context, need dbuser.Need) (dbuser.SessionRole, error)
	// Opened is called once after each successful Ensure, when the session is open or has
	// failed to open. It never blocks.
	Opened(role string)
	// SessionEnded is called after the end of each session. left is the session's backend, which
	// should have exited and is terminated if it has not; it is nil if the server did not name
	// the backend. SessionEnded never blocks.
	SessionEnded(role string, left *dbuser.Backend)
	// SessionRevoked is SessionEnded for a session whose credential was revoked.
	SessionRevoked(role string, left *dbuser.Backend)
	// Seen returns the present value of SessionRole.Seen for a need, and changes nothing. It is
	// called while sessions are parked.
	Seen(ctx context.Context, need dbuser.Need) ([sha256.Size]byte, error)
	// DatabasesInDemand names the databases for which a command, such as DROP DATABASE, is
	// waiting until they have no sessions. It is called while prewarmed or parked sessions wait.
	DatabasesInDemand(ctx context.Context) ([]string, error)
}

// Cluster is one target. It must not change after the Server has seen it.
type Cluster struct {
	Identifier string
	// Database is where a session goes when neither the credential nor the
	// client names one.
	Database string
	Admin    Admin
	// Upstream says how to reach the cluster: hosts, ports, TLS, timeouts and
	// fallbacks as pgconn.ParseConfig makes them from a connection string. User,
	// password, database and parameters are not used: each session has its own.
	Upstream *pgconn.Config
	// TargetSessionAttrs is libpq's setting of that name: any (the default),
	// read-write, read-only, primary, standby, prefer-standby. Upstream does not keep
	// it in a form that can be read.
	TargetSessionAttrs string
	// MaxSessions and MaxSessionsPerUser limit sessions and logons in progress,
	// of the cluster and of one database user of it. 0 is no limit.
	MaxSessions        int
	MaxSessionsPerUser int
	LimitsEverywhere   bool            // these limits hold over all servers: Config.Everywhere has the others' sessions
	SessionLimits      session.Limits  // how long sessions last
	Parking            session.Parking // which sessions are kept for the next logon
	// Prewarm is how many upstream sessions may be started ahead of their logons,
	// on Linux. 0 is none.
	Prewarm int
}

// Limits bound the resources that clients can use, with or without a credential. Zero values
// mean the defaults.
type Limits struct {
	LogonTimeout time.Duration // from accept to the first query; default 10 s
	// HalfOpen and HalfOpenPerAddress bound connections that have not sent a valid
	// credential yet; defaults 2048 and 1024. When they are reached, the connection that
	// has kept the gateway waiting longest makes room. An IPv6 address counts as its /64.
	HalfOpen           int
	HalfOpenPerAddress int
	// OpeningPerPrincipal bounds the logons of one principal that have a valid credential and
	// wait for their session; default 1024. All sessions of an IAM role count together.
	OpeningPerPrincipal int
	MaxSessions         int // sessions and logons past the password, in all; 0 is no limit
	// FailureDelay is how long the answer to an address's second failed logon is
	// delayed; it doubles with each failure up to FailureDelayMax. Defaults
	// 100 ms and 2 s. Successful logons are never delayed.
	FailureDelay    time.Duration
	FailureDelayMax time.Duration
	// KeepAlive is how long a connection may be silent before TCP probes the peer;
	// default 60 s. It probes every 15 s and gives up after 4.
	KeepAlive time.Duration
	// UserTimeout is TCP_USER_TIMEOUT on both ends, where the system has it: how long
	// sent bytes may go unacknowledged, or wait for a peer that has stopped
	// reading. Default 5 min; negative leaves the system's default.
	UserTimeout time.Duration
	// HalfClose is how long a session whose client has closed its sending side
	// may stay silent before its query is cancelled; default 2 s.
	HalfClose time.Duration
	// Stall is how long the server may take nothing of what a client has sent before the gateway
	// finds out whether the client is still there; default 5 s. See session.Config.
	Stall time.Duration
}

func (l Limits) withDefaults() Limits {
	set := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	set(&l.LogonTimeout, 10*time.Second)
	set(&l.FailureDelay, 100*time.Millisecond)
	set(&l.FailureDelayMax, 2*time.Second)
	set(&l.KeepAlive, time.Minute)
	set(&l.UserTimeout, 5*time.Minute)
	set(&l.HalfClose, 2*time.Second)
	if l.HalfOpen <= 0 {
		l.HalfOpen = 2048
	}
	if l.HalfOpenPerAddress <= 0 {
		l.HalfOpenPerAddress = min(1024, l.HalfOpen)
	}
	if l.OpeningPerPrincipal <= 0 {
		l.OpeningPerPrincipal = 1024
	}
	return l
}

func (c *Config) check() error {
	switch {
	case c.TLS == nil:
		return errors.New("gateway: no TLS configuration")
	case len(c.TLS.Certificates) == 0 && c.TLS.GetCertificate == nil:
		return errors.New("gateway: no TLS certificate")
	case c.Cluster == nil, c.Check == nil, c.Audit == nil:
		return errors.New("gateway: Cluster, Check and Audit are required")
	}
	return nil
}
