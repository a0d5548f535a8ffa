package throttle

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// patience is how long a connection may say nothing before it has to make room
// for another, when there is none left. One that has been served and waits for
// the next request makes room at once: HTTP clients connect again by themselves.
const patience = time.Second

// Connections bounds the connections of an HTTP server, in all and for each
// address. Safe for concurrent use.
type Connections struct {
	limit, perAddress int
	exempt            func(netip.Addr) bool

	mu        sync.Mutex // guards what follows
	open      map[*counted]struct{}
	addresses map[netip.Addr]int
	refused   uint64
}

// NewConnections returns a bound of limit connections, perAddress of them from one
// address (an IPv6 address counts as its /64). exempt names addresses that are not
// counted one by one, such as proxies; nil: none.
func NewConnections(limit, perAddress int, exempt func(netip.Addr) bool) *Connections {
	if exempt == nil {
		exempt = func(netip.Addr) bool { return false }
	}
	return &Connections{limit: limit, perAddress: perAddress, exempt: exempt,
		open: map[*counted]struct{}{}, addresses: map[netip.Addr]int{}}
}

// counted is a connection within the bounds.
type counted struct {
	net.Conn
	all     *Connections
	address netip.Addr // the zero Addr: not counted by address
	state   http.ConnState
	since   time.Time
}

func (c *counted) Close() error {
	c.all.forget(c)
	return c.Conn.Close()
}

// Listener accepts from l within the bounds. It closes what is too much at once.
func (c *Connections) Listener(l net.Listener) net.Listener { return &bounded{l, c} }

type bounded struct {
	net.Listener
	all *Connections
}

func (b *bounded) Accept() (net.Conn, error) {
	for {
		conn, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c := b.all.admit(conn); c != nil {
			return c, nil
		}
		conn.Close()
	}
}

// admit returns nil when there is no room.
func (c *Connections) admit(conn net.Conn) *counted {
	one := &counted{Conn: conn, all: c, state: http.StateNew, since: time.Now()}
	if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		if a := tcp.AddrPort().Addr().Unmap().WithZone(""); !c.exempt(a) {
			one.address = Network(a)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if one.address.IsValid() && c.addresses[one.address] >= c.perAddress &&
		!c.evictLocked(func(o *counted) bool { return o.address == one.address }) ||
		len(c.open) >= c.limit && !c.evictLocked(func(*counted) bool { return true }) {
		c.refused++
		return nil
	}
	c.open[one] = struct{}{}
	if one.address.IsValid() {
		c.addresses[one.address]++
	}
	return one
}

// evictLocked closes the connection that has been of no use for longest.
func (c *Connections) evictLocked(candidate func(*counted) bool) bool {
	var victim *counted
	now := time.Now()
	for o := range c.open {
		useless := o.state == http.StateIdle || o.state == http.StateNew && now.Sub(o.since) > patience
		if useless && candidate(o) && (victim == nil || o.since.Before(victim.since)) {
			victim = o
		}
	}
	if victim == nil {
		return false
	}
	c.forgetLocked(victim)
	// The server closes what is left of it when its read fails.
	_ = victim.Conn.Close()
	return true
}

func (c *Connections) forget(one *counted) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgetLocked(one)
}

func (c *Connections) forgetLocked(one *counted) {
	if _, there := c.open[one]; !there {
		return
	}
	delete(c.open, one)
	if one.address.IsValid() {
		if c.addresses[one.address]--; c.addresses[one.address] == 0 {
			delete(c.addresses, one.address)
		}
	}
}

// Track is for http.Server.ConnState.
func (c *Connections) Track(conn net.Conn, state http.ConnState) {
	if secure, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = secure.NetConn()
	}
	one, ok := conn.(*counted)
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	one.state, one.since = state, time.Now()
}

// ConnectionStats are a moment's picture of Connections.
type ConnectionStats struct {
	Limit, Open int
	Refused     uint64 // closed at once since the start
}

// Stats takes one.
func (c *Connections) Stats() ConnectionStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return ConnectionStats{Limit: c.limit, Open: len(c.open), Refused: c.refused}
}

// Network is what counts as one address: an IPv4 address, an IPv6 /64.
func Network(a netip.Addr) netip.Addr {
	if a.Is6() {
		prefix, _ := a.Prefix(64)
		return prefix.Addr()
	}
	return a
}
