package postgres_test

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/postgres"
)

func installation(t testing.TB) postgres.Installation {
	t.Helper()
	inst, err := postgres.FindOrFetch(t.Context(), "", postgres.FetchConfig{}, func(line string) { t.Log(line) })
	if err != nil {
		t.Fatalf("%v\ninstall PostgreSQL's server package (Debian and Ubuntu: postgresql; macOS: brew install postgresql@18)", err)
	}
	return inst
}

// openDir returns a directory that PostgreSQL's account can reach. When the tests run as
// root, it cannot reach t.TempDir.
func openDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "daypass-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

func query(t testing.TB, connString, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), connString)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var answer string
	if err := conn.QueryRow(t.Context(), sql).Scan(&answer); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return answer
}

func TestStartAndStop(t *testing.T) {
	s, err := postgres.Start(t.Context(), installation(t), postgres.Options{Settings: map[string]string{"work_mem": "5MB"}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	superuser := s.ConnString(postgres.Superuser, "postgres")
	for _, setting := range []struct{ name, want string }{
		{"work_mem", "5MB"}, {"fsync", "off"}, {"server_encoding", "UTF8"}, {"password_encryption", "scram-sha-256"},
		{"unix_socket_directories", ""}, {"listen_addresses", "127.0.0.1"},
	} {
		if got := query(t, superuser, "SELECT current_setting('"+setting.name+"')"); got != setting.want {
			t.Errorf("%s = %q, want %q", setting.name, got, setting.want)
		}
	}
	if conn, err := pgx.Connect(t.Context(), strings.Replace(superuser, ":", ":x", 2)); err == nil {
		conn.Close(t.Context())
		t.Error("the superuser got in with a wrong password")
	}
	dir := filepath.Dir(s.LogFile())
	if err := s.Stop(); err != nil {
		t.Errorf("Stop() = %v", err)
	}
	if err := s.Stop(); err != nil {
		t.Errorf("second Stop() = %v", err)
	}
	if _, err := net.Dial("tcp", net.JoinHostPort(s.Host(), strconv.Itoa(s.Port()))); err == nil {
		t.Error("something still listens after Stop")
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there after Stop: %v", dir, err)
	}
}

func TestDirectoryKeepsState(t *testing.T) {
	inst, dir := installation(t), filepath.Join(openDir(t), "a b", "server")
	if err := os.MkdirAll(filepath.Dir(dir), 0o711); err != nil {
		t.Fatal(err)
	}
	if _, ok := postgres.DataMajor(dir); ok {
		t.Error("DataMajor says there is data where there is none")
	}
	// The remains of a killed initdb do no harm.
	if err := os.MkdirAll(filepath.Join(dir, "pgdata.new", "base"), 0o700); err != nil {
		t.Fatal(err)
	}
	for run, sql := range []string{"CREATE TABLE kept AS SELECT 'yes'::text AS answer", ""} {
		s, err := postgres.Start(t.Context(), inst, postgres.Options{Dir: dir, Durable: run == 0})
		if err != nil {
			t.Fatalf("run %d: %v", run, err)
		}
		defer s.Stop()
		superuser := s.ConnString(postgres.Superuser, "postgres")
		if sql != "" {
			query(t, superuser, "WITH x AS (SELECT 1) SELECT current_setting('fsync')")
			conn, err := pgx.Connect(t.Context(), superuser)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
			conn.Close(t.Context())
		}
		if got := query(t, superuser, "SELECT answer FROM kept"); got != "yes" {
			t.Errorf("run %d: answer = %q", run, got)
		}
		if run == 0 {
			if other, err := postgres.Start(t.Context(), inst, postgres.Options{Dir: dir}); err == nil {
				other.Stop()
				t.Error("a second server started in the same directory")
			} else if !strings.Contains(err.Error(), "postmaster.pid") {
				t.Errorf("a second server: %v, want an error with the server's own words", err)
			}
		}
		if err := s.Stop(); err != nil {
			t.Errorf("run %d: Stop() = %v", run, err)
		}
	}
	if major, ok := postgres.DataMajor(dir); !ok || major != inst.Major {
		t.Errorf("DataMajor() = %d, %v, want %d", major, ok, inst.Major)
	}
	other := inst
	other.Major++
	if s, err := postgres.Start(t.Context(), other, postgres.Options{Dir: dir}); err == nil {
		s.Stop()
		t.Error("a server of another major version started on the data")
	} else if !strings.Contains(err.Error(), "was made by PostgreSQL") {
		t.Errorf("another major version: %v", err)
	}
}

func TestStartSaysWhyNot(t *testing.T) {
	root := openDir(t)
	t.Setenv("TMPDIR", root)
	_, err := postgres.Start(t.Context(), installation(t), postgres.Options{Settings: map[string]string{"no_such_setting": "1"}})
	if err == nil || !strings.Contains(err.Error(), `unrecognized configuration parameter "no_such_setting"`) {
		t.Errorf("Start with an unknown setting = %v, want the end of the server's log", err)
	}
	if _, err = postgres.Start(t.Context(), postgres.Installation{BinDir: filepath.Join(root, "nowhere")}, postgres.Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Start without programs = %v, want fs.ErrNotExist", err)
	}
	if leftover, err := os.ReadDir(root); err != nil || len(leftover) > 0 {
		t.Errorf("left behind: %v", leftover)
	}
}

// TestStartSweeps leaves directories behind as killed processes do.
func TestStartSweeps(t *testing.T) {
	root := openDir(t)
	t.Setenv("TMPDIR", root)
	old := time.Now().Add(-2 * time.Hour)
	for name, pid := range map[string]string{"dead": "2147483646", "alive": strconv.Itoa(os.Getpid()), "young": "2147483646", "never-started": ""} {
		dir := filepath.Join(root, "daypass-postgres-"+name)
		if err := os.MkdirAll(filepath.Join(dir, "pgdata"), 0o700); err != nil {
			t.Fatal(err)
		}
		if pid != "" {
			if err := os.WriteFile(filepath.Join(dir, "pgdata", "postmaster.pid"), []byte(pid+"\n/tmp\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if name != "young" {
			if err := os.Chtimes(dir, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	s, err := postgres.Start(t.Context(), installation(t), postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	left, err := filepath.Glob(filepath.Join(root, "*"))
	if want := []string{filepath.Join(root, "daypass-postgres-alive"), filepath.Join(root, "daypass-postgres-young")}; err != nil || !slices.Equal(left, want) {
		t.Errorf("left = %v, %v, want %v", left, err, want)
	}
}

func TestStartGivesUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	began := time.Now()
	if s, err := postgres.Start(ctx, installation(t), postgres.Options{}); !errors.Is(err, context.Canceled) {
		if s != nil {
			s.Stop()
		}
		t.Errorf("Start with an ended context = %v, want context.Canceled", err)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("Start with an ended context took %v", took)
	}
}

// TestPortOfAnother: while a server starts, another process takes its port: one that never answers, or
// a server with the same password. The start does not take that one for its own, and does not wait for
// it longer than the server lives.
func TestPortOfAnother(t *testing.T) {
	s, err := postgres.Start(t.Context(), installation(t), postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for name, port := range map[string]int{"silent": silent.Addr().(*net.TCPAddr).Port, "a server": 0} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Awaits(ctx, exec.Command("sleep", "0.2"), port); err == nil || !strings.Contains(err.Error(), "the server ended") {
			t.Errorf("%s: ready = %v, want that the server ended", name, err)
		}
	}
}

// TestStartIgnoresItsSurroundings: a server starts whatever the user has set for other servers.
func TestStartIgnoresItsSurroundings(t *testing.T) {
	for name, value := range map[string]string{"PGHOST": "192.0.2.1", "PGPORT": "1", "PGUSER": "nobody", "PGPASSWORD": "wrong", "PGSSLMODE": "verify-full",
		"PGSSLROOTCERT": "/nonexistent", "PGTARGETSESSIONATTRS": "standby", "PGOPTIONS": "-c nonsense", "PGTZ": "nowhere"} {
		t.Setenv(name, value)
	}
	s, err := postgres.Start(t.Context(), installation(t), postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
}

func TestServerEndsByItself(t *testing.T) {
	s, err := postgres.Start(t.Context(), installation(t), postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	conn, err := pgx.Connect(t.Context(), s.ConnString(postgres.Superuser, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	// A superuser can make the server run a program that ends it.
	_, _ = conn.Exec(t.Context(), `COPY (SELECT 1) TO PROGRAM 'kill -INT $(head -1 "$PWD"/postmaster.pid)'`)
	select {
	case <-s.Done():
	case <-time.After(time.Minute):
		t.Error("Done is not closed though the server ended")
	}
}

// TestTemplate starts servers, two at a time, on copies of one initdb's result.
func TestTemplate(t *testing.T) {
	inst, templates := installation(t), t.TempDir()
	var passwords []string
	for i := range 3 {
		s, err := postgres.Start(t.Context(), inst, postgres.Options{Templates: templates})
		if err != nil {
			t.Fatalf("server %d: %v", i, err)
		}
		defer s.Stop()
		superuser := s.ConnString(postgres.Superuser, "postgres")
		config, err := pgx.ParseConfig(superuser)
		if err != nil {
			t.Fatal(err)
		}
		passwords = append(passwords, config.Password)
		if got := query(t, superuser, "SELECT coalesce(to_regclass('mark')::text, 'new')"); got != "new" {
			t.Errorf("server %d has what another server was told", i)
		}
		conn, err := pgx.Connect(t.Context(), superuser)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		if _, err := conn.Exec(t.Context(), "CREATE TABLE mark ()"); err != nil {
			t.Fatal(err)
		}
	}
	if passwords[0] == "" || passwords[1] != passwords[0] || passwords[2] != passwords[0] {
		t.Error("a later server did not begin with the copy: its superuser has another password")
	}
	left, err := os.ReadDir(templates)
	if err != nil || len(left) != 1 || !strings.HasPrefix(left[0].Name(), inst.Version+"-") {
		t.Errorf("templates: %v, %v, want one of version %s", left, err, inst.Version)
	}
	// A template that cannot be read is an error, not skipped silently.
	if err := os.RemoveAll(filepath.Join(templates, left[0].Name(), "pgdata")); err != nil {
		t.Fatal(err)
	}
	if s, err := postgres.Start(t.Context(), inst, postgres.Options{Templates: templates}); err == nil {
		s.Stop()
		t.Error("a server started on a template without data")
	} else if !strings.Contains(err.Error(), left[0].Name()) {
		t.Errorf("a broken template: %v, want its name", err)
	}
}

func BenchmarkStart(b *testing.B) {
	inst := installation(b)
	for name, templates := range map[string]string{"initdb": "", "template": b.TempDir()} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				s, err := postgres.Start(b.Context(), inst, postgres.Options{Templates: templates})
				if err != nil {
					b.Fatal(err)
				}
				if err := s.Stop(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
