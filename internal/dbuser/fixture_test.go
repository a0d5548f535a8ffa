package dbuser_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/test/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// fixture is one cluster as an operator sets it up, and its Admin.
type fixture struct {
	*pgtest.Server
	t     testing.TB
	login pgtest.Login
	admin *dbuser.Admin
	super *pgx.Conn // the superuser, in the database "postgres"
	log   *pgtest.Log
}

type option func(*dbuser.Config)

func allowSuperusers(c *dbuser.Config)      { c.AllowSuperusers = true }
func allowPredefinedRoles(c *dbuser.Config) { c.AllowPredefinedRoles = true }

// plain is a cluster with an administrative login that has CREATEROLE only.
func plain(t testing.TB, s *pgtest.Server, options ...option) *fixture {
	t.Helper()
	return newFixture(t, s, s.Admin(t), options...)
}

// super is a cluster whose administrative login is a superuser.
func super(t testing.TB, s *pgtest.Server, options ...option) *fixture {
	t.Helper()
	return newFixture(t, s, s.Login(t, "root", "SUPERUSER"), options...)
}

func newFixture(t testing.TB, s *pgtest.Server, login pgtest.Login, options ...option) *fixture {
	t.Helper()
	f := &fixture{Server: s, t: t, login: login, log: &pgtest.Log{}}
	f.super = pgtest.Connect(t, s.Superuser("postgres"))
	// Tests share the server, and so the marker; a superuser makes it here, since
	// from 16 on the login that makes it is the only one that may grant it.
	f.exec("do $$ begin create role " + dbuser.MarkerRole + " nologin; exception when duplicate_object or unique_violation then null; end $$")
	f.lend(dbuser.MarkerRole)
	f.admin = f.another(options...)
	return f
}

// another is one more gateway of the same cluster.
func (f *fixture) another(options ...option) *dbuser.Admin {
	f.t.Helper()
	config, err := pgx.ParseConfig(f.ConnString(f.login, "postgres"))
	if err != nil {
		f.t.Fatal(err)
	}
	c := dbuser.Config{Cluster: "examplecluster", Conn: config, Key: [32]byte{1, 2, 3}, Log: slog.New(slog.NewTextHandler(f.log, nil))}
	for _, o := range options {
		o(&c)
	}
	admin := dbuser.New(c)
	f.t.Cleanup(admin.Close)
	return admin
}

// exec runs SQL as the superuser. %q is a quoted identifier when args are given.
func (f *fixture) exec(sql string, names ...string) {
	f.t.Helper()
	quoted := make([]any, len(names))
	for i, n := range names {
		quoted[i] = pgx.Identifier{n}.Sanitize()
	}
	if len(names) > 0 {
		sql = fmt.Sprintf(sql, quoted...)
	}
	if _, err := f.super.PgConn().Exec(context.Background(), sql).ReadAll(); err != nil {
		f.t.Fatalf("%s: %v", sql, err)
	}
}

// user makes a user that the administrative login may lend.
func (f *fixture) user(prefix, options string) string {
	f.t.Helper()
	name := f.Login(f.t, prefix, options).Name
	f.lend(name)
	return name
}

// group makes a group that the administrative login may lend.
func (f *fixture) group(prefix string) string {
	f.t.Helper()
	name := f.Group(f.t, prefix)
	f.lend(name)
	return name
}

// lend does what `cluster check` tells an operator of version 16 and later.
func (f *fixture) lend(role string) {
	f.t.Helper()
	if f.Major() >= 16 && f.login.Name == pgtest.AdminName {
		f.exec("grant %s to %s with admin true, inherit false, set false", role, f.login.Name)
	}
}

func (f *fixture) ensure(n dbuser.Need) dbuser.SessionRole {
	f.t.Helper()
	role, err := f.admin.Ensure(context.Background(), n)
	if err != nil {
		f.t.Fatalf("Ensure(%+v): %v", n, err)
	}
	f.admin.Opened(role.Name) // or it would count as a logon under way
	return role
}

// logon opens a session as the gateway does.
func (f *fixture) logon(r dbuser.SessionRole, database string) *pgx.Conn {
	f.t.Helper()
	c, err := f.tryLogon(r, database)
	if err != nil {
		f.t.Fatalf("logging on as %s: %v", r.Name, err)
	}
	f.t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func (f *fixture) tryLogon(r dbuser.SessionRole, database string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(f.ConnString(f.login, database))
	if err != nil {
		return nil, err
	}
	config.User, config.Password = r.Name, r.Password.Reveal()
	config.DefaultQueryExecMode = pgx.QueryExecModeExec // DISCARD ALL is part of the tests
	return pgx.ConnectConfig(context.Background(), config)
}

// session is Ensure and a logon.
func (f *fixture) session(n dbuser.Need) *pgx.Conn {
	f.t.Helper()
	database := n.Database
	if database == "" {
		database = "postgres"
	}
	return f.logon(f.ensure(n), database)
}

// one returns a single text.
func one(t testing.TB, c *pgx.Conn, sql string, args ...any) string {
	t.Helper()
	var s string
	if err := c.QueryRow(context.Background(), sql, args...).Scan(&s); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return s
}

// run executes a statement in a session.
func run(t testing.TB, c *pgx.Conn, sql string) {
	t.Helper()
	if _, err := c.Exec(context.Background(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// memberships lists what a role is a member of, sorted.
func (f *fixture) memberships(role string) string {
	f.t.Helper()
	return one(f.t, f.super, `select coalesce(string_agg(distinct g.rolname, ' ' order by g.rolname), '')
		from pg_auth_members m join pg_roles g on g.oid = m.roleid join pg_roles r on r.oid = m.member where r.rolname = $1`, role)
}
