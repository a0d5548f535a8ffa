package clustertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/clustercheck"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/test/pgtest"
)

// Text returns a report as JSON.
func Text(r clustercheck.Report) string {
	b, _ := json.MarshalIndent(r, "", " ")
	return string(b)
}

// Alone returns a cluster on a server of its own, so that the test alone causes the findings of a
// report.
func Alone(t *testing.T, s *pgtest.Server, options string) *Cluster {
	t.Helper()
	own := s.StartAlone(t, nil)
	f := &Cluster{Server: own, T: t, Log: &pgtest.Log{}, As: own.Login(t, "daypass", options)}
	f.Super = pgtest.Connect(t, own.Superuser("postgres"))
	f.Admin = f.Another()
	return f
}

// Findings returns the findings with a code that mention a text.
func Findings(r clustercheck.Report, code, text string) []clustercheck.Finding {
	var found []clustercheck.Finding
	for _, x := range r.Findings {
		if x.Code == code && strings.Contains(x.Message, text) {
			found = append(found, x)
		}
	}
	return found
}

// ExecAll runs statements one after another.
func ExecAll(t *testing.T, c *pgx.Conn, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		Exec(t, c, sql)
	}
}

// PID returns the process ID of a connection's backend.
func PID(c *pgx.Conn) string { return fmt.Sprint(c.PgConn().PID()) }

// Refused fails the test unless err is a server error with the SQLSTATE code.
func Refused(t *testing.T, err error, code string) {
	t.Helper()
	if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Code != code {
		t.Errorf("got %v, want SQLSTATE %s", err, code)
	}
}

// OwnedBy counts the objects that a role owns, according to the catalogue.
func (f *Cluster) OwnedBy(role string) string {
	f.T.Helper()
	return One(f.T, f.Super, `select count(*)::text from pg_shdepend s join pg_roles r on r.oid = s.refobjid
		where s.refclassid = 'pg_authid'::regclass and s.deptype = 'o' and r.rolname = $1`, role)
}

// LabDatabase makes a database in which a group may create schemas and objects.
func (f *Cluster) LabDatabase(group string) string {
	f.T.Helper()
	name := f.Database(f.T)
	f.Run("grant create on database %s to %s", name, group)
	f.Exec(f.T, name, "create schema lab; grant create, usage on schema lab to "+pgtest.Quote(group))
	return name
}

// Eventually waits until ok returns true, and otherwise fails the test with the log.
func (f *Cluster) Eventually(what string, ok func() bool) {
	f.T.Helper()
	pgtest.Eventually(f.T, what, ok, f.Log)
}

// SweepUntil waits for the end of the role's sessions, and then sweeps as a newly started gateway
// does.
func (f *Cluster) SweepUntil(role string, unused time.Duration) handover.SweepReport {
	f.T.Helper()
	f.Eventually("end of sessions", func() bool {
		return One(f.T, f.Super, "select count(*)::text from pg_stat_activity where usename = $1", role) == "0"
	})
	report, err := f.Another().Sweep(context.Background(), handover.SweepOptions{Unused: unused})
	if err != nil {
		f.T.Fatal(err)
	}
	for _, k := range report.Kept {
		if k.Role == role {
			f.T.Errorf("kept %s: %s", k.Role, k.Reason)
		}
	}
	return report
}

// LendAlone makes the grants that Lend makes only for the usual administrative login.
func (f *Cluster) LendAlone(roles ...string) {
	f.T.Helper()
	for _, r := range roles {
		if f.Major() >= 16 {
			f.Run("grant %s to %s with admin true, inherit false, set false", r, f.As.Name)
		}
	}
}

// RoleExists reports whether a role exists.
func (f *Cluster) RoleExists(name string) bool {
	return One(f.T, f.Super, "select count(*)::text from pg_roles where rolname = $1", name) == "1"
}

// NoSessions waits until the roles have no sessions.
func (f *Cluster) NoSessions(roles ...string) {
	f.T.Helper()
	f.Eventually("end of sessions", func() bool {
		return One(f.T, f.Super, "select count(*)::text from pg_stat_activity where usename = any ($1)", roles) == "0"
	})
}

// Direct logs on without the gateway, and returns the error.
func (f *Cluster) Direct(user, password string) error {
	c, err := pgx.Connect(context.Background(), f.ConnString(pgtest.Login{Name: user, Password: password}, "postgres"))
	if err == nil {
		_ = c.Close(context.Background())
	}
	return err
}

// Removing sets RemovePasswords.
func Removing(r dbuser.PasswordRemoval) Option {
	return func(c *dbuser.Config) { c.RemovePasswords = r }
}

// Check runs the operator's check.
func (f *Cluster) Check() clustercheck.Report {
	f.T.Helper()
	r, err := clustercheck.Check(f.T.Context(), f.Admin.Admin)
	if err != nil {
		f.T.Fatal(err)
	}
	return r
}

// Mend runs the SQL that a report prints, as a superuser would.
func (f *Cluster) Mend(r clustercheck.Report) {
	f.T.Helper()
	for _, x := range r.Findings {
		if len(x.SQL) == 0 {
			continue
		}
		database := x.Database
		if database == "" {
			database = "postgres"
		}
		f.Exec(f.T, database, strings.Join(x.SQL, ";\n")+";")
	}
}

// Forgery is SQL with which the owner of a database forges the objects that are about to be
// installed.
var Forgery = []string{
	"create schema daypass",
	"create function daypass.db_user() returns name language sql as $$select 'boss'::name$$",
	"create view daypass.svv_tables as select 'hers'::text as table_name",
	"grant usage on schema daypass to public",
}
