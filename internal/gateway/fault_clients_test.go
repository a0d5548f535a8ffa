package gateway_test

import (
	"crypto/tls"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/test/pgtest"
)

// TestThousandsOfStrangers: 4000 peers from 200 addresses begin a logon in every possible way
// and never finish it. Their cost is bounded, honest clients get in meanwhile, and nothing is
// left of them afterwards.
func TestThousandsOfStrangers(t *testing.T) {
	f := newFixture(t, func(c *gateway.Config) { c.Limits.LogonTimeout = 20 * time.Second })
	cluster := f.real(pgtest.Start(t))
	honest := f.grant("alice")
	_ = f.connect(honest, cluster.Database).Close(t.Context())
	before, goroutines := memory(), runtime.NumGoroutine()

	whole := startup(version30, "user", "IAM:alice", "database", "dev")
	begin := []func(net.Conn){
		func(net.Conn) {},
		func(c net.Conn) { _, _ = c.Write(sslRequest) },
		func(c net.Conn) { _, _ = c.Write(gssencRequest) },
		func(c net.Conn) { _, _ = c.Write(whole[:len(whole)-3]) },
		func(c net.Conn) { _, _ = c.Write(be32(9999)); _, _ = c.Write(make([]byte, 9000)) },
		func(c net.Conn) { _, _ = c.Write(be32(1 << 30)) },
		func(c net.Conn) { _, _ = c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")) },
		func(c net.Conn) { _, _ = c.Write([]byte{22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc}) }, // announces a ClientHello and does not send it
		func(c net.Conn) { _, _ = c.Write(whole) },                                       // gets the password request and sends no password
		func(c net.Conn) { _, _ = c.Write(whole); _, _ = c.Write(append([]byte{'p'}, be32(4000)...)) },
		func(c net.Conn) { _, _ = c.Write(whole); _, _ = c.Write(passwordMessage("forged")) },
	}
	var mu sync.Mutex
	var conns []net.Conn
	var strangers sync.WaitGroup
	turn := make(chan struct{}, 64)
	for i := range 4000 {
		turn <- struct{}{}
		strangers.Go(func() {
			defer func() { <-turn }()
			dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 9, byte(1+i%200))}}
			conn, err := dialer.Dial("tcp", f.addr)
			if err != nil {
				return // refused, which also bounds the cost
			}
			begin[i%len(begin)](conn)
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
		})
		if i%1000 == 999 {
			start := time.Now()
			_ = f.connect(honest, cluster.Database).Close(t.Context())
			if took := time.Since(start); took > 20*time.Second+patience {
				t.Errorf("among %d strangers an honest client waited %v", i+1, took)
			}
		}
	}
	strangers.Wait()
	if n := f.server.HalfOpen(); n > 2048 {
		t.Errorf("%d half-open connections, want 2048 at most", n)
	}
	grown := memory() - before
	t.Logf("%d half-open connections, %d KiB, %d goroutines", f.server.HalfOpen(), grown>>10, runtime.NumGoroutine()-goroutines)
	if grown > 64<<20 {
		t.Errorf("%d MiB for strangers", grown>>20)
	}
	for _, c := range conns {
		c.Close()
	}
	pgtest.Eventually(t, "the strangers are gone", func() bool { return f.server.HalfOpen() == 0 })
	pgtest.Eventually(t, "so are their goroutines", func() bool { return runtime.NumGoroutine() <= goroutines+20 })
}

// memory returns the size of heap and stacks after a garbage collection.
func memory() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// TestClientNetworkFails: the client's network freezes during its query and then breaks. The
// query is cancelled.
func TestClientNetworkFails(t *testing.T) {
	f := newFixture(t, nil)
	pg := pgtest.Start(t)
	f.real(pg)
	n := newNetwork(t, f.addr)
	g := f.grant(pg.Name("alice"))
	conn, err := net.Dial("tcp", n.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Minute))
	c := &client{conn, t}
	c.send(sslRequest)
	c.read(1)
	secure := tls.Client(conn, f.clientTLS(nil))
	c = &client{secure, t}
	c.send(startup(version30, "user", g.LogonName()))
	c.message()
	c.send(passwordMessage(f.mint(g)))
	c.until('Z')
	c.send(sleep)
	pgtest.Eventually(t, "the query runs", func() bool { return sleeping(t, pg, g.DBUser) == 1 })
	n.freeze()
	if got := sleeping(t, pg, g.DBUser); got != 1 {
		t.Errorf("%d queries run while the client is silent, want 1: silence is no end", got)
	}
	n.cut("")
	pgtest.Eventually(t, "the query ends", func() bool { return sessionsOf(t, pg, g.DBUser) == 0 })
}
