// Package peer is the channel between the servers of one installation. A server uses it to
// list the sessions of the others, to end one of them, and to pass on cancel requests.
//
// It is HTTP/1.1 with JSON over TLS 1.3. Both sides show a certificate of an authority whose
// key is derived from the root key, so every server has it without copying anything. A
// server makes its own certificate, in memory, for its name in the fleet. A client without
// a certificate fails in the handshake.
//
//	POST /v1/sessions  {}               → [{"ID":"…","DBUser":"alice",…},…]
//	POST /v1/kill      {"id":"…"}       → {"found":true}
//	POST /v1/cancel    {"request":"…"}  → {"found":true}     process ID and key, in base64
//
// Requests and answers are bounded in bytes and in time. A peer holds the root key, so it is
// trusted as much as this process.
package peer

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"github.com/daypass/daypass/internal/keyring"
)

const (
	// lifetime is how long a certificate is valid; it is renewed after half of that. allowance is
	// for clocks that differ.
	lifetime  = 24 * time.Hour
	allowance = time.Hour

	// maxConnections bounds the connections of all peers together.
	maxConnections = 512
	// maxRequest and maxAnswer bound the bodies of requests and answers.
	maxRequest = 4 << 10
	maxAnswer  = 64 << 20
)

// Identity is the certificate that a server shows to its peers, and the authorities that it
// accepts theirs from. Safe for concurrent use.
type Identity struct {
	name        string
	now         func() time.Time
	authorities *x509.CertPool
	authority   *x509.Certificate
	signer      ed25519.PrivateKey

	mu      sync.Mutex
	current *tls.Certificate // guarded by mu
}

// NewIdentity returns the identity of the server called name, under the first of the root keys.
// It accepts peers under any of the root keys.
func NewIdentity(roots *keyring.Roots, name string, now func() time.Time) (*Identity, error) {
	i := &Identity{name: name, now: now, authorities: x509.NewCertPool()}
	for n, seed := range roots.Derive("peer authority") {
		signer := ed25519.NewKeyFromSeed(seed[:])
		// Only the key and the name make the authority, so each process makes the same one.
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Daypass peers"},
			NotBefore: time.Unix(0, 0), NotAfter: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC),
			KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
		if err != nil {
			return nil, fmt.Errorf("making the authority of peers: %w", err)
		}
		authority, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("making the authority of peers: %w", err)
		}
		i.authorities.AddCert(authority)
		if n == 0 {
			i.authority, i.signer = authority, signer
		}
	}
	_, err := i.certificate()
	return i, err
}

// hostOf returns the host name in a server's certificate.
func hostOf(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:16]) + ".peer.daypass"
}

// certificate returns the current certificate.
func (i *Identity) certificate() (*tls.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := i.now()
	if c := i.current; c != nil && now.Before(c.Leaf.NotAfter.Add(-lifetime/2)) && !now.Before(c.Leaf.NotBefore) {
		return c, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: i.name[:min(len(i.name), 64)]}, DNSNames: []string{hostOf(i.name)},
		NotBefore: now.Add(-allowance), NotAfter: now.Add(lifetime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, i.authority, key.Public(), i.signer)
	if err != nil {
		return nil, fmt.Errorf("making a certificate for peers: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("making a certificate for peers: %w", err)
	}
	i.current = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	return i.current, nil
}

func (i *Identity) serverTLS() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return i.certificate() },
		ClientAuth:     tls.RequireAndVerifyClientCert,
		ClientCAs:      i.authorities,
		NextProtos:     []string{"http/1.1"},
		Time:           i.now,
		// A resumed session would outlive a change of the root key.
		SessionTicketsDisabled: true,
	}
}

func (i *Identity) clientTLS() *tls.Config {
	return &tls.Config{
		MinVersion:           tls.VersionTLS13,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return i.certificate() },
		RootCAs:              i.authorities,
		Time:                 i.now,
	}
}

// Service answers the requests of peers.
type Service struct {
	// Sessions returns all sessions, or those with the identifier id, as a value that can be
	// written as JSON.
	Sessions func(id string) any
	Kill     func(id string) bool
	Cancel   func(request []byte) bool
}

// Serve answers peers until ctx is done. It closes the listener.
func Serve(ctx context.Context, listener net.Listener, identity *Identity, service Service) error {
	server := &http.Server{
		Handler:           handler(service),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       5 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          log.New(io.Discard, "", 0), // strangers could fill the log
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	err := server.Serve(netutil.LimitListener(newDoor(listener, identity.serverTLS()), maxConnections))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serving peers: %w", err)
}

// Peer is another server and its address.
type Peer struct{ ID, Address string }

// Client sends requests to peers. Safe for concurrent use.
type Client struct {
	http  *http.Client
	peers func() []Peer
	// cancels bounds the cancel requests in progress.
	cancels chan struct{}
}

const (
	// askTimeout is how long a peer may take to answer, and mostCancels how many cancel requests
	// may be in progress.
	askTimeout  = 2 * time.Second
	mostCancels = 64
)

// NewClient returns a Client. It calls peers for the list of peers at each request.
func NewClient(identity *Identity, peers func() []Peer) *Client {
	return newClient(identity, peers, askTimeout)
}

// newClient returns a Client that gives each peer as long as patience.
func newClient(identity *Identity, peers func() []Peer, patience time.Duration) *Client {
	c := &Client{peers: peers, cancels: make(chan struct{}, mostCancels)}
	dialer := net.Dialer{Timeout: patience}
	c.http = &http.Client{
		Timeout:       patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			TLSClientConfig: identity.clientTLS(),
			// The URL has the name that the certificate must be for. The address comes from the
			// server's announcement.
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				host, _, _ := net.SplitHostPort(address)
				for _, p := range c.peers() {
					if hostOf(p.ID) == host {
						return dialer.DialContext(ctx, network, p.Address)
					}
				}
				return nil, errors.New("the server has left")
			},
			TLSHandshakeTimeout:    patience,
			MaxIdleConnsPerHost:    4,
			IdleConnTimeout:        30 * time.Second,
			MaxResponseHeaderBytes: 8 << 10,
		},
	}
	return c
}

// Close closes the idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Kill asks all peers to end the session, and reports whether one of them had it.
func (c *Client) Kill(ctx context.Context, id string) bool {
	return c.findAt(ctx, c.peers(), "kill", killRequest{id})
}

// Cancel passes a cancel request on to the peers that may have the session, and reports whether
// one of them has it. It drops the request if too many are in progress.
func (c *Client) Cancel(ctx context.Context, request []byte, may func(Peer) bool) bool {
	select {
	case c.cancels <- struct{}{}:
		defer func() { <-c.cancels }()
	default:
		return false
	}
	var list []Peer
	for _, p := range c.peers() {
		if may(p) {
			list = append(list, p)
		}
	}
	return c.findAt(ctx, list, "cancel", cancelRequest{request})
}

// findAt sends a request to peers, all at once, and reports whether one of them answered that it
// found the session.
func (c *Client) findAt(ctx context.Context, list []Peer, what string, request any) bool {
	found := make(chan bool, len(list))
	for _, p := range list {
		go func() {
			var answer foundAnswer
			found <- c.ask(ctx, p, what, request, &answer) == nil && answer.Found
		}()
	}
	for range list {
		if <-found {
			return true
		}
	}
	return false
}

// Sessions asks every peer for its sessions, or for the session with the identifier id. It calls
// take with each answer, one at a time. failed has the errors of the peers that did not answer in
// time, by name.
func (c *Client) Sessions(ctx context.Context, id string, take func(server string, answer []byte) error) (failed map[string]error) {
	type result struct {
		peer   Peer
		answer []byte
		err    error
	}
	list := c.peers()
	failed = map[string]error{}
	results := make(chan result, len(list))
	for _, p := range list {
		go func() {
			answer, err := c.post(ctx, p, "sessions", sessionsRequest{id})
			results <- result{p, answer, err}
		}()
	}
	for range list {
		r := <-results
		if r.err == nil {
			r.err = take(r.peer.ID, r.answer)
		}
		if r.err != nil {
			failed[r.peer.ID] = r.err
		}
	}
	return failed
}

func urlOf(p Peer, what string) string {
	return "https://" + hostOf(p.ID) + "/v1/" + what
}
