package gateway_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/throttle"
	"github.com/daypass/daypass/test/pgtest"
)

// TestSilentPeers: 300 peers from 300 addresses connect and send nothing, although only 100
// connections may be half-open. An honest client gets in.
func TestSilentPeers(t *testing.T) {
	f := newFixture(t, func(c *gateway.Config) { c.Limits.HalfOpen, c.Limits.LogonTimeout = 100, 20*time.Second })
	f.real(pgtest.Start(t))
	for i := range 300 {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, byte(1+i/250), byte(1+i%250))}}
		conn, err := dialer.Dial("tcp", f.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	start := time.Now()
	f.connect(f.grant("alice"), "")
	if took := time.Since(start); took > patience {
		t.Errorf("the honest client waited %v", took)
	}
	if n := f.server.HalfOpen(); n > 100 {
		t.Errorf("%d half-open connections, want 100 at most", n)
	}
}

// TestTalkingPeers: peers that send a byte now and then fill the room, from a few addresses or
// each from its own. An honest client gets in.
func TestTalkingPeers(t *testing.T) {
	for name, row := range map[string]struct{ addresses, each int }{"a few addresses": {4, 50}, "many addresses": {200, 1}} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, func(c *gateway.Config) {
				c.Limits.HalfOpen, c.Limits.HalfOpenPerAddress, c.Limits.LogonTimeout = 100, 100, time.Minute
			})
			f.real(pgtest.Start(t))
			// At this rate a start-up packet of 9000 bytes takes a quarter of an hour. A peer that
			// is closed to make room for a newcomer connects again.
			ctx, stop := context.WithCancel(t.Context())
			var talking sync.WaitGroup
			defer talking.Wait()
			defer stop()
			for i := range row.addresses {
				dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 7, byte(1+i))}}
				for range row.each {
					talking.Go(func() {
						for ctx.Err() == nil {
							conn, err := dialer.DialContext(ctx, "tcp", f.addr)
							if err != nil {
								continue
							}
							_, err = conn.Write(be32(9000))
							for err == nil && ctx.Err() == nil {
								_, err = conn.Write([]byte{0})
								time.Sleep(100 * time.Millisecond)
							}
							conn.Close()
						}
					})
				}
			}
			pgtest.Eventually(t, "the room is full", func() bool { return f.server.HalfOpen() == 100 })
			// On a busy machine the honest client may itself be slow, and be closed to make room
			// for a newcomer. Then it tries again.
			g := f.grant("alice")
			for range 3 {
				start := time.Now()
				pgtest.Eventually(t, "the honest client gets in", func() bool {
					conn, err := f.try(g.LogonName(), f.mint(g), "")
					if err != nil {
						return false
					}
					return conn.Close(ctx) == nil
				})
				t.Logf("the honest client waited %v", time.Since(start))
			}
		})
	}
}

// TestAddressLimit: one address uses its whole share, and other addresses still get in.
func TestAddressLimit(t *testing.T) {
	f := newFixture(t, func(c *gateway.Config) { c.Limits.HalfOpenPerAddress, c.Limits.HalfOpen = 5, 50 })
	f.real(pgtest.Start(t))
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 77)}}
	for range 40 {
		conn, err := dialer.Dial("tcp", f.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	f.connect(f.grant("alice"), "")
	// The honest client's own connection leaves the room a moment after the logon.
	pgtest.Eventually(t, "5 half-open connections of one address at most", func() bool { return f.server.HalfOpen() <= 5 })
}

// TestBurst: of many honest clients at once only some find room at first, but all get in.
func TestBurst(t *testing.T) {
	f := newFixture(t, func(c *gateway.Config) { c.Limits.HalfOpen, c.Limits.HalfOpenPerAddress = 10, 10 })
	f.real(pgtest.Start(t))
	g := f.grant("alice")
	password := f.mint(g)
	errs := make(chan error)
	for range 40 {
		go func() {
			conn, err := f.try(g.LogonName(), password, "")
			if err == nil {
				err = conn.Close(context.Background())
			}
			errs <- err
		}()
	}
	failed := 0
	for range 40 {
		if err := <-errs; err != nil {
			failed++
		}
	}
	// A connection from an address that has used up its share is closed.
	if failed > 30 {
		t.Errorf("%d of 40 did not get in", failed)
	}
	pgtest.Eventually(t, "no half-open connections are left", func() bool { return f.server.HalfOpen() == 0 })
}

// TestDeadline: whatever a peer does before it is logged on, its connection is closed at the
// deadline.
func TestDeadline(t *testing.T) {
	const limit = 700 * time.Millisecond
	f := newFixture(t, func(c *gateway.Config) { c.Limits.LogonTimeout = limit })
	// The deadline may come in any of these steps, so they ignore errors.
	drip := func(c net.Conn, b []byte) {
		for _, x := range b {
			if _, err := c.Write([]byte{x}); err != nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	send := func(c net.Conn, messages ...[]byte) net.Conn {
		for _, b := range messages {
			_, _ = c.Write(b)
		}
		return c
	}
	secure := func(c net.Conn) net.Conn {
		_, _ = io.ReadFull(send(c, sslRequest), make([]byte, 1))
		return tls.Client(c, f.clientTLS(nil)) // with a handshake at the first use
	}
	long := startup(version30, "user", "IAM:alice", "application_name", strings.Repeat("x", 2000))
	for name, behave := range map[string]func(net.Conn) net.Conn{
		"silent":                     func(c net.Conn) net.Conn { return c },
		"silent after SSLRequest":    func(c net.Conn) net.Conn { return send(c, sslRequest) },
		"silent inside TLS":          secure,
		"silent at the password":     func(c net.Conn) net.Conn { return send(secure(c), long) },
		"dripping":                   func(c net.Conn) net.Conn { drip(c, long); return c },
		"dripping inside TLS":        func(c net.Conn) net.Conn { c = secure(c); drip(c, long); return c },
		"half a ClientHello":         func(c net.Conn) net.Conn { return send(c, []byte{22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}) },
		"half a password":            func(c net.Conn) net.Conn { return send(c, long, passwordMessage("abc")[:6]) },
		"password that never starts": func(c net.Conn) net.Conn { return send(c, long, []byte("p")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			_, _ = io.Copy(io.Discard, behave(f.dial())) // until the gateway hangs up
			if took := time.Since(start); took > limit+patience {
				t.Errorf("it lasted %v", took)
			}
		})
	}
	t.Run("cluster that never answers", func(t *testing.T) {
		t.Parallel()
		for limit := limit; ; limit *= 2 { // on a busy machine the logon may take longer to get to the cluster
			f := newFixture(t, func(c *gateway.Config) { c.Limits.LogonTimeout = limit })
			admin := &stuckAdmin{fakeAdmin: &fakeAdmin{}}
			f.add(&gateway.Cluster{Identifier: "examplecluster", Database: "dev", Admin: admin, Upstream: upstreamAt(t, "127.0.0.1:1")})
			g := f.grant("alice")
			start := time.Now()
			_, err := f.try(g.LogonName(), f.mint(g), "")
			if took := time.Since(start); took > limit+patience {
				t.Fatalf("it lasted %v", took)
			}
			if admin.asked.Load() {
				f.refused(err, "08006", "did not answer in time")
				return
			}
		}
	})
}

// TestSlowedFailures: answers to an address that keeps failing are delayed more and more; a
// client with a credential is answered at once.
func TestSlowedFailures(t *testing.T) {
	f := newFixture(t, func(c *gateway.Config) {
		c.Limits.FailureDelay, c.Limits.FailureDelayMax = 50*time.Millisecond, 400*time.Millisecond
	})
	f.real(pgtest.Start(t))
	g := f.grant("alice")
	fail := func() time.Duration {
		c := f.dial()
		c.send(startup(version30, "user", g.LogonName()))
		c.read(len(askPassword))
		start := time.Now()
		c.send(passwordMessage("wrong"))
		c.fatal()
		return time.Since(start)
	}
	began := time.Now()
	for i, least := range []time.Duration{5, 50, 100, 200, 400, 400} {
		// After 5 s half a failure is forgotten.
		if took := fail(); took < least*time.Millisecond && time.Since(began) < 5*time.Second {
			t.Errorf("failure %d was answered after %v, want %d ms", i+1, took, least)
		}
	}
	var wait sync.WaitGroup
	for range 100 { // most answers are delayed
		wait.Go(func() { fail() })
	}
	start := time.Now()
	f.connect(g, "")
	if took := time.Since(start); took > patience {
		t.Errorf("a good credential from the same address took %v", took)
	}
	wait.Wait()
	pgtest.Eventually(t, "no half-open connections are left", func() bool { return f.server.HalfOpen() == 0 })
}

// TestStrangersFillNoDisk: in a flood every forged password and every refused start-up message
// is answered, the former with the usual delay. Only a few are recorded, and the record counts
// the omitted ones.
func TestStrangersFillNoDisk(t *testing.T) {
	f := newFixture(t, func(c *gateway.Config) {
		c.Limits.FailureDelay, c.Limits.FailureDelayMax = time.Millisecond, time.Millisecond
	})
	const burst = 5
	f.server.SetStrangerLines(throttle.Limit{Rate: 0.001, Burst: burst})
	var dials int
	forge := func() {
		c := f.dial()
		if dials++; dials%2 == 0 {
			c.send(startup(version30, "user", "IAM:alice", "role", "postgres"))
			if got := c.fatal()['C']; got != "42501" {
				t.Fatalf("SQLSTATE %s, want 42501", got)
			}
			return
		}
		c.send(startup(version30, "user", "IAM:alice"))
		c.read(len(askPassword))
		c.send(passwordMessage("forged"))
		if got := c.fatal()['C']; got != "28000" {
			t.Fatalf("SQLSTATE %s, want 28000", got)
		}
	}
	recorded := func() int { n, _ := f.audit.count(); return n }
	flood := 101
	for range flood - 1 {
		forge()
	}
	if n := recorded(); n != burst {
		t.Errorf("%d records of %d forgeries, want %d", n, flood-1, burst)
	}
	f.ahead.Add(int64(1000 * time.Second))
	forge() // its record reports the omitted ones
	told := 0
	f.audit.mu.Lock()
	for _, r := range f.audit.logons {
		told += int(r.Omitted)
	}
	f.audit.mu.Unlock()
	if told != flood-recorded() {
		t.Errorf("the records say that %d have none, want %d", told, flood-recorded())
	}
	if n := strings.Count(f.log.String(), "logon refused"); n != recorded() {
		t.Errorf("%d lines in the log, want as many as records, %d", n, recorded())
	}
	// Every attempt of a credential holder is still recorded.
	before := recorded()
	for range 3 {
		g := f.grant("alice")
		g.Cluster = "nowhere"
		_, err := f.try(g.LogonName(), f.mint(g), "")
		f.refused(err, "08004", "is not served here")
	}
	if n := recorded() - before; n != 3 {
		t.Errorf("%d records of 3 refusals of good credentials", n)
	}
}

// flaky is a listener that runs out of descriptors now and then.
type flaky struct {
	net.Listener
	mu   sync.Mutex
	errs []error
}

func (l *flaky) Accept() (net.Conn, error) {
	l.mu.Lock()
	if len(l.errs) > 0 {
		err := l.errs[0]
		l.errs = l.errs[1:]
		l.mu.Unlock()
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: err}
	}
	l.mu.Unlock()
	return l.Listener.Accept()
}

func TestAcceptErrors(t *testing.T) {
	f := newFixture(t, nil)
	f.real(pgtest.Start(t))
	f.addr = f.serve(&flaky{Listener: listen(t), errs: []error{syscall.EMFILE, syscall.ECONNABORTED, syscall.ENFILE, syscall.EMFILE}})
	_, f.port, _ = net.SplitHostPort(f.addr)
	f.connect(f.grant("alice"), "")

	fatal := errors.New("no longer a socket")
	l := &flaky{Listener: listen(t), errs: []error{fatal}}
	if err := f.server.Serve(context.Background(), l); !errors.Is(err, fatal) {
		t.Errorf("Serve() = %v, want %v", err, fatal)
	}
	if _, err := l.Listener.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error("Serve left its listener open")
	}
}

// TestFirstLogons: a new user logs on for the first time many times at once.
func TestFirstLogons(t *testing.T) {
	f := newFixture(t, func(c *gateway.Config) { c.Limits.LogonTimeout = time.Minute }) // 50 at once can be slow on a busy machine
	pg := pgtest.Start(t)
	f.real(pg)
	g := f.grant(pg.Name("newcomer"))
	password := f.mint(g)
	errs := make(chan error)
	for range 50 {
		go func() {
			conn, err := f.try(g.LogonName(), password, "")
			if err == nil {
				var user string
				if err = conn.QueryRow(context.Background(), "SELECT current_user").Scan(&user); err == nil && user != g.DBUser {
					err = fmt.Errorf("current_user = %q", user)
				}
				err = errors.Join(err, conn.Close(context.Background()))
			}
			errs <- err
		}()
	}
	for range 50 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
