package gateway_test

import (
	"context"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/test/pgtest"
)

// kept is a listener that keeps the accepted connections, so that tests can read their socket
// options.
type kept struct {
	net.Listener
	conns chan net.Conn
}

func (l *kept) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.conns <- conn
	}
	return conn, err
}

// TestPeersThatVanish: both ends have the TCP options that detect a peer that vanished. A test
// cannot switch a machine off; TestClientStopsReading shows that the kernel acts on one of the
// options.
func TestPeersThatVanish(t *testing.T) {
	f := newFixture(t, func(c *gateway.Config) {
		c.Limits.KeepAlive, c.Limits.UserTimeout = 17*time.Second, 23*time.Second
	})
	conns := make(chan net.Conn, 100)
	cluster := *f.real(pgtest.Start(t))
	upstream := *cluster.Upstream
	dial := upstream.DialFunc
	upstream.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err == nil {
			conns <- conn
		}
		return conn, err
	}
	cluster.Upstream = &upstream
	f.add(&cluster)
	f.addr = f.serve(&kept{listen(t), conns})
	f.session(f.grant("alice"), "verify-full")
	for _, end := range []string{"client", "upstream"} {
		raw, err := (<-conns).(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		err = raw.Control(func(fd uintptr) {
			for _, option := range []struct {
				name               string
				level, which, want int
			}{
				{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
				{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 17},
				{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15},
				{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4},
				{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 23000},
			} {
				if got, err := unix.GetsockoptInt(int(fd), option.level, option.which); err != nil || got != option.want {
					t.Errorf("%s: %s = %d, %v, want %d", end, option.name, got, err, option.want)
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestClientStopsReading: a client that stays connected without reading keeps its session and
// query until the TCP timeout, and no longer.
func TestClientStopsReading(t *testing.T) {
	both(t, func(t *testing.T, sslmode string) {
		f := newFixture(t, func(c *gateway.Config) { c.Limits.UserTimeout = time.Second })
		pg := pgtest.Start(t)
		f.real(pg)
		g := f.grant(pg.Name("alice"))
		c := f.session(g, sslmode)
		c.send(typed('Q', []byte("SELECT repeat('x', 1000) FROM generate_series(1, 1000000)\x00")))
		pgtest.Eventually(t, "the session ends", func() bool { return len(f.server.Sessions()) == 0 })
		pgtest.Eventually(t, "and its query", func() bool { return sessionsOf(t, pg, g.DBUser) == 0 })
		if end := f.audit.end(t, f.audit.lastLogon(t).SessionID); end.Reason != "client gone" || end.BytesToClient == 0 {
			t.Errorf("recorded %+v", end)
		}
	})
}
