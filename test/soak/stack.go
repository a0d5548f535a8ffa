//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/postgres"
	"github.com/daypass/daypass/test/sitetest"
)

const (
	cluster  = "soak"
	database = "dev"
	account  = "123456789012"
	region   = "us-east-1"
	drain    = 4 * time.Second

	accessKeyID  = "AKIASOAKSOAKSOAKSOAK" // of ana, who may ask for every user
	secretKey    = "soak/secret/access/key/of/forty/letters1"
	weakKeyID    = "AKIASOAKSOAKSOAKWEAK" // of bob, who may ask only for u00, without groups
	weakKey      = "soak/secret/access/key/of/forty/letters2"
	passingKeyID = "AKIASOAKSOAKPASSING0" // of eve, whom reloads add and remove
	passingKey   = "soak/secret/access/key/of/forty/letters3"

	users     = 12 // u00 to u11
	groups    = 5  // g0 to g4
	newcomers = 40 // n00 to n39, made by AutoCreate
)

func userName(i int) string     { return fmt.Sprintf("u%02d", i) }
func groupName(i int) string    { return fmt.Sprintf("g%d", i) }
func newcomerName(i int) string { return fmt.Sprintf("n%02d", i) }

// stack is the system under test and everything that it needs.
type stack struct {
	*sitetest.Site // its addresses are those that daypass itself listens on
	binary         string
	installation   postgres.Installation
	upstream       *proxy // between the gateway and PostgreSQL
	front          *proxy // between clients and the gateway
	adminListen    string
	adminConfig    bool // this build knows the configuration key "admin"

	config sync.Mutex // held while the configuration file is invalid on purpose
	extra  bool       // eve is configured; guarded by config

	mu       sync.Mutex // guards the fields below
	pg       *postgres.Server
	server   *sitetest.Process
	lives    []life
	spentCPU time.Duration
}

// life is the lifetime of one daypass process.
type life struct {
	began, ended time.Time
	how          string // "killed" or "terminated"; empty: still running
}

func startStack(ctx context.Context, binary, pgDir string) (_ *stack, err error) {
	s, err := startDatabase(ctx, binary, pgDir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	if s.front, err = newProxy(func() string { return s.Gateway }); err != nil {
		return nil, err
	}
	// An older build does not know the key, and reports that at once.
	s.adminConfig = true
	if err := s.writeConfig(""); err != nil {
		return nil, err
	}
	if err := s.startDaypass(ctx); err != nil {
		s.adminConfig = false
		if err := s.writeConfig(""); err != nil {
			return nil, err
		}
		os.Remove(s.logFile())
		s.lives = nil
		return s, s.startDaypass(ctx)
	}
	return s, nil
}

// startDatabase starts PostgreSQL and the proxy in front of it, without a Daypass.
func startDatabase(ctx context.Context, binary, pgDir string) (_ *stack, err error) {
	s := &stack{}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	if s.binary, err = filepath.Abs(binary); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "daypass-soak-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o711); err != nil { // PostgreSQL's account needs access
		return nil, err
	}
	if s.Site, err = sitetest.New(dir); err != nil {
		return nil, err
	}
	if s.installation, err = postgres.FindOrFetch(ctx, pgDir, postgres.FetchConfig{}, func(line string) { fmt.Fprintln(os.Stderr, line) }); err != nil {
		return nil, err
	}
	if err := s.startPostgres(ctx, s.example()...); err != nil {
		return nil, err
	}
	if s.upstream, err = newProxy(s.postgresAddress); err != nil {
		return nil, err
	}
	if s.adminListen, err = sitetest.FreeAddress(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *stack) logFile() string  { return s.Path("daypass.log") }
func (s *stack) auditDir() string { return s.Path("data/audit") }

func (s *stack) stop() {
	s.process().End(syscall.SIGTERM, 20*time.Second)
	for _, p := range []*proxy{s.front, s.upstream} {
		if p != nil {
			p.close()
		}
	}
	if s.pg != nil {
		s.pg.Stop()
	}
	if s.Site != nil {
		os.RemoveAll(s.Dir)
	}
}

// startPostgres starts PostgreSQL with its existing files, and on another port each time.
func (s *stack) startPostgres(ctx context.Context, steps ...sitetest.Step) error {
	life := sitetest.Site{}
	err := life.StartDatabase(ctx, s.installation, postgres.Options{
		Dir: s.Path("postgres"), Durable: true,
		Settings: map[string]string{
			"max_connections": "200", "shared_buffers": "64MB", "synchronous_commit": "off",
			"log_connections": "off", "log_min_messages": "warning",
		},
	}, steps...)
	s.mu.Lock()
	defer s.mu.Unlock()
	if life.Database != nil {
		s.pg = life.Database
	}
	return err
}

func (s *stack) postgres() *postgres.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pg
}

func (s *stack) postgresAddress() string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.postgres().Port()))
}

// postmaster returns the process ID of PostgreSQL's main process.
func (s *stack) postmaster() (int, error) {
	data, err := os.ReadFile(s.Path("postgres/pgdata/postmaster.pid"))
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(data), "\n")
	return strconv.Atoi(first)
}

// superuser connects directly, without the gateway and the proxy.
func (s *stack) superuser(ctx context.Context, name string) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return pgx.Connect(ctx, s.postgres().ConnString(postgres.Superuser, name))
}

// example returns the SQL for the roles, tables and policies that the load works with.
func (s *stack) example() (steps []sitetest.Step) {
	add := func(database string, batch ...string) {
		for _, sql := range batch {
			steps = append(steps, sitetest.Step{Database: database, SQL: sql})
		}
	}
	var names []string
	for i := range users {
		names = append(names, userName(i))
	}
	// The roles of these users are damaged by hand, or by the users themselves.
	for i := range 3 {
		names = append(names, fmt.Sprintf("victim%d", i), fmt.Sprintf("holder%d", i))
	}
	for i := range lenderUsers {
		names = append(names, lenderName(i))
	}
	var batch []string
	for _, name := range names {
		batch = append(batch, "CREATE ROLE "+name+" LOGIN")
	}
	for i := range groups {
		batch = append(batch, "CREATE ROLE "+groupName(i)+" NOLOGIN")
		names = append(names, groupName(i))
	}
	batch = append(batch, "CREATE ROLE daypass LOGIN CREATEROLE PASSWORD '"+sitetest.AdminPassword+"'", "CREATE DATABASE "+database)
	if s.installation.Major >= 16 {
		batch = append(batch, "GRANT "+strings.Join(names, ", ")+" TO daypass WITH ADMIN OPTION, INHERIT FALSE, SET FALSE")
	}
	add("postgres", batch...)
	batch = []string{"GRANT CREATE ON SCHEMA public TO PUBLIC"}
	for i := range lenderUsers {
		batch = append(batch, "GRANT CREATE ON DATABASE "+database+" TO "+lenderName(i))
	}
	for i := range groups {
		table := groupName(i) + "_rows"
		batch = append(batch,
			"CREATE TABLE "+table+" (n int, word text)",
			fmt.Sprintf("INSERT INTO %s SELECT n, '%s' FROM generate_series(1, %d) n", table, groupName(i), 10+i),
			"GRANT SELECT ON "+table+" TO "+groupName(i))
	}
	batch = append(batch,
		"CREATE TABLE diary (owner name, line text)",
		"INSERT INTO diary SELECT rolname, rolname || ' only' FROM pg_roles WHERE rolname ~ '^[un][0-9]'",
		"ALTER TABLE diary ENABLE ROW LEVEL SECURITY",
		"CREATE POLICY own ON diary USING (owner = current_user)",
		"GRANT SELECT ON diary TO PUBLIC")
	add(database, batch...)
	return steps
}

func run(ctx context.Context, conn *pgx.Conn, batch ...string) error {
	for _, sql := range batch {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%.60s: %w", sql, err)
		}
	}
	return nil
}

// writeConfig writes the configuration, with a faulty text at its end.
func (s *stack) writeConfig(faulty string) error {
	config := s.configuration()
	if s.adminConfig {
		config["admin"] = map[string]any{"listen": s.adminListen, "pprof": true}
	}
	text, err := json.MarshalIndent(config, "", "  ") // JSON is YAML
	if err != nil {
		return err
	}
	return s.Write("daypass.yaml", string(text)+faulty)
}

func (s *stack) configuration() map[string]any {
	allow := func(resource ...string) map[string]any {
		return map[string]any{"Version": "2012-10-17", "Statement": []any{map[string]any{
			"Effect": "Allow", "Resource": resource,
			"Action": []string{"redshift:GetClusterCredentials", "redshift:CreateClusterUser", "redshift:JoinGroup", "daypass:*"},
		}}}
	}
	user := func(name, id, secret string, policy map[string]any) any {
		return map[string]any{"name": name, "policies": []any{policy},
			"access_keys": []any{map[string]any{"id": id, "secret": secret}}}
	}
	arn := "arn:aws:redshift:" + region + ":" + account + ":"
	people := []any{
		user("ana", accessKeyID, secretKey, allow("*")),
		user("bob", weakKeyID, weakKey, allow(arn+"dbuser:"+cluster+"/u00", arn+"dbname:"+cluster+"/"+database)),
	}
	for _, p := range principals[1:] { // the first is ana
		people = append(people, user(p.name, p.id, p.key, allow("*")))
	}
	if s.extra {
		people = append(people, user("eve", passingKeyID, passingKey, allow("*")))
	}
	return map[string]any{
		"account": account, "region": region, "data": s.Path("data"),
		"api":     map[string]any{"listen": s.API},
		"gateway": map[string]any{"listen": s.Gateway},
		"clusters": []any{map[string]any{
			"identifier": cluster, "database": database,
			"upstream":               fmt.Sprintf("postgres://daypass@127.0.0.1:%d/postgres?sslmode=disable", s.upstream.port()),
			"upstream_password_file": "upstream.password",
			"parked_sessions":        map[string]any{"max": parkedMax, "idle": parkedIdle.String(), "age": parkedAge.String()},
		}},
		"iam": map[string]any{"users": people},
	}
}

// startDaypass starts the server and waits until it answers.
func (s *stack) startDaypass(ctx context.Context) error {
	s.config.Lock() // not while the configuration is invalid on purpose
	defer s.config.Unlock()
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	c, err := sitetest.Run(log, []string{"GOTRACEBACK=all"}, s.binary, "serve", "--config", s.ConfigFile(), "--drain", drain.String())
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.server = c
	s.lives = append(s.lives, life{began: time.Now()})
	s.mu.Unlock()
	return c.Reachable(ctx, s.API, s.Gateway)
}

// endDaypass ends the server with a signal, and waits for its exit for at most the given time.
func (s *stack) endDaypass(signal syscall.Signal, within time.Duration, how string) error {
	c := s.process()
	spent := c.CPU()
	forced := c.End(signal, within)
	s.mu.Lock()
	last := &s.lives[len(s.lives)-1]
	last.ended, last.how = time.Now(), how
	s.spentCPU += spent
	s.mu.Unlock()
	if forced {
		return fmt.Errorf("daypass was still there %v after %v", within, signal)
	}
	if signal == syscall.SIGTERM && c.Err() != nil {
		return fmt.Errorf("daypass ended with %w after SIGTERM", c.Err())
	}
	return nil
}

func (s *stack) process() *sitetest.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.server
}

func (s *stack) signal(signal syscall.Signal) { s.process().Signal(signal) }
