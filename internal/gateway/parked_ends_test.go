package gateway_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

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
