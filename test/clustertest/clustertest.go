// Package clustertest sets up a cluster as an operator does, with a real PostgreSQL, for the tests
// of the packages that administer clusters.
package clustertest

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/test/pgtest"
)

// Cluster is a cluster as an operator sets it up, and its Admin.
type Cluster struct {
	*pgtest.Server
	T     testing.TB
	As    pgtest.Login // the administrative login
	Admin *handover.Admin
	Super *pgx.Conn // the superuser, in the database "postgres"
	Log   *pgtest.Log
}

// Option changes the configuration of the Admin.
type Option func(*dbuser.Config)

// AllowSuperusers lets superusers be lent.
func AllowSuperusers(c *dbuser.Config) { c.AllowSuperusers = true }

// AllowPredefinedRoles lets pg_* roles be lent.
func AllowPredefinedRoles(c *dbuser.Config) { c.AllowPredefinedRoles = true }

// Plain returns a cluster whose administrative login has CREATEROLE only.
func Plain(t testing.TB, s *pgtest.Server, options ...Option) *Cluster {
	t.Helper()
	return New(t, s, s.Admin(t), options...)
}

// Superuser returns a cluster whose administrative login is a superuser.
func Superuser(t testing.TB, s *pgtest.Server, options ...Option) *Cluster {
	t.Helper()
	return New(t, s, s.Login(t, "root", "SUPERUSER"), options...)
}

// New returns a cluster with the given administrative login.
func New(t testing.TB, s *pgtest.Server, login pgtest.Login, options ...Option) *Cluster {
	t.Helper()
	f := &Cluster{Server: s, T: t, As: login, Log: &pgtest.Log{}}
	f.Super = pgtest.Connect(t, s.Superuser("postgres"))
	// Tests share the server, and therefore the marker. A superuser creates it, because from 16
	// on only the login that creates it can grant it.
	f.Run("do $$ begin create role " + dbuser.MarkerRole + " nologin; exception when duplicate_object or unique_violation then null; end $$")
	f.Lend(dbuser.MarkerRole)
	f.Admin = f.Another(options...)
	return f
}

// Another returns the Admin of another gateway of the same cluster.
func (f *Cluster) Another(options ...Option) *handover.Admin {
	f.T.Helper()
	config, err := pgx.ParseConfig(f.ConnString(f.As, "postgres"))
	if err != nil {
		f.T.Fatal(err)
	}
	c := dbuser.Config{Cluster: "examplecluster", Conn: config, Key: [32]byte{1, 2, 3}, Log: slog.New(slog.NewTextHandler(f.Log, nil))}
	for _, o := range options {
		o(&c)
	}
	admin := handover.New(c)
	f.T.Cleanup(admin.Close)
	return admin
}

// Run runs SQL as the superuser. Names are quoted as identifiers and inserted for %s.
func (f *Cluster) Run(sql string, names ...string) {
	f.T.Helper()
	quoted := make([]any, len(names))
	for i, n := range names {
		quoted[i] = pgx.Identifier{n}.Sanitize()
	}
	if len(names) > 0 {
		sql = fmt.Sprintf(sql, quoted...)
	}
	if _, err := f.Super.PgConn().Exec(context.Background(), sql).ReadAll(); err != nil {
		f.T.Fatalf("%s: %v", sql, err)
	}
}

// LentUser makes a user that the administrative login may lend, and returns its name.
func (f *Cluster) LentUser(prefix, options string) string {
	f.T.Helper()
	name := f.Login(f.T, prefix, options).Name
	f.Lend(name)
	return name
}

// LentGroup makes a group that the administrative login may lend, and returns its name.
func (f *Cluster) LentGroup(prefix string) string {
	f.T.Helper()
	name := f.Group(f.T, prefix)
	f.Lend(name)
	return name
}

// Lend makes the grants that `cluster check` asks an operator for, from version 16 on.
func (f *Cluster) Lend(role string) {
	f.T.Helper()
	if f.Major() >= 16 && f.As.Name == pgtest.AdminName {
		f.Run("grant %s to %s with admin true, inherit false, set false", role, f.As.Name)
	}
}

// Ensure makes sure that a session role exists, and ends the logon.
func (f *Cluster) Ensure(n dbuser.Need) dbuser.SessionRole {
	f.T.Helper()
	role, err := f.Admin.Ensure(context.Background(), n)
	if err != nil {
		f.T.Fatalf("Ensure(%+v): %v", n, err)
	}
	f.Admin.Opened(role.Name) // otherwise it counts as a logon in progress
	return role
}

// Logon opens a session as the gateway does.
func (f *Cluster) Logon(r dbuser.SessionRole, database string) *pgx.Conn {
	f.T.Helper()
	c, err := f.TryLogon(r, database)
	if err != nil {
		f.T.Fatalf("logging on as %s: %v", r.Name, err)
	}
	f.T.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// TryLogon is Logon, but returns the error. The caller closes the connection.
func (f *Cluster) TryLogon(r dbuser.SessionRole, database string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(f.ConnString(f.As, database))
	if err != nil {
		return nil, err
	}
	config.User, config.Password = r.Name, r.Password.Reveal()
	config.DefaultQueryExecMode = pgx.QueryExecModeExec // the tests use DISCARD ALL, which drops prepared statements
	return pgx.ConnectConfig(context.Background(), config)
}

// Session calls Ensure and logs on.
func (f *Cluster) Session(n dbuser.Need) *pgx.Conn {
	f.T.Helper()
	database := n.Database
	if database == "" {
		database = "postgres"
	}
	return f.Logon(f.Ensure(n), database)
}

// One queries a single text.
func One(t testing.TB, c *pgx.Conn, sql string, args ...any) string {
	t.Helper()
	var s string
	if err := c.QueryRow(context.Background(), sql, args...).Scan(&s); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return s
}

// Exec executes a statement in a session.
func Exec(t testing.TB, c *pgx.Conn, sql string) {
	t.Helper()
	if _, err := c.Exec(context.Background(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// Memberships returns the sorted list of the roles that a role is a member of.
func (f *Cluster) Memberships(role string) string {
	f.T.Helper()
	return One(f.T, f.Super, `select coalesce(string_agg(distinct g.rolname, ' ' order by g.rolname), '')
		from pg_auth_members m join pg_roles g on g.oid = m.roleid join pg_roles r on r.oid = m.member where r.rolname = $1`, role)
}

// Before installs a hook that runs before each of the Admin's statements that change something.
func Before(a *handover.Admin, hook func(sql string, c *pgconn.PgConn)) { a.Pool.TestOnlyBefore = hook }
