package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/postgres"
	"github.com/daypass/daypass/test/sitetest"
)

const (
	idleCount  = 5_000
	crowdCount = 10_000
	// sharedSchema is where session roles create tables.
	sharedSchema = "shared"
)

// grown holds the servers whose costs are compared with those of stack.server.
type grown struct {
	twin     *server // like the first, to show how much two equal ones differ
	idle     *server // with idleCount idle sessions
	clusters *server // with as many clusters as largeSize has, which all answer
	crowded  *server // with up to crowdCount session roles

	second *database // of twin and idle
	third  *database // of clusters
	crowd  *database // of crowded
	dummy  *dummy
	held   []*pgconn.PgConn
}

func (s *stack) startGrown(ctx context.Context, o options) (err error) {
	g := &grown{}
	s.grown = g
	for name, d := range map[string]**database{"second": &g.second, "third": &g.third, "crowd": &g.crowd} {
		if *d, err = startDatabase(ctx, o, filepath.Join(s.dir, name), smallSize); err != nil {
			return err
		}
	}
	if g.twin, err = startServer(ctx, o, filepath.Join(s.dir, "twin"), g.second, serverOptions{size: smallSize, user: "twin"}); err != nil {
		return err
	}
	if g.clusters, err = startServer(ctx, o, filepath.Join(s.dir, "clusters"), g.third,
		serverOptions{size: size{1, 1, largeSize.clusters}, user: "clusters", answering: true}); err != nil {
		return err
	}
	if g.crowded, err = startServer(ctx, o, filepath.Join(s.dir, "crowded"), g.crowd, serverOptions{size: smallSize}); err != nil {
		return err
	}
	config, err := g.crowded.through("disable").config()
	if err == nil {
		_, err = logOn(config) // which makes the marker
	}
	if err != nil {
		return err
	}
	for _, d := range []*database{s.small, g.crowd} {
		if err := d.run(ctx, "bench", "CREATE SCHEMA "+sharedSchema, "GRANT ALL ON SCHEMA "+sharedSchema+" TO PUBLIC"); err != nil {
			return err
		}
	}
	if g.dummy, err = startDummy(net.JoinHostPort("127.0.0.1", strconv.Itoa(g.second.server.Port()))); err != nil {
		return err
	}
	progress("opening %d idle sessions", idleCount)
	if g.idle, err = startServer(ctx, o, filepath.Join(s.dir, "idle"), g.second, serverOptions{size: smallSize, user: "idle", dummy: g.dummy.listener.Addr().String()}); err != nil {
		return err
	}
	return g.hold(idleCount)
}

func (g *grown) stop() {
	if g == nil {
		return
	}
	for _, conn := range g.held {
		_ = conn.Conn().Close()
	}
	g.twin.stop()
	g.idle.stop()
	g.clusters.stop()
	g.crowded.stop()
	g.crowd.stop()
	g.second.stop()
	g.third.stop()
	g.dummy.stop()
}

// hold opens sessions of the cluster whose server is the dummy, and keeps them.
func (g *grown) hold(n int) error {
	to, err := issueOn(g.idle.endpoint(1), dummyCluster, "idle", true)
	if err != nil {
		return err
	}
	config, err := g.idle.login(to, "disable").config()
	if err != nil {
		return err
	}
	var mu sync.Mutex
	errs := make([]error, clients)
	var group sync.WaitGroup
	for i := range clients {
		group.Go(func() {
			for range n / clients {
				conn, err := open(config)
				if err != nil {
					errs[i] = err
					return
				}
				mu.Lock()
				g.held = append(g.held, conn)
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// fill makes users and their session roles, which have not been used for an hour: the usual state
// of most of them in a database where everyone logs on once a day.
func (d *database) fill(ctx context.Context, n int) error {
	progress("making %d session roles", n)
	made, err := d.sessionRoles(ctx)
	if err != nil {
		return err
	}
	// A superuser makes them and grants what the administrative login would have as their creator:
	// from PostgreSQL 16 on, a plain login makes roles more slowly the more roles it has made.
	grant := ""
	if d.server.Installation().Major >= 16 {
		grant = `EXECUTE format('GRANT %1$I, %2$I TO daypass WITH ADMIN OPTION, INHERIT FALSE, SET FALSE', 'crowd'||i, 'IAM:crowd'||i);`
	}
	if err := d.run(ctx, "postgres", fmt.Sprintf(`DO $$ BEGIN
		FOR i IN %d..%d LOOP
			EXECUTE format('CREATE ROLE crowd%%s', i);
			EXECUTE format('CREATE ROLE "IAM:crowd%%s" VALID UNTIL %%L', i, now() - interval '1 hour');
			%s
		END LOOP; END $$`, made, n-1, grant),
		fmt.Sprintf(`DO $$ BEGIN
		FOR i IN %d..%d LOOP EXECUTE format('GRANT %s TO "IAM:crowd%%s"', i); END LOOP; END $$`, made, n-1, dbuser.MarkerRole)); err != nil {
		return err
	}
	return d.run(ctx, "postgres", "VACUUM ANALYZE")
}

// run runs statements as the superuser.
func (d *database) run(ctx context.Context, in string, statements ...string) error {
	conn, err := pgx.Connect(ctx, d.server.ConnString(postgres.Superuser, in))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// sessionRoles returns how many there are.
func (d *database) sessionRoles(ctx context.Context) (n int, err error) {
	conn, err := pgx.Connect(ctx, d.server.ConnString(postgres.Superuser, "postgres"))
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx)
	return n, conn.QueryRow(ctx, "SELECT count(*) FROM pg_roles WHERE rolname ~ '^IAM:'").Scan(&n)
}

// postmaster returns the process ID of the server's first process.
func (d *database) postmaster(ctx context.Context) (int, error) {
	conn, err := pgx.Connect(ctx, d.server.ConnString(postgres.Superuser, "postgres"))
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx)
	var file string
	if err := conn.QueryRow(ctx, "SELECT pg_read_file('postmaster.pid')").Scan(&file); err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(file, "\n")
	return strconv.Atoi(first)
}

// admin returns the connection string of the administrative login.
func (d *database) admin() (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(d.server.ConnString("daypass", "postgres"))
	if err == nil {
		config.Password = sitetest.AdminPassword
	}
	return config, err
}

// pauseFor waits for the work that follows a burst of logons: the gateway looks after the roles of
// ended sessions in the background.
func pauseFor(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
