package api_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/api"

	"github.com/daypass/daypass/test/pgtest"
)

// behindProxy is the API behind proxies at 127.0.3.0/28, with TLS.
type behindProxy struct {
	*server
	address     string
	connections *api.Connections
	refused     atomic.Int64
}

func newBehindProxy(t *testing.T, perAddress int) *behindProxy {
	t.Helper()
	p := &behindProxy{server: &server{t: t, keyring: newKeyring(), directory: build(t, example(t)), now: start}}
	proxies := netip.MustParsePrefix("127.0.3.0/28")
	p.connections = api.NewConnections(100, perAddress, nil)
	p.connections.ProxyProtocol(proxies.Contains, func(net.Addr, error) { p.refused.Add(1) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewUnstartedServer(api.New(p.config()))
	h.Listener.Close()
	h.Listener = p.connections.Listener(l)
	h.Config.ConnState, h.Config.ConnContext = p.connections.Track, p.connections.Context
	h.StartTLS()
	t.Cleanup(h.Close)
	p.address, p.url = l.Addr().String(), "http://"+l.Addr().String()
	return p
}

// ask sends the text before and then several signed requests on one connection from the
// address 127.0.3.n. It returns the address that was recorded, or "" without an answer.
func (p *behindProxy) ask(n int, before string, times int) (recorded string) {
	p.t.Helper()
	conn := from(p.t, n-1, p.address)
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	_, _ = io.WriteString(conn, before)
	secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	reader := bufio.NewReader(secure)
	for range times {
		r := p.signed("root", "redshift", "POST", query("2012-12-01", "Action", "DescribeClusters"))
		if err := r.Write(secure); err != nil {
			return ""
		}
		response, err := http.ReadResponse(reader, r)
		if err != nil {
			return ""
		}
		_, _ = io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if response.StatusCode != 200 {
			p.t.Fatalf("status %d", response.StatusCode)
		}
		recorded = p.lastLine().Source.String()
	}
	conn.Close()
	return recorded
}

// TestProxyProtocol: a proxy's header decides which client a connection counts for, and a header
// from any other peer is refused.
func TestProxyProtocol(t *testing.T) {
	p := newBehindProxy(t, 100)
	const v2 = "\r\n\r\n\x00\r\nQUIT\n"
	for _, row := range []struct {
		name, header string
		from         int // the last byte of the peer's address; up to 15 are proxies
		want         string
	}{
		{"version 1", "PROXY TCP4 198.51.100.7 10.0.0.1 50432 443\r\n", 1, "198.51.100.7"},
		{"version 1, IPv6", "PROXY TCP6 2001:db8::7 2001:db8::1 50432 443\r\n", 1, "2001:db8::7"},
		{"version 2", v2 + "\x21\x11\x00\x0c\xc6\x33\x64\x07\x0a\x00\x00\x01\xc5\x00\x01\xbb", 2, "198.51.100.7"},
		{"unknown", "PROXY UNKNOWN\r\n", 1, "127.0.3.1"},
		{"the proxy itself", v2 + "\x20\x00\x00\x00", 2, "127.0.3.2"},
		{"no header", "", 1, ""},
		{"half a header", "PROXY TCP4 198.51", 1, ""},
		{"two headers", strings.Repeat("PROXY TCP4 198.51.100.7 10.0.0.1 50432 443\r\n", 2), 1, ""},
		{"a stranger without", "", 20, "127.0.3.20"},
		{"a stranger with one", "PROXY TCP4 198.51.100.7 10.0.0.1 50432 443\r\n", 20, ""},
		{"a stranger with one of version 2", v2 + "\x21\x11\x00\x0c\xc6\x33\x64\x07\x0a\x00\x00\x01\xc5\x00\x01\xbb", 20, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := p.ask(row.from, row.header, 3); got != row.want {
				t.Errorf("the client is recorded as %q, want %q", got, row.want)
			}
		})
	}
	if p.refused.Load() == 0 {
		t.Error("nothing was told of the connections without a header")
	}
}

// TestProxyProtocolShares: connections through one proxy count for their clients'
// addresses, and silent connections do not delay others.
func TestProxyProtocolShares(t *testing.T) {
	p := newBehindProxy(t, 5)
	header := func(client int) string { return fmt.Sprintf("PROXY TCP4 198.51.100.%d 10.0.0.1 50432 443\r\n", client) }
	for range 50 {
		from(t, 0, p.address) // silent, so the client is unknown
	}
	open := func(client int) net.Conn {
		conn := from(t, 0, p.address)
		_, _ = io.WriteString(conn, header(client))
		return conn
	}
	for range 5 {
		secure := tls.Client(open(1), &tls.Config{InsecureSkipVerify: true})
		if err := secure.Handshake(); err != nil {
			t.Fatalf("within the share: %v", err)
		}
	}
	if got := p.ask(1, header(2), 1); got != "198.51.100.2" {
		t.Errorf("another client of the proxy is recorded as %q", got)
	}
	// The address has used up its share, and its connections have just sent something. On a
	// slow machine one of them may count as keeping the server waiting, and is then closed
	// for a new one.
	before := p.connections.Stats().Refused
	pgtest.Eventually(t, "the refusal of one client beyond its share through the proxy", func() bool {
		open(1)
		return p.connections.Stats().Refused > before
	})
}
