package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/ca"
	"github.com/daypass/daypass/internal/postgres"
)

const (
	accessKeyID     = "AKIABENCHBENCHBENCHB"
	secretAccessKey = "bench/secret/access/key/of/forty/letters"
	benchPassword   = "a password for the direct connections"
	adminPassword   = "an administrative password"
)

// stack is everything that a run needs, started for it and ended with it.
type stack struct {
	dir      string
	postgres *postgres.Server
	server   *exec.Cmd // daypass serve
	hello    *exec.Cmd
	api      string // host:port
	gateway  string
	helloAt  string
	user     string // what the credential says
	password string
}

func startStack(ctx context.Context, o options) (_ *stack, err error) {
	s := &stack{}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	if s.dir, err = os.MkdirTemp("", "daypass-bench-"); err != nil {
		return nil, err
	}
	installation, err := postgres.Find(o.postgres)
	if err != nil {
		return nil, err
	}
	s.postgres, err = postgres.Start(ctx, installation, postgres.Options{
		Durable:  true,
		Settings: map[string]string{"max_connections": "300", "shared_buffers": "256MB"},
	})
	if err != nil {
		return nil, err
	}
	if err := s.prepareDatabase(ctx); err != nil {
		return nil, fmt.Errorf("preparing the database: %w", err)
	}
	if err := s.startDaypass(ctx, o.daypass); err != nil {
		return nil, err
	}
	if err := s.startHello(ctx); err != nil {
		return nil, err
	}
	return s, s.credential(ctx)
}

// stop ends what was started, by its process id, and removes the files.
func (s *stack) stop() {
	for _, cmd := range []*exec.Cmd{s.server, s.hello} {
		if cmd != nil && cmd.Process != nil {
			cmd.Process.Signal(syscall.SIGTERM)
			cmd.Wait()
		}
	}
	if s.postgres != nil {
		s.postgres.Stop()
	}
	os.RemoveAll(s.dir)
}

func (s *stack) prepareDatabase(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.postgres.ConnString(postgres.Superuser, "postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	tlsDir := filepath.Join(s.dir, "postgres-tls")
	if _, err := ca.Open(tlsDir, nil, time.Now); err != nil {
		return err
	}
	certificate, err := os.ReadFile(filepath.Join(tlsDir, "server.crt"))
	if err != nil {
		return err
	}
	key, err := os.ReadFile(filepath.Join(tlsDir, "server.key"))
	if err != nil {
		return err
	}
	var data string
	if err := conn.QueryRow(ctx, "SHOW data_directory").Scan(&data); err != nil {
		return err
	}
	for _, sql := range []string{
		"CREATE ROLE daypass LOGIN CREATEROLE PASSWORD '" + adminPassword + "'",
		"CREATE ROLE bench LOGIN PASSWORD '" + benchPassword + "'",
		"CREATE DATABASE bench OWNER bench",
		// The server writes its own key, so that it belongs to the account it runs as.
		"COPY (SELECT line FROM unnest(string_to_array('" + string(certificate) + "', E'\\n')) line) TO PROGRAM 'umask 077; cat > \"" + data + "/server.crt\"'",
		"COPY (SELECT line FROM unnest(string_to_array('" + string(key) + "', E'\\n')) line) TO PROGRAM 'umask 077; cat > \"" + data + "/server.key\"'",
		"ALTER SYSTEM SET ssl = on",
		"SELECT pg_reload_conf()",
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%.40s: %w", sql, err)
		}
	}
	if s.postgres.Installation().Major >= 16 {
		if _, err := conn.Exec(ctx, "GRANT bench TO daypass WITH ADMIN OPTION, INHERIT FALSE, SET FALSE"); err != nil {
			return err
		}
	}
	return s.pgbench(ctx, directTarget(s, "disable"), "-i", "-q", "-s", "10").err
}

func (s *stack) startDaypass(ctx context.Context, binary string) error {
	var err error
	if s.api, err = freeAddress(); err != nil {
		return err
	}
	if s.gateway, err = freeAddress(); err != nil {
		return err
	}
	config := map[string]any{
		"account": "123456789012",
		"region":  "us-east-1",
		"data":    filepath.Join(s.dir, "data"),
		"api":     map[string]any{"listen": s.api},
		"gateway": map[string]any{"listen": s.gateway},
		"clusters": []any{map[string]any{
			"identifier":             "bench",
			"database":               "bench",
			"upstream":               fmt.Sprintf("postgres://daypass@127.0.0.1:%d/postgres?sslmode=disable", s.postgres.Port()),
			"upstream_password_file": "password",
		}},
		"iam": map[string]any{"users": []any{map[string]any{
			"name":        "bench",
			"access_keys": []any{map[string]any{"id": accessKeyID, "secret": secretAccessKey}},
			"policies": []any{map[string]any{
				"Version": "2012-10-17",
				"Statement": []any{map[string]any{
					"Effect":   "Allow",
					"Action":   []string{"redshift:GetClusterCredentials", "redshift:CreateClusterUser", "redshift:JoinGroup"},
					"Resource": "*",
				}},
			}},
		}}},
	}
	text, err := json.MarshalIndent(config, "", "  ") // JSON is YAML
	if err != nil {
		return err
	}
	file := filepath.Join(s.dir, "daypass.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.dir, "password"), []byte(adminPassword), 0o600); err != nil {
		return err
	}
	if s.server, err = start(s.dir, binary, "serve", "--config", file); err != nil {
		return err
	}
	return reachable(ctx, s.api, s.gateway)
}

func (s *stack) startHello(ctx context.Context) error {
	var err error
	if s.helloAt, err = freeAddress(); err != nil {
		return err
	}
	own, err := os.Executable()
	if err != nil {
		return err
	}
	if s.hello, err = start(s.dir, own, "hello", s.helloAt); err != nil {
		return err
	}
	return reachable(ctx, s.helloAt)
}

// hello is the floor for the API: net/http with a fixed answer of the same size.
func hello(ctx context.Context) error {
	answer := bytes.Repeat([]byte("x"), 700)
	server := &http.Server{Addr: os.Args[2], Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/xml")
		w.Write(answer)
	})}
	go func() {
		<-ctx.Done()
		server.Close()
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		return err
	}
	return nil
}

func start(dir, program string, args ...string) (*exec.Cmd, error) {
	path, err := filepath.Abs(program)
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, filepath.Base(program)+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	return cmd, cmd.Start()
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// reachable waits until something listens at every address.
func reachable(ctx context.Context, addresses ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for _, address := range addresses {
		for {
			conn, err := net.Dial("tcp", address)
			if err == nil {
				conn.Close()
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("nothing listens at %s: %w", address, err)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}

// cpuTime is what a process has spent, user and system, on Linux.
func cpuTime(pid int) time.Duration {
	if pid == 0 {
		return 0
	}
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	const ticksPerSecond = 100 // USER_HZ, which Linux has fixed for user space
	return time.Duration(user+system) * time.Second / ticksPerSecond
}

func machine() string {
	model := runtime.GOARCH
	if data, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(data)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%s, %d CPUs, %s", model, runtime.NumCPU(), runtime.Version())
}
