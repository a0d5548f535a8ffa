package peer

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/daypass/daypass/internal/admission"
)

const (
	// mostStrangers bounds the connections in the handshake, and mostOfOne those of one address.
	mostStrangers, mostOfOne = 256, 64
	// handshakeTimeout bounds a handshake.
	handshakeTimeout = 5 * time.Second
)

// door is a listener that returns a connection once its peer has shown a certificate, in the TLS
// handshake. Connections in the handshake have their own places, so strangers, who get no further,
// take no places from peers. When these places are taken, the stranger that has kept the server
// waiting longest makes room.
type door struct {
	net.Listener // accepts connections, without TLS
	config       *tls.Config
	room         *admission.Room
	known        chan net.Conn
	failed       chan error // from Listener.Accept

	ctx    context.Context // until Close
	cancel context.CancelFunc
	work   sync.WaitGroup
}

func newDoor(listener net.Listener, config *tls.Config) *door {
	d := &door{Listener: listener, config: config, room: admission.NewRoom(mostStrangers, mostOfOne),
		known: make(chan net.Conn), failed: make(chan error, 1)}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.work.Go(d.receive)
	return d
}

func (d *door) receive() {
	for {
		conn, err := d.Listener.Accept()
		if err != nil {
			d.failed <- err
			return
		}
		v := admission.NewVisitor(addressOf(conn), func() { conn.Close() })
		if d.room.Admit(d.ctx, v) != nil {
			conn.Close()
			continue
		}
		d.work.Go(func() { d.greet(conn, v) })
	}
}

// greet does the handshake, and hands a peer's connection to Accept.
func (d *door) greet(conn net.Conn, v *admission.Visitor) {
	limited, cancel := context.WithTimeout(d.ctx, handshakeTimeout)
	defer cancel()
	secure := tls.Server(attended{conn, v}, d.config)
	err := secure.HandshakeContext(limited)
	d.room.Leave(v)
	if err != nil {
		conn.Close()
		return
	}
	select {
	case d.known <- secure:
	case <-d.ctx.Done():
		conn.Close()
	}
}

func addressOf(conn net.Conn) netip.Addr {
	if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr()
	}
	return netip.Addr{}
}

// Accept implements net.Listener.
func (d *door) Accept() (net.Conn, error) {
	select {
	case conn := <-d.known:
		return conn, nil
	case err := <-d.failed:
		d.failed <- err
		return nil, err
	case <-d.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. Connections in the handshake end too.
func (d *door) Close() error {
	d.cancel()
	err := d.Listener.Close()
	d.work.Wait()
	return err
}

// attended is a connection whose visitor notes when the server waits for bytes.
type attended struct {
	net.Conn
	visitor *admission.Visitor
}

func (a attended) Read(b []byte) (int, error) {
	return a.visitor.Read(a.Conn, b)
}
