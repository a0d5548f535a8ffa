package session_test

import (
	"bytes"
	"crypto/tls"
	"runtime"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/ca"
	"github.com/daypass/daypass/internal/pgwire"
	"github.com/daypass/daypass/internal/session"
)

// TestIdleStacks: the goroutines of sessions with TLS take less memory once the sessions are idle.
// The sessions continue as before, even if bytes arrive at that moment.
func TestIdleStacks(t *testing.T) {
	authority, err := ca.Open(t.TempDir(), []string{"localhost"}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{GetCertificate: authority.GetCertificate, RootCAs: authority.Pool(), ServerName: "localhost", MinVersion: tls.VersionTLS13}
	const sessions = 100
	var all [sessions]*peers
	var clients [sessions]*tls.Conn
	for i := range all {
		p := &peers{t: t, ended: make(chan session.Cause, 9)}
		var ends [2]*session.Conn
		p.client, ends[0] = pair(t)
		p.server, ends[1] = pair(t)
		clients[i] = tls.Client(p.client, config)
		handshake := make(chan error, 1)
		go func() { handshake <- clients[i].Handshake() }()
		if err := ends[0].StartServerTLS(config); err != nil {
			t.Fatal(err)
		}
		if err := <-handshake; err != nil {
			t.Fatal(err)
		}
		p.Session = session.New(session.Config{Client: ends[0], Upstream: ends[1], Status: pgwire.StatusIdle, HalfClose: time.Second,
			CancelQuery: func() {}, Ended: func(c session.Cause) { p.ended <- c }})
		p.Start()
		all[i] = p
	}
	exchange := func() {
		t.Helper()
		for i, p := range all {
			pass(t, clients[i], p.server, query)
			pass(t, p.server, clients[i], append(bytes.Clone(row), ready...))
		}
	}
	shrink := func() {
		for _, p := range all {
			p.Shrink()
		}
	}
	exchange()
	busy := stacks()
	shrink()
	exchange() // while the goroutines change
	stacks()
	shrink()
	idle := busy
	for end := time.Now().Add(time.Minute); idle > busy-2*sessions*1500 && time.Now().Before(end); idle = stacks() {
		time.Sleep(10 * time.Millisecond)
	}
	if idle > busy-2*sessions*1500 {
		t.Errorf("the stacks of %d sessions took %d bytes, and %d when idle", sessions, busy, idle)
	}
	exchange()
	for _, p := range all {
		p.End(session.Cause{Reason: "killed", Imposed: true})
		p.server.Close()
		if cause := <-p.ended; cause.Reason != "killed" {
			t.Errorf("the session ended: %+v", cause)
		}
	}
}

// stacks returns the memory of all goroutines' stacks, after they were shrunk.
func stacks() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.StackInuse)
}
