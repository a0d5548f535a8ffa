package server

import (
	"net/url"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/client"
	"github.com/daypass/daypass/test/pgtest"
	"github.com/daypass/daypass/test/sitetest"
)

// TestReloadKeepsLogons: a reload that replaces the connections of a cluster does not fail a logon
// in progress there.
func TestReloadKeepsLogons(t *testing.T) {
	database := startDatabase(t)
	s := newServed(t, database, "")
	s.start()
	// Another gateway has the lock for role changes, which holds the logon up.
	other := pgtest.Connect(t, "postgres://daypass:"+url.PathEscape(sitetest.AdminPassword)+"@"+database+"/postgres?sslmode=disable")
	if _, err := other.Exec(t.Context(), "select pg_advisory_lock($1)", adminconn.LaneKey); err != nil {
		t.Fatal(err)
	}
	type result struct {
		conn *pgx.Conn
		err  error
	}
	done := make(chan result, 1)
	c := s.issue(s.now())
	go func() {
		conn, err := s.logon(c)
		done <- result{conn, err}
	}()
	pgtest.Eventually(t, "the logon to wait", func() bool {
		var waiting int
		err := other.QueryRow(t.Context(), "select count(*) from pg_locks where locktype = 'advisory' and not granted").Scan(&waiting)
		return err == nil && waiting > 0
	})
	s.replace("connect_timeout=2", "connect_timeout=3")
	s.hangup <- syscall.SIGHUP
	pgtest.Eventually(t, "the reload", func() bool { return strings.Contains(s.log.String(), "configuration reloaded") })
	if _, err := other.Exec(t.Context(), "select pg_advisory_unlock_all()"); err != nil {
		t.Fatal(err)
	}
	got := <-done
	if got.err != nil {
		t.Fatalf("a logon during a reload: %v", got.err)
	}
	got.conn.Close(t.Context())
}

// TestSessionsOfAFormerServer: a cluster leads to another server after a reload. A session that goes
// on at the former one can be revoked as any other, also if it catches its cancellation.
func TestSessionsOfAFormerServer(t *testing.T) {
	t.Parallel() // the test mostly waits
	database := startDatabase(t)
	s := newServed(t, database, "")
	s.start()
	c := s.issue(s.now())
	config, err := s.site.Logon(c.DbUser, c.DbPassword, "dev")
	if err != nil {
		t.Fatal(err)
	}
	running := make(chan struct{})
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if n.Message == "running" {
			close(running)
		}
	}
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		// The process does not notice by itself that the gateway has closed the connection. Before
		// PostgreSQL 14 it never does, and has no such setting.
		_, _ = conn.Exec(t.Context(), "set client_connection_check_interval = 0")
		_, err := conn.Exec(t.Context(), `do $$ begin raise notice 'running'; loop begin perform pg_sleep(60);
			exception when query_canceled then null; end; end loop; end $$`)
		ended <- err
	}()
	<-running
	other := pgtest.Connect(t, "postgres://daypass:"+url.PathEscape(sitetest.AdminPassword)+"@"+database+"/postgres?sslmode=disable")
	processes := func() (n int) {
		if err := other.QueryRow(t.Context(), "select count(*) from pg_stat_activity where usename ~ '^IAM:'").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	s.write("127.0.0.1:1", "")
	s.hangup <- syscall.SIGHUP
	pgtest.Eventually(t, "the log tells of the session", func() bool {
		return strings.Contains(s.log.String(), "sessions continue at servers that the configuration does not name any more")
	})
	if n := processes(); n != 1 {
		t.Fatalf("%d processes after the reload", n)
	}
	if _, err := s.operator().Revoke(t.Context(), client.Selector{All: true}); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("the session goes on")
	}
	pgtest.Eventually(t, "its process ends", func() bool { return processes() == 0 })
}

// TestRevokeOfAFormerCluster: while a cluster is not in the configuration, its credentials do not log on,
// and a revocation cannot name it. If it comes back they are accepted again, unless a revocation that
// reaches every cluster was made meanwhile.
func TestRevokeOfAFormerCluster(t *testing.T) {
	s := newServed(t, "127.0.0.1:1", "") // a logon with a valid credential gets no further
	s.start()
	c := s.issue(s.now())
	reloads := 0
	rename := func(from, to string) {
		t.Helper()
		s.replace("identifier: "+from, "identifier: "+to)
		s.hangup <- syscall.SIGHUP
		reloads++
		pgtest.Eventually(t, "the reload", func() bool { return strings.Count(s.log.String(), "configuration reloaded") == reloads })
	}
	logon := func(when, want string) {
		t.Helper()
		_, err := s.tryLogon(c)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", when, err, want)
		}
	}
	logon("before", "cannot be reached")
	rename("examplecluster", "another")
	logon("without the cluster", "is not served here")
	if _, err := s.operator().Revoke(t.Context(), client.Selector{Cluster: "examplecluster"}); err == nil || !strings.Contains(err.Error(), "ClusterNotFound") {
		t.Errorf("revoked by the cluster's name: %v", err)
	}
	rename("another", "examplecluster")
	logon("with the cluster again", "cannot be reached")
	rename("examplecluster", "another")
	if _, err := s.operator().Revoke(t.Context(), client.Selector{DBUser: "alice"}); err != nil {
		t.Fatal(err)
	}
	rename("another", "examplecluster")
	logon("after the revocation", "revoked")
}
