package gateway_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/session"
	"github.com/daypass/daypass/test/pgtest"
)

// TestParkedSessionsEndWhenDemandIsUnknown: parked sessions end if the gateway cannot tell which
// databases are in demand, because a command may be waiting for those databases.
func TestParkedSessionsEndWhenDemandIsUnknown(t *testing.T) {
	pg := pgtest.Start(t)
	f, cluster := parking(t, pg, session.Parking{Max: 20}, nil)
	blind := *cluster
	blind.Admin = blindAdmin{cluster.Admin}
	f.add(&blind)
	g := f.grant(pg.Name("blind"))
	f.known(g)
	if n := f.leaves(f.connect(g, "")); n > 1 {
		t.Fatalf("%d sessions are parked", n)
	}
	f.server.CheckParked()
	if n := len(f.parkedSessions()); n != 0 {
		t.Errorf("%d sessions are parked", n)
	}
}

// blindAdmin cannot tell which databases are in demand.
type blindAdmin struct{ gateway.Admin }

func (blindAdmin) DatabasesInDemand(context.Context) ([]string, error) {
	return nil, errors.New("permission denied")
}

// TestKillDuringTheReset: a session can be ended during its reset, just like a parked one.
func TestKillDuringTheReset(t *testing.T) {
	pg := pgtest.Start(t)
	f, cluster := parking(t, pg, session.Parking{Max: 20}, nil)
	resetting, goOn := make(chan struct{}, 1), make(chan struct{})
	f.dialling(cluster, func(conn net.Conn) net.Conn { return &slowReset{conn, resetting, goOn} })
	g := f.grant(pg.Name("killed"))
	conn := f.connect(g, "")
	_ = conn.Close(t.Context()) // not parked, because this logon created the session role
	pgtest.Eventually(t, "the first session is over", f.server.Settled)
	conn = f.connect(g, "")
	_ = conn.Close(t.Context())
	<-resetting
	f.server.KillWhere(func(s *gateway.Session) bool { return s.DBUser == g.DBUser })
	close(goOn)
	pgtest.Eventually(t, "the reset is over", f.server.Settled)
	if n := len(f.parkedSessions()); n != 0 {
		t.Errorf("%d sessions are parked", n)
	}
}

// TestLogonWaitsForTheReset: a logon waits for the session of its principal that is being reset, and
// starts one of its own if that session ends or takes too long.
func TestLogonWaitsForTheReset(t *testing.T) {
	pg := pgtest.Start(t)
	for name, c := range map[string]struct {
		patience  time.Duration
		meanwhile func(*fixture, string)
		parked    bool
	}{
		"it is ready": {time.Minute, func(*fixture, string) {}, true},
		"it is killed": {time.Minute, func(f *fixture, user string) {
			f.server.KillWhere(func(s *gateway.Session) bool { return s.DBUser == user })
		}, false},
		"it is slow": {time.Millisecond, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			f, cluster := parking(t, pg, session.Parking{Max: 20}, nil)
			f.server.WaitForResets(c.patience)
			g := f.grant(pg.Name("waits"))
			f.known(g)
			resetting, goOn := make(chan struct{}, 2), make(chan struct{})
			f.dialling(cluster, func(conn net.Conn) net.Conn { return &slowReset{conn, resetting, goOn} })
			conn := f.connect(g, "")
			pid := pidOf(t, conn)
			_ = conn.Close(t.Context())
			<-resetting
			if c.meanwhile == nil {
				again := f.connect(g, "")
				if got := pidOf(t, again); got == pid {
					t.Error("got a session that is being reset")
				}
				close(goOn)
				return
			}
			got := make(chan int, 1)
			go func() { got <- pidOf(t, f.connect(g, "")) }()
			pgtest.Eventually(t, "the logon waits", func() bool { return f.server.AwaitedResets() == 1 })
			c.meanwhile(f, g.DBUser)
			close(goOn)
			if again := <-got; (again == pid) != c.parked {
				t.Errorf("process %d, after %d: %s", again, pid, f.log)
			}
			if r := f.audit.lastLogon(t); (r.Upstream == "parked") != c.parked {
				t.Errorf("the record says %q", r.Upstream)
			}
		})
	}
}

// slowReset holds DISCARD ALL back until the test releases it.
type slowReset struct {
	net.Conn
	resetting chan<- struct{}
	goOn      <-chan struct{}
}

func (c *slowReset) Write(b []byte) (int, error) {
	if strings.Contains(string(b), "DISCARD ALL") {
		c.resetting <- struct{}{}
		<-c.goOn
	}
	return c.Conn.Write(b)
}

// SyscallConn lets the gateway see whether the server has sent anything.
func (c *slowReset) SyscallConn() (syscall.RawConn, error) {
	return c.Conn.(syscall.Conn).SyscallConn()
}
