package etcdtest

import (
	"net"
	"sync"
	"testing"
	"time"

	"github.com/daypass/daypass/test/sitetest"
)

// Line is a connection to a server that tests can slow down, stall or cut. Safe for concurrent use.
type Line struct {
	URL  string // for clients
	Host string // the URL without its scheme

	t      testing.TB
	server string

	mu       sync.Mutex
	changed  *sync.Cond        // uses mu
	delay    time.Duration     // of what the server sends; guarded by mu
	stalled  bool              // guarded by mu
	listener net.Listener      // nil while the line is cut; guarded by mu
	open     map[net.Conn]bool // guarded by mu
}

// NewLine returns a line to the server at host, without TLS. It ends with the test.
func NewLine(t testing.TB, host string) *Line {
	t.Helper()
	l := &Line{t: t, server: host, open: map[net.Conn]bool{}}
	l.changed = sync.NewCond(&l.mu)
	var err error
	if l.Host, err = sitetest.FreeAddress(); err != nil { // one that stays free while the line is cut
		t.Fatal(err)
	}
	l.listen(l.Host)
	l.URL = "http://" + l.Host
	t.Cleanup(func() { l.Stall(false); l.Cut() })
	return l
}

// Delay makes everything that the server sends arrive later, in the same order.
func (l *Line) Delay(by time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = by
}

// Stall holds back everything, in both directions: nothing is lost, and neither side gets an error.
// Stall(false) delivers what was held back.
func (l *Line) Stall(stalled bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stalled = stalled
	l.changed.Broadcast()
}

// Cut ends all connections, and refuses others until Mend.
func (l *Line) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listener != nil {
		l.listener.Close()
		l.listener = nil
	}
	for conn := range l.open {
		conn.Close()
	}
}

// Mend ends a Cut.
func (l *Line) Mend() { l.listen(l.Host) }

func (l *Line) listen(address string) {
	l.t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		l.t.Fatal(err)
	}
	l.mu.Lock()
	l.listener = listener
	l.mu.Unlock()
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", l.server)
			if err != nil {
				client.Close()
				continue
			}
			go l.carry(server, client, false)
			go l.carry(client, server, true)
		}
	}()
}

// piece is data that has to arrive at a given time.
type piece struct {
	data []byte
	at   time.Time
}

func (l *Line) carry(to, from net.Conn, answers bool) {
	l.mu.Lock()
	l.open[from] = true
	l.mu.Unlock()
	pieces := make(chan piece, 4096)
	go func() {
		defer to.Close()
		for p := range pieces {
			time.Sleep(time.Until(p.at))
			l.mu.Lock()
			for l.stalled {
				l.changed.Wait()
			}
			l.mu.Unlock()
			if _, err := to.Write(p.data); err != nil {
				from.Close()
			}
		}
	}()
	defer func() {
		close(pieces)
		from.Close()
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.open, from)
	}()
	for {
		buffer := make([]byte, 32<<10)
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		l.mu.Lock()
		at := time.Now()
		if answers {
			at = at.Add(l.delay)
		}
		l.mu.Unlock()
		pieces <- piece{buffer[:n], at}
	}
}
