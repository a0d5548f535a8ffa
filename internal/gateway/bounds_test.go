package gateway_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/throttle"
	"github.com/daypass/daypass/test/pgtest"
)

// TestLogonsOfAPrincipalAreBounded: a principal that has used up its bytes in the audit log is
// refused until it has waited. All sessions of an IAM role count together, because callers choose
// their names. Other principals are not affected.
func TestLogonsOfAPrincipalAreBounded(t *testing.T) {
	f := newFixture(t, nil)
	pg := pgtest.Start(t)
	f.real(pg)
	f.server.SetPrincipalLimit(throttle.Limit{Bytes: 8, BytesBurst: 4 << 10}) // little comes back while the test runs
	g, other := f.grant(pg.Name("alice")), f.grant(pg.Name("alice"))
	role := strings.Replace(strings.Replace(principal, ":iam:", ":sts:", 1), "user/ana", "assumed-role/etl/", 1)
	logOn := func(session string) error {
		g.Principal = role + session
		conn, err := f.try(g.LogonName(), f.mint(g), "postgres")
		if err == nil {
			err = conn.Close(context.Background())
		}
		return err
	}
	var err error
	for i := 0; err == nil && i < 20; i++ {
		err = logOn("nightly")
	}
	f.refused(err, "53400", "too many logons with credentials of the same principal")
	f.refused(logOn("another"), "53400", "too many logons")
	f.connect(other, "postgres")
	f.ahead.Store(int64(10 * time.Minute))
	if err := logOn("nightly"); err != nil {
		t.Errorf("after ten minutes: %v", err)
	}
	f.server.SetPrincipalLimit(throttle.Limit{})
	for range 10 {
		if err := logOn("nightly"); err != nil {
			t.Fatalf("without a limit: %v", err)
		}
	}
}

// counter is a count over all servers that admits every session.
type counter struct {
	lost   atomic.Bool // the other servers may no longer count this one's sessions
	within atomic.Int64
}

func (c *counter) Take(string, string) (func(context.Context) error, bool) {
	c.within.Add(1)
	return nil, true
}

func (c *counter) Held(string, string) bool { return !c.lost.Load() }

func (c *counter) Leave(string, string) { c.within.Add(-1) }

// TestSessionsThatAreNotCounted: if the process was frozen while it opened a session, the other
// servers may have stopped counting its sessions. Then the session may not begin.
func TestSessionsThatAreNotCounted(t *testing.T) {
	count := &counter{}
	f := newFixture(t, func(c *gateway.Config) { c.Everywhere = count })
	pg := pgtest.Start(t)
	f.real(pg)
	g := f.grant(pg.Name("alice"))
	password := f.mint(g)
	count.lost.Store(true)
	_, err := f.try(g.LogonName(), password, "postgres")
	f.refused(err, "57P03", "the sessions of all servers cannot be counted")
	if n := count.within.Load(); n != 0 {
		t.Errorf("%d sessions are counted after the refusal, want none", n)
	}
	pgtest.Eventually(t, "the upstream session ends", func() bool {
		conn := pgtest.Connect(t, pg.Superuser("postgres"))
		return value[int](t, conn, "SELECT count(*) FROM pg_stat_activity WHERE usename = $1", "IAM:"+g.DBUser) == 0
	})
	count.lost.Store(false)
	conn, err := f.try(g.LogonName(), password, "postgres")
	if err != nil {
		t.Fatalf("once they are counted again: %v", err)
	}
	_ = conn.Close(context.Background())
	pgtest.Eventually(t, "the session leaves the count", func() bool { return count.within.Load() == 0 })
}
