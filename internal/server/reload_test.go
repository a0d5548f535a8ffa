package server

import (
	"net/url"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/adminconn"
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
