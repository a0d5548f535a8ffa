package api

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"

	"github.com/daypass/daypass/internal/admission"
)

// Connections bounds the connections of the API's listener, in all and for each
// address, and chooses which one makes room when there are too many: package
// admission has the rule. Connections that a caller has authenticated on go last.
// Safe for concurrent use.
type Connections struct {
	room   *admission.Room
	exempt func(netip.Addr) bool
}

// NewConnections returns a bound of limit connections, perAddress of them from one
// address. exempt names addresses that are not counted one by one, such as proxies;
// nil: none.
func NewConnections(limit, perAddress int, exempt func(netip.Addr) bool) *Connections {
	if exempt == nil {
		exempt = func(netip.Addr) bool { return false }
	}
	return &Connections{room: admission.NewRoom(limit, perAddress), exempt: exempt}
}

// counted is a connection within the bounds.
type counted struct {
	net.Conn
	all     *Connections
	visitor *admission.Visitor
}

func (c *counted) Read(b []byte) (int, error) {
	c.visitor.Listen()
	n, err := c.Conn.Read(b)
	c.visitor.Heard(n > 0)
	return n, err
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
		v.Exempt = !peer.IsValid() || b.all.exempt(peer)
		if err := b.all.room.Admit(b.ctx, v); err != nil {
			conn.Close()
			if b.ctx.Err() != nil {
				return nil, net.ErrClosed
			}
			continue
		}
		return &counted{Conn: conn, all: b.all, visitor: v}, nil
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
