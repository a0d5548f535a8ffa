package gateway

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/session"
)

// TestDiscardWaitsForThoseThatLeave: a spare that was discarded without waiting still has its
// connection in the server. A logon that finds no free connection waits for that one, too.
func TestDiscardWaitsForThoseThatLeave(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	key := spareKey{role: "IAM:alice"}
	one := &spare{id: "one", up: &upstream{Conn: session.NewConn(conn, nil)}, order: &spareOrder{key: key}, timer: time.NewTimer(time.Hour)}
	p := newSpares(&Server{})
	p.waiting[key] = []*spare{one}
	p.clusters[key.admin] = &spareCluster{held: 1}
	if !p.kill("one") {
		t.Fatal("there is no spare")
	}
	var closed atomic.Bool
	go func() {
		terminate := make([]byte, 5)
		_, _ = io.ReadFull(server, terminate)
		closed.Store(true)
		server.Close()
	}()
	if n := p.discard(nil, time.Minute, everySpare); n != 1 || !closed.Load() {
		t.Errorf("discard() = %d, want 1; the server has closed it: %v", n, closed.Load())
	}
	if n := p.discard(nil, time.Minute, everySpare); n != 0 {
		t.Errorf("discard() = %d once all are gone, want 0", n)
	}
}
