package clustercheck_test

import (
	"context"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/clustercheck"
	"github.com/daypass/daypass/internal/compat"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// managedSQL are the SQL blocks of the page on managed PostgreSQL.
func managedSQL(t *testing.T) []string {
	t.Helper()
	page, err := os.ReadFile("../../docs/managed-postgresql.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, match := range regexp.MustCompile("(?s) *```sql\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		blocks = append(blocks, match[1])
	}
	if len(blocks) != 5 {
		t.Fatalf("the page has %d blocks of SQL; this test knows five", len(blocks))
	}
	return blocks
}

// TestManagedPostgreSQL runs the SQL of managedSQL's page on a server like a cloud provider's.
// The customer's login there has CREATEROLE and CREATEDB and is a member of the provider's own
// role, but is not a superuser.
func TestManagedPostgreSQL(t *testing.T) {
	blocks := managedSQL(t)
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		own := s.StartAlone(t, nil)
		f := &fixture{Server: own, T: t, Log: &pgtest.Log{}, Super: pgtest.Connect(t, own.Superuser("postgres"))}
		// Set up what the provider sets up.
		f.Run(`create role rdsadmin login superuser; create role rds_superuser; create role rds_password;
			create role master login createdb createrole password 'master';
			grant rds_superuser, rds_password to master with admin option`)
		f.Run("create database rdsadmin owner rdsadmin")
		f.Run("revoke connect on database rdsadmin from public")
		if f.Major() >= 16 {
			f.Run("grant pg_signal_backend, pg_read_all_stats to master with admin option")
		}
		// Give the customer their login.
		masterLogin := pgtest.Login{Name: "master", Password: "master"}
		master := pgtest.Connect(t, f.ConnString(masterLogin, "postgres"))
		clustertest.ExecAll(t, master, "create database dev", "create role alice login password 'hers'", "create role analysts")
		dev := pgtest.Connect(t, f.ConnString(masterLogin, "dev"))
		clustertest.ExecAll(t, dev, "create schema lab", "grant create, usage on schema lab to analysts")

		// Run the SQL of the page.
		for _, block := range blocks {
			if strings.Contains(block, "PostgreSQL 16") && f.Major() < 16 {
				continue
			}
			if _, err := master.Exec(t.Context(), block, pgx.QueryExecModeSimpleProtocol); err != nil {
				t.Fatalf("%s: %v", block, err)
			}
		}
		f.As = pgtest.Login{Name: "daypass", Password: "choose-one"}
		f.Admin = f.Another(clustertest.Removing(dbuser.RemoveAllPasswords), func(c *dbuser.Config) { c.NeverLend = []string{"rdsadmin", "rds_*", "app", "master"} })

		report := f.Check()
		if report.Broken() {
			t.Fatalf("the check finds errors: %s", clustertest.Text(report))
		}
		for _, x := range report.Findings {
			if x.Severity == clustercheck.Warning && x.Code != "tls" {
				t.Errorf("%s: %s", x.Code, x.Message)
			}
		}
		if found := clustertest.Findings(report, "pg_hba", "Amazon RDS"); len(found) != 1 || len(found[0].HBA)+len(found[0].SQL) > 0 {
			t.Errorf("of pg_hba.conf: %+v", clustertest.Findings(report, "pg_hba", ""))
		}

		// Everyday operations: existing and new users, groups, objects that they create, users'
		// own passwords, and cancelling.
		need := dbuser.Need{User: "alice", Groups: []string{"analysts"}, Database: "dev"}
		role := f.Ensure(need)
		c := f.Logon(role, "dev")
		clustertest.Exec(t, c, "create table lab.t (x int)")
		clustertest.Exec(t, c, "create function lab.f() returns int language sql as 'select 1'")
		clustertest.Refused(t, f.Direct("alice", "hers"), "28P01")
		f.Session(dbuser.Need{User: "newcomer", AutoCreate: true, Database: "dev"})
		_ = c.Close(context.Background())
		f.NoSessions(role.Name)
		if report, err := f.Admin.Sweep(t.Context(), handover.SweepOptions{}); err != nil || len(report.Kept) > 0 {
			t.Errorf("Sweep = %+v, %v", report, err)
		}
		if got := clustertest.One(t, dev, "select string_agg(distinct pg_get_userbyid(relowner), ' ') from pg_class where relnamespace = 'lab'::regnamespace"); got != "alice" {
			t.Errorf("what she made belongs to %s", got)
		}
		compat, err := compat.Install(t.Context(), f.Admin.Pool, compat.Options{Database: "dev"})
		if err != nil || len(compat.ForOwner) != 1 || len(compat.ForSuperuser) > 0 {
			t.Fatalf("Compat = %+v, %v", compat, err)
		}
		clustertest.Exec(t, dev, compat.ForOwner[0])
		caller, target := f.Session(dbuser.Need{User: "alice", Database: "dev"}), f.Session(need)
		if got := clustertest.One(t, caller, "select daypass.pg_terminate_backend($1::int)::text", clustertest.PID(target)); got != "true" {
			t.Errorf("terminating one's own session: %s", got)
		}
		if report = f.Check(); report.Broken() {
			t.Errorf("afterwards: %s", clustertest.Text(report))
		}
		clustertest.Exec(t, dev, "grant create, usage on schema lab to newcomer")
		if plan, err := f.Admin.DropUser(t.Context(), "alice", handover.DropOptions{ReassignTo: "newcomer", Force: true}); err != nil {
			t.Errorf("DropUser: %v: %+v", err, plan.Problems)
		}
	})
}
