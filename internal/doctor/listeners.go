package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"github.com/daypass/daypass/internal/config"
)

// ports checks, while no server runs, that one could listen at the addresses of the configuration. It
// connects instead of listening, so that it is not in the way of a server that starts.
func (o *Operator) ports(ctx context.Context, r *Report, cfg *config.Config) {
	const about = "ports"
	listeners := []struct{ key, address string }{{"api.listen", cfg.API.Listen}, {"gateway.listen", cfg.Gateway.Listen}, {"admin.listen", cfg.Admin.Listen}, {"metrics.listen", cfg.Metrics.Listen}}
	if cfg.Peers != nil {
		listeners = append(listeners, struct{ key, address string }{"peers.listen", cfg.Peers.Listen})
	}
	faults := 0
	for _, listener := range listeners {
		host, port, err := net.SplitHostPort(listener.address)
		if err != nil || port == "0" {
			continue
		}
		if ip := net.ParseIP(host); ip != nil && !ip.IsUnspecified() && !ofThisMachine(ip) {
			r.fail(about, "change "+listener.key+"; 0.0.0.0 stands for all addresses of a machine", "%s: %s is not an address of this machine", listener.key, host)
			faults++
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", reachable(listener.address))
		cancel()
		if err == nil {
			conn.Close()
			r.fail(about, fmt.Sprintf("find out what it is (ss -ltnp 'sport = :%s') and end it, or change %s", port, listener.key),
				"%s: something else listens at %s: a server does not start", listener.key, listener.address)
			faults++
		}
	}
	if faults == 0 {
		r.ok(about, "nothing else listens at the server's addresses")
	}
}

func ofThisMachine(ip net.IP) bool {
	addresses, err := net.InterfaceAddrs()
	if err != nil || ip.IsLoopback() {
		return true
	}
	for _, address := range addresses {
		if network, ok := address.(*net.IPNet); ok && network.IP.Equal(ip) {
			return true
		}
	}
	return false
}

// gateway asks the running server for TLS at the gateway, as a client does.
func (o *Operator) gateway(ctx context.Context, r *Report, cfg *config.Config) {
	const about, do = "gateway", "look at the server's log"
	address := reachable(cfg.Gateway.Listen)
	leaf, err := gatewayCertificate(ctx, address)
	switch {
	case err != nil:
		r.fail(about, do, "a server runs, and the gateway at %s does not answer: %v", address, err)
	case differs(cfg, leaf):
		r.warn(about, "look at the server's log: it may refuse the files; or something else listens there", "the gateway at %s shows another certificate than the one of its files", address)
	default:
		r.ok(about, "%s answers", address)
	}
}

// differs reports whether a certificate is another one than the gateway has in its files.
func differs(cfg *config.Config, leaf *x509.Certificate) bool {
	if cfg.Gateway.TLS.Given() {
		return !leaf.Equal(cfg.Gateway.TLS.Pair.Leaf)
	}
	own, err := readCertificate(filepath.Join(cfg.Data, "tls", "server.crt"))
	return err == nil && !leaf.Equal(own)
}

// advertised checks the address at which clients are told to log on. Another machine may have another
// view of the network, so nothing here is worse than a warning.
func (o *Operator) advertised(ctx context.Context, r *Report, cfg *config.Config, running bool) {
	const about = "gateway"
	host, port := cfg.Gateway.Advertise.Host, cfg.Gateway.Advertise.Port
	if net.ParseIP(host) == nil {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		if _, err := net.DefaultResolver.LookupHost(ctx, host); err != nil {
			r.warn(about, "make the name in DNS, or change gateway.advertise", "%s, where clients are told to log on, cannot be resolved on this machine: %s", host, notResolved(err))
			return
		}
	}
	address := net.JoinHostPort(host, strconv.Itoa(port))
	if !running || address == cfg.Gateway.Listen {
		return
	}
	leaf, err := gatewayCertificate(ctx, address)
	switch {
	case err != nil:
		r.warn(about, "if clients cannot reach it either: look at gateway.advertise, and at the balancer or firewall in front",
			"%s, where clients are told to log on, cannot be reached from this machine: %v", address, err)
	case differs(cfg, leaf):
		r.warn(about, "look at gateway.advertise, and at what is in front: it must not end TLS", "%s, where clients are told to log on, shows another certificate than this server", address)
	default:
		r.ok(about, "clients reach the server at %s", address)
	}
}

// notResolved returns what a resolver said, without the name.
func notResolved(err error) string {
	var failed *net.DNSError
	switch {
	case !errors.As(err, &failed):
		return plainly(err)
	case failed.IsTimeout:
		return "no answer in time"
	}
	return failed.Err
}

// gatewayCertificate asks for TLS as a client of PostgreSQL does, and returns the certificate, unverified.
func gatewayCertificate(ctx context.Context, address string) (*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, patience/2)
	defer cancel()
	conn, err := askForTLS(ctx, address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	secured := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"postgresql"}})
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, errors.New(plainly(err))
	}
	return secured.ConnectionState().PeerCertificates[0], nil
}

// errNoTLS is returned if the other end is not a gateway.
var errNoTLS = errors.New("it does not offer TLS as PostgreSQL does")

// askForTLS connects, sends SSLRequest, and returns the connection on which TLS can begin.
func askForTLS(ctx context.Context, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, errors.New(plainly(err))
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	first := make([]byte, 1)
	if _, err = conn.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}); err == nil { // SSLRequest
		_, err = io.ReadFull(conn, first)
	}
	if err != nil || first[0] != 'S' {
		conn.Close()
		return nil, errNoTLS
	}
	return conn, nil
}
