package etcdstore_test

import (
	"net"
	"sync"
	"testing"
)

// link is a connection to a server that can be stalled: nothing arrives, nothing is lost, and
// neither side gets an error.
type link struct {
	address string

	mu      sync.Mutex
	open    *sync.Cond // uses mu
	stalled bool       // guarded by mu
}

func newLink(t testing.TB, host string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{address: listener.Addr().String()}
	l.open = sync.NewCond(&l.mu)
	t.Cleanup(func() { listener.Close(); l.stall(false) })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer client.Close()
				server, err := net.Dial("tcp", host)
				if err != nil {
					return
				}
				defer server.Close()
				go l.carry(client, server)
				l.carry(server, client)
			}()
		}
	}()
	return l
}

func (l *link) carry(to, from net.Conn) {
	defer to.Close()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		l.mu.Lock()
		for l.stalled {
			l.open.Wait()
		}
		l.mu.Unlock()
		if _, writeErr := to.Write(buffer[:n]); err != nil || writeErr != nil {
			return
		}
	}
}

func (l *link) stall(stalled bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stalled = stalled
	l.open.Broadcast()
}
