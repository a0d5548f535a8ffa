package postgres

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Superuser is the name of the role that initdb makes.
const Superuser = "postgres"

// Options configure how Start runs a server. The zero value is a server that keeps its files
// in a temporary directory and forgets everything when it stops.
type Options struct {
	// Dir is where the server's files are kept between runs: the data directory (pgdata), the
	// log and the superuser's password. It is created if it does not exist. Optional: a
	// temporary directory that Stop removes.
	Dir string
	// Durable makes the server write safely to disk, at the cost of speed.
	Durable bool
	// Settings are configuration parameters that are added to Start's own, and override them.
	// Optional.
	Settings map[string]string
	// Root is where a temporary directory is made. Optional: the system's default.
	Root string
	// Templates is a directory that keeps the result of initdb for each installation. The
	// next server of the same installation begins with a copy. That saves CPU time if the
	// files are in memory, and little otherwise. Servers that share a template share the
	// superuser's password. Optional.
	Templates string
	// StartTimeout bounds initdb and the start together. Optional: a minute.
	StartTimeout time.Duration
}

// Server is a running PostgreSQL server. It is safe for concurrent use.
type Server struct {
	inst      Installation
	dir       string
	temporary bool
	port      int
	password  string
	process   *process

	stop    sync.Once
	stopErr error
}

// errPortTaken means that another process took the port first.
var errPortTaken = errors.New("port taken")

// Start starts a server of the installation, after making its data directory if necessary,
// and returns once it accepts connections. An error includes the end of the server's log;
// nothing is left running then.
func Start(ctx context.Context, inst Installation, opts Options) (_ *Server, err error) {
	if opts.StartTimeout == 0 {
		opts.StartTimeout = time.Minute
	}
	ctx, cancel := context.WithTimeoutCause(ctx, opts.StartTimeout,
		fmt.Errorf("PostgreSQL is not ready after %v", opts.StartTimeout))
	defer cancel()

	as, err := serverAccount()
	if err != nil {
		return nil, err
	}
	s := &Server{inst: inst, dir: opts.Dir, temporary: opts.Dir == ""}
	if err := s.makeDir(as, opts.Root); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil && s.temporary {
			os.RemoveAll(s.dir)
		}
	}()
	if err := s.initialize(ctx, as, opts); err != nil {
		return nil, fmt.Errorf("making a PostgreSQL %s data directory: %w", inst.Version, err)
	}
	// Another process may take the port between the search and the server's start. Then
	// another port is tried.
	for range 5 {
		err = s.launch(ctx, as, opts)
		if !errors.Is(err, errPortTaken) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("starting PostgreSQL %s: %w", inst.Version, err)
	}
	return s, nil
}

// makeDir makes the server's directory and makes sure that the account can reach it.
func (s *Server) makeDir(as account, root string) error {
	if s.temporary {
		roots := temporaryRoots()
		if root != "" {
			roots = []string{root}
		}
		var err error
		for _, root := range roots {
			if err = as.reach(filepath.Join(root, "x")); err == nil {
				sweepTemporary(root)
				s.dir, err = os.MkdirTemp(root, temporaryPrefix)
				break
			}
		}
		if err != nil {
			return err
		}
	} else {
		var err error
		if s.dir, err = filepath.Abs(s.dir); err != nil {
			return err
		}
		if err := os.MkdirAll(s.dir, 0o700); err != nil {
			return err
		}
		if err := as.reach(s.dir); err != nil {
			return err
		}
	}
	return as.give(s.dir)
}

// temporaryPrefix begins the names of temporary directories.
const temporaryPrefix = "daypass-postgres-"

// sweepTemporary removes the temporary directories of servers whose process was killed:
// old ones without a running postmaster.
func sweepTemporary(root string) {
	found, _ := filepath.Glob(filepath.Join(root, temporaryPrefix+"*"))
	for _, dir := range found {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || time.Since(info.ModTime()) < time.Hour {
			continue
		}
		if pid, err := os.ReadFile(filepath.Join(dir, "pgdata", "postmaster.pid")); err == nil {
			first, _, _ := strings.Cut(string(pid), "\n")
			if number, err := strconv.Atoi(strings.TrimSpace(first)); err != nil || alive(number) {
				continue
			}
		} else if !errors.Is(err, os.ErrNotExist) {
			continue // it belongs to another user
		}
		os.RemoveAll(dir)
	}
}

// initialize runs initdb unless the data directory exists, and reads or makes the superuser's
// password.
func (s *Server) initialize(ctx context.Context, as account, opts Options) error {
	passwordFile := filepath.Join(s.dir, "superuser-password")
	if version, err := os.ReadFile(filepath.Join(s.pgdata(), "PG_VERSION")); err == nil {
		if v := strings.TrimSpace(string(version)); v != strconv.Itoa(s.inst.Major) {
			return fmt.Errorf("%s was made by PostgreSQL %s and cannot be used by %s", s.pgdata(), v, s.inst.Version)
		}
		password, err := os.ReadFile(passwordFile)
		s.password = strings.TrimSpace(string(password))
		return err
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}

	// The directory gets its final name when it is complete, so that initdb runs again if it
	// was killed half-way.
	fresh := s.pgdata() + ".new"
	if err := errors.Join(os.RemoveAll(fresh), os.RemoveAll(passwordFile)); err != nil {
		return err
	}
	args := []string{"--username", Superuser, "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--wal-segsize", "1"}
	if !opts.Durable {
		args = append(args, "--no-sync")
	}
	if template := s.template(opts, args); template.exists() {
		if err := template.use(fresh, passwordFile, as); err != nil {
			return fmt.Errorf("copying %s: %w", template, err)
		}
		password, err := os.ReadFile(passwordFile)
		if err != nil {
			return err
		}
		s.password = strings.TrimSpace(string(password))
	} else {
		if err := s.initdb(ctx, as, append(args, "--pgdata", fresh, "--pwfile", passwordFile), passwordFile); err != nil {
			return err
		}
		if err := template.keep(fresh, passwordFile); err != nil {
			return fmt.Errorf("keeping a copy in %s: %w", template, err)
		}
	}
	return os.Rename(fresh, s.pgdata())
}

// initdb makes a password for the superuser and runs initdb.
func (s *Server) initdb(ctx context.Context, as account, args []string, passwordFile string) error {
	s.password = rand.Text()
	if err := os.WriteFile(passwordFile, []byte(s.password+"\n"), 0o600); err != nil {
		return err
	}
	if err := as.give(passwordFile); err != nil {
		return err
	}
	var out bytes.Buffer
	initdb := s.command("initdb", args...)
	initdb.Stdout, initdb.Stderr = &out, &out
	initdb.WaitDelay = 5 * time.Second
	if err := run(ctx, initdb, as); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("initdb: %w\n%s", err, tail(out.Bytes()))
	}
	return nil
}

// launch starts the server program on a free port and waits until it accepts
// connections.
func (s *Server) launch(ctx context.Context, as account, opts Options) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	s.port = port
	log, err := os.OpenFile(s.LogFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	began, err := log.Seek(0, 2)
	if err != nil {
		return err
	}
	server := s.command("postgres", s.arguments(opts)...)
	server.Stdout, server.Stderr = log, log
	s.process, err = spawn(server, as, deathShutdown)
	if err != nil {
		return err
	}
	err = s.ready(ctx)
	if err == nil {
		return nil
	}
	s.end(immediateShutdown)
	lines := s.logSince(began)
	if bytes.Contains(lines, []byte("could not bind")) || bytes.Contains(lines, []byte("could not create any TCP/IP sockets")) {
		return errPortTaken
	}
	return fmt.Errorf("%w\n%s", err, tail(lines))
}

func (s *Server) arguments(opts Options) []string {
	settings := map[string]string{
		"listen_addresses":        s.Host(),
		"port":                    strconv.Itoa(s.port),
		"unix_socket_directories": "", // other users could connect through a socket, and its path may be too long
		"logging_collector":       "off",
		"log_destination":         "stderr",
		"max_connections":         "200",
	}
	if !opts.Durable {
		settings["fsync"] = "off"
		settings["synchronous_commit"] = "off"
		settings["full_page_writes"] = "off"
	}
	maps.Copy(settings, opts.Settings)
	args := []string{"-D", s.pgdata()}
	names := make([]string, 0, len(settings))
	for name := range settings {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		args = append(args, "-c", name+"="+settings[name])
	}
	return args
}

// ready waits until a session can be opened. It tries to connect, since that is what the
// caller needs. The pause between attempts is short compared to a start. If another process has
// taken the port, what answers there is not this server, and may not answer at all.
func (s *Server) ready(ctx context.Context) error {
	// The driver reads variables that are not for this server.
	config, err := pgconn.ParseConfig(s.ConnString(Superuser, "postgres") + "&sslrootcert=&sslcert=&sslkey=&target_session_attrs=any")
	if err != nil {
		return err
	}
	config.RuntimeParams = nil
	connecting, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-s.process.done:
			cancel()
		case <-connecting.Done():
		}
	}()
	pause := time.NewTicker(3 * time.Millisecond)
	defer pause.Stop()
	for {
		conn, err := pgconn.ConnectConfig(connecting, config)
		if err == nil {
			err = s.answers(connecting, conn)
			_ = conn.Close(connecting)
			if err == nil {
				return nil
			}
		}
		select {
		case <-s.process.done:
			return fmt.Errorf("the server ended: %w", exitError(s.process.err))
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-pause.C:
		}
	}
}

// answers returns an error if the connection leads to another server.
func (s *Server) answers(ctx context.Context, conn *pgconn.PgConn) error {
	results, err := conn.Exec(ctx, "SELECT pg_read_file('postmaster.pid', 0, 20)").ReadAll()
	if err != nil {
		return err
	}
	pid, _, _ := bytes.Cut(results[0].Rows[0][0], []byte("\n"))
	if string(pid) != strconv.Itoa(s.process.cmd.Process.Pid) {
		return errPortTaken
	}
	return nil
}

// command prepares one of the installation's programs. It runs in the server's
// directory, since the account may not be able to enter this process's.
func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.inst.BinDir, program(name)), args...)
	cmd.Dir = s.dir
	cmd.Env = childEnviron()
	return cmd
}

// Installation returns the installation that the server was started from.
func (s *Server) Installation() Installation { return s.inst }

// Host returns the address the server listens on, 127.0.0.1.
func (s *Server) Host() string { return "127.0.0.1" }

// Port returns the port the server listens on.
func (s *Server) Port() int { return s.port }

// ConnString returns the URL of a database for a user, for pgx and libpq. For Superuser it
// includes the password; other users need their own.
func (s *Server) ConnString(user, database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.User(user),
		Host:     net.JoinHostPort(s.Host(), strconv.Itoa(s.port)),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	if user == Superuser {
		u.User = url.UserPassword(user, s.password)
	}
	return u.String()
}

// LogFile returns the path of the server's log.
func (s *Server) LogFile() string { return filepath.Join(s.dir, "postgres.log") }

// LogTail returns the last lines of the server's log.
func (s *Server) LogTail() string { return tail(s.logSince(0)) }

// Done is closed when the server has ended, by Stop or by itself.
func (s *Server) Done() <-chan struct{} { return s.process.done }

// Stop ends the server: sessions are ended, transactions rolled back. If that takes too
// long, the server is killed. Stop returns when no process of the server is left, and
// removes a temporary directory.
func (s *Server) Stop() error {
	s.stop.Do(func() {
		s.end(func(p *os.Process) { fastShutdown(s.inst, s.pgdata(), p) })
		if s.temporary {
			s.stopErr = os.RemoveAll(s.dir)
		}
	})
	return s.stopErr
}

// end asks the server to end, and kills it if it does not.
func (s *Server) end(ask func(*os.Process)) {
	for _, way := range []func(*os.Process){ask, immediateShutdown} {
		select {
		case <-s.process.done:
			return
		default:
		}
		way(s.process.cmd.Process)
		if s.process.wait(10 * time.Second) {
			return
		}
	}
	_ = s.process.cmd.Process.Kill()
	<-s.process.done
}

func (s *Server) pgdata() string { return filepath.Join(s.dir, "pgdata") }

func (s *Server) logSince(offset int64) []byte {
	log, err := os.ReadFile(s.LogFile())
	if err != nil || int64(len(log)) < offset {
		return nil
	}
	return log[offset:]
}

// DataMajor returns the major version of PostgreSQL that made the files in a directory of
// Options.Dir, or false if there are none.
func DataMajor(dir string) (int, bool) {
	version, err := os.ReadFile(filepath.Join(dir, "pgdata", "PG_VERSION"))
	if err != nil {
		return 0, false
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(version)))
	return major, err == nil
}

// tail returns the last lines of a program's output.
func tail(out []byte) string {
	const most = 15
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) > most {
		lines = lines[len(lines)-most:]
	}
	return strings.Join(lines, "\n")
}

func freePort() (int, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port, nil
}

// exitError describes the exit of a program that should have kept running.
func exitError(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}
