// Package admission decides which connections may wait for a listener's attention,
// and which one has to make room when there is no place left.
//
// Both listeners, the gateway's and the API's, keep their strangers in a Room. A
// stranger is a peer that has proved nothing yet. One rule chooses the connection
// that is closed for a newcomer:
//
//   - the stranger that has kept the server waiting longest, once the patience with
//     it is used up. A connection for which the server is at work is never closed;
//   - a peer that has proved who it is only when there is no stranger that could be
//     waited for;
//   - where no patience is used up but one address holds many more connections than
//     the newcomer's address, the one of these that has kept the server waiting
//     longest.
//
// An IPv6 address counts as its /64, see Network. Whatever strangers
// at a few addresses do, a newcomer from another one waits for a fraction of a second.
// Strangers at so many addresses that none has a crowd keep the newcomer waiting until
// the patience with one of them is used up, behind their own newcomers.
package admission

import (
	"net/netip"
	"sync/atomic"
	"time"
)

// A connection may be closed for a newcomer when it has kept the server waiting for
// this long: since it came when it has sent nothing at all; else since its last
// byte, or for all bytes of one request together. A logon comes in four or five
// pieces.
const (
	patienceSilent  = 250 * time.Millisecond
	patienceTalking = time.Second
	patienceInAll   = 2 * time.Second
)

// Visitor is a connection, or a request, that takes a place in a Room. The server
// tells it when it waits for the peer and when the peer waits for the server. Safe
// for concurrent use.
type Visitor struct {
	// Address is what the place is counted for, as Network returns it. It must not
	// change while the visitor is in a Room; see Room.Move.
	Address netip.Addr
	// Arrived is when the visitor came.
	Arrived time.Time
	// Exempt visitors are not counted by address: those behind a proxy.
	Exempt bool

	turnOut func()

	known  atomic.Bool  // the peer has proved who it is
	served atomic.Bool  // the server is at work, and the peer waits
	rests  atomic.Int64 // when the peer last had its answer and had asked for nothing more; 0: it asks
	last   atomic.Int64 // when the last byte came; 0: none yet
	since  atomic.Int64 // when the read that now waits began; 0: none does
	placed atomic.Int64 // when it got its place
	waited atomic.Int64 // nanoseconds, of reads that are over
}

// NewVisitor returns a visitor that has just come. turnOut ends it: it is called
// once at most, with a lock held, and must return soon.
func NewVisitor(address netip.Addr, turnOut func()) *Visitor {
	return &Visitor{Address: Network(address), Arrived: time.Now(), turnOut: turnOut}
}

// Listen notes that the server begins to wait for bytes of the peer.
func (v *Visitor) Listen() { v.since.Store(time.Now().UnixNano()) }

// Heard notes that the wait is over; something: bytes came.
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

// Serve notes that the server has what it needs, and that the peer waits from now on.
func (v *Visitor) Serve() {
	v.rests.Store(0)
	v.served.Store(true)
}

// Served notes that the work is done: from now on the server waits for the peer, to
// take its answer or to ask for more.
func (v *Visitor) Served() {
	now := time.Now().UnixNano()
	v.waited.Store(0)
	v.last.Store(now)
	if v.since.Load() != 0 {
		v.since.Store(now)
	}
	v.served.Store(false)
}

// Rest notes that the peer has its answer and has asked for nothing more. A
// connection that rests makes room at once: its client can open another one.
func (v *Visitor) Rest() {
	v.Served()
	v.rests.Store(time.Now().UnixNano())
}

// Known notes that the peer has proved who it is.
func (v *Visitor) Known() { v.known.Store(true) }

// kept is how long the visitor has kept the server waiting in all.
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

// impatience is how long the visitor has kept the server waiting, beyond patience.
// Negative: not yet.
func (v *Visitor) impatience(now time.Time) time.Duration {
	if v.served.Load() {
		return -time.Hour
	}
	if rests := v.rests.Load(); rests != 0 {
		return now.Sub(time.Unix(0, rests))
	}
	if last := v.last.Load(); last != 0 {
		return max(now.Sub(time.Unix(0, last))-patienceTalking, v.kept(now)-patienceInAll)
	}
	return now.Sub(time.Unix(0, v.placed.Load())) - patienceSilent
}

// Network is what counts as one address: an IPv4 address, an IPv6 /64. The zero Addr
// stands for a Unix socket.
func Network(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		prefix, _ := a.Prefix(64)
		return prefix.Addr()
	}
	return a
}
