// Package pgtest gives tests a real PostgreSQL server, and a scripted peer for behaviour that a real
// server does not show.
//
// A test package calls Main from its TestMain. The first call of Start starts one server per version
// and test binary, with durability off. All tests of the binary share it, and Main stops it after
// them. A server runs as an unprivileged account and asks for SCRAM-SHA-256 passwords over TCP. Its
// superuser is postgres.Superuser. Tests use their own databases and roles (Database, Login, Group),
// so that they do not disturb each other. A test that changes something for all sessions of a server
// starts a server of its own (StartAlone).
//
// Servers are found in PATH and the usual directories, in the directories that DAYPASS_TEST_POSTGRES
// lists in the format of PATH (directories of programs, or one or two levels above), and in the
// repository's .cache/postgres, where scripts/fetch-postgres puts them. If there are none, they are
// downloaded, as `daypass dev` does. Tests are never skipped: without a server they fail, and say
// what to install. DAYPASS_TEST_POSTGRES_MAJORS is a comma-separated list of the major versions that
// Each runs, and of the minor versions that EachMinor must run. A missing one fails the test. If the
// variable is not set, they run the available versions and report the missing ones.
package pgtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/postgres"
	"github.com/daypass/daypass/test/envtest"
)

// NewestMajor is the newest major version that the tests are expected to know.
const NewestMajor = 18

// AdminName is the name of Server.Admin's login.
const AdminName = "daypass"

// servers is shared by the tests of this binary. It is a package variable because TestMain has no
// other way to pass it to the tests.
var servers shared

type shared struct {
	mu        sync.Mutex // guards the other fields
	ready     bool       // Main is running
	found     []postgres.Installation
	looked    bool
	problem   error              // why nothing was found
	byVersion map[string]*Server // by Installation.BinDir
	alone     map[*Server]bool
}

// Main runs the tests of a package and then stops the servers that they started, even if the tests
// fail or are interrupted. The tests do not see the caller's settings for clients of PostgreSQL. It
// does not return. Call it from func TestMain(m *testing.M).
func Main(m *testing.M) {
	envtest.Clear()
	servers.mu.Lock()
	servers.ready = true
	servers.byVersion = make(map[string]*Server)
	servers.alone = make(map[*Server]bool)
	servers.mu.Unlock()

	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupted
		servers.stopAll(os.Stderr)
		os.Exit(130)
	}()
	code := m.Run()
	if !servers.stopAll(os.Stderr) && code == 0 {
		code = 1
	}
	os.Exit(code)
}

func (s *shared) stopAll(out io.Writer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready = false
	ok := true
	for _, server := range s.byVersion {
		if err := server.postgres.Stop(); err != nil {
			fmt.Fprintln(out, "pgtest: stopping PostgreSQL:", err)
			ok = false
		}
	}
	for server := range s.alone {
		_ = server.postgres.Stop() // its test was interrupted
	}
	return ok
}

// installations returns the newest installation of each major version, newest
// first.
func (s *shared) installations() []postgres.Installation {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.looked {
		return s.found
	}
	s.looked = true
	dirs := filepath.SplitList(os.Getenv("DAYPASS_TEST_POSTGRES"))
	if root, ok := repositoryRoot(); ok {
		dirs = append(dirs, fetched(root, "postgres"))
	}
	all := append(postgres.All(dirs...), postgres.Installed()...)
	slices.SortStableFunc(all, func(a, b postgres.Installation) int { return b.Major - a.Major })
	// Within a major version, installations in the listed directories come before the machine's.
	s.found = slices.CompactFunc(all, func(a, b postgres.Installation) bool { return a.Major == b.Major })
	if majors := demandedMajors(); len(majors) > 0 {
		s.found = slices.DeleteFunc(s.found, func(i postgres.Installation) bool { return !slices.Contains(majors, strconv.Itoa(i.Major)) })
	}
	if len(s.found) == 0 {
		var inst postgres.Installation
		if inst, s.problem = Installation(); s.problem == nil {
			s.found = append(s.found, inst)
		}
	}
	return s.found
}

// demandedMajors returns the major versions in DAYPASS_TEST_POSTGRES_MAJORS.
func demandedMajors() (majors []string) {
	for version := range strings.SplitSeq(os.Getenv("DAYPASS_TEST_POSTGRES_MAJORS"), ",") {
		if version = strings.TrimSpace(version); version != "" && !strings.Contains(version, ".") {
			majors = append(majors, version)
		}
	}
	return majors
}

// repositoryRoot returns the nearest directory above the test's that has a go.mod.
func repositoryRoot() (string, bool) {
	dir, err := os.Getwd()
	if err != nil {
		return "", false
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, true
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", false
		}
		dir = parent
	}
}

// Installation returns the PostgreSQL that is installed on the machine, or a downloaded one if
// there is none. It is for tests that start a server themselves.
func Installation() (postgres.Installation, error) {
	return postgres.FindOrFetch(context.Background(), "", postgres.FetchConfig{}, func(line string) { fmt.Fprintln(os.Stderr, line) })
}

// Templates returns the directory of the template data directories. The servers of tests start
// from a copy of one, so initdb runs once per installation and not once per server.
func Templates() string {
	root, ok := repositoryRoot()
	if !ok {
		return ""
	}
	return filepath.Join(root, ".cache", "pgtest")
}

// Versions returns the installations that tests can use, one of each major
// version, newest first.
func Versions() []postgres.Installation { return slices.Clone(servers.installations()) }

// Server is a running PostgreSQL server. It is safe for concurrent use.
type Server struct {
	Installation postgres.Installation
	postgres     *postgres.Server

	mu    sync.Mutex // guards names
	names int
	admin *Login
}

// Login is a role that can log on.
type Login struct {
	Name, Password string
}

// Start returns the shared server of the version that is installed on the machine, or of the newest
// available version.
func Start(t testing.TB) *Server {
	t.Helper()
	inst, err := postgres.Find("")
	if err != nil {
		found := servers.installations()
		if len(found) == 0 {
			t.Fatalf("%v\n%v\n%s", err, servers.problem, howToGet(""))
		}
		inst = found[0]
	}
	return start(t, inst)
}

// StartVersion returns the shared server of a major version, such as "18". The test fails if
// that version is not installed.
func StartVersion(t testing.TB, major string) *Server {
	t.Helper()
	for _, inst := range servers.installations() {
		if strconv.Itoa(inst.Major) == major {
			return start(t, inst)
		}
	}
	t.Fatalf("no PostgreSQL %s found: %s", major, howToGet(major))
	return nil
}

// Each runs a subtest for every available major version from postgres.OldestMajor to NewestMajor,
// with its shared server. It reports missing versions, and fails for those that
// DAYPASS_TEST_POSTGRES_MAJORS demands.
func Each(t *testing.T, test func(t *testing.T, s *Server)) {
	t.Helper()
	have := make(map[string]bool)
	for _, inst := range servers.installations() {
		have[strconv.Itoa(inst.Major)] = true
		on(t, inst, test)
	}
	demanded := demandedMajors()
	if len(have) == 0 && len(demanded) == 0 {
		t.Fatalf("no PostgreSQL found\n%v\n%s", servers.problem, howToGet(""))
	}
	for major := postgres.OldestMajor; major <= NewestMajor; major++ {
		if !have[strconv.Itoa(major)] && len(demanded) == 0 {
			t.Logf("not tested with PostgreSQL %d, which is not here: %s", major, howToGet(strconv.Itoa(major)))
		}
	}
	for _, major := range demanded {
		if !have[major] {
			t.Errorf("DAYPASS_TEST_POSTGRES_MAJORS demands PostgreSQL %s, which is not here: %s", major, howToGet(major))
		}
	}
}

// Ends runs a subtest for the oldest and the newest of the versions that Each uses. It is for tests
// of features that work the same in all versions, as the tests' comments say.
func Ends(t *testing.T, test func(t *testing.T, s *Server)) {
	t.Helper()
	found := servers.installations()
	if len(found) == 0 {
		t.Fatalf("no PostgreSQL found\n%v\n%s", servers.problem, howToGet(""))
	}
	on(t, found[0], test)
	if last := len(found) - 1; last > 0 {
		on(t, found[last], test)
	}
}

// on runs a subtest with the shared server of an installation.
func on(t *testing.T, inst postgres.Installation, test func(t *testing.T, s *Server)) {
	t.Helper()
	t.Run("PostgreSQL"+strconv.Itoa(inst.Major), func(t *testing.T) { test(t, start(t, inst)) })
}

// EachMinor runs a subtest for each of the minor versions, such as "15.9", with a server that stops
// at its end. These are old versions that behave differently from the newest of their major
// version. It finds them only in the repository's .cache/postgres-minors, where
// scripts/fetch-postgres puts them. It reports missing versions, and fails for those that
// DAYPASS_TEST_POSTGRES_MAJORS demands.
func EachMinor(t *testing.T, test func(t *testing.T, s *Server), minors ...string) {
	t.Helper()
	root, _ := repositoryRoot()
	for _, minor := range minors {
		inst, err := postgres.Find(filepath.Join(fetched(root, "postgres-minors"), minor))
		switch {
		case err == nil:
			t.Run("PostgreSQL"+minor, func(t *testing.T) {
				test(t, (&Server{Installation: inst}).StartAlone(t, nil))
			})
		case slices.Contains(strings.Split(os.Getenv("DAYPASS_TEST_POSTGRES_MAJORS"), ","), minor):
			t.Errorf("DAYPASS_TEST_POSTGRES_MAJORS demands PostgreSQL %s, which is not here: run scripts/fetch-postgres %s", minor, minor)
		default:
			t.Logf("not tested with PostgreSQL %s, which is not here: run scripts/fetch-postgres %s", minor, minor)
		}
	}
}

// fetched returns a directory that scripts/fetch-postgres keeps. If only root may enter its parent
// directories, it is a link, which PostgreSQL's account cannot follow.
func fetched(root, name string) string {
	dir := filepath.Join(root, ".cache", name)
	if to, err := filepath.EvalSymlinks(dir); err == nil {
		return to
	}
	return dir
}

func howToGet(major string) string {
	return strings.TrimSpace("install PostgreSQL's server package (Debian and Ubuntu: postgresql; macOS: brew install postgresql@18), " +
		"list its directory in DAYPASS_TEST_POSTGRES, or run scripts/fetch-postgres " + major)
}

// StartAlone starts a server for this test only, of the same version as s and with additional
// settings. The server stops when the test ends.
func (s *Server) StartAlone(t testing.TB, settings map[string]string) *Server {
	t.Helper()
	alone, err := launch(s.Installation, settings)
	if err != nil {
		t.Fatal(err)
	}
	servers.mu.Lock()
	servers.alone[alone] = true
	servers.mu.Unlock()
	t.Cleanup(func() {
		servers.mu.Lock()
		delete(servers.alone, alone)
		servers.mu.Unlock()
		if err := alone.postgres.Stop(); err != nil {
			t.Errorf("stopping PostgreSQL: %v", err)
		}
	})
	return alone
}

func start(t testing.TB, inst postgres.Installation) *Server {
	t.Helper()
	servers.mu.Lock()
	defer servers.mu.Unlock()
	if !servers.ready {
		t.Fatal("the package's TestMain does not call pgtest.Main")
	}
	if s := servers.byVersion[inst.BinDir]; s != nil {
		return s
	}
	s, err := launch(inst, nil)
	if err != nil {
		t.Fatal(err)
	}
	servers.byVersion[inst.BinDir] = s
	return s
}

func launch(inst postgres.Installation, settings map[string]string) (*Server, error) {
	// Backends of tests use little memory, and page faults are expensive on some machines.
	all := map[string]string{"shared_buffers": "16MB"}
	maps.Copy(all, settings)
	// Not the test's context: the server outlives the test that starts it.
	p, err := postgres.Start(context.Background(), inst, postgres.Options{Settings: all, Root: Root(), Templates: Templates()})
	if err != nil {
		return nil, err
	}
	if err := quicken(context.Background(), p); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return &Server{Installation: inst, postgres: p}, nil
}

// Host returns the address that the server listens on.
func (s *Server) Host() string { return s.postgres.Host() }

// Port returns the port that the server listens on.
func (s *Server) Port() int { return s.postgres.Port() }

// Major returns the server's major version.
func (s *Server) Major() int { return s.Installation.Major }

// Log returns what the server has logged so far.
func (s *Server) Log(t testing.TB) string {
	t.Helper()
	log, err := os.ReadFile(s.postgres.LogFile())
	if err != nil {
		t.Fatal(err)
	}
	return string(log)
}

// Superuser returns the URL of a database for the superuser.
func (s *Server) Superuser(database string) string {
	return s.postgres.ConnString(postgres.Superuser, database)
}

// ConnString returns the URL of a database for a login.
func (s *Server) ConnString(login Login, database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(login.Name, login.Password),
		Host:     net.JoinHostPort(s.Host(), strconv.Itoa(s.Port())),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Connect opens a session that ends with the test.
func Connect(t testing.TB, connString string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), connString)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) }) // the server may be gone
	return conn
}

// Exec runs statements, separated by semicolons, as the superuser.
func (s *Server) Exec(t testing.TB, database, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.Superuser(database))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// Name returns a name that no other test of the binary gets: the prefix and a number.
func (s *Server) Name(prefix string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names++
	return fmt.Sprintf("%s_%d", prefix, s.names)
}

// Database makes an empty database, which is dropped when the test ends, and
// returns its name.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	name := s.Name("test")
	s.Exec(t, "postgres", "CREATE DATABASE "+Quote(name))
	t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), s.Superuser("postgres"))
		if err != nil {
			return // a test has ended the server
		}
		defer conn.Close(context.Background())
		if _, err := conn.Exec(context.Background(), "DROP DATABASE IF EXISTS "+Quote(name)+" WITH (FORCE)"); err != nil {
			t.Errorf("dropping the test's database: %v", err)
		}
	})
	return name
}

// Login makes a role that can log on, with options as CREATE ROLE has them, such
// as "CREATEROLE". Its name begins with prefix. It stays until the server stops.
func (s *Server) Login(t testing.TB, prefix, options string) Login {
	t.Helper()
	return s.login(t, s.Name(prefix), options)
}

func (s *Server) login(t testing.TB, name, options string) Login {
	t.Helper()
	login := Login{Name: name, Password: rand.Text()}
	stored, err := verifier(login.Password)
	if err != nil {
		t.Fatal(err)
	}
	s.Exec(t, "postgres", fmt.Sprintf("CREATE ROLE %s LOGIN %s PASSWORD '%s'", Quote(login.Name), options, stored))
	return login
}

// Group makes a role that cannot log on and returns its name, which begins with
// prefix. It stays until the server stops.
func (s *Server) Group(t testing.TB, prefix string) string {
	t.Helper()
	name := s.Name(prefix)
	s.Exec(t, "postgres", "CREATE ROLE "+Quote(name)+" NOLOGIN")
	return name
}

// Admin returns the server's administrative login, made as the documentation says: AdminName, with
// CREATEROLE and without superuser. All tests share it.
func (s *Server) Admin(t testing.TB) Login {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.admin == nil {
		login := s.login(t, AdminName, "CREATEROLE")
		s.admin = &login
	}
	return *s.admin
}

// NewAdmin makes an administrative login for one test, with the same rights as Admin's.
func (s *Server) NewAdmin(t testing.TB) Login {
	t.Helper()
	return s.Login(t, AdminName, "CREATEROLE")
}

// Quote writes a name as an SQL identifier.
func Quote(name string) string { return pgx.Identifier{name}.Sanitize() }
