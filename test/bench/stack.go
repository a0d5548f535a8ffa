package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/ca"
	"github.com/daypass/daypass/internal/postgres"
	"github.com/daypass/daypass/test/sitetest"
)

const benchPassword = "a password for the direct connections"

// stack is everything that a run needs. It is started for the run and ends with it.
type stack struct {
	dir   string
	hello *sitetest.Process
	at    string // address of hello

	small    *database // one of each
	server   *server
	ahead    *server   // with sessions started ahead; nil: not measured
	parked   *server   // with parked sessions; nil: not measured
	large    *database // with largeSize of everything; nil: not measured
	registry *server   // a server over large
	grown    *grown    // nil: not measured

	moto      *moto      // nil: not measured
	pgbouncer *pgbouncer // keeps its sessions for the next client
	once      *pgbouncer // starts a session for each client, like the gateway
}

// size is the number of registered users, groups and clusters.
type size struct{ users, groups, clusters int }

var (
	smallSize = size{1, 1, 1}
	largeSize = size{10_000, 1_000, 200}
)

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
	if err := os.Chmod(s.dir, 0o711); err != nil { // PgBouncer runs as another user
		return nil, err
	}
	progress("starting PostgreSQL, Daypass and the fixed answer")
	if s.at, err = sitetest.FreeAddress(); err != nil {
		return nil, err
	}
	own, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if s.hello, err = start(s.dir, own, nil, "hello", s.at); err != nil {
		return nil, err
	}
	if s.small, err = startDatabase(ctx, o, filepath.Join(s.dir, "small"), smallSize); err != nil {
		return nil, err
	}
	if s.server, err = startServer(ctx, o, filepath.Join(s.dir, "daypass"), s.small, serverOptions{size: smallSize}); err != nil {
		return nil, err
	}
	if slices.Contains(o.only, "latency") {
		if s.ahead, err = startServer(ctx, o, filepath.Join(s.dir, "ahead"), s.small, serverOptions{size: smallSize, user: "ahead", prewarm: 4}); err != nil {
			return nil, err
		}
	}
	if slices.Contains(o.only, "parked") {
		if s.parked, err = startServer(ctx, o, filepath.Join(s.dir, "parked"), s.small, serverOptions{size: smallSize, user: "parked", parked: 2 * clients}); err != nil {
			return nil, err
		}
	}
	if slices.Contains(o.only, "scale") || slices.Contains(o.only, "growth") {
		progress("starting them again with %d users, %d groups and %d clusters", largeSize.users, largeSize.groups, largeSize.clusters)
		if s.large, err = startDatabase(ctx, o, filepath.Join(s.dir, "large"), largeSize); err != nil {
			return nil, err
		}
		if s.registry, err = startServer(ctx, o, filepath.Join(s.dir, "registry"), s.large, serverOptions{size: largeSize}); err != nil {
			return nil, err
		}
	}
	if slices.Contains(o.only, "growth") {
		if err := s.startGrown(ctx, o); err != nil {
			return nil, err
		}
	}
	if o.peers {
		progress("starting moto and PgBouncer")
		if err := s.startPeers(ctx, o); err != nil {
			return nil, err
		}
	}
	return s, s.hello.Reachable(ctx, s.at)
}

// stop ends the started processes, by their process IDs, and removes the files.
func (s *stack) stop() {
	s.moto.stop()
	s.pgbouncer.stop()
	s.once.stop()
	s.server.stop()
	s.ahead.stop()
	s.parked.stop()
	s.registry.stop()
	s.grown.stop()
	s.small.stop()
	s.large.stop()
	s.hello.Stop()
	_ = os.RemoveAll(s.dir)
}

// versions names the versions of the measured programs.
func (s *stack) versions() []string {
	list := []string{"Daypass " + s.server.version, "PostgreSQL " + s.small.server.Installation().Version, runtime.Version()}
	if s.pgbouncer != nil {
		list = append(list, s.pgbouncer.version, s.moto.version)
	}
	return list
}

// database is a PostgreSQL server with the roles and data for the runs.
type database struct {
	server *postgres.Server
	tls    string // directory of its server.crt and server.key
}

func startDatabase(ctx context.Context, o options, dir string, n size) (_ *database, err error) {
	d := &database{tls: filepath.Join(dir, "tls")}
	installation, err := postgres.FindOrFetch(ctx, o.postgres, postgres.FetchConfig{}, func(line string) { progress("%s", line) })
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, err
	}
	steps, err := d.steps(installation.Major, n)
	if err != nil {
		return nil, err
	}
	site := sitetest.Site{}
	err = site.StartDatabase(ctx, installation, postgres.Options{
		Durable:  true,
		Settings: map[string]string{"max_connections": strconv.Itoa(o.idle + 300), "shared_buffers": "256MB"},
	}, steps...)
	d.server = site.Database
	if err == nil && !slices.Equal(o.only, []string{"growth"}) { // whose queries read no table
		_, err = d.pgbench(ctx, d.direct("disable"), nil, "-i", "-q", "-s", "10")
	}
	if err != nil {
		d.stop()
		return nil, fmt.Errorf("preparing the database: %w", err)
	}
	return d, nil
}

func (d *database) stop() {
	if d != nil && d.server != nil {
		_ = d.server.Stop()
	}
}

// direct returns a login directly to the server.
func (d *database) direct(sslmode string) login {
	return login{"127.0.0.1", strconv.Itoa(d.server.Port()), "bench", benchPassword, "bench", sslmode}
}

// steps returns the SQL that makes the roles and the database, and turns TLS on.
func (d *database) steps(major int, n size) (steps []sitetest.Step, err error) {
	if _, err := ca.Open(d.tls, nil, time.Now); err != nil {
		return nil, err
	}
	own := []string{"bench", "group0"}
	statements := []string{
		"CREATE ROLE daypass LOGIN CREATEROLE PASSWORD '" + sitetest.AdminPassword + "'",
		"CREATE ROLE bench LOGIN PASSWORD '" + benchPassword + "'",
		"CREATE DATABASE bench OWNER bench",
		// These users and groups are never used; each user is in one group.
		fmt.Sprintf(`DO $$ BEGIN
			FOR i IN 0..%d LOOP EXECUTE format('CREATE ROLE group%%s', i); END LOOP;
			FOR i IN 1..%d LOOP EXECUTE format('CREATE ROLE user%%s LOGIN IN ROLE group%%s', i, i %% %d); END LOOP;
		END $$`, n.groups-1, n.users-1, n.groups),
	}
	for _, name := range []string{"server.crt", "server.key"} {
		text, err := os.ReadFile(filepath.Join(d.tls, name))
		if err != nil {
			return nil, err
		}
		// The server writes the files itself, below its data directory, so that they belong to its
		// own account.
		statements = append(statements, "COPY (SELECT line FROM unnest(string_to_array('"+string(text)+"', E'\\n')) line) TO PROGRAM 'umask 077; cat > "+name+"'")
	}
	statements = append(statements, "ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()")
	if major >= 16 {
		statements = append(statements, "GRANT "+strings.Join(own, ", ")+" TO daypass WITH ADMIN OPTION, INHERIT FALSE, SET FALSE")
	}
	for _, sql := range statements {
		steps = append(steps, sitetest.Step{Database: "postgres", SQL: sql})
	}
	return steps, nil
}
