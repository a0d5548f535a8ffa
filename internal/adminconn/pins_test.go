package adminconn_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// hostileSetting is a setting that any user can set, with the values that a hostile user
// would try.
type hostileSetting struct {
	name   string
	values []string
}

// hostileSettings returns all server settings that need no superuser, with the ends of every
// range, every word of every list and, for texts, some names that do not exist.
func hostileSettings(t *testing.T, c *pgx.Conn) []hostileSetting {
	t.Helper()
	rows, err := c.Query(t.Context(), `select name, vartype, coalesce(min_val, ''), coalesce(max_val, ''), coalesce(enumvals, '{}')
		from pg_settings where context = 'user' order by name`)
	if err != nil {
		t.Fatal(err)
	}
	var all []hostileSetting
	for rows.Next() {
		var h hostileSetting
		var kind, least, most string
		var words []string
		if err := rows.Scan(&h.name, &kind, &least, &most, &words); err != nil {
			t.Fatal(err)
		}
		switch kind {
		case "bool":
			h.values = []string{"on", "off"}
		case "enum":
			h.values = words
		case "string":
			h.values = []string{"no_such_thing", "", "evil", "evil, pg_catalog"}
		default:
			h.values = []string{least, most, "1"}
		}
		all = append(all, h)
	}
	if err := rows.Err(); err != nil || len(all) < 100 {
		t.Fatalf("%d settings, %v", len(all), err)
	}
	return all
}

// TestHostileSettings gives every setting that needs no superuser every hostile value, for a
// database, as its owner, and for the administrative login itself. Objects of session roles
// there are still handed over, and logons work.
func TestHostileSettings(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		s = s.StartAlone(t, nil)
		// With this many roles, a statement with a bad plan does not finish.
		s.Exec(t, "postgres", "create role "+dbuser.MarkerRole+`; do $$ begin for i in 1..2000 loop
			execute format('create role "IAM:crowd%s" in role `+dbuser.MarkerRole+`', i); end loop; end $$`)
		for name, attribute := range map[string]string{"plain": "createrole", "superuser": "superuser"} {
			t.Run(name, func(t *testing.T) {
				hostile(t, newFixture(t, s, s.Login(t, "admin", attribute)))
			})
		}
	})
}

func hostile(t *testing.T, f *fixture) {
	f.T = t
	alice, makers := f.LentUser("alice", ""), f.LentGroup("makers")
	if f.Major() >= 16 {
		f.LendAlone(alice, makers, dbuser.MarkerRole)
	}
	db := f.LabDatabase(makers)
	mallory := f.Login(t, "mallory", "")
	f.Run("alter database %s owner to %s", db, mallory.Name)
	owner := pgtest.Connect(t, f.ConnString(mallory, db))
	// The owner's own operators and functions, which a hostile search_path finds first.
	for _, sql := range []string{
		"create schema evil",
		"create function evil.no(text, text) returns boolean language sql as 'select false'",
		"create function evil.no(name, name) returns boolean language sql as 'select false'",
		"create function evil.no(oid, oid) returns boolean language sql as 'select false'",
		"create operator evil.= (leftarg = text, rightarg = text, procedure = evil.no)",
		"create operator evil.= (leftarg = name, rightarg = name, procedure = evil.no)",
		"create operator evil.= (leftarg = oid, rightarg = oid, procedure = evil.no)",
		"create function evil.current_setting(text) returns text language sql as 'select ''1'''",
		"create view evil.pg_roles as select 1 as oid",
	} {
		clustertest.Exec(t, owner, sql)
	}
	settings := hostileSettings(t, owner)
	for _, who := range []string{"role", "session_authorization"} {
		settings = append(settings, hostileSetting{who, []string{mallory.Name}})
	}
	need := dbuser.Need{User: alice, Groups: []string{makers}}
	role := f.Ensure(need)
	rounds := 0
	for _, setting := range settings {
		rounds = max(rounds, len(setting.values))
	}
	taken := map[string]bool{}
	apply := func(c *pgx.Conn, target string, round int) {
		for _, h := range settings {
			value := h.values[round%len(h.values)]
			if _, err := c.Exec(t.Context(), fmt.Sprintf("alter %s set %s = '%s'", target, h.name, value)); err == nil {
				taken[h.name] = true
			}
		}
	}
	database, login := "database "+pgtest.Quote(db), "role "+pgtest.Quote(f.As.Name)
	for round := range rounds {
		c := f.Logon(f.Ensure(need), db)
		clustertest.Exec(t, c, fmt.Sprintf("create table lab.t%d (x int)", round))
		clustertest.Exec(t, c, fmt.Sprintf("create function lab.f%d() returns int language sql as 'select 1'", round))
		_ = c.Close(context.Background())
		f.NoSessions(role.Name)

		apply(owner, database, round)
		apply(f.Super, login, round)
		f.Run("alter role " + pgtest.Quote(role.Name) + " set work_mem = '1MB'") // something for the logon to correct
		admin := f.Another()
		if _, err := admin.Ensure(t.Context(), need); err != nil {
			t.Errorf("round %d: Ensure: %v", round, err)
		}
		admin.Opened(role.Name) // or it would count as a logon under way
		report, err := admin.Sweep(t.Context(), handover.SweepOptions{})
		if err != nil {
			t.Errorf("round %d: Sweep: %v", round, err)
		}
		if got := f.OwnedBy(role.Name); got != "0" {
			t.Errorf("round %d: the session role still owns %s objects: %+v\n%s", round, got, report.Kept, f.Log)
		}
		admin.Close()
		// Not RESET ALL: from 18 on transaction_read_only can be set, but not reset.
		clustertest.Exec(t, f.Super, fmt.Sprintf(`delete from pg_db_role_setting where setdatabase = (select oid from pg_database where datname = '%s')
			or setrole = (select oid from pg_roles where rolname = '%s')`, db, f.As.Name))
	}
	t.Logf("%d rounds; %d of %d settings taken", rounds, len(taken), len(settings))
	if len(taken) < 100 {
		t.Errorf("only %d settings were taken", len(taken))
	}
}

// TestTracesAreOff: someone who may set settings of the administrative login cannot make the server
// trace its statements, which fills the server's log and slows the sweep down.
func TestTracesAreOff(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		f := clustertest.Alone(t, s, "createrole")
		need := dbuser.Need{User: f.LentUser("alice", "")}
		f.LendAlone(need.User)
		role := f.Ensure(need)
		for _, name := range []string{"trace_sort", "trace_notify"} {
			f.Run("alter role %s set "+name+" = on", f.As.Name)
		}
		admin := f.Another()
		if _, err := admin.Ensure(t.Context(), need); err != nil {
			t.Fatal(err)
		}
		admin.Opened(role.Name)
		if _, err := admin.Sweep(t.Context(), handover.SweepOptions{}); err != nil {
			t.Fatal(err)
		}
		if log := f.Server.Log(t); strings.Contains(log, "performsort") {
			t.Errorf("the server has traced sorts:\n%s", log)
		}
	})
}

// TestVersionChangesBehindTheAdmin: a newer server is replaced by an older one, which refuses
// settings that it does not know. The pool connects again without them.
func TestVersionChangesBehindTheAdmin(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		f := plain(t, s) // not parallel: it counts lines of the server's log
		need := dbuser.Need{User: f.LentUser("alice", "")}
		for _, believed := range []int{0, 13, 15, 18, 99} {
			admin := f.Another()
			admin.Pool.BelieveMajor(believed)
			refusals := strings.Count(s.Log(t), "unrecognized configuration parameter")
			if _, err := admin.Ensure(t.Context(), need); err != nil {
				t.Errorf("a server taken for version %d: %v", believed, err)
			}
			if n := strings.Count(s.Log(t), "unrecognized configuration parameter") - refusals; n > 4 {
				t.Errorf("a server taken for version %d refused %d connections", believed, n)
			}
		}
	})
}

// TestRoleOfTheConnectionString: a role that the operator chose does not count as hostile.
func TestRoleOfTheConnectionString(t *testing.T) {
	s := pgtest.Start(t)
	f := plain(t, s)
	login := f.Login(t, "login", "")
	f.Run("grant %s to %s", f.As.Name, login.Name)
	for _, params := range []map[string]string{
		{"role": f.As.Name}, {"options": "-c role=" + f.As.Name}, {"options": "-c work_mem=1MB --role=" + f.As.Name},
	} {
		admin := f.Another(func(c *dbuser.Config) {
			c.Conn.User, c.Conn.Password = login.Name, login.Password
			c.Conn.RuntimeParams = params
		})
		if _, err := admin.Ensure(t.Context(), dbuser.Need{User: f.Name("new"), AutoCreate: true}); err != nil {
			t.Errorf("%v: %v", params, err)
		}
	}
}
