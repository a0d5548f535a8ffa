//go:build unix

package quote_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/daypass/daypass/internal/quote"
)

// told is what a client said at its logon.
type told struct{ user, database, application, password string }

// asking listens as a PostgreSQL server that asks for a password and refuses it.
func asking(t *testing.T) (port string, logons <-chan told) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	all := make(chan told, 1)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			said := ask(conn)
			conn.Close()
			all <- said
		}
	}()
	return strconv.Itoa(listener.Addr().(*net.TCPAddr).Port), all
}

func ask(conn net.Conn) (said told) {
	backend := pgproto3.NewBackend(conn, conn)
	message, err := backend.ReceiveStartupMessage()
	start, ok := message.(*pgproto3.StartupMessage)
	if err != nil || !ok {
		return said
	}
	said = told{user: start.Parameters["user"], database: start.Parameters["database"], application: start.Parameters["application_name"]}
	backend.Send(&pgproto3.AuthenticationCleartextPassword{})
	if backend.Flush() != nil || backend.SetAuthType(pgproto3.AuthTypeCleartextPassword) != nil {
		return said
	}
	if answer, err := backend.Receive(); err == nil {
		if password, ok := answer.(*pgproto3.PasswordMessage); ok {
			said.password = password.Password
		}
	}
	backend.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "28P01", Message: "no"})
	_ = backend.Flush()
	return said
}

// TestLibpqReadsBack passes each format to the real psql, which logs on with the values that it
// parsed, and to the right server.
func TestLibpqReadsBack(t *testing.T) {
	psql, err := exec.LookPath("psql")
	if err != nil {
		t.Skip("NOT TESTED with psql, which is not installed: apt-get install postgresql-client")
	}
	port, logons := asking(t)
	home := t.TempDir()
	run := func(what string, environ []string, name string, args ...string) told {
		cmd := exec.Command(name, args...)
		cmd.Env = slices.Concat([]string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "PGCONNECT_TIMEOUT=60", "LC_ALL=C"}, environ)
		out, err := cmd.CombinedOutput()
		if err == nil {
			t.Errorf("%s: psql logged on", what)
		}
		select {
		case said := <-logons:
			return said
		case <-time.After(time.Minute):
			t.Errorf("%s: psql did not come: %s", what, out)
			return told{}
		}
	}
	must := func(quoted string, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		return quoted
	}
	// libpq treats an empty name as missing, and PostgreSQL cannot store a NUL byte.
	values := slices.DeleteFunc(slices.Clone(nasty), func(v string) bool { return v == "" || strings.Contains(v, "\x00") })
	for len(values)%4 != 0 {
		values = append(values, "plain")
	}
	for four := range slices.Chunk(values, 4) {
		want := told{four[0], four[1], four[2], four[3]}
		each := func(quoted func(string) (string, error)) (user, database, application, password string) {
			return must(quoted(four[0])), must(quoted(four[1])), must(quoted(four[2])), must(quoted(four[3]))
		}
		check := func(format string, got told) {
			if got != want {
				t.Errorf("%s: libpq reads %+q, want %+q", format, got, want)
			}
		}
		user, database, application, password := each(quote.Conninfo)
		check("dsn", run("dsn", nil, psql, "-w", "host=127.0.0.1 port="+port+" sslmode=disable user="+user+" dbname="+database+" password="+password+" application_name="+application))
		user, database, application, password = each(quote.URI)
		check("uri", run("uri", nil, psql, "-w", "postgresql://"+user+":"+password+"@127.0.0.1:"+port+"/"+database+"?sslmode=disable&application_name="+application))
		user, database, application, password = each(func(v string) (string, error) { return quote.Shell(v) })
		check("env", run("env", nil, "sh", "-c", "export PGHOST=127.0.0.1 PGPORT="+port+" PGSSLMODE=disable PGUSER="+user+" PGDATABASE="+database+" PGPASSWORD="+password+" PGAPPNAME="+application+"\npsql -w"))
		line, err := quote.PassFile("127.0.0.1", port, want.database, want.user, want.password)
		if err != nil {
			continue
		}
		file := filepath.Join(home, "pgpass")
		if err := os.WriteFile(file, []byte("*:*:*:other:wrong\n"+line+"\n*:*:*:*:wrong\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		check("pgpass", run("pgpass", []string{"PGPASSFILE=" + file, "PGHOST=127.0.0.1", "PGPORT=" + port, "PGUSER=" + want.user, "PGDATABASE=" + want.database,
			"PGSSLMODE=disable", "PGAPPNAME=" + want.application}, psql, "-w"))
	}
}
