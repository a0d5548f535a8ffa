package adminconn

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/daypass/daypass/internal/pgwire"
)

// A server may be hostile, and so may a machine on the way to it. This file bounds what an
// administrative connection reads, and keeps the password secret: only SCRAM is used,
// unless the server's certificate is verified or require_auth allows another method.

const (
	// maxReply bounds what a server may send in answer to one request. The longest legitimate
	// answer lists the objects of a large database.
	maxReply = 32 << 20
	// maxConnection is the number of bytes after which a connection is closed instead of
	// reused, because the driver keeps every parameter that a server reports.
	maxConnection = 256 << 20
)

var (
	errReply = fmt.Errorf("the server sends more than %d MiB in answer to one request", maxReply>>20)
	// ErrMethod is wrapped if the server asks the login to authenticate in a way that would
	// reveal the password, or prove nothing.
	ErrMethod = errors.New("it is not safe on this connection: set scram-sha-256 for the administrative login in pg_hba.conf " +
		"(and its password anew where it was stored as MD5), or set sslmode=verify-full in upstream, or allow the method with require_auth there")
)

// IsLoopback reports whether a host in a connection string is the directory of a Unix socket,
// or this machine.
func IsLoopback(host string) bool {
	if network, _ := pgconn.NetworkAddress(host, 1); network == "unix" || host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// Verifies reports whether a TLS configuration of pgconn verifies the server. pgconn puts verify-ca into VerifyPeerCertificate.
func Verifies(config *tls.Config) bool {
	return config != nil && (!config.InsecureSkipVerify || config.VerifyPeerCertificate != nil)
}

// protect restricts what the driver accepts from one server. All entries of config are for
// that server.
func protect(config *pgx.ConnConfig) {
	verified := Verifies(config.TLSConfig)
	for _, f := range config.Fallbacks {
		verified = verified && Verifies(f.TLSConfig)
	}
	network, _ := pgconn.NetworkAddress(config.Host, config.Port)
	switch {
	case config.RequireAuth != "" || verified || network == "unix":
	case IsLoopback(config.Host):
		config.RequireAuth = "scram-sha-256,none"
	default:
		config.RequireAuth = "scram-sha-256"
	}
	config.MaxProtocolMessageBodyLen = maxReply
	binding, direct := config.ChannelBinding, config.SSLNegotiation == "direct"
	config.AfterNetConnect = func(ctx context.Context, _ *pgconn.Config, conn net.Conn) (net.Conn, error) {
		secure, ok := conn.(*tls.Conn)
		if !ok {
			return conn, nil
		}
		if err := secure.HandshakeContext(ctx); err != nil {
			return conn, err
		}
		state := secure.ConnectionState()
		if direct && state.NegotiatedProtocol != "postgresql" {
			return conn, errors.New("the server did not agree on PostgreSQL's protocol (ALPN): direct TLS needs PostgreSQL 17 or later")
		}
		certificates := state.PeerCertificates
		switch {
		case len(certificates) == 0 || binding == "disable" || pgwire.EndPointBinding(certificates[0]) != nil || binding == "require":
			return conn, nil
		case verified:
			// The driver would offer channel binding, and the server would refuse it. Hiding
			// the TLS connection keeps the driver from offering it.
			return struct{ net.Conn }{conn}, nil
		}
		return conn, fmt.Errorf("channel binding is not defined for the server's certificate (%s): set sslmode=verify-full in upstream, "+
			"use a certificate with an RSA or ECDSA signature, or set channel_binding=disable", certificates[0].SignatureAlgorithm)
	}
}

// meter limits how much is read from a server.
type meter struct {
	src     io.Reader
	sink    io.Writer
	opening pgwire.Scanner // until ReadyForQuery; only Read uses it
	left    atomic.Int64   // bytes left for the answer to the last request
	total   atomic.Int64
}

func (m *meter) Read(b []byte) (int, error) {
	n, err := m.src.Read(b)
	m.total.Add(int64(n))
	if !m.opening.Ready() {
		if _, err := m.opening.Scan(b[:n]); err != nil {
			return 0, err
		}
	}
	if m.left.Add(-int64(n)) < 0 {
		return 0, errReply
	}
	return n, err
}

func (m *meter) Write(b []byte) (int, error) {
	m.left.Store(maxReply)
	return m.sink.Write(b)
}

// worn reports whether so much has been read that the connection should not be reused.
func (m *meter) worn() bool { return m.total.Load() > maxConnection }

// connectMetered opens a connection to one server.
func connectMetered(ctx context.Context, config *pgx.ConnConfig) (*pgx.Conn, *meter, error) {
	config = config.Copy()
	var m *meter
	config.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		m = &meter{src: r, sink: w}
		m.left.Store(maxReply)
		return pgproto3.NewFrontend(m, m)
	}
	c, err := pgx.ConnectConfig(ctx, config)
	if err != nil && strings.Contains(err.Error(), "authentication method requirement") {
		err = fmt.Errorf("%w: %w", err, ErrMethod)
	}
	return c, m, err
}
