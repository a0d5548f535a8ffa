// Package admission decides which connections may wait for a listener, and which one
// has to make room when there is no place left.
//
// Both listeners, the gateway's and the API's, keep their strangers in a Room. A
// stranger is a peer that has proved nothing yet. These rules choose the connection
// that is closed for a newcomer:
//
//   - The stranger that has kept the server waiting longest is closed, once the patience
//     with it is used up. A connection that the server is working for is never closed.
//   - A peer that has proved who it is can be closed only if the server waits for no stranger.
//   - If no patience is used up, but one address has many more connections than the
//     newcomer's address, then the connection from that address that has kept the server
//     waiting longest is closed.
//
// An IPv6 address counts as its /64, see Network. Whatever strangers at a few
// addresses do, a newcomer from another address waits for a fraction of a second.
// If the strangers come from so many addresses that none is a crowd, the newcomer has to
// wait until the patience with one of them is used up, and it queues with their newcomers.
package admission

import (
	"io"
	"net/netip"
	"sync/atomic"
	"time"
)

// The patience with a connection: how long it may keep the server waiting before it can
// be closed for a newcomer. patienceSilent counts from the arrival of a connection that has
// sent nothing, patienceTalking from the last byte. patienceInAll is for all the waiting in
// one request, since a logon arrives in four or five pieces.
const (
	patienceSilent  = 250 * time.Millisecond
	patienceTalking = time.Second
	patienceInAll   = 2 * time.Second
)

// Visitor is a connection, or a request, that takes a place in a Room. The server
// tells it when it waits for the peer and when the peer waits for the server. Safe
// for concurrent use.
type Visitor struct {
	// Address is the address that the place counts for, as Network returns it. It must not
	// change while the visitor is in a Room; see Room.Move.
	Address netip.Addr
	// Arrived is when the connection was accepted.
	Arrived time.Time
	// Exempt visitors are not counted by address: those behind a proxy.
	Exempt bool

	turnOut func()

	known  atomic.Bool  // the peer has proved who it is
	served atomic.Bool  // the server is working, and the peer waits
	rests  atomic.Int64 // when the peer had its last answer and nothing more to ask; 0: a request is under way
	last   atomic.Int64 // when the last byte arrived; 0: none yet
	since  atomic.Int64 // when the current read began to wait; 0: no read waits
	placed atomic.Int64 // when it got its place
	waited atomic.Int64 // nanoseconds, of earlier reads
}

// NewVisitor returns a visitor that has just arrived. turnOut closes its connection: it
// is called at most once, with a lock held, and must return soon.
func NewVisitor(address netip.Addr, turnOut func()) *Visitor {
	return &Visitor{Address: Network(address), Arrived: time.Now(), turnOut: turnOut}
}

// Listen notes that the server waits for bytes from the peer.
func (v *Visitor) Listen() { v.since.Store(time.Now().UnixNano()) }

// Heard notes that the wait has ended; something means that bytes arrived.
func (v *Visitor) Heard(something bool) {
	now := time.Now().UnixNano()
	if since := v.since.Swap(0); since != 0 {
		v.waited.Add(now - since)
	}
	if !something {
		return
	}
	v.last.Store(now)
	if v.rests.Swap(0) != 0 {
		v.waited.Store(0) // a new request begins
	}
}

// Read reads what the peer sends from r, with Listen before and Heard after.
func (v *Visitor) Read(r io.Reader, b []byte) (int, error) {
	v.Listen()
	n, err := r.Read(b)
	v.Heard(n > 0)
	return n, err
}

// Serve notes that the request is complete, and that the peer waits for the server.
func (v *Visitor) Serve() {
	v.rests.Store(0)
	v.served.Store(true)
}

// Served notes that the answer is ready: from now on the server waits for the peer, to
// read the answer or to send another request.
func (v *Visitor) Served() {
	now := time.Now().UnixNano()
	v.waited.Store(0)
	v.last.Store(now)
	if v.since.Load() != 0 {
		v.since.Store(now)
	}
	v.served.Store(false)
}

// Rest notes that the peer has its answer and has sent no other request. A connection
// that rests makes room at once: its client can open another one.
func (v *Visitor) Rest() {
	v.Served()
	v.rests.Store(time.Now().UnixNano())
}

// Known notes that the peer has proved who it is.
func (v *Visitor) Known() { v.known.Store(true) }

// kept returns how long the visitor has kept the server waiting in all.
func (v *Visitor) kept(now time.Time) time.Duration {
	if v.served.Load() {
		return 0
	}
	kept := v.waited.Load()
	if since := v.since.Load(); since != 0 {
		kept += now.UnixNano() - since
	}
	return time.Duration(kept)
}

// overdue returns how long ago the patience with the visitor ran out or, if it has not, how much
// is left.
func (v *Visitor) overdue(now time.Time) (over, left time.Duration) {
	since := func(nanoseconds int64) time.Duration { return now.Sub(time.Unix(0, nanoseconds)) }
	switch rests, last := v.rests.Load(), v.last.Load(); {
	case v.served.Load():
		return 0, never
	case rests != 0:
		over = since(rests)
	case last != 0:
		over = max(since(last)-patienceTalking, v.kept(now)-patienceInAll)
	default:
		over = since(v.placed.Load()) - patienceSilent
	}
	if over < 0 {
		return 0, -over
	}
	return over, 0
}

// never is longer than any patience.
const never = time.Hour

// Network returns what counts as one address: an IPv4 address, or the /64 of an IPv6
// address. The zero Addr stands for a Unix socket.
func Network(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		prefix, _ := a.Prefix(64)
		return prefix.Addr()
	}
	return a
}
