package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"
)

const (
	// maxHandshake is how many bytes a client may send in its TLS handshake. Clients send up to some
	// 5 KiB. crypto/tls takes 64 KiB for each message, and needs several times as much memory for it.
	maxHandshake = 16 << 10
	// handshakeTime is how long the handshake may take.
	handshakeTime = 10 * time.Second
)

var errHandshakeTooLarge = fmt.Errorf("the client sent more than %d bytes in the TLS handshake", maxHandshake)

// SecureListener is Listener with TLS. It does the handshakes itself, because http.Server has no bound on
// their size.
func (c *Connections) SecureListener(l net.Listener, config *tls.Config) net.Listener {
	h := &handshakes{Listener: c.Listener(l), config: config, done: make(chan net.Conn), failed: make(chan error)}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	go h.receive()
	return h
}

// handshakes is a listener that returns connections after their TLS handshake.
type handshakes struct {
	net.Listener // its connections are *counted
	config       *tls.Config
	done         chan net.Conn
	failed       chan error // of Listener.Accept

	ctx    context.Context // until Close
	cancel context.CancelFunc
}

func (h *handshakes) receive() {
	for {
		conn, err := h.Listener.Accept()
		if err == nil {
			go h.greet(conn.(*counted))
			continue
		}
		select {
		case h.failed <- err: // http.Server decides whether to go on
		case <-h.ctx.Done():
			return
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// greet does the handshake. If it fails, http.Server gets the connection all the same: it logs the
// error, which crypto/tls remembers, and answers a client that speaks HTTP without TLS.
func (h *handshakes) greet(conn *counted) {
	limited, cancel := context.WithTimeout(h.ctx, handshakeTime)
	defer cancel()
	secure := tls.Server(conn, h.config)
	conn.greeting, conn.left = true, maxHandshake
	_ = secure.HandshakeContext(limited)
	conn.greeting = false
	select {
	case h.done <- secure:
	case <-h.ctx.Done():
		conn.Close()
	}
}

// Accept implements net.Listener.
func (h *handshakes) Accept() (net.Conn, error) {
	select {
	case conn := <-h.done:
		return conn, nil
	case err := <-h.failed:
		return nil, err
	case <-h.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. Connections in the handshake end too.
func (h *handshakes) Close() error {
	h.cancel()
	return h.Listener.Close()
}
