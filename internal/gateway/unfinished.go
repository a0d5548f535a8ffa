package gateway

import (
	"sync"
	"time"

	"github.com/daypass/daypass/internal/session"
)

// unfinished are upstream connections that were given up after a process of the server had answered.
// The zero value has none. Safe for concurrent use.
//
// PostgreSQL bounds the time that authentication takes, but not the rest of a session's start: the
// process waits as long as someone holds a lock on the database, for instance its owner with an ALTER
// DATABASE … RENAME that is not committed. It does not notice that its client has gone, and does not
// tell the client before that it has authenticated. So such a logon counts towards the limits on
// sessions until the server has closed the connection, and if the logon got its session at another
// host, the session counts until then. A session that was started ahead keeps its place among the
// spares. Each connection keeps its place among those that the server is starting. Otherwise each
// attempt could leave one more process behind, until the server has no connection left for anyone.
type unfinished struct {
	mu     sync.Mutex // guards what follows
	conns  map[*session.Conn]bool
	closed bool
}

// abandoned is one such connection, with the place of its session.
type abandoned struct {
	*session.Conn
	place *startPlace
}

// follow calls over when the server has closed all of the connections.
func (u *unfinished) follow(left []abandoned, over func()) {
	if len(left) == 0 {
		over()
		return
	}
	go func() {
		var all sync.WaitGroup
		for _, c := range left {
			all.Go(func() {
				defer c.place.leave()
				u.await(c.Conn)
			})
		}
		all.Wait()
		over()
	}()
}

// await tells the server that the client is leaving, and waits until the server has closed the connection.
func (u *unfinished) await(c *session.Conn) {
	defer c.Abort()
	if !u.add(c) {
		return
	}
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if c.CloseWrite() == nil && c.SetDeadline(time.Time{}) == nil {
		c.Drain()
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.conns, c)
}

func (u *unfinished) add(c *session.Conn) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return false
	}
	if u.conns == nil {
		u.conns = map[*session.Conn]bool{}
	}
	u.conns[c] = true
	return true
}

// close closes all connections, and those that follow gets later.
func (u *unfinished) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	for c := range u.conns {
		c.Abort()
	}
}
