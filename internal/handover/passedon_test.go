package handover_test

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// TestPassedOnRightAfterTheLastLook: a session begins while the server's answer that there are none is on
// its way. Its session role is watched, too.
func TestPassedOnRightAfterTheLastLook(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		if s.Major() > 14 {
			return // from 15 on a role does not administer itself
		}
		f := alone(t, s, "CREATEROLE") // no other test's sessions
		looks := newLateAnswer("select exists (select from live")
		f.Admin = f.Another(looks.option)
		alice, bob := f.LentUser("alice", ""), f.LentUser("bob", "")
		n := dbuser.Need{User: alice, Groups: []string{f.LentGroup("analysts")}}
		looks.armed.Store(true)
		f.Eventually("a look for sessions", func() bool {
			f.Ensure(n) // and no session
			select {
			case <-looks.answered:
				return true
			default:
				return false
			}
		})
		role, err := f.Admin.Ensure(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		c := f.Logon(role, "postgres")
		f.Admin.Opened(role.Name)
		close(looks.goOn)
		clustertest.Exec(t, c, "grant "+pgtest.Quote(role.Name)+" to "+pgtest.Quote(bob))
		f.Eventually("the membership is taken back", func() bool { return f.Memberships(bob) == "" })
	})
}

// lateAnswer holds back the server's answer to a query with a text, the first one after it was armed.
type lateAnswer struct {
	text           string
	armed          atomic.Bool
	answered, goOn chan struct{}
}

func newLateAnswer(text string) *lateAnswer {
	return &lateAnswer{text: text, answered: make(chan struct{}), goOn: make(chan struct{})}
}

// option makes the connections of an Admin late.
func (l *lateAnswer) option(c *dbuser.Config) {
	dial := c.Conn.DialFunc
	c.Conn.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		return &lateConn{Conn: conn, late: l}, err
	}
}

type lateConn struct {
	net.Conn
	late *lateAnswer
	hold atomic.Bool
}

func (c *lateConn) Write(b []byte) (int, error) {
	if strings.Contains(string(b), c.late.text) && c.late.armed.CompareAndSwap(true, false) {
		c.hold.Store(true)
	}
	return c.Conn.Write(b)
}

func (c *lateConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && c.hold.CompareAndSwap(true, false) {
		close(c.late.answered)
		<-c.late.goOn
	}
	return n, err
}
