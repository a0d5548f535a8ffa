package clustercheck_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/clustercheck"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// TestCheckPrintsWhatMends breaks everything that SQL can mend, runs the
// printed SQL as a superuser, and checks again.
func TestCheckPrintsWhatMends(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := alone(t, s, "CONNECTION LIMIT 1")
		f.Run(`create role alice login createdb bypassrls; create role "Bob O'Neil" login; create role analysts nologin;
			create role boss login superuser; create role chief login; grant boss to chief;
			create role daypass_session_roles login; grant analysts to daypass_session_roles;
			create role mallory login; create role eve login;
			create role "IAM:alice" login; grant daypass_session_roles to "IAM:alice"; grant "IAM:alice" to mallory;
			grant daypass_session_roles to eve;
			alter role alice set work_mem = '7MB'; alter role alice set log_statement = 'all';
			alter role alice set audit.level = 'high'`)
		f.Run("grant analysts to %s", f.As.Name)
		before := f.Check()
		if !before.Broken() {
			t.Fatalf("nothing is broken: %s", clustertest.Text(before))
		}
		codes := []string{"login", "login-limit", "marker", "session-role-member", "not-lent"}
		if f.Major() >= 16 { // before 16, CREATEROLE is enough
			codes = append(codes, "admin-option")
		}
		for _, code := range codes {
			if !slices.ContainsFunc(before.Findings, func(x clustercheck.Finding) bool { return x.Code == code && x.Severity != clustercheck.OK }) {
				t.Errorf("no finding %q: %s", code, clustertest.Text(before))
			}
		}
		// Without CREATEROLE the check cannot try everything, so repair and check again, several
		// times.
		for range 4 {
			f.Mend(f.Check())
		}
		after := f.Check()
		for _, x := range after.Findings {
			mendable := len(x.SQL) > 0
			if x.Severity == clustercheck.Broken || mendable {
				t.Errorf("after running the printed SQL: %s %s: %s %q", x.Severity, x.Code, x.Message, x.SQL)
			}
		}
		f.Ensure(dbuser.Need{User: "alice", Groups: []string{"analysts"}})
		f.Ensure(dbuser.Need{User: "Bob O'Neil"})
	})
}

func TestCheckOfAHealthyCluster(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := alone(t, s, "CREATEROLE")
		r := f.Check()
		if r.Broken() {
			t.Errorf("before the first logon: %s", clustertest.Text(r))
		}
		if !strings.Contains(clustertest.Text(r), "there is no database user yet") {
			t.Errorf("without a user: %s", clustertest.Text(r))
		}
		f.Ensure(dbuser.Need{User: "newcomer", AutoCreate: true})
		if r := f.Check(); r.Broken() {
			t.Errorf("after it: %s", clustertest.Text(r))
		}
		if got := clustertest.One(t, f.Super, "select count(*)::text from pg_roles where rolname like 'daypass check%'"); got != "0" {
			t.Error("the check left a role behind")
		}
	})
}

func TestCheckSaysWhyItCannotConnect(t *testing.T) {
	s := pgtest.Start(t)
	f := plain(t, s)
	for _, tt := range []struct {
		code   string
		change func(*pgx.ConnConfig)
	}{
		{"password", func(c *pgx.ConnConfig) { c.Password = "wrong" }},
		{"database", func(c *pgx.ConnConfig) { c.Database = "no_such_database" }},
		{"unreachable", func(c *pgx.ConnConfig) { c.Port = 1 }},
	} {
		admin := f.Another(func(c *dbuser.Config) { tt.change(c.Conn) })
		r, err := clustercheck.Check(t.Context(), admin.Admin)
		if err != nil || !r.Broken() || r.Findings[0].Code != tt.code {
			t.Errorf("%s: %v %s", tt.code, err, clustertest.Text(r))
		}
	}
}

func TestCheckReadsHBA(t *testing.T) {
	s := pgtest.Start(t)
	f := super(t, s)
	r := f.Check()
	i := slices.IndexFunc(r.Findings, func(x clustercheck.Finding) bool { return x.Code == "pg_hba" })
	if i < 0 {
		t.Fatalf("no word of pg_hba.conf: %s", clustertest.Text(r))
	}
	if h := strings.Join(r.Findings[len(r.Findings)-1].HBA, "\n"); strings.Contains(h, "''") {
		t.Error(h)
	}
}

// TestHBALinesKeepTheRest: with the printed lines in front, all logons that do not go through
// the gateway work as before. The lines are those in the manual.
func TestHBALinesKeepTheRest(t *testing.T) {
	for _, host := range []string{"192.0.2.1", "/run/postgresql"} {
		for _, line := range clustercheck.HBALines(host, "daypass", "192.0.2.10") {
			fields := strings.Fields(line)
			if fields[0] != "#" && fields[2] != `"daypass"` && fields[2] != "+daypass_session_roles" {
				t.Errorf("%s: %q is about somebody else", host, line)
			}
		}
	}
	manual, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Join(clustercheck.HBALines("192.0.2.1", "daypass", "192.0.2.10"), "\n"); !strings.Contains(string(manual), lines) {
		t.Errorf("docs/operations.md has other lines than\n%s", lines)
	}
}

// TestCheckByAnotherLogin: the first administrative login holds grants because it created the
// session roles. The check neither reports them nor wants them revoked.
func TestCheckByAnotherLogin(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := alone(t, s, "CREATEROLE")
		f.Ensure(dbuser.Need{User: "newcomer", AutoCreate: true})
		first := f.As.Name
		f.As = f.NewAdmin(t)
		f.Admin = f.Another()
		for _, x := range f.Check().Findings {
			if x.Code == "session-role-member" || x.Code == "marker" && strings.Contains(strings.Join(x.SQL, ";"), pgtest.Quote(first)) {
				t.Errorf("%s: %s %q", x.Code, x.Message, x.SQL)
			}
		}
	})
}

// TestCheckFindsTheOldEventTrigger: the printed SQL removes the trigger and no one else's objects.
func TestCheckFindsTheOldEventTrigger(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := alone(t, s, "CREATEROLE")
		db := f.Database(t)
		f.Exec(t, db, `create schema daypass_private; create table daypass_private.theirs (x int);
			create function daypass_private.hand_over() returns event_trigger language plpgsql as 'begin end';
			create event trigger daypass_hand_over on ddl_command_end execute function daypass_private.hand_over()`)
		found := func() []clustercheck.Finding {
			return slices.DeleteFunc(f.Check().Findings, func(x clustercheck.Finding) bool { return x.Code != "event-trigger" })
		}
		before := found()
		if len(before) != 1 || before[0].Database != db || before[0].Severity != clustercheck.Warning {
			t.Fatalf("findings = %+v", before)
		}
		c := pgtest.Connect(t, f.Superuser(db))
		for _, sql := range before[0].SQL {
			_, err := c.Exec(t.Context(), sql)
			if (err != nil) != strings.HasPrefix(sql, "drop schema") {
				t.Errorf("%s: %v", sql, err)
			}
		}
		if after := found(); len(after) != 0 {
			t.Errorf("afterwards: %+v", after)
		}
		clustertest.One(t, c, "select count(*)::text from daypass_private.theirs")
	})
}

// TestCheckSeesTheLinesOfHBA: once the printed lines are in force, the check prints no more lines.
func TestCheckSeesTheLinesOfHBA(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := alone(t, s, "CREATEROLE")
		f.Run("create role alice login")
		f.Run("grant execute on function pg_hba_file_rules() to %s; grant select on pg_hba_file_rules to %s", f.As.Name, f.As.Name)
		f.Run("create role daypass_session_roles; grant daypass_session_roles to %s with admin option", f.As.Name)
		var lines []string
		for _, x := range clustertest.Findings(f.Check(), "pg_hba", "") {
			lines = append(lines, x.HBA...)
		}
		if len(lines) == 0 {
			t.Fatal("it prints no lines")
		}
		file := clustertest.One(t, f.Super, "show hba_file")
		before, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append([]byte(strings.Join(lines, "\n")+"\n"), before...), 0o600); err != nil {
			t.Fatal(err)
		}
		f.Run("select pg_reload_conf()")
		for _, x := range clustertest.Findings(f.Check(), "pg_hba", "") {
			if x.Severity == clustercheck.Warning || x.Severity == clustercheck.Broken || len(x.HBA) > 0 {
				t.Errorf("with the lines in force: %s: %s %q", x.Severity, x.Message, x.HBA)
			}
		}
	})
}
