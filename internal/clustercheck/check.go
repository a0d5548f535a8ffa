// Package clustercheck is `daypass cluster check`: it finds out whether logons to a
// cluster will work, what is missing, and which SQL or lines of pg_hba.conf mend it.
//
// It uses connections of its own and changes nothing: what it tries out, it rolls back.
package clustercheck

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/pgsql"
)

// Severity of a Finding. Only Broken has to be fixed. A Warning is a weakness or something
// that is left out. A Notice is worth knowing.
type Severity string

// The severities, from good to bad.
const (
	OK      Severity = "ok"
	Notice  Severity = "notice"
	Warning Severity = "warning"
	Broken  Severity = "error"
)

// Finding is one thing that Check found.
type Finding struct {
	Severity Severity `json:"severity"`
	Code     string   `json:"code"` // stable, for scripts
	Message  string   `json:"message"`
	// SQL has the statements that fix the problem. A superuser runs them in Database, or in
	// any database if Database is empty. They have no semicolons.
	SQL []string `json:"sql,omitempty"`
	// Choose is set where SQL has a statement for each of several roles or settings,
	// and the operator picks those to run.
	Choose   bool     `json:"choose,omitempty"`
	Database string   `json:"database,omitempty"`
	HBA      []string `json:"pg_hba,omitempty"` // lines that belong in pg_hba.conf
}

// Report is the result of Check for one cluster.
type Report struct {
	Cluster       string `json:"cluster"`
	Address       string `json:"address"`
	ServerVersion string `json:"server_version,omitempty"`
	// SystemIdentifier is the same for a primary and its standbys, and for no two
	// other servers. It is empty if the login has no right to read it.
	SystemIdentifier string `json:"system_identifier,omitempty"`
	// Hosts has each host of a cluster that has several.
	Hosts []Host `json:"hosts,omitempty"`
	// Clock is the time that the server had at Asked, a time of this machine. Nil: it was not asked.
	Clock    *time.Time `json:"-"`
	Asked    time.Time  `json:"-"`
	Findings []Finding  `json:"findings"`
}

// Broken reports whether something has to be mended before every logon works.
func (r Report) Broken() bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity == Broken })
}

// checker collects findings over one connection.
type checker struct {
	a       *dbuser.Admin
	c       *adminconn.Conn
	config  *pgx.ConnConfig
	report  Report
	admin   string // the role whose rights count
	super   bool
	reserve int     // standing connections
	host    *hosted // the provider; nil if unknown
	lent    []lendable
	// open are the users that may have a valid password of their own. openSeen means that the
	// login can read pg_authid, so all of them certainly have a password.
	open     []string
	openSeen bool
}

func (k *checker) add(s Severity, code, format string, args ...any) *Finding {
	k.report.Findings = append(k.report.Findings, Finding{Severity: s, Code: code, Message: fmt.Sprintf(format, args...)})
	return &k.report.Findings[len(k.report.Findings)-1]
}

// Check finds out whether logons to the cluster will work, and what is missing.
// It uses a connection of its own and changes nothing: what it tries out, it
// rolls back. A cluster that cannot be reached is a finding; the error is for
// a check that broke off half-way.
func Check(ctx context.Context, a *dbuser.Admin) (Report, error) {
	k := &checker{a: a, config: a.Pool.Config(), reserve: a.Pool.Stats().Limit}
	k.report.Cluster = a.Pool.Cluster
	k.report.Address = net.JoinHostPort(k.config.Host, fmt.Sprint(k.config.Port))
	if strings.HasPrefix(k.config.Host, "/") {
		k.report.Address = k.config.Host
	}
	k.hosts(ctx)
	connecting, cancel := context.WithTimeout(ctx, adminconn.ConnectTimeout)
	c, err := a.Pool.Connect(connecting, "")
	cancel()
	if err != nil {
		k.cannotConnect(err)
		return k.report, nil
	}
	defer c.CloseNow()
	k.c = c
	for _, look := range []func(context.Context) error{k.server, k.login, k.roles, k.passwords, k.settings, k.hba, k.databases} {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		err := look(ctx)
		cancel()
		if err != nil {
			return k.report, fmt.Errorf("checking cluster %q: %w", a.Pool.Cluster, err)
		}
	}
	return k.report, nil
}

func (k *checker) cannotConnect(err error) {
	login := pgsql.Ident(k.config.User)
	switch {
	case errors.Is(err, adminconn.ErrPooler):
		k.add(Broken, "pooler", "%v; session roles cannot be looked after through one", adminconn.ErrPooler)
	case errors.Is(err, adminconn.ErrMethod):
		k.add(Broken, "authentication", "the administrative login %q does not authenticate: %v", k.config.User, err)
	case adminconn.IsCode(err, pgerrcode.InvalidPassword):
		k.add(Broken, "password", "the server refuses the password of the administrative login %q, or has no such login: set one (psql's \\password "+
			"does not show it) and put the same into upstream_password_file or upstream_password_env. If it has expired (VALID UNTIL), "+
			"a new one does not help: alter role %s valid until 'infinity'", k.config.User, login)
	case adminconn.IsCode(err, pgerrcode.InvalidAuthorizationSpecification):
		k.refused(err)
	case adminconn.IsCode(err, pgerrcode.InvalidCatalogName):
		k.add(Broken, "database", "the database %q of the administrative connection does not exist", k.config.Database)
	case adminconn.IsCode(err, pgerrcode.TooManyConnections):
		f := k.add(Broken, "connections", "the server has no connection left: %v", err)
		if strings.Contains(adminconn.PlainError(err), "role") {
			f.SQL = []string{"alter role " + login + " connection limit -1"}
		}
	case adminconn.IsCode(err, pgerrcode.CannotConnectNow):
		k.add(Broken, "unreachable", "the server is not ready: %v", err)
	case adminconn.CertificateFault(err) != nil:
		k.certificate(adminconn.CertificateFault(err))
	default:
		k.add(Broken, "unreachable", "cannot connect: %v", err)
	}
}

// server looks at the connection and at the server as a whole.
func (k *checker) server(ctx context.Context) error {
	var (
		recovery, tls     bool
		tlsVersion        string
		limit, used, kept int
		encryption        string
	)
	var clock time.Time
	before := time.Now()
	err := k.c.QueryRow(ctx, "select clock_timestamp()").Scan(&clock)
	if err != nil {
		return err
	}
	k.report.Clock, k.report.Asked = &clock, before.Add(time.Since(before)/2)
	err = k.c.QueryRow(ctx, `
		select current_setting('server_version'), pg_is_in_recovery(),
		  coalesce((select s.ssl from pg_stat_ssl s where s.pid = pg_backend_pid()), false),
		  coalesce((select s.version from pg_stat_ssl s where s.pid = pg_backend_pid()), ''),
		  current_setting('max_connections')::int,
		  (select count(*)::int from pg_stat_activity where backend_type = 'client backend'),
		  current_setting('superuser_reserved_connections')::int + coalesce(current_setting('reserved_connections', true)::int, 0),
		  current_setting('password_encryption')`).
		Scan(&k.report.ServerVersion, &recovery, &tls, &tlsVersion, &limit, &used, &kept, &encryption)
	if err != nil {
		return err
	}
	switch {
	case k.c.Version < 130000:
		k.add(Broken, "version", "PostgreSQL %s is too old; 13 to 18 are supported", k.report.ServerVersion)
	case k.c.Version >= 190000:
		k.add(Notice, "version", "PostgreSQL %s is newer than what this version of daypass was tested with", k.report.ServerVersion)
	default:
		k.add(OK, "version", "PostgreSQL %s", k.report.ServerVersion)
	}
	k.minor()
	// Where it may not be read, as on managed PostgreSQL, there is nothing to compare.
	_ = k.c.QueryRow(ctx, "select system_identifier::text from pg_control_system()").Scan(&k.report.SystemIdentifier)
	if recovery {
		k.add(Broken, "recovery", "the server is in recovery: the administrative connection must lead to the primary")
	}
	k.transport(tls, tlsVersion)
	k.certificateExpires(k.a.Pool.Now())
	switch free := limit - kept - used; {
	case free < k.reserve:
		k.add(Broken, "connections", "%d of %d connections are in use or reserved; daypass alone keeps up to %d", limit-free, limit, k.reserve).SQL =
			[]string{fmt.Sprintf("alter system set max_connections = %d", max(2*limit, 100))}
	case free < limit/10:
		k.add(Warning, "connections", "only %d of %d connections are free", free, limit)
	default:
		k.add(OK, "connections", "%d of %d connections are free", free, limit)
	}
	if encryption != "scram-sha-256" {
		k.add(Notice, "password_encryption", "password_encryption is %s; session roles have SCRAM verifiers all the same", encryption)
	}
	return nil
}

func (k *checker) transport(tls bool, version string) {
	ip := net.ParseIP(k.config.Host)
	local := strings.HasPrefix(k.config.Host, "/") || k.config.Host == "localhost" || ip != nil && ip.IsLoopback()
	verified := k.config.TLSConfig != nil && (!k.config.TLSConfig.InsecureSkipVerify || k.config.TLSConfig.VerifyPeerCertificate != nil)
	switch {
	case tls && verified:
		k.add(OK, "tls", "the connection is encrypted (%s), and the server's certificate is verified", version)
	case local:
		k.add(OK, "tls", "the connection does not leave the machine")
	case tls:
		k.add(Warning, "tls", "the connection is encrypted (%s), but the server is not verified: set sslmode=verify-full and sslrootcert in upstream", version)
	default:
		k.add(Warning, "tls", "the connection is not encrypted: set sslmode=verify-full in upstream")
	}
}

// login looks at the administrative login.
func (k *checker) login(ctx context.Context) error {
	var (
		session            string
		createRole, bypass bool
		connLimit          int
		until              *time.Time
	)
	err := k.c.QueryRow(ctx, `select session_user::text, rolname::text, rolsuper, rolcreaterole, rolbypassrls, rolconnlimit,
		  (select l.rolvaliduntil from pg_roles l where l.rolname = session_user and isfinite(l.rolvaliduntil))
		from pg_roles where rolname = current_user`).Scan(&session, &k.admin, &k.super, &createRole, &bypass, &connLimit, &until)
	if err != nil {
		return err
	}
	switch {
	case k.super:
		k.add(Notice, "login", "the administrative login %q is a superuser; CREATEROLE is enough", k.admin)
	case createRole:
		k.add(OK, "login", "the administrative login %q has CREATEROLE and is not a superuser", k.admin)
	default:
		k.add(Broken, "login", "the administrative login %q may not make roles", k.admin).SQL = []string{"alter role " + pgsql.Ident(k.admin) + " createrole"}
	}
	if k.host, err = k.provider(ctx); err != nil {
		return err
	}
	if session != k.admin {
		k.add(Notice, "login-role", "the login is %q and acts as %q", session, k.admin)
	}
	if until != nil {
		severity := Notice
		if k.report.Clock != nil && until.Sub(*k.report.Clock) < notice {
			severity = Warning
		}
		k.add(severity, "login-expires", "the password of the administrative login %q expires on %s, and no one can log on from then on: "+
			"setting another one does not change that", session, until.UTC().Format(time.RFC3339)).SQL =
			[]string{"alter role " + pgsql.Ident(session) + " valid until 'infinity'"}
	}
	if connLimit >= 0 && connLimit < k.reserve {
		k.add(Broken, "login-limit", "the administrative login may have %d connections; daypass keeps up to %d", connLimit, k.reserve).SQL =
			[]string{"alter role " + pgsql.Ident(k.admin) + " connection limit -1"}
	}
	return nil
}

// settings tries out, in a transaction that is rolled back, which settings of
// users the administrative login may give to another role.
func (k *checker) settings(ctx context.Context) error {
	rows, err := k.c.Query(ctx, `
		select u.rolname::text, coalesce(d.datname::text, ''), e
		from pg_db_role_setting s join pg_roles u on u.oid = s.setrole left join pg_database d on d.oid = s.setdatabase
		cross join lateral unnest(s.setconfig) e
		where u.rolcanlogin and not u.rolsuper and (s.setdatabase = 0 or d.oid is not null)
		  and u.rolname not in (current_user, session_user)
		  and not exists (select from pg_auth_members m join pg_roles k on k.oid = m.roleid where m.member = u.oid and k.rolname = $1)
		order by 1, 2, 3 limit 10000`, dbuser.MarkerRole)
	if err != nil {
		return err
	}
	users := map[string][]string{} // setting, by name and value, to its users
	var entries []string
	for rows.Next() {
		var user, db, entry string
		if err := rows.Scan(&user, &db, &entry); err != nil {
			rows.Close()
			return err
		}
		name, _, _ := strings.Cut(entry, "=")
		if dbuser.NeverCopied(name) {
			continue
		}
		if users[entry] == nil {
			entries = append(entries, entry)
		}
		if !slices.Contains(users[entry], user) {
			users[entry] = append(users[entry], user)
		}
	}
	if err := rows.Err(); err != nil || len(entries) == 0 {
		return err
	}
	probe := pgsql.Ident("daypass check " + probeName(k.admin, k.c.PgConn().PID()))
	run := func(sql string) error {
		_, err := k.c.PgConn().Exec(ctx, sql).ReadAll()
		return err
	}
	if err := run("begin; create role " + probe); err != nil {
		return run("rollback") // reported as a missing right already
	}
	for _, entry := range entries {
		name, value, _ := strings.Cut(entry, "=")
		err := run("savepoint one; alter role " + probe + " set " + pgsql.Assignment(name, value))
		if err != nil {
			if err := run("rollback to one"); err != nil {
				return err
			}
			f := k.add(Warning, "setting", "the setting %s of %s is not copied to session roles: %v", name, pgsql.Names(users[entry]), adminconn.PlainError(err))
			if k.c.Version >= 150000 && adminconn.IsCode(err, pgerrcode.InsufficientPrivilege) {
				f.SQL = []string{"grant set on parameter " + pgsql.SettingName(name) + " to " + pgsql.Ident(k.admin)}
			}
		}
	}
	return run("rollback")
}

// probeName is part of the name of the role that settings are tried out with.
func probeName(admin string, pid uint32) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s", pid, admin))
	return hex.EncodeToString(sum[:12])
}
