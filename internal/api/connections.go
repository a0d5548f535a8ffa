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
// address, and chooses which one makes room when there are too many: package
// admission has the rule. Connections that a caller has authenticated on go last.
// Safe for concurrent use.
type Connections struct {
	room    *admission.Room
	exempt  func(netip.Addr) bool
	proxies func(netip.Addr) bool
	refused func(client net.Addr, err error)
}

// ProxyProtocol has connections from the addresses that proxies names begin with a
// header of the PROXY protocol, and be its client's from then on: for the bounds, and as
// the connection's RemoteAddr. refused is told of those that do not. Both are called
// from several goroutines. It must be called before Listener, or not at all.
func (c *Connections) ProxyProtocol(proxies func(netip.Addr) bool, refused func(client net.Addr, err error)) {
	c.proxies, c.refused = proxies, refused
}

// NewConnections returns a bound of limit connections, perAddress of them from one
// address. exempt names addresses that are not counted one by one, such as proxies;
// nil: none.
func NewConnections(limit, perAddress int, exempt func(netip.Addr) bool) *Connections {
	if exempt == nil {
		exempt = func(netip.Addr) bool { return false }
	}
	none := func(netip.Addr) bool { return false }
	return &Connections{room: admission.NewRoom(limit, perAddress), exempt: exempt, proxies: none}
}

// counted is a connection within the bounds.
type counted struct {
	net.Conn
	all     *Connections
	visitor *admission.Visitor

	// header is of a connection from a proxy: it is read when the server first asks
	// for the address or for bytes, which it does in a goroutine of the connection's.
	header    bool
	once      sync.Once
	client    netip.AddrPort // set by once; not valid: the proxy speaks for itself
	headerErr error          // set by once
}

// headerTime is how long a proxy may take to say whose connection it is.
const headerTime = 5 * time.Second

func (c *counted) Read(b []byte) (int, error) {
	if c.identify(); c.headerErr != nil {
		return 0, c.headerErr
	}
	return attended{c.Conn, c.visitor}.Read(b)
}

// RemoteAddr is the client's address, which is the peer's where there is no proxy.
func (c *counted) RemoteAddr() net.Addr {
	if c.identify(); c.client.IsValid() {
		return net.TCPAddrFromAddrPort(c.client)
	}
	return c.Conn.RemoteAddr()
}

// identify reads the header of a connection that has to have one.
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
				c.all.refused(c.Conn.RemoteAddr(), err) // no probe that only connects, and none that made room
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

// Listener accepts from l within the bounds. While there is no place it waits for
// one, and the kernel keeps the connections that come; a connection of an address
// that has its share is closed at once.
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
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			// Out of descriptors, perhaps: a peer that keeps us waiting holds one.
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

// Context is for http.Server.ConnContext: it tells the Handler which connection a
// call has come on.
func (c *Connections) Context(ctx context.Context, conn net.Conn) context.Context {
	if one := countedOf(conn); one != nil {
		return context.WithValue(ctx, visitorKey{}, one.visitor)
	}
	return ctx
}

// Stats takes a moment's picture.
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

// visitorOf is the connection of a call. Where connections are not bounded it is one
// that is in no room.
func visitorOf(ctx context.Context) *admission.Visitor {
	if v, ok := ctx.Value(visitorKey{}).(*admission.Visitor); ok {
		return v
	}
	return admission.NewVisitor(netip.Addr{}, func() {})
}
