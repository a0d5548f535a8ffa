package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/fleet"
	"github.com/daypass/daypass/test/etcdtest"
	"github.com/daypass/daypass/test/pgtest"
)

// limit gives the example's cluster session limits.
func (s *served) limit(text string) {
	s.t.Helper()
	config, err := os.ReadFile(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	const after = "    database: dev\n"
	changed := strings.Replace(string(config), after, after+"    session_limits: "+text+"\n", 1)
	if err := os.WriteFile(s.config, []byte(changed), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// TestLimitsOverAllServers: two servers share a session limit. Many concurrent logons at both never
// exceed it, whatever ends or is refused meanwhile; afterwards all seats are free. While etcd is
// unavailable no logon is admitted, and sessions that survive the outage still count.
func TestLimitsOverAllServers(t *testing.T) {
	t.Parallel() // the test mostly waits
	const limit = 5
	etcd, database := etcdtest.Start(t), startDatabase(t)
	var all []*served
	for range 2 {
		s := newMember(t, database, etcd.URL, "")
		s.limit(fmt.Sprintf("{max: 50, per_user: %d, scope: all}", limit))
		s.start()
		all = append(all, s)
	}
	credential := all[0].issue(all[0].now())
	var now, most, admitted, refused atomic.Int64
	var logons sync.WaitGroup
	for i := range 12 {
		logons.Go(func() {
			for range 4 {
				conn, err := all[i%2].logon(credential)
				var said *pgconn.PgError
				switch {
				case err == nil:
					n := now.Add(1)
					for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
					}
					admitted.Add(1)
					_, _ = conn.Exec(context.Background(), "SELECT pg_sleep(0.01)")
					now.Add(-1) // before another session can have its place
					conn.Close(context.Background())
				case errors.As(err, &said) && said.Code == "53300":
					refused.Add(1)
					if said.Message != `too many sessions for user "alice"` ||
						said.Detail != fmt.Sprintf(`The limit, session_limits.per_user of cluster "examplecluster", is %d over all servers.`, limit) {
						t.Errorf("refused with %q, %q", said.Message, said.Detail)
					}
				default:
					t.Errorf("logging on: %v", err)
				}
			}
		})
	}
	logons.Wait()
	t.Logf("%d sessions and %d refusals, %d at a time", admitted.Load(), refused.Load(), most.Load())
	if most.Load() > limit || refused.Load() == 0 {
		t.Errorf("%d sessions at a time, %d refused", most.Load(), refused.Load())
	}

	// One server can take all seats; the other then has none.
	var open []*pgx.Conn
	defer func() {
		for _, conn := range open {
			conn.Close(context.Background())
		}
	}()
	pgtest.Eventually(t, "all places at one server", func() bool {
		conn, err := all[1].logon(credential)
		if err == nil {
			open = append(open, conn)
		}
		return len(open) == limit
	})
	if refusal := all[0].answer(credential); !strings.HasPrefix(refusal, "53300 ") {
		t.Errorf("beyond the limit: %q", refusal)
	}
	open[0].Close(context.Background())
	open = open[1:]
	pgtest.Eventually(t, "the place of a session that ended", func() bool {
		conn, err := all[0].logon(credential)
		if err == nil {
			open = append(open, conn)
		}
		return err == nil
	})

	etcd.Stop()
	pgtest.Eventually(t, "logons to be refused", func() bool { return strings.HasPrefix(all[0].refusal(credential), "57P03 ") })
	etcd.Start()
	pgtest.Eventually(t, "the limit to be known again", func() bool { return strings.HasPrefix(all[0].refusal(credential), "53300 ") })
	for _, conn := range open {
		if _, err := conn.Exec(t.Context(), "SELECT 1"); err != nil {
			t.Errorf("a session did not survive an outage of etcd: %v", err)
		}
	}
	if err := all[1].stop(); err != nil { // ends its sessions, which are all but one
		t.Error(err)
	}
	pgtest.Eventually(t, "the places of a server that stopped", func() bool { return all[0].refusal(credential) == "" })
}

// TestDifferentLimits: of two servers whose files have different limits, each holds its own, against
// the sessions of both; and the difference names the key.
func TestDifferentLimits(t *testing.T) {
	t.Parallel() // the test mostly waits
	etcd, database := etcdtest.Start(t), startDatabase(t)
	var all []*served
	for _, limit := range []int{1, 2} {
		s := newMember(t, database, etcd.URL, "")
		s.limit(fmt.Sprintf("{per_user: %d, scope: all}", limit))
		s.start()
		all = append(all, s)
	}
	strict, lax := all[0], all[1]
	credential := strict.issue(strict.now())
	for _, s := range []*served{strict, lax} {
		conn, err := s.logon(credential)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
	}
	for _, s := range all {
		if refusal := s.answer(credential); !strings.HasPrefix(refusal, "53300 ") {
			t.Errorf("a third session: %q", refusal)
		}
	}
	var list []fleet.Server
	pgtest.Eventually(t, "both servers in the list", func() bool { // one whose announcement is late is left out
		var err error
		if list, err = strict.keys().Servers(t.Context()); err != nil {
			t.Fatal(err)
		}
		return len(list) == 2
	})
	found := fleet.Differences(list)
	delete(found, fleet.Clocks) // a server whose announcement is late seems to be behind
	if text := found[fleet.Configurations]; len(found) != 1 || !strings.HasSuffix(text, " (in clusters.session_limits)") {
		t.Errorf("Differences() = %v", found)
	}
}
