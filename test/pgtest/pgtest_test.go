package pgtest_test

import (
	"errors"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/daypass/daypass/test/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestServerIsShared(t *testing.T) {
	s := pgtest.Start(t)
	newest := pgtest.Versions()[0].Major
	if other := pgtest.StartVersion(t, strconv.Itoa(newest)); other.Major() != newest {
		t.Errorf("StartVersion(%d) = version %d", newest, other.Major())
	}
	if other := pgtest.Start(t); other != s {
		t.Error("a second Start started a second server")
	}
}

func TestAdminOnEveryVersion(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		admin, database := s.Admin(t), s.Database(t)
		if again := s.Admin(t); again != admin || admin.Name != "daypass" {
			t.Errorf("Admin() = %q and %q", admin.Name, again.Name)
		}
		conn := pgtest.Connect(t, s.ConnString(admin, database))
		var super, createRole bool
		err := conn.QueryRow(t.Context(), "SELECT rolsuper, rolcreaterole FROM pg_roles WHERE rolname = current_user").Scan(&super, &createRole)
		if err != nil || super || !createRole {
			t.Errorf("the administrative login: superuser %v, CREATEROLE %v, %v", super, createRole, err)
		}
		if _, err := pgx.Connect(t.Context(), s.ConnString(pgtest.Login{Name: admin.Name, Password: "wrong"}, database)); err == nil {
			t.Error("a wrong password is accepted")
		}
		if a, b := s.Group(t, "readers"), s.Group(t, "readers"); a == b {
			t.Errorf("two groups have one name %q", a)
		}
		var version string
		if err := conn.QueryRow(t.Context(), "SHOW server_version").Scan(&version); err != nil || !strings.HasPrefix(version, strconv.Itoa(s.Major())) {
			t.Errorf("server_version = %q, %v, want major version %d", version, err, s.Major())
		}
	})
}

func TestStartAlone(t *testing.T) {
	s := pgtest.Start(t)
	alone := s.StartAlone(t, map[string]string{"log_statement": "all"})
	alone.Exec(t, "postgres", "SELECT 'said to this server only'")
	if !strings.Contains(alone.Log(t), "said to this server only") || strings.Contains(s.Log(t), "said to this server only") {
		t.Error("the server is not the test's own")
	}
}

func TestPeerPlaysAServer(t *testing.T) {
	peer := pgtest.NewPeer(t, pgtest.Always(
		pgtest.Password(func(password string) error {
			if password != "open sesame" {
				return errors.New("not the password")
			}
			return nil
		}),
		pgtest.Accept("99.1"),
		pgtest.Answer(func(sql string) []pgproto3.BackendMessage {
			return []pgproto3.BackendMessage{
				&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("echo"), DataTypeOID: 25}}},
				&pgproto3.DataRow{Values: [][]byte{[]byte(sql)}},
				&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")},
			}
		}),
	))
	config, err := pgconn.ParseConfig(peer.ConnString("u", "d"))
	if err != nil {
		t.Fatal(err)
	}
	config.Password = "open sesame"
	conn, err := pgconn.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	if got := conn.ParameterStatus("server_version"); got != "99.1" {
		t.Errorf("server_version = %q", got)
	}
	results, err := conn.Exec(t.Context(), "hello").ReadAll()
	if err != nil || string(results[0].Rows[0][0]) != "hello" {
		t.Errorf("the peer's answer: %v, %v", results, err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestPeerBreaksOff(t *testing.T) {
	peer := pgtest.NewPeer(t, pgtest.InTurn(
		pgtest.Script{pgtest.Reset()},
		pgtest.Script{pgtest.Raw([]byte{'R', 0, 0}), pgtest.Do(func() {})},
	))
	for i, want := range []string{"reset", "unexpected EOF", "EOF"} {
		_, err := pgconn.Connect(t.Context(), peer.ConnString("u", "d"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("connection %d: %v, want %q", i, err, want)
		}
	}
}

func TestPeerStaysSilentUntilTheEnd(t *testing.T) {
	peer := pgtest.NewPeer(t, pgtest.Always(pgtest.Silence()))
	conn, err := net.Dial("tcp", peer.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	frontend := pgproto3.NewFrontend(conn, conn)
	frontend.Send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{"user": "u"}})
	if err := frontend.Flush(); err != nil {
		t.Fatal(err)
	}
}

func TestPeerNoticesWhatIsNotInTheScript(t *testing.T) {
	fake := &failures{TB: t}
	peer := pgtest.NewPeer(fake, pgtest.Always(pgtest.Accept("18.0"), pgtest.Expect(&pgproto3.Query{String: "SELECT 1"}), pgtest.EOF()))
	conn, err := pgconn.Connect(t.Context(), peer.ConnString("u", "d"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "SELECT 2").ReadAll(); err == nil {
		t.Error("the peer went on")
	}
	if n := fake.errors.Load(); n != 1 {
		t.Errorf("the test heard of %d errors, want 1", n)
	}
}

// failures counts errors instead of failing.
type failures struct {
	testing.TB
	errors atomic.Int64
}

func (f *failures) Errorf(string, ...any) { f.errors.Add(1) }
