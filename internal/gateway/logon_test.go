package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/test/pgtest"
)

func TestLogon(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, pg *pgtest.Server) {
		f := newFixture(t, nil)
		cluster := f.real(pg)
		alice, group := pg.Name("alice"), pg.Name("analysts")
		pg.Exec(t, "postgres", "CREATE ROLE "+pgtest.Quote(group)+" NOLOGIN")

		plain := f.connect(f.grant(alice), "")
		if got := value[string](t, plain, "SELECT current_user"); got != alice {
			t.Errorf("current_user = %q, want %q", got, alice)
		}
		if got := value[string](t, plain, "SELECT session_user"); got != "IAM:"+alice {
			t.Errorf("session_user = %q, want IAM:%s", got, alice)
		}
		if got := value[string](t, plain, "SELECT current_database()"); got != cluster.Database {
			t.Errorf("database = %q, want the cluster's default %q", got, cluster.Database)
		}
		if got := value[string](t, plain, "SELECT $1::text || 'x'", "y"); got != "yx" {
			t.Errorf("a query with a parameter = %q, want yx", got)
		}

		lent := f.connect(f.grant(alice, group), "postgres")
		if !value[bool](t, lent, "SELECT pg_has_role($1, 'USAGE')", group) {
			t.Error("the session lacks its group")
		}
		if value[bool](t, plain, "SELECT pg_has_role($1, 'USAGE')", group) {
			t.Error("a group leaks into another session of the user")
		}
		if pg.Major() >= 14 {
			if got := value[string](t, plain, "SHOW client_connection_check_interval"); got != "5s" {
				t.Errorf("client_connection_check_interval = %s, want 5s", got)
			}
		}
		if got, want := plain.PgConn().PID(), value[int](t, plain, "SELECT pg_backend_pid()"); got != uint32(want) {
			t.Errorf("process id = %d, want the server's %d", got, want)
		}

		record := f.audit.lastLogon(t)
		if record.SQLState != "" || record.DBUser != alice || record.Principal != principal || record.TLS == nil ||
			record.SessionRole != "IAM:"+alice+":"+group || record.CredentialID == "" || record.Cluster != "examplecluster" ||
			record.ProcessID != lent.PgConn().PID() {
			t.Errorf("record of the logon = %+v", record)
		}
		if err := lent.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		end := f.audit.end(t, record.SessionID)
		if end.Reason != "client closed" || end.BytesFromClient == 0 || end.BytesToClient == 0 || end.CredentialID != record.CredentialID ||
			end.ProcessID != record.ProcessID {
			t.Errorf("record of the session's end = %+v", end)
		}
	})
}

// TestLongName logs on as the guide shows it, with the groups in the name.
func TestLongName(t *testing.T) {
	f := newFixture(t, nil)
	pg := pgtest.Start(t)
	f.real(pg)
	alice, a, b := pg.Name("alice"), pg.Name("a"), pg.Name("b")
	pg.Exec(t, "postgres", "CREATE ROLE "+a+" NOLOGIN; CREATE ROLE "+b+" NOLOGIN")
	g := f.grant(alice, a, b)
	password := f.mint(g)
	if _, err := f.try("IAMA:"+alice+":"+a+":"+b, password, ""); err != nil {
		t.Errorf("the long name with the groups of the credential: %v", err)
	}
	for _, user := range []string{"IAMA:" + alice + ":" + a, "IAMA:" + alice + ":" + b + ":" + a, "IAM:" + alice, alice, "IAMA:" + alice + ":", "IAMA:" + strings.ToUpper(alice)} {
		_, err := f.try(user, password, "")
		f.refused(err, "28000", fmt.Sprintf("IAM authentication failed for user \"%s\"", user))
	}
}

// TestForgeries changes one part of a valid credential in each row. All answers must be the
// same.
func TestForgeries(t *testing.T) {
	f := newFixture(t, func(c *gateway.Config) { c.Limits.FailureDelay, c.Limits.FailureDelayMax = 1, 1 })
	f.real(pgtest.Start(t))
	g := f.grant("mallory")
	good := f.mint(g)
	if _, err := f.try(g.LogonName(), good, "", "sslmode", "disable"); err != nil {
		t.Fatal(err)
	}

	type forgery struct{ name, user, password string }
	var table []forgery
	for i := range len(good) {
		c := byte('A')
		if good[i] == c {
			c = 'B'
		}
		table = append(table, forgery{fmt.Sprintf("character %d changed", i), "", good[:i] + string(c) + good[i+1:]})
		table = append(table, forgery{fmt.Sprintf("character %d left out", i), "", good[:i] + good[i+1:]})
	}
	alphabet := "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for _, c := range alphabet { // includes letters that differ only in unused bits
		if last := good[:len(good)-1] + string(c); last != good {
			table = append(table, forgery{"last character " + string(c), "", last})
		}
	}
	other := f.grant("mallory")
	other.DBUser = "admin"
	stranger, err := credential.Mint(newKeys(), g)
	if err != nil {
		t.Fatal(err)
	}
	table = append(table,
		forgery{"padding", "", good + "="},
		forgery{"line feed", "", good + "\n"},
		forgery{"carriage return", "", good + "\r\n"},
		forgery{"line feed inside", "", good[:40] + "\n" + good[40:]},
		forgery{"space before", "", " " + good},
		forgery{"space after", "", good + " "},
		forgery{"twice", "", good + good},
		forgery{"upper case", "", strings.ToUpper(good)},
		forgery{"standard alphabet", "", good + "+/"},
		forgery{"not UTF-8", "", good + "\xff"},
		forgery{"empty", "", ""},
		forgery{"a password", "", "swordfish"},
		forgery{"long", "", strings.Repeat("A", 4096)},
		forgery{"longer than is read", "", strings.Repeat("A", 5000)},
		forgery{"signed by a stranger", "", stranger.Reveal()},
		forgery{"of another user", "", f.mint(other)},
		forgery{"user without prefix", "mallory", good},
		forgery{"other user", "IAMA:alice", good},
		forgery{"user without AutoCreate", "IAM:mallory", good},
		forgery{"superuser", "postgres", good},
	)
	want := ""
	for _, row := range table {
		user := row.user
		if user == "" {
			user = g.LogonName()
		}
		c := f.dial()
		c.send(startup(version30, "user", user, "database", "postgres"))
		if got := c.read(len(askPassword)); got != string(askPassword) {
			t.Fatalf("%s: asked for %q", row.name, got)
		}
		c.send(passwordMessage(row.password))
		answer := c.rest()
		if expect := strings.ReplaceAll(answer, user, g.LogonName()); row.user != "" {
			answer = expect[5:] // without the length
		} else if len(answer) > 5 {
			answer = answer[5:]
		}
		if want == "" {
			want = answer
			fields := errorFields([]byte(answer))
			if fields['C'] != "28000" || fields['M'] != `IAM authentication failed for user "IAMA:mallory"` || fields['S'] != "FATAL" || !strings.Contains(fields['H'], "the whole DbPassword") {
				t.Fatalf("%s: answer %q", row.name, answer)
			}
		}
		if answer != want {
			t.Errorf("%s: answer %q, want %q", row.name, answer, want)
		}
		if record := f.audit.lastLogon(t); record.SQLState != "28000" || record.Reason == "" || record.Reason == record.Message || record.ProcessID != 0 {
			t.Errorf("%s: record %+v", row.name, record)
		}
		c.Close()
	}
	if logons, _ := f.audit.count(); logons != len(table)+1 {
		t.Errorf("%d records of logons, want one for each of %d", logons, len(table)+1)
	}
	if log := f.log.String(); strings.Contains(log, good) || strings.Contains(log, "swordfish") {
		t.Error("a password is in the log")
	}
}

// TestTruth: the holder of a signed credential is told the real cause of a refusal.
func TestTruth(t *testing.T) {
	f := newFixture(t, nil)
	pg := pgtest.Start(t)
	f.real(pg)
	user := pg.Name("bob")
	pg.Exec(t, "postgres", "CREATE ROLE "+user+" LOGIN; CREATE ROLE "+user+"_nologin NOLOGIN; CREATE ROLE "+user+"_super SUPERUSER LOGIN")
	longDatabase := (pg.Name("db") + strings.Repeat("d", 63))[:63] // PostgreSQL would truncate a longer name to this one
	pg.Exec(t, "postgres", "CREATE DATABASE "+longDatabase)

	config, err := pgx.ParseConfig("postgres://x@127.0.0.1:1/x?sslmode=disable&connect_timeout=2")
	if err != nil {
		t.Fatal(err)
	}
	f.add(&gateway.Cluster{Identifier: "down", Database: "dev", Admin: &fakeAdmin{}, Upstream: &config.Config})
	f.add(&gateway.Cluster{Identifier: "admin-down", Database: "dev", Upstream: &config.Config,
		Admin: handover.New(dbuser.Config{Cluster: "admin-down", Conn: config})})

	hints := map[string]string{ // what to do about it
		"expired": "Ask for a new one", "no such user": "AutoCreate", "wrong database": "without a DbName",
		"no such group": "without this group", "group is a user": "NOLOGIN",
	}
	for _, test := range []struct {
		name     string
		change   func(*credential.Grant)
		ahead    time.Duration
		database string
		state    string
		message  string
	}{
		{"good", func(g *credential.Grant) {}, 0, "", "", ""},
		{"expired", func(g *credential.Grant) {}, time.Hour, "", "28000", "IAM Authentication token has expired"},
		{"expired this second", func(g *credential.Grant) { g.NotAfter = g.IssuedAt.Add(time.Minute) }, time.Minute, "", "28000", "IAM Authentication token has expired"},
		{"not yet valid", func(g *credential.Grant) {}, -time.Hour, "", "28000", "not valid yet"},
		{"wrong database", func(g *credential.Grant) { g.Database = "postgres" }, 0, "template1", "28000", `the credential is for database "postgres", not for "template1"`},
		{"database in another case", func(g *credential.Grant) { g.Database = "postgres" }, 0, "Postgres", "28000", "the credential is for database"},
		{"database of the credential", func(g *credential.Grant) { g.Database = "postgres" }, 0, "", "", ""},
		{"no such database", func(g *credential.Grant) {}, 0, "nowhere", "3D000", `database "nowhere" does not exist`},
		{"no such user", func(g *credential.Grant) { g.DBUser, g.AutoCreate = user+"x", false }, 0, "", "28000", user + "x"},
		{"user is a superuser", func(g *credential.Grant) { g.DBUser = user + "_super" }, 0, "", "42501", user + "_super"},
		{"user cannot log in", func(g *credential.Grant) { g.DBUser = user + "_nologin" }, 0, "", "28000", user + "_nologin"},
		{"no such group", func(g *credential.Grant) { g.DBGroups = []string{"no_such_group"} }, 0, "", "42704", "no_such_group"},
		{"group is a user", func(g *credential.Grant) { g.DBGroups = []string{user} }, 0, "", "42809", user},
		{"predefined group", func(g *credential.Grant) { g.DBGroups = []string{"pg_read_all_data"} }, 0, "", "42501", "pg_read_all_data"},
		{"user name too long", func(g *credential.Grant) { g.DBUser = strings.Repeat("u", 64) }, 0, "", "42622", "64 bytes"},
		{"group name too long", func(g *credential.Grant) { g.DBGroups = []string{strings.Repeat("g", 64)} }, 0, "", "42622", "64 bytes"},
		{"database name too long", func(g *credential.Grant) { g.Database = longDatabase + "d" }, 0, "", "42622", "64 bytes"},
		{"database name too long, asked for", func(g *credential.Grant) {}, 0, longDatabase + "d", "42622", "64 bytes"},
		{"cluster not served", func(g *credential.Grant) { g.Cluster = "elsewhere" }, 0, "", "08004", `cluster "elsewhere" is not served here`},
		{"cluster down", func(g *credential.Grant) { g.Cluster = "down" }, 0, "", "08001", `cluster "down" cannot be reached`},
		{"cluster down for the administrator", func(g *credential.Grant) { g.Cluster = "admin-down" }, 0, "", "08001", `cluster "admin-down" cannot be reached`},
	} {
		t.Run(test.name, func(t *testing.T) {
			f.t = t
			f.ahead.Store(0)
			g := f.grant(user)
			test.change(&g)
			password := f.mint(g)
			f.ahead.Store(int64(test.ahead))
			conn, err := f.try(g.LogonName(), password, test.database)
			if test.state == "" {
				if err != nil {
					t.Fatal(err)
				}
				if want := g.Database; want != "" && value[string](t, conn, "SELECT current_database()") != want {
					t.Error("not in the database of the credential")
				}
				return
			}
			if hint := f.refused(err, test.state, test.message).Hint; !strings.Contains(hint, hints[test.name]) {
				t.Errorf("hint %q, want %q in it", hint, hints[test.name])
			}
			record := f.audit.lastLogon(t)
			if record.SQLState != test.state || record.CredentialID != g.ID || record.Reason == "" {
				t.Errorf("record = %+v", record)
			}
		})
	}
	f.t = t
	f.ahead.Store(0)

	// Even with an expired credential, a holder learns nothing about another user.
	g := f.grant(user)
	password := f.mint(g)
	f.ahead.Store(int64(time.Hour))
	_, err = f.try("IAM:somebody", password, "")
	f.refused(err, "28000", "IAM authentication failed for user")
}

// TestDatabaseOfLibpq: libpq sends the user name when it is given no database.
func TestDatabaseOfLibpq(t *testing.T) {
	f := newFixture(t, nil)
	pg := pgtest.Start(t)
	cluster := f.real(pg)
	g := f.grant(pg.Name("carol"))
	if got := value[string](t, f.connect(g, g.LogonName()), "SELECT current_database()"); got != cluster.Database {
		t.Errorf("database = %q, want the default %q", got, cluster.Database)
	}
	g.Database = "template1"
	if got := value[string](t, f.connect(g, g.LogonName()), "SELECT current_database()"); got != "template1" {
		t.Errorf("database = %q, want the credential's", got)
	}
}

// TestHeal: the holder of a session role changed its password.
func TestHeal(t *testing.T) {
	f := newFixture(t, nil)
	pg := pgtest.Start(t)
	f.real(pg)
	g := f.grant(pg.Name("dave"))
	conn := f.connect(g, "postgres")
	role := value[string](t, conn, "SELECT session_user")
	pg.Exec(t, "postgres", "ALTER ROLE "+pgtest.Quote(role)+" PASSWORD 'mine'")
	if got := value[string](t, f.connect(g, "postgres"), "SELECT session_user"); got != role {
		t.Errorf("session_user = %q, want %q", got, role)
	}
	if !strings.Contains(f.log.String(), "password set again") {
		t.Error("the log does not say that the password was set again")
	}
}

// TestAuditUnwritable: a logon fails if its record cannot be written.
func TestAuditUnwritable(t *testing.T) {
	f := newFixture(t, nil)
	pg := pgtest.Start(t)
	f.real(pg)
	g := f.grant(pg.Name("erin"))
	password := f.mint(g)
	f.audit.setBroken(errors.New("no space left on device"))
	_, err := f.try(g.LogonName(), password, "")
	pgErr := f.refused(err, "58030", "audit record could not be written")
	if strings.Contains(fmt.Sprint(pgErr), "no space left") {
		t.Error("the client is told about the disk")
	}
	if n := len(f.server.Sessions()); n != 0 {
		t.Errorf("%d sessions, want none", n)
	}
	pgtest.Eventually(t, "the upstream session ends", func() bool {
		conn := pgtest.Connect(t, pg.Superuser("postgres"))
		return value[int](t, conn, "SELECT count(*) FROM pg_stat_activity WHERE usename = $1", "IAM:"+g.DBUser) == 0
	})
	f.audit.setBroken(nil)
	if _, err := f.try(g.LogonName(), password, ""); err != nil {
		t.Errorf("after the disk has room again: %v", err)
	}
}

// TestPlaintext: a password may travel in the clear only within one machine.
func TestPlaintext(t *testing.T) {
	f := newFixture(t, nil)
	f.real(pgtest.Start(t))
	addr := f.serve(elsewhere{listen(t)})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := &client{conn, t}
	c.send(startup(version30, "user", "IAM:alice"))
	fields := c.fatal()
	if fields['C'] != "28000" || !strings.Contains(fields['M'], "TLS is required") {
		t.Errorf("answer %q", fields)
	}
	if logons, _ := f.audit.count(); logons != 0 {
		t.Error("a connection without a password was recorded as a logon")
	}
}

// elsewhere returns a listener whose clients appear to come from another machine.
type elsewhere struct{ net.Listener }

func (l elsewhere) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return remote{conn}, err
}

type remote struct{ net.Conn }

func (remote) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 40000} }

func TestPsql(t *testing.T) {
	program, err := exec.LookPath("psql")
	if err != nil {
		t.Skip("NOT TESTED with psql, which is not installed: apt-get install postgresql-client")
	}
	f := newFixture(t, nil)
	pg := pgtest.Start(t)
	f.real(pg)
	g := f.grant(pg.Name("frank"))
	run := func(password, sslmode, sql string) (string, error) {
		cmd := exec.Command(program, "-XAtw", "-v", "ON_ERROR_STOP=1", "-c", sql)
		cmd.Env = append(os.Environ(), "PGHOST=localhost", "PGPORT="+f.port, "PGUSER="+g.LogonName(), "PGPASSWORD="+password,
			"PGSSLMODE="+sslmode, "PGSSLROOTCERT="+f.ca.CertificateFile(), "PGOPTIONS=-c statement_timeout=12345 -c search_path=a,\\ b")
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	password := f.mint(g)
	for _, sslmode := range []string{"verify-full", "verify-ca", "require", "prefer", "disable"} {
		got, err := run(password, sslmode, "SELECT current_user || ' ' || current_setting('statement_timeout') || ' ' || current_setting('search_path')")
		if want := g.DBUser + " 12345ms a, b"; err != nil || got != want {
			t.Errorf("psql with sslmode=%s printed %q, %v, want %q", sslmode, got, err, want)
		}
	}
	if got, err := run(password[:len(password)-2], "require", "SELECT 1"); err == nil || !strings.Contains(got, `FATAL:  IAM authentication failed for user "IAMA:frank`) {
		t.Errorf("psql with half a password printed %q, %v", got, err)
	}
	// psql connects without a password first, to find out whether one is asked for.
	before, _ := f.audit.count()
	if got, err := run("", "require", "SELECT 1"); err == nil || !strings.Contains(got, "no password supplied") {
		t.Errorf("psql without a password printed %q, %v", got, err)
	}
	if after, _ := f.audit.count(); after != before {
		t.Error("leaving before the password was recorded as a logon")
	}
}
