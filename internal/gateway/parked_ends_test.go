package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/dbuser"
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
	f.server.CheckPool()
	if n := len(f.parkedSessions()); n != 0 {
		t.Errorf("%d sessions are parked", n)
	}
}

// blindAdmin cannot tell which databases are in demand.
type blindAdmin struct{ gateway.Admin }

func (blindAdmin) DatabasesInDemand(context.Context) ([]string, error) {
	return nil, errors.New("permission denied")
}

// TestEndedBeforeItIsParked: a session that is killed, or whose credential is revoked, after its client has
// sent Terminate, ends and is never parked. It is revoked for the clean-up, too.
func TestEndedBeforeItIsParked(t *testing.T) {
	pg := pgtest.Start(t)
	for name, end := range map[string]func(f *fixture, r *revocations, g credential.Grant, session string){
		"killed": func(f *fixture, _ *revocations, _ credential.Grant, session string) { f.server.Kill(session) },
		"killed by user": func(f *fixture, _ *revocations, g credential.Grant, _ string) {
			f.server.KillWhere(func(s *gateway.Session) bool { return s.DBUser == g.DBUser })
		},
		"revoked": func(f *fixture, r *revocations, g credential.Grant, _ string) {
			r.set(func(other *credential.Grant) bool { return other.ID == g.ID }, nil)
			f.server.Recheck()
		},
	} {
		for _, during := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, during the reset: %t", name, during), func(t *testing.T) {
				registry, ends := &revocations{}, &endHook{}
				f, cluster := parking(t, pg, session.Parking{Max: 20}, func(c *gateway.Config) {
					ends.Auditor, c.Audit, c.Revoked = c.Audit, ends, registry.revoked
				})
				told := &toldAdmin{Admin: cluster.Admin}
				other := *cluster
				other.Admin = told
				resetting, goOn := make(chan struct{}, 1), make(chan struct{})
				f.dialling(&other, func(conn net.Conn) net.Conn { return &slowReset{conn, resetting, goOn} })
				g := f.grant(pg.Name("ended"))
				_ = f.connect(g, "").Close(t.Context()) // not parked, because this logon created the session role
				pgtest.Eventually(t, "the first session is over", f.server.Settled)
				conn := f.connect(g, "")
				session := f.audit.lastLogon(t).SessionID
				if !during {
					close(goOn)
					ends.do.Store(new(func() { end(f, registry, g, session) }))
				}
				_ = conn.Close(t.Context())
				if during {
					<-resetting
					end(f, registry, g, session)
					close(goOn)
				}
				pgtest.Eventually(t, "the session is over", f.server.Settled)
				if log := f.log.String(); strings.Contains(log, "session parked") {
					t.Errorf("it was parked: %s", log)
				}
				pgtest.Eventually(t, "the process ends", func() bool { return len(pids(t, pg, g.DBUser)) == 0 })
				if got, want := told.revoked.Load(), name == "revoked"; got != want {
					t.Errorf("the clean-up is told that the credential was revoked: %t, want %t", got, want)
				}
			})
		}
	}
}

// endHook calls do at the end of a session, between the client's Terminate and the reset.
type endHook struct {
	gateway.Auditor
	do atomic.Pointer[func()]
}

func (h *endHook) SessionEnd(r *audit.SessionRecord) (int, error) {
	if do := h.do.Load(); do != nil {
		(*do)()
	}
	return h.Auditor.SessionEnd(r)
}

// toldAdmin remembers whether it was told of the end of a session whose credential was revoked.
type toldAdmin struct {
	gateway.Admin
	revoked atomic.Bool
}

func (a *toldAdmin) SessionRevoked(role string, left *dbuser.Backend) {
	a.revoked.Store(true)
	a.Admin.SessionRevoked(role, left)
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
