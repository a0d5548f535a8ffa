package gateway_test

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/ca"
	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/internal/session"
	"github.com/daypass/daypass/test/pgtest"
)

// parking starts a gateway that parks sessions of a database server, for an hour unless p says
// otherwise: a test that waits for their end must not pass because of the default.
func parking(t *testing.T, pg *pgtest.Server, p session.Parking, adjust func(*gateway.Config)) (*fixture, *gateway.Cluster) {
	t.Helper()
	p.Idle, p.Age = cmp.Or(p.Idle, time.Hour), cmp.Or(p.Age, time.Hour)
	f := newFixture(t, adjust)
	cluster := *f.real(pg)
	cluster.Parking = p
	return f, f.add(&cluster)
}

// parkedSessions returns the parked sessions.
func (f *fixture) parkedSessions() []gateway.Session {
	return slices.DeleteFunc(f.server.Sessions(), func(s gateway.Session) bool { return s.State != "parked" })
}

// leaves closes a client's connection in good order, waits until the gateway has finished with
// the session, and returns the number of parked sessions.
func (f *fixture) leaves(conn *pgx.Conn) int {
	f.t.Helper()
	_, before := f.audit.count()
	_ = conn.Close(context.Background())
	pgtest.Eventually(f.t, "the session's end", func() bool { _, ends := f.audit.count(); return ends > before })
	pgtest.Eventually(f.t, "the session is parked or gone", func() bool {
		return !slices.ContainsFunc(f.server.Sessions(), func(s gateway.Session) bool { return s.State != "parked" }) && f.server.Settled()
	})
	return len(f.parkedSessions())
}

// known logs on once with a grant, so that its session role exists and later sessions
// can be parked.
func (f *fixture) known(g credential.Grant, settings ...string) {
	f.t.Helper()
	f.leaves(f.connect(g, "", settings...))
}

func pidOf(t testing.TB, conn *pgx.Conn) int { return value[int](t, conn, "SELECT pg_backend_pid()") }

// run runs a statement as the client.
func run(t testing.TB, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.PgConn().Exec(context.Background(), sql).ReadAll(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// TestParkedSessionIsReused: on every version, a parked session is reused, but only by a logon
// that matches it in everything that matters.
func TestParkedSessionIsReused(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, pg *pgtest.Server) {
		t.Parallel()
		f, cluster := parking(t, pg, session.Parking{Max: 20}, nil)
		g := f.grant(pg.Name("again"), pg.Group(t, "group"))
		f.known(g)
		other := pg.Database(t)
		conn := f.connect(g, "")
		pid := pidOf(t, conn)
		if f.leaves(conn) != 1 {
			t.Fatalf("sessions = %+v, want one parked: %s", f.server.Sessions(), f.log)
		}
		if list := f.parkedSessions(); list[0].PID != uint32(pid) || list[0].Principal != principal || list[0].CredentialID != g.ID ||
			list[0].SessionRole == "" || list[0].Database != cluster.Database || !list[0].NotAfter.Equal(g.NotAfter) {
			t.Errorf("parked: %+v", list[0])
		}
		for name, change := range map[string]func(*credential.Grant) (database string, settings []string){
			"another principal": func(g *credential.Grant) (string, []string) {
				g.Principal = "arn:aws:iam::123456789012:user/bob"
				return "", nil
			},
			"fewer groups":         func(g *credential.Grant) (string, []string) { g.DBGroups = nil; return "", nil },
			"another database":     func(g *credential.Grant) (string, []string) { return other, nil },
			"a start-up parameter": func(g *credential.Grant) (string, []string) { return "", []string{"application_name", "x"} },
		} {
			asks := f.grant(g.DBUser, g.DBGroups...)
			database, settings := change(&asks)
			if got := pidOf(t, f.connect(asks, database, settings...)); got == pid {
				t.Errorf("%s: got the parked session", name)
			}
		}
		same := f.grant(g.DBUser, g.DBGroups...) // another credential of the same principal
		again := f.connect(same, "")
		if got := pidOf(t, again); got != pid {
			t.Errorf("got process %d, want the parked one, %d: %s", got, pid, f.log)
		}
		if r := f.audit.lastLogon(t); r.Upstream != "parked" || r.ProcessID != uint32(pid) || r.CredentialID != same.ID {
			t.Errorf("the record says process %d, %q, want the parked one, %d: %+v", r.ProcessID, r.Upstream, pid, r)
		}
		if got := pidOf(t, f.connect(same, "")); got == pid {
			t.Error("two logons got the same session")
		}
		if r := f.audit.lastLogon(t); r.Upstream != "new" {
			t.Errorf("the record of a new session says %q", r.Upstream)
		}
	})
}

// TestParkedSessionIsReset: session state that a reset can remove is gone in the next session.
func TestParkedSessionIsReset(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, pg *pgtest.Server) {
		t.Parallel()
		f, cluster := parking(t, pg, session.Parking{Max: 20}, nil)
		pg.Exec(t, cluster.Database, "GRANT TEMPORARY ON DATABASE "+pgtest.Quote(cluster.Database)+" TO PUBLIC")
		g := f.grant(pg.Name("reset"))
		f.known(g)
		conn := f.connect(g, "")
		pid := pidOf(t, conn)
		for _, sql := range []string{
			"SET work_mem = '77MB'", "SET my.own = 'mine'", "SET application_name = 'mine'", "SET search_path = pg_temp, public",
			"SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
			"SET ROLE NONE", "CREATE TEMP TABLE mine (x int)", "CREATE FUNCTION pg_temp.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
			"CREATE TEMP SEQUENCE s; SELECT nextval('s')", "PREPARE mine AS SELECT 1", "DECLARE mine CURSOR WITH HOLD FOR SELECT 1",
			"LISTEN mine", "SELECT pg_advisory_lock(4711)", "SELECT setseed(0.5)", "SET client_encoding = 'LATIN1'", "SET DateStyle = 'German'",
		} {
			run(t, conn, sql)
		}
		first := func() float64 {
			c := pgtest.Connect(t, pg.Superuser("postgres"))
			run(t, c, "SELECT setseed(0.5)")
			return value[float64](t, c, "SELECT random()")
		}()
		if f.leaves(conn) != 1 {
			t.Fatalf("not parked: %s", f.log)
		}
		again := f.connect(g, "")
		if got := pidOf(t, again); got != pid {
			t.Fatalf("got process %d, want %d", got, pid)
		}
		for sql, want := range map[string]string{
			"SELECT current_user::text": g.DBUser,
			"SELECT session_user::text": "IAM:" + g.DBUser,
			"SHOW work_mem":             "4MB",
			"SHOW application_name":     "",
			"SHOW client_encoding":      "UTF8",
			"SHOW DateStyle":            "ISO, MDY",
			"SELECT coalesce(nullif(current_setting('my.own', true), ''), 'none')":           "none",
			"SELECT (SELECT count(*) FROM pg_prepared_statements WHERE name = 'mine')::text": "0",
			"SELECT (SELECT count(*) FROM pg_cursors WHERE name = 'mine')::text":             "0",
			"SELECT (SELECT count(*) FROM pg_listening_channels())::text":                    "0",
			"SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')::text":       "0",
			"SELECT (SELECT count(*) FROM pg_class WHERE relname = 'mine')::text":            "0",
			"SELECT (SELECT count(*) FROM pg_proc WHERE proname = 'mine')::text":             "0",
			"SELECT (SELECT count(*) FROM pg_settings WHERE source = 'session')::text":       "0",
			fmt.Sprintf("SELECT CASE WHEN random() = %v THEN 'known' ELSE 'new' END", first): "new",
		} {
			var got string
			if err := again.QueryRow(t.Context(), sql, pgx.QueryExecModeSimpleProtocol).Scan(&got); err != nil || got != want {
				t.Errorf("%s = %q, %v, want %q", sql, got, err, want)
			}
		}
		if err := again.QueryRow(t.Context(), "SELECT lastval()", pgx.QueryExecModeSimpleProtocol).Scan(new(int)); err == nil {
			t.Error("lastval() is the last session's")
		}
	})
}

// TestNeverParked: a session with state that no reset removes is ended, and so is a session whose
// client does not leave in good order.
func TestNeverParked(t *testing.T) {
	versions := pgtest.Versions()
	test := func(t *testing.T, major int) {
		t.Parallel()
		pg := pgtest.StartVersion(t, strconv.Itoa(major)).StartAlone(t, map[string]string{"max_prepared_transactions": "5"})
		f, cluster := parking(t, pg, session.Parking{Max: 20}, nil)
		pg.Exec(t, cluster.Database, "GRANT ALL ON SCHEMA public TO PUBLIC; CREATE TABLE shared (x int); GRANT ALL ON shared TO PUBLIC")
		row := func(name string, leave func(conn *pgx.Conn)) {
			t.Helper()
			g := f.grant(pg.Name("never"))
			f.known(g)
			conn := f.connect(g, "")
			leave(conn)
			if n := f.leaves(conn); n != 0 {
				t.Errorf("%s: parked", name)
				for _, s := range f.parkedSessions() {
					f.server.Kill(s.ID)
				}
			}
			pgtest.Eventually(t, name+": the process ends", func() bool { return len(pids(t, pg, g.DBUser)) == 0 })
		}
		for name, sql := range map[string]string{
			"prepared transaction": "SET ROLE NONE; BEGIN; INSERT INTO shared VALUES (1); PREPARE TRANSACTION 'mine'",
			"object":               "SET ROLE NONE; CREATE TABLE mine (x int)",
			"open transaction":     "BEGIN",
			"failed transaction":   "BEGIN; SELECT 1",
		} {
			row(name, func(conn *pgx.Conn) {
				run(t, conn, sql)
				if name == "failed transaction" {
					_, _ = conn.PgConn().Exec(t.Context(), "SELECT 1/0").ReadAll()
				}
			})
		}
		pg.Exec(t, cluster.Database, "ROLLBACK PREPARED 'mine'")
		replicator := f.grant(pg.Login(t, "replicator", "REPLICATION").Name)
		f.known(replicator)
		conn := f.connect(replicator, "")
		run(t, conn, "SELECT pg_create_physical_replication_slot('theirs', true, true)")
		if f.leaves(conn) != 0 {
			t.Error("parked with a replication slot of its own")
		}
		row("no Terminate", func(conn *pgx.Conn) { _ = conn.PgConn().Conn().Close() })
		row("cancelled", func(conn *pgx.Conn) {
			if err := conn.PgConn().CancelRequest(t.Context()); err != nil {
				t.Error(err)
			}
		})
		if pg.Major() >= 18 {
			row("library", func(conn *pgx.Conn) { run(t, conn, "SELECT convert('x', 'EUC_JIS_2004', 'SHIFT_JIS_2004')") })
			return
		}
		pg.Exec(t, cluster.Database, "CREATE FUNCTION c() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler'")
		row("function in C", func(*pgx.Conn) {})
	}
	for _, v := range slices.Compact([]int{versions[0].Major, versions[len(versions)-1].Major}) { // the oldest and the newest report loaded libraries differently
		t.Run(strconv.Itoa(v), func(t *testing.T) { test(t, v) })
	}
}

// TestParkedSessionEnds: a parked session ends together with anything that it depends on.
func TestParkedSessionEnds(t *testing.T) {
	pg := pgtest.Start(t)
	registry := &revocations{}
	f, cluster := parking(t, pg, session.Parking{Max: 20}, func(c *gateway.Config) { c.Revoked = registry.revoked })
	for _, row := range []struct {
		name string
		end  func(g credential.Grant)
	}{
		{"revocation", func(g credential.Grant) {
			registry.set(func(other *credential.Grant) bool { return other.ID == g.ID }, nil)
			f.server.Recheck()
		}},
		{"membership", func(g credential.Grant) { pg.Exec(t, "postgres", "REVOKE "+g.DBUser+` FROM "IAM:`+g.DBUser+`"`) }},
		{"group of the user", func(g credential.Grant) { pg.Exec(t, "postgres", "ALTER ROLE "+g.DBUser+" NOLOGIN") }},
		{"setting of the user", func(g credential.Grant) { pg.Exec(t, "postgres", "ALTER ROLE "+g.DBUser+" SET work_mem = '7MB'") }},
		{"setting of the database", func(credential.Grant) {
			pg.Exec(t, "postgres", "ALTER DATABASE "+pgtest.Quote(cluster.Database)+" SET statement_timeout = '76s'")
		}},
		{"another value of it", func(credential.Grant) {
			pg.Exec(t, "postgres", "ALTER DATABASE "+pgtest.Quote(cluster.Database)+" SET statement_timeout = '77s'")
		}},
		{"kill", func(credential.Grant) { f.server.Kill(f.parkedSessions()[0].ID) }},
		{"kill by user", func(g credential.Grant) {
			f.server.KillWhere(func(s *gateway.Session) bool { return s.DBUser == g.DBUser })
		}},
		{"terminated", func(credential.Grant) {
			pg.Exec(t, "postgres", fmt.Sprintf("SELECT pg_terminate_backend(%d)", f.parkedSessions()[0].PID))
		}},
		{"expiry", func(credential.Grant) { f.ahead.Add(int64(16 * time.Minute)) }},
		{"database dropped", func(credential.Grant) { pg.Exec(t, "postgres", "DROP DATABASE "+pgtest.Quote(cluster.Database)) }},
	} {
		g := f.grant(pg.Name("ends"))
		f.known(g)
		if n := f.leaves(f.connect(g, "")); n != 1 {
			t.Fatalf("%s: %d sessions are parked: %s", row.name, n, f.log)
		}
		pid := int(f.parkedSessions()[0].PID)
		row.end(g)
		f.server.CheckPool()
		pgtest.Eventually(t, row.name+": the session ends", func() bool { return len(f.parkedSessions()) == 0 && !pids(t, pg, g.DBUser)[pid] })
	}
}

// TestParkedSessionEndsWithEachCredential: a parked session was used with several credentials. Once the
// first of them has expired or is revoked, no logon gets it, whether or not a sweep has seen that.
func TestParkedSessionEndsWithEachCredential(t *testing.T) {
	pg := pgtest.Start(t)
	for name, end := range map[string]func(*fixture, *revocations, credential.Grant){
		"expiry": func(f *fixture, _ *revocations, _ credential.Grant) { f.ahead.Add(int64(6 * time.Minute)) },
		"revocation": func(_ *fixture, registry *revocations, first credential.Grant) {
			registry.set(func(other *credential.Grant) bool { return other.ID == first.ID }, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			registry := &revocations{}
			f, _ := parking(t, pg, session.Parking{Max: 20}, func(c *gateway.Config) { c.Revoked = registry.revoked })
			first := f.grant(pg.Name("each"))
			first.NotAfter = first.IssuedAt.Add(5 * time.Minute)
			f.known(first)
			conn := f.connect(first, "")
			pid := pidOf(t, conn)
			for range 2 { // each time with another credential
				if f.leaves(conn) != 1 {
					t.Fatalf("not parked: %s", f.log)
				}
				if conn = f.connect(f.grant(first.DBUser), ""); pidOf(t, conn) != pid {
					t.Fatalf("not reused: %s", f.log)
				}
			}
			if f.leaves(conn) != 1 {
				t.Fatalf("not parked: %s", f.log)
			}
			end(f, registry, first)
			if got := pidOf(t, f.connect(f.grant(first.DBUser), "")); got == pid {
				t.Error("a logon got the session of a credential that is not valid any more")
			}
			pgtest.Eventually(t, "the session ends", func() bool { return !pids(t, pg, first.DBUser)[pid] })
		})
	}
}

// TestParkedSessionThatTheServerEnds: no logon gets a parked session that the server has ended, whether or
// not a check has seen that.
func TestParkedSessionThatTheServerEnds(t *testing.T) {
	pg := pgtest.Start(t)
	f, _ := parking(t, pg, session.Parking{Max: 20}, nil)
	g := f.grant(pg.Name("ended"))
	f.known(g)
	if f.leaves(f.connect(g, "")) != 1 {
		t.Fatalf("not parked: %s", f.log)
	}
	pid := f.parkedSessions()[0].PID
	pg.Exec(t, "postgres", fmt.Sprintf("SELECT pg_terminate_backend(%d)", pid))
	pgtest.Eventually(t, "the process ends", func() bool { return !pids(t, pg, g.DBUser)[int(pid)] })
	if conn, err := f.try(g.LogonName(), f.mint(g), ""); err != nil {
		t.Errorf("logging on = %v", err)
	} else if _, err := conn.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("the session = %v", err)
	}
}

// TestParkedSessionsAreBounded: parked sessions are bounded in number and time.
func TestParkedSessionsAreBounded(t *testing.T) {
	pg := pgtest.Start(t)
	f, cluster := parking(t, pg, session.Parking{Max: 2, Idle: time.Second}, nil)
	for range 3 {
		g := f.grant(pg.Name("bound"))
		f.known(g)
		if n := f.leaves(f.connect(g, "")); n > 2 {
			t.Errorf("%d sessions are parked, of 2", n)
		}
	}
	pgtest.Eventually(t, "they end", func() bool { return len(f.parkedSessions()) == 0 })
	off := *cluster
	off.Parking = session.Parking{}
	f.add(&off)
	g := f.grant(pg.Name("off"))
	f.known(g)
	if n := f.leaves(f.connect(g, "")); n != 0 {
		t.Error("a session is parked that should not be")
	}
	patient := *cluster
	patient.Parking.Idle = 0 // the default
	f.add(&patient)
	f.known(g)
	if n := f.leaves(f.connect(g, "")); n != 1 {
		t.Errorf("%d sessions are parked, want 1: %s", n, f.log)
	}
	if err := f.server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := pids(t, pg, g.DBUser); len(left) != 0 {
		t.Errorf("after Shutdown processes %v are left", left)
	}
}

// TestOldMinorsAreNeverParked: on these versions DISCARD ALL makes a session work as its session
// role, not as its user.
func TestOldMinorsAreNeverParked(t *testing.T) {
	for version, parked := range map[string]bool{
		"13.16": false, "14.11": false, "15.8": false, "16.4 (Debian 16.4-1)": false, "17.0": false, "15.9": false, "": false, "12.20": false,
		"13.18": true, "15.18 (Debian 15.18-1)": true, "17.2": true, "18.4": true,
	} {
		if err := gateway.ResetRefused(version); (err == nil) != parked {
			t.Errorf("%q: %v", version, err)
		}
	}
}

// TestParkingUnderAHostileSearchPath: the owner of a database puts functions with the same names
// as PostgreSQL's first in the search_path. The verification does not call them.
func TestParkingUnderAHostileSearchPath(t *testing.T) {
	pg := pgtest.Start(t)
	f, cluster := parking(t, pg, session.Parking{Max: 20}, nil)
	database := pgtest.Quote(cluster.Database)
	pg.Exec(t, cluster.Database, `CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC; CREATE TABLE evil.called (what text); GRANT ALL ON evil.called TO PUBLIC;
		CREATE FUNCTION evil.equal(text, text) RETURNS bool LANGUAGE plpgsql AS $$BEGIN INSERT INTO evil.called VALUES ('='); RETURN false; END$$;
		CREATE FUNCTION evil.equal(name, text) RETURNS bool LANGUAGE plpgsql AS $$BEGIN INSERT INTO evil.called VALUES ('='); RETURN false; END$$;
		CREATE FUNCTION evil.equal(name, name) RETURNS bool LANGUAGE plpgsql AS $$BEGIN INSERT INTO evil.called VALUES ('='); RETURN false; END$$;
		CREATE FUNCTION evil.equal(oid, oid) RETURNS bool LANGUAGE plpgsql AS $$BEGIN INSERT INTO evil.called VALUES ('='); RETURN false; END$$;
		CREATE OPERATOR evil.= (leftarg = text, rightarg = text, function = evil.equal); CREATE OPERATOR evil.= (leftarg = name, rightarg = text, function = evil.equal);
		CREATE OPERATOR evil.= (leftarg = name, rightarg = name, function = evil.equal); CREATE OPERATOR evil.= (leftarg = oid, rightarg = oid, function = evil.equal);
		CREATE FUNCTION evil.setseed(float8) RETURNS void LANGUAGE plpgsql AS $$BEGIN INSERT INTO evil.called VALUES ('setseed'); END$$;
		CREATE FUNCTION evil.current_setting(text) RETURNS text LANGUAGE plpgsql AS $$BEGIN INSERT INTO evil.called VALUES ('current_setting'); RETURN 'x'; END$$;
		CREATE DOMAIN evil.text AS pg_catalog.text CHECK (false)`)
	pg.Exec(t, "postgres", "ALTER DATABASE "+database+" SET search_path = evil, pg_catalog")
	g := f.grant(pg.Name("evil"))
	f.known(g)
	conn := f.connect(g, "")
	run(t, conn, "PREPARE mine AS SELECT 1")
	if f.leaves(conn) != 1 {
		t.Fatalf("not parked: %s", f.log)
	}
	super := pgtest.Connect(t, pg.Superuser(cluster.Database))
	if n := value[int](t, super, "SELECT count(*)::int FROM evil.called"); n != 0 {
		t.Errorf("%d functions of the owner were called", n)
	}
}

// TestParkedSessionOverTLS: the next session continues the connection to the server where the relay
// stopped.
func TestParkedSessionOverTLS(t *testing.T) {
	dir := t.TempDir()
	authority, err := ca.Open(dir, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	pg := pgtest.Start(t).StartAlone(t, nil)
	var pems [2][]byte
	for i, name := range []string{"server.crt", "server.key"} {
		if pems[i], err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	pg.SecureWith(t, pems[0], pems[1])
	f := newFixture(t, nil)
	config, err := pgx.ParseConfig(strings.Replace(pg.ConnString(pg.Login(t, "root", "SUPERUSER"), "postgres"), "sslmode=disable",
		"sslmode=verify-full&sslrootcert="+authority.CertificateFile(), 1))
	if err != nil {
		t.Fatal(err)
	}
	admin := handover.New(dbuser.Config{Cluster: "examplecluster", Conn: config, Key: [32]byte{1}})
	t.Cleanup(admin.Close)
	f.add(&gateway.Cluster{Identifier: "examplecluster", Database: "postgres", Admin: admin, Upstream: &config.Config, Parking: session.Parking{Max: 1}})
	g := f.grant(pg.Name("tls"))
	f.known(g)
	var pid int
	for i := range 5 {
		conn := f.connect(g, "")
		got := pidOf(t, conn)
		if i > 0 && got != pid {
			t.Errorf("logon %d got process %d, want %d: %s", i, got, pid, f.log)
		}
		if pid = got; len(value[string](t, conn, "SELECT repeat('x', 3000000)")) != 3000000 {
			t.Error("the answer is short")
		}
		if f.leaves(conn) != 1 {
			t.Fatalf("not parked: %s", f.log)
		}
	}
}

// TestParkedSessionMakesWayForCleanUp: a parked session does not delay the hand-over of objects
// that another session of its role has made.
func TestParkedSessionMakesWayForCleanUp(t *testing.T) {
	pg := pgtest.Start(t)
	f, cluster := parking(t, pg, session.Parking{Max: 20}, nil)
	pg.Exec(t, cluster.Database, "GRANT ALL ON SCHEMA public TO PUBLIC")
	g := f.grant(pg.Name("maker"))
	f.known(g)
	first, second := f.connect(g, ""), f.connect(g, "")
	_ = first.Close(context.Background())
	pgtest.Eventually(t, "the first is parked", func() bool { return len(f.parkedSessions()) == 1 })
	run(t, second, "SET ROLE NONE; CREATE TABLE made (x int)")
	if n := f.leaves(second); n != 0 {
		t.Errorf("%d sessions are parked", n)
	}
	super := pgtest.Connect(t, pg.Superuser(cluster.Database))
	pgtest.Eventually(t, "the table is handed over", func() bool {
		return value[string](t, super, "SELECT pg_get_userbyid(relowner)::text FROM pg_class WHERE relname = 'made'") == g.DBUser
	})
}

// TestSuperusersAreNeverParked: the gateway cannot know what a superuser's session leaves
// behind.
func TestSuperusersAreNeverParked(t *testing.T) {
	pg := pgtest.Start(t)
	f, cluster := parking(t, pg, session.Parking{Max: 20}, nil)
	config, err := pgx.ParseConfig(pg.ConnString(pg.Login(t, "root", "SUPERUSER"), "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	admin := handover.New(dbuser.Config{Cluster: "examplecluster", Conn: config, Key: [32]byte{4, 5, 6}, AllowSuperusers: true})
	t.Cleanup(admin.Close)
	other := *cluster
	other.Admin = admin
	f.add(&other)
	g := f.grant(pg.Login(t, "boss", "SUPERUSER").Name)
	f.known(g)
	if n := f.leaves(f.connect(g, "")); n != 0 {
		t.Error("a superuser's session is parked")
	}
}

// TestParkedSessionIsReusedByManyCredentials: a credential may use a parked session any number of
// times; only the number of different credentials is bounded. Settings of the user and of the
// database are no obstacle.
func TestParkedSessionIsReusedByManyCredentials(t *testing.T) {
	pg := pgtest.Start(t)
	f, cluster := parking(t, pg, session.Parking{Max: 20}, nil)
	user := pg.Name("often")
	f.known(f.grant(user))
	pg.Exec(t, "postgres", fmt.Sprintf("ALTER DATABASE %[1]s SET work_mem = '6MB'; ALTER ROLE %[2]s SET work_mem = '7MB'; ALTER ROLE %[2]s IN DATABASE %[1]s SET work_mem = '8MB'",
		pgtest.Quote(cluster.Database), pgtest.Quote(user)))
	f.known(f.grant(user))
	again := func(g credential.Grant) int {
		conn := f.connect(g, "")
		pid := pidOf(t, conn)
		f.leaves(conn)
		return pid
	}
	first := f.grant(user)
	pid := again(first)
	for i := range 60 {
		if got := again(first); got != pid {
			t.Fatalf("the credential's logon %d got another process than before", i+2)
		}
	}
	used := 1 // by f.known
	for ; used < 100 && again(f.grant(user)) == pid; used++ {
	}
	if used < 10 || used > 50 {
		t.Errorf("%d credentials have used one process, want a bound", used)
	}
}
