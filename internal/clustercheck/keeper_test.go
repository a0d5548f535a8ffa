package clustercheck_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/clustercheck"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/internal/pgsql"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// TestLoginIsReplaced follows "Change the administrative login" in docs/upgrade-postgresql.md, with a
// session role that no one uses any more. No logon fails on the way, and nothing is left of the
// earlier login.
func TestLoginIsReplaced(t *testing.T) {
	page, err := os.ReadFile("../../docs/upgrade-postgresql.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## Change the administrative login\n")
	making := regexp.MustCompile("(?s) *```sql\n(.*?)```").FindStringSubmatch(section)
	dropping := regexp.MustCompile("`(REASSIGN OWNED BY daypass [^`]*)`").FindStringSubmatch(section)
	if making == nil || dropping == nil {
		t.Fatal("the section has not the SQL that this test knows")
	}
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := alone(t, s, "CREATEROLE")
		former := f.As.Name
		super := func(database, sql string) {
			t.Helper()
			sql = regexp.MustCompile(`\bdaypass\b`).ReplaceAllLiteralString(sql, pgsql.Ident(former))
			if f.Major() < 16 {
				sql, _, _ = strings.Cut(sql, "-- PostgreSQL 16")
			}
			if _, err := pgtest.Connect(t, f.Superuser(database)).Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
		}
		f.Run("create role alice login; create role analysts")
		f.LendAlone("alice", "analysts")
		db := f.Database(t)
		use := func(need dbuser.Need) {
			t.Helper()
			need.Database = db
			role := f.Ensure(need)
			_ = f.Logon(role, db).Close(t.Context())
			f.NoSessions(role.Name)
		}
		hers, unused := dbuser.Need{User: "alice", Groups: []string{"analysts"}}, dbuser.Need{User: "newcomer", AutoCreate: true}
		use(hers)
		use(unused)

		super("postgres", strings.ReplaceAll(making[1], "…", "keeper"))
		f.As = pgtest.Login{Name: "keeper", Password: "keeper"}
		f.Admin = f.Another()
		use(hers)
		for _, x := range f.Check().Findings {
			if x.Code == "session-role-login" {
				f.Mend(clustercheck.Report{Findings: []clustercheck.Finding{x}})
			}
		}
		use(hers)
		report, err := f.Admin.Sweep(t.Context(), handover.SweepOptions{Unused: time.Nanosecond})
		if err != nil || len(report.Kept) > 0 {
			t.Fatalf("Sweep = %+v, %v", report, err)
		}
		for _, database := range []string{"postgres", db} {
			super(database, dropping[1])
		}
		super("postgres", "DROP ROLE daypass")
		use(hers)
		after := f.Check()
		if after.Broken() || strings.Contains(clustertest.Text(after), "session-role-") {
			t.Errorf("afterwards: %s", clustertest.Text(after))
		}
	})
}
