package session_test

import (
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daypass/daypass/internal/pgwire"
	"github.com/daypass/daypass/internal/session"
)

// TestStalledServerIsNotCut: TCP_USER_TIMEOUT of the server's connection is off during a stall.
// Otherwise TCP would end the connection to a server that only waits.
func TestStalledServerIsNotCut(t *testing.T) {
	t.Parallel() // the test mostly waits
	client, near := pair(t)
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	upstream, err := net.Dial("tcp", server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer upstream.Close()
	peer, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	option := func(set int) (value int) {
		raw, err := upstream.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = raw.Control(func(fd uintptr) {
			if set > 0 {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, set)
			}
			value, _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
		})
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	const timeout = 300_000
	option(timeout)
	ended := make(chan session.Cause, 1)
	l := &line{client: client, server: peer}
	l.Session = session.New(session.Config{Client: near, Upstream: session.NewConn(upstream, nil), Status: pgwire.StatusIdle, HalfClose: time.Second,
		Stall: 50 * time.Millisecond, CancelQuery: func() {}, Ended: func(c session.Cause) { ended <- c }})
	l.Start()
	pass(t, client, peer, query)
	fill(l, false, client, data)
	if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if got := option(0); got != 0 {
		t.Errorf("TCP_USER_TIMEOUT is %d in a stall, want 0", got)
	}
	_ = peer.SetDeadline(time.Now().Add(time.Minute))
	go func() { _, _ = io.Copy(io.Discard, peer) }()
	if _, err := io.ReadFull(client, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); option(0) != timeout; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("TCP_USER_TIMEOUT is %d after a stall, want %d", option(0), timeout)
		}
	}
	client.Close()
	peer.Close()
	<-ended
}
