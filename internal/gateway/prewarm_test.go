package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/test/pgtest"
)

// prewarming starts a gateway that starts up to most sessions ahead.
func prewarming(t *testing.T, most int) (*fixture, *pgtest.Server, *gateway.Cluster) {
	f, pg := newFixture(t, nil), pgtest.Start(t)
	cluster := *f.real(pg)
	cluster.Prewarm = most
	return f, pg, f.add(&cluster)
}

// pids returns the process IDs of the server's backends for the user's session roles: of open
// sessions and of spares.
func pids(t testing.TB, pg *pgtest.Server, user string) map[int]bool {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), pg.Superuser("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	rows, err := conn.Query(context.Background(),
		"SELECT pid FROM pg_stat_activity WHERE usename LIKE 'IAM:' || $1 || '%'", user)
	if err != nil {
		t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		t.Fatal(err)
	}
	found := map[int]bool{}
	for _, pid := range list {
		found[pid] = true
	}
	return found
}

// spare logs on and off until a session waits for the next logon, and returns its process ID. It logs
// on again only when none is being started, or two could wait in the end.
func spare(t testing.TB, f *fixture, pg *pgtest.Server, g grant) (pid int) {
	t.Helper()
	var left map[int]bool
	logOn := func() {
		conn := f.connect(g, "")
		own := value[int](t, conn, "SELECT pg_backend_pid()") // a session is ordered before this is answered
		_ = conn.Close(context.Background())
		pgtest.Eventually(t, "the session ends, and none is being started", func() bool {
			quiet := !f.server.StartsSpares()
			left = pids(t, pg, g.DBUser)
			return quiet && !left[own]
		})
	}
	logOn() // makes the session role; no session is started ahead after that
	pgtest.Eventually(t, "a session is started ahead", func() bool {
		logOn()
		return len(left) == 1
	})
	for pid = range left {
	}
	return pid
}

func TestPrewarmedSessionIsUsedOnce(t *testing.T) {
	f, pg, _ := prewarming(t, 2)
	g := f.grant(pg.Name("ahead"))
	waiting := spare(t, f, pg, g)
	first := f.connect(g, "")
	if r := f.audit.lastLogon(t); r.Upstream != "prewarmed" || r.ProcessID != uint32(waiting) {
		t.Errorf("the record says process %d, %q, want %d, which waited", r.ProcessID, r.Upstream, waiting)
	}
	second := f.connect(g, "")
	if got := value[int](t, first, "SELECT pg_backend_pid()"); got != waiting {
		t.Errorf("the logon got process %d, want %d, which waited", got, waiting)
	}
	if got := value[int](t, second, "SELECT pg_backend_pid()"); got == waiting {
		t.Error("two logons got the same session")
	}
	pgtest.Eventually(t, "the log tells which session was started ahead", func() bool { return strings.Contains(f.log.String(), "prewarmed=true") })
}

// TestPrewarmDoubts: each of these changes makes the waiting session differ from a new one, so
// it is not used.
func TestPrewarmDoubts(t *testing.T) {
	f, pg, cluster := prewarming(t, 20)
	defer func() { pg.Exec(t, "postgres", "ALTER ROLE ALL RESET lock_timeout") }()
	for _, row := range []struct {
		name     string
		change   func(t *testing.T, user string, pid int)
		settings []string // of the logon
		query    string   // returns want in a new session
		want     string
	}{
		{"setting of the user", func(t *testing.T, user string, _ int) {
			pg.Exec(t, "postgres", "ALTER ROLE "+user+" SET work_mem = '7MB'")
		}, nil, "SHOW work_mem", "7MB"},
		{"setting of the database", func(t *testing.T, _ string, _ int) {
			pg.Exec(t, "postgres", "ALTER DATABASE "+cluster.Database+" SET statement_timeout = '76s'")
		}, nil, "SHOW statement_timeout", "76s"},
		{"setting of all roles", func(t *testing.T, _ string, _ int) {
			pg.Exec(t, "postgres", "ALTER ROLE ALL SET lock_timeout = '75s'")
		}, nil, "SHOW lock_timeout", "75s"},
		{"setting of the session role", func(t *testing.T, user string, _ int) {
			pg.Exec(t, "postgres", `ALTER ROLE "IAM:`+user+`" SET work_mem = '9MB'`)
		}, nil, "SHOW work_mem", "4MB"},
		{"session role made anew", func(t *testing.T, user string, _ int) {
			pg.Exec(t, "postgres", `DROP ROLE "IAM:`+user+`"`)
		}, nil, "SELECT current_user::text", ""},
		{"ended by the server", func(t *testing.T, user string, pid int) {
			pg.Exec(t, "postgres", fmt.Sprintf("SELECT pg_terminate_backend(%d)", pid))
			pgtest.Eventually(t, "the process ends", func() bool { return !pids(t, pg, user)[pid] })
		}, nil, "SELECT 'alive'", "alive"},
		{"another start-up parameter", func(*testing.T, string, int) {},
			[]string{"application_name", "another"}, "SHOW application_name", "another"},
	} {
		t.Run(row.name, func(t *testing.T) {
			g := f.grant(pg.Name("doubt"))
			waiting := spare(t, f, pg, g)
			row.change(t, g.DBUser, waiting)
			conn := f.connect(g, "", row.settings...)
			if pid := value[int](t, conn, "SELECT pg_backend_pid()"); pid == waiting {
				t.Errorf("the session that waited was used")
			}
			if got := value[string](t, conn, row.query); row.want != "" && got != row.want {
				t.Errorf("%s = %q, want %q", row.query, got, row.want)
			}
			_ = conn.Close(context.Background())
		})
	}
}

// TestPrewarmIsBounded: no more sessions wait than the cluster allows, and none is started for
// another database, or by a cluster without the setting.
func TestPrewarmIsBounded(t *testing.T) {
	f, pg, cluster := prewarming(t, 2)
	g := f.grant(pg.Name("many"))
	for range 3 {
		var open []*pgx.Conn
		for range 4 {
			open = append(open, f.connect(g, ""))
		}
		for _, conn := range open {
			_ = conn.Close(context.Background())
		}
	}
	// One session is left if a spare was ready before every logon.
	pgtest.Eventually(t, "one or two are left", func() bool { n := len(pids(t, pg, g.DBUser)); return n == 1 || n == 2 })
	other := *cluster
	other.Prewarm = 0
	f.add(&other)
	quiet := f.grant(pg.Name("none"))
	_ = f.connect(quiet, "").Close(context.Background())
	pgtest.Eventually(t, "none is left", func() bool { return len(pids(t, pg, quiet.DBUser)) == 0 })
}

// TestPrewarmMakesRoom: waiting sessions never cause a logon to fail for lack of connections.
func TestPrewarmMakesRoom(t *testing.T) {
	f, pg, cluster := prewarming(t, 1)
	a, b := f.grant(pg.Name("first")), f.grant(pg.Name("second"))
	pg.Exec(t, "postgres", "ALTER DATABASE "+cluster.Database+" CONNECTION LIMIT 2")
	spare(t, f, pg, a)
	for range 2 {
		if got := value[int](t, f.connect(b, ""), "SELECT 1"); got != 1 {
			t.Errorf("got %d", got)
		}
	}
	if left := pids(t, pg, a.DBUser); len(left) != 0 {
		t.Errorf("processes %v still wait", left)
	}
}

func TestShutdownLeavesNoSpare(t *testing.T) {
	f, pg, _ := prewarming(t, 3)
	g := f.grant(pg.Name("over"))
	spare(t, f, pg, g)
	if err := f.server.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	if left := pids(t, pg, g.DBUser); len(left) != 0 {
		t.Errorf("processes %v are left", left)
	}
}

// TestPrewarmIsShutOut: a waiting session is not used if the server would refuse a new one. The
// possible reasons are the same in all versions.
func TestPrewarmIsShutOut(t *testing.T) {
	pgtest.Ends(t, func(t *testing.T, shared *pgtest.Server) {
		pg := shared.StartAlone(t, nil)
		f := newFixture(t, nil)
		cluster := *f.real(pg)
		cluster.Prewarm = 4
		f.add(&cluster)
		database := pgtest.Quote(cluster.Database)
		for _, row := range []struct {
			name        string
			shut, open  func(user string)
			state, text string
		}{
			{"CONNECT revoked", func(string) { pg.Exec(t, "postgres", "REVOKE CONNECT ON DATABASE "+database+" FROM PUBLIC") },
				func(string) { pg.Exec(t, "postgres", "GRANT CONNECT ON DATABASE "+database+" TO PUBLIC") }, "42501", "permission denied for database"},
			{"no connections allowed", func(string) { pg.Exec(t, "postgres", "ALTER DATABASE "+database+" ALLOW_CONNECTIONS false") },
				func(string) { pg.Exec(t, "postgres", "ALTER DATABASE "+database+" ALLOW_CONNECTIONS true") }, "55000", "not currently accepting"},
			{"pg_hba.conf", func(user string) { pg.SetHBA(t, "reject", `"IAM:`+user+`"`) }, func(string) { pg.SetHBA(t, "scram-sha-256", "nobody") },
				"08004", "does not let the gateway"},
		} {
			g := f.grant(pg.Name("shut"))
			waiting := spare(t, f, pg, g)
			row.shut(g.DBUser)
			conn, err := f.try(g.LogonName(), f.mint(g), "")
			if err == nil {
				t.Errorf("%s: the logon got process %d; %d waited", row.name, value[int](t, conn, "SELECT pg_backend_pid()"), waiting)
			} else {
				f.refused(err, row.state, row.text)
			}
			pgtest.Eventually(t, "the session that waited goes", func() bool { return !pids(t, pg, g.DBUser)[waiting] })
			row.open(g.DBUser)
		}
	})
}

// TestPrewarmMakesWayForDropDatabase: waiting sessions do not block DROP DATABASE, which works the
// same in all versions.
func TestPrewarmMakesWayForDropDatabase(t *testing.T) {
	pgtest.Ends(t, func(t *testing.T, pg *pgtest.Server) {
		t.Parallel()
		var commands sync.WaitGroup // at once, because each waits until the gateway looks
		var left []string
		for _, sql := range []string{"DROP DATABASE %s", "ALTER DATABASE %[1]s RENAME TO %[2]s", "CREATE DATABASE %[2]s TEMPLATE %[1]s"} {
			f := newFixture(t, nil)
			cluster := *f.real(pg)
			cluster.Prewarm = 4
			f.add(&cluster)
			g := f.grant(pg.Name("way"))
			spare(t, f, pg, g)
			other := pgtest.Quote(pg.Name("other"))
			left = append(left, other)
			sql = fmt.Sprintf(sql+"%.0[2]s", pgtest.Quote(cluster.Database), other)
			super := pgtest.Connect(t, pg.Superuser("postgres"))
			commands.Go(func() {
				if _, err := super.Exec(context.Background(), sql); err != nil {
					t.Errorf("%s: %v", sql, err)
				}
			})
		}
		commands.Wait()
		for _, other := range left {
			pg.Exec(t, "postgres", "DROP DATABASE IF EXISTS "+other+" WITH (FORCE)")
		}
	})
}

// TestPrewarmAndLoginTriggers: a login event trigger runs at the start of each session, and the
// client gets the errors that it raises.
func TestPrewarmAndLoginTriggers(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, pg *pgtest.Server) {
		t.Parallel()
		if pg.Major() < 17 {
			return // without login event triggers
		}
		f := newFixture(t, nil)
		cluster := *f.real(pg)
		cluster.Prewarm = 4
		f.add(&cluster)
		g := f.grant(pg.Name("trigger"))
		waiting := spare(t, f, pg, g)
		pg.Exec(t, cluster.Database, `CREATE TABLE logins (who text); GRANT INSERT ON logins TO PUBLIC;
			CREATE FUNCTION noted() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO logins VALUES (session_user); END $$;
			CREATE EVENT TRIGGER noted ON login EXECUTE FUNCTION noted()`)
		for range 3 {
			conn := f.connect(g, "")
			if value[int](t, conn, "SELECT pg_backend_pid()") == waiting {
				t.Error("the logon got a session from before the trigger")
			}
			_ = conn.Close(context.Background())
		}
		super := pgtest.Connect(t, pg.Superuser(cluster.Database))
		if got := value[int](t, super, "SELECT count(*)::int FROM logins WHERE who = 'IAM:' || $1", g.DBUser); got != 3 {
			t.Errorf("the trigger fired %d times for 3 logons", got)
		}
		for _, state := range []string{"28P01", "28000", "P0001"} {
			pg.Exec(t, cluster.Database, `CREATE OR REPLACE FUNCTION noted() RETURNS event_trigger LANGUAGE plpgsql AS $$
				BEGIN IF session_user LIKE 'IAM:%' THEN RAISE 'closed on Sundays' USING ERRCODE = '`+state+`'; END IF; END $$`)
			_, err := f.try(g.LogonName(), f.mint(g), "")
			f.refused(err, state, "closed on Sundays")
		}
		if strings.Contains(f.log.String(), "password set again") {
			t.Error("what the trigger raised set the password anew")
		}
	})
}

// TestPrewarmedSessionsAreListed: waiting sessions are listed and can be killed.
func TestPrewarmedSessionsAreListed(t *testing.T) {
	f, pg, cluster := prewarming(t, 2)
	g := f.grant(pg.Name("listed"))
	waiting := spare(t, f, pg, g)
	pgtest.Eventually(t, "the session that was used is over", func() bool { return len(f.server.Sessions()) == 1 })
	list := f.server.Sessions()
	if len(list) != 1 || list[0].State != "prewarmed" || list[0].PID != uint32(waiting) || list[0].DBUser != g.DBUser ||
		list[0].Database != cluster.Database || list[0].SessionRole != "IAM:"+g.DBUser || list[0].Started.IsZero() {
		t.Fatalf("sessions = %+v, want the one that waits", list)
	}
	if !f.server.Kill(list[0].ID) || f.server.Kill(list[0].ID) {
		t.Error("Kill does not end it once")
	}
	pgtest.Eventually(t, "it goes", func() bool { return len(pids(t, pg, g.DBUser)) == 0 })
	if list := f.server.Sessions(); len(list) != 0 {
		t.Errorf("sessions = %+v, want none", list)
	}
}

// TestPrewarmPutsNothingOff: a session role with groups loses its rights after its last session, so
// no spare outlives that session.
func TestPrewarmPutsNothingOff(t *testing.T) {
	f, pg, _ := prewarming(t, 4)
	user, group := pg.Name("grouped"), pg.Group(t, "group")
	g := f.grant(user, group)
	first, second := f.connect(g, ""), f.connect(g, "")
	pgtest.Eventually(t, "a session is started ahead", func() bool {
		return slices.ContainsFunc(f.server.Sessions(), func(s gateway.Session) bool { return s.State == "prewarmed" })
	})
	_ = first.Close(context.Background())
	pgtest.Eventually(t, "one is left", func() bool {
		return len(slices.DeleteFunc(f.server.Sessions(), func(s gateway.Session) bool { return s.State == "prewarmed" })) == 1
	})
	if len(f.server.Sessions()) < 2 {
		t.Error("what waited went with a session that was not the last")
	}
	_ = second.Close(context.Background())
	pgtest.Eventually(t, "nothing waits", func() bool { return len(f.server.Sessions()) == 0 && len(pids(t, pg, user)) == 0 })
}

// TestSpareOfAnEndedRole: the last session of a session role with groups ends while a spare of the role is
// being started. The spare does not wait, or it would keep the role's rights.
func TestSpareOfAnEndedRole(t *testing.T) {
	f, pg, cluster := prewarming(t, 4)
	g := f.grant(pg.Name("ending"), pg.Group(t, "group"))
	f.known(g) // a logon that creates the session role has no spare
	var dialled atomic.Int32
	goOn := make(chan struct{})
	f.dialling(cluster, func(conn net.Conn) net.Conn {
		if dialled.Add(1) > 1 {
			<-goOn
		}
		return conn
	})
	conn := f.connect(g, "")
	pgtest.Eventually(t, "a spare is being started", func() bool { return dialled.Load() == 2 })
	_ = conn.Close(t.Context())
	pgtest.Eventually(t, "the session is over", f.server.Settled)
	close(goOn)
	pgtest.Eventually(t, "the spare was started", func() bool { return !f.server.StartsSpares() })
	if list := f.server.Sessions(); len(list) != 0 {
		t.Errorf("sessions = %+v, want none", list)
	}
	pgtest.Eventually(t, "the process ends", func() bool { return len(pids(t, pg, g.DBUser)) == 0 })
}

// TestRefusedProcessCounts: a process that has refused a session for lack of connections counts as a
// connection until it has exited. A logon that has made room tries again after that.
func TestRefusedProcessCounts(t *testing.T) {
	var refused, n atomic.Int32
	addr, _ := scripted(t, func(conn net.Conn) {
		switch {
		case n.Add(1) == 3:
			refused.Add(1)
			sends(fatalMessage("53300", "too many connections for database"))(conn)
			time.Sleep(50 * time.Millisecond)
			refused.Add(-1)
		case refused.Load() > 0:
			sends(fatalMessage("53300", "too many connections for database"))(conn)
		default:
			sends(begun)(conn)
			_, _ = io.ReadFull(conn, make([]byte, 5)) // Terminate
		}
	})
	f := newFixture(t, nil)
	role := dbuser.SessionRole{Name: "IAM:alice", Password: "pw", Seen: [32]byte{1}}
	f.add(&gateway.Cluster{Identifier: "examplecluster", Database: "dev", Admin: &fakeAdmin{role: role}, Upstream: upstreamAt(t, addr), Prewarm: 1})
	g := f.grant("alice")
	f.connect(g, "")
	pgtest.Eventually(t, "a spare waits", func() bool { return len(f.server.Sessions()) == 2 })
	f.connect(g, "", "application_name", "another") // the spare does not fit
	if got := n.Load(); got != 4 && got != 5 {      // the spare of the last logon may have been started, too
		t.Errorf("%d connections were opened, want 4 and perhaps a spare", got)
	}
}
