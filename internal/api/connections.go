package api

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/daypass/daypass/internal/admission"
	"github.com/daypass/daypass/internal/proxyproto"
)

// Connections bounds the connections of the API's listener, in all and for each
// address, and chooses which one is closed when there are too many (package admission
// has the rule). Authenticated connections are closed last. Safe for concurrent use.
type Connections struct {
	room    *admission.Room
	exempt  func(netip.Addr) bool
	proxies func(netip.Addr) bool
	refused func(client net.Addr, err error)
}

// ProxyProtocol makes connections from the addresses of proxies begin with a header of
// the PROXY protocol. The client that it names counts for the bounds and is the
// connection's RemoteAddr. refused is called for connections without a header. Both
// functions are called concurrently. Call ProxyProtocol before Listener, or not at all.
func (c *Connections) ProxyProtocol(proxies func(netip.Addr) bool, refused func(client net.Addr, err error)) {
	c.proxies, c.refused = proxies, refused
}

// NewConnections bounds the number of all connections to limit, and that of one address to
// perAddress. exempt reports whether an address, such as a proxy's, has no bound of its own; it
// may be nil.
func NewConnections(limit, perAddress int, exempt func(netip.Addr) bool) *Connections {
	if exempt == nil {
		exempt = func(netip.Addr) bool { return false }
	}
	none := func(netip.Addr) bool { return false }
	return &Connections{room: admission.NewRoom(limit, perAddress), exempt: exempt, proxies: none}
}

// counted is a connection that counts for the bounds.
type counted struct {
	net.Conn
	all     *Connections
	visitor *admission.Visitor

	// header: the connection comes from a proxy. The header is read when the server
	// first asks for the address or for bytes, in the goroutine of the connection.
	header    bool
	once      sync.Once
	client    netip.AddrPort // set by once; not valid if the proxy itself is the client
	headerErr error          // set by once

	greeting bool // the TLS handshake is under way
	left     int  // how many more bytes the client may send in it
}

// headerTime is how long a proxy may take to send the header.
const headerTime = 5 * time.Second

func (c *counted) Read(b []byte) (int, error) {
	if c.identify(); c.headerErr != nil {
		return 0, c.headerErr
	}
	if !c.greeting {
		return attended{c.Conn, c.visitor}.Read(b)
	}
	if c.left == 0 {
		return 0, errHandshakeTooLarge
	}
	n, err := attended{c.Conn, c.visitor}.Read(b[:min(len(b), c.left)])
	c.left -= n
	return n, err
}

// RemoteAddr returns the client's address: the one in the header, or the peer's.
func (c *counted) RemoteAddr() net.Addr {
	if c.identify(); c.client.IsValid() {
		return net.TCPAddrFromAddrPort(c.client)
	}
	return c.Conn.RemoteAddr()
}

// identify reads the header, if the connection has to have one.
func (c *counted) identify() {
	if !c.header {
		return
	}
	c.once.Do(func() {
		_ = c.Conn.SetReadDeadline(time.Now().Add(headerTime))
		client, err := proxyproto.Read(attended{c.Conn, c.visitor})
		if err == nil && client.IsValid() {
			err = c.all.room.Move(c.visitor, client.Addr(), c.all.exempt(client.Addr()))
		}
		if err != nil {
			c.headerErr = err
			c.Close()
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, admission.ErrClosed) {
				c.all.refused(c.Conn.RemoteAddr(), err) // not a probe that only connects, and not evicted
			}
			return
		}
		c.client = client
		_ = c.Conn.SetReadDeadline(time.Time{})
	})
}

func (c *counted) Close() error {
	c.all.room.Leave(c.visitor)
	return c.Conn.Close()
}

// Listener accepts connections from l within the bounds. While all places are taken and none
// can make room it does not accept, and the kernel queues connections. A connection of an
// address that has used up its bound takes the place of another one from there, or is closed
// at once if none can make room.
func (c *Connections) Listener(l net.Listener) net.Listener {
	ctx, cancel := context.WithCancel(context.Background())
	return &boundedListener{Listener: l, all: c, ctx: ctx, cancel: cancel}
}

type boundedListener struct {
	net.Listener
	all    *Connections
	ctx    context.Context
	cancel context.CancelFunc
}

func (b *boundedListener) Close() error {
	b.cancel()
	return b.Listener.Close()
}

func (b *boundedListener) Accept() (net.Conn, error) {
	for {
		conn, err := b.Listener.Accept()
		if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
			// Accept may have failed because there are no file descriptors left. Evict
			// frees one by closing a connection that keeps the server waiting.
			b.all.room.Evict()
		}
		if err != nil {
			return nil, err
		}
		var peer netip.Addr
		if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
			peer = tcp.AddrPort().Addr().Unmap().WithZone("")
		}
		v := admission.NewVisitor(peer, func() { conn.Close() })
		behind := peer.IsValid() && b.all.proxies(peer)
		v.Exempt = !peer.IsValid() || behind || b.all.exempt(peer)
		if err := b.all.room.Admit(b.ctx, v); err != nil {
			conn.Close()
			if b.ctx.Err() != nil {
				return nil, net.ErrClosed
			}
			continue
		}
		return &counted{Conn: conn, all: b.all, visitor: v, header: behind}, nil
	}
}

// Track is for http.Server.ConnState.
func (c *Connections) Track(conn net.Conn, state http.ConnState) {
	if one := countedOf(conn); one != nil && state == http.StateIdle {
		one.visitor.Rest()
	}
}

// Context is for http.Server.ConnContext. It lets the Handler find the connection of a
// call.
func (c *Connections) Context(ctx context.Context, conn net.Conn) context.Context {
	if one := countedOf(conn); one != nil {
		return context.WithValue(ctx, visitorKey{}, one.visitor)
	}
	return ctx
}

// Stats returns the current numbers.
func (c *Connections) Stats() admission.Stats { return c.room.Stats() }

// countedOf finds the connection below TLS.
func countedOf(conn net.Conn) *counted {
	if secure, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = secure.NetConn()
	}
	one, _ := conn.(*counted)
	return one
}

type visitorKey struct{}

// visitorOf returns the visitor of a call's connection. If connections are not bounded, it
// returns a new visitor that is in no room.
func visitorOf(ctx context.Context) *admission.Visitor {
	if v, ok := ctx.Value(visitorKey{}).(*admission.Visitor); ok {
		return v
	}
	return admission.NewVisitor(netip.Addr{}, func() {})
}
