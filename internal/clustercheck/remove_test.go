package clustercheck_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/compat"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/internal/pgsql"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// TestNothingIsLeft follows "Remove Daypass from a cluster" in docs/operations.md. The users, what
// they own and the settings of their own are all that is left.
func TestNothingIsLeft(t *testing.T) {
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n### Remove Daypass from a cluster\n")
	section, _, _ = strings.Cut(section, "\n#")
	blocks := regexp.MustCompile("(?s) *```sql\n(.*?)```").FindAllStringSubmatch(section, -1)
	if len(blocks) != 4 {
		t.Fatalf("the section has %d blocks of SQL; this test knows four", len(blocks))
	}
	memberships, everywhere, once, passwords := blocks[0][1], blocks[1][1], blocks[2][1], blocks[3][1]
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := alone(t, s, "CREATEROLE")
		roles := func() string {
			return clustertest.One(t, f.Super, "select string_agg(rolname, ' ' order by rolname::text collate \"C\") from pg_roles where rolname !~ '^pg_'")
		}
		f.Run("create role alice login; create role analysts")
		f.LendAlone("alice", "analysts")
		f.Run("grant pg_signal_backend, pg_read_all_stats to %s", f.As.Name)
		// The operator uses the administrative login for other roles too.
		clustertest.Exec(t, pgtest.Connect(t, f.ConnString(f.As, "postgres")),
			`create role carol; create role "Dora D"; create role writers; grant analysts to carol; grant writers to "Dora D" with admin option`)
		members := func() string {
			return clustertest.One(t, f.Super, `select string_agg(format('%s %s', roleid::regrole, member::regrole) || case when admin_option then ' with admin option' else '' end, ', ' order by roleid::regrole::text)
				from pg_auth_members where roleid::regrole::text !~ '^pg_'`)
		}
		f.Admin = f.Another(clustertest.Removing(dbuser.RemoveAllPasswords))
		db := f.Database(t)
		f.Run("grant create on database %s to %s", db, f.As.Name)
		if _, err := compat.Install(t.Context(), f.Admin.Pool, compat.Options{Database: db}); err != nil {
			t.Fatal(err)
		}
		for _, need := range []dbuser.Need{{User: "alice"}, {User: "alice", Groups: []string{"analysts"}}, {User: "newcomer", AutoCreate: true}} {
			need.Database = db
			role := f.Ensure(need)
			c := f.Logon(role, db)
			clustertest.Exec(t, c, "create temp table t (x int)")
			_ = c.Close(t.Context())
			f.NoSessions(role.Name)
		}
		// daypass cluster clean NAME --unused 0s, daypass cluster compat NAME --remove
		report, err := f.Admin.Sweep(t.Context(), handover.SweepOptions{Unused: time.Nanosecond})
		if err != nil || len(report.Kept) > 0 || len(report.Dropped) != 3 {
			t.Fatalf("Sweep = %+v, %v", report, err)
		}
		if _, err := compat.Install(t.Context(), f.Admin.Pool, compat.Options{Database: db, Remove: true}); err != nil {
			t.Fatal(err)
		}
		f.Admin.Close()
		super := func(database, block string) {
			t.Helper()
			block = regexp.MustCompile(`\bdaypass\b`).ReplaceAllLiteralString(block, pgsql.Ident(f.As.Name))
			if _, err := pgtest.Connect(t, f.Superuser(database)).Exec(t.Context(), block, pgx.QueryExecModeSimpleProtocol); err != nil {
				t.Fatalf("%s: %v", block, err)
			}
		}
		if s.Major() >= 16 {
			super("postgres", memberships)
		}
		for _, database := range []string{"postgres", db} {
			super(database, everywhere)
		}
		super("postgres", once)
		if got := members(); got != "analysts carol, writers \"Dora D\" with admin option" {
			t.Errorf("memberships that are left: %s", got)
		}
		if got := roles(); got != "Dora D alice analysts carol newcomer postgres writers" {
			t.Errorf("roles that are left: %s", got)
		}
		open := "select string_agg(rolname || ' ' || coalesce(rolvaliduntil::text, ''), ', ' order by rolname::text collate \"C\") from pg_roles where rolname in ('alice', 'newcomer')"
		if got := clustertest.One(t, f.Super, open); got != "alice -infinity, newcomer -infinity" {
			t.Errorf("users before: %s", got)
		}
		super("postgres", passwords)
		if got := clustertest.One(t, f.Super, open); got != "alice infinity, newcomer infinity" {
			t.Errorf("users afterwards: %s", got)
		}
	})
}
