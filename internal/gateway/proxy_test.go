package gateway_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/test/pgtest"
)

// dialProxied connects from 127.0.3.n, where proxies are up to 15, and sends a header.
func (f *fixture) dialProxied(n byte, header string) net.Conn {
	f.t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 3, n)}}
	conn, err := dialer.Dial("tcp", f.addr)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(2 * time.Minute))
	if _, err := io.WriteString(conn, header); err != nil {
		f.t.Fatal(err)
	}
	return conn
}

func behindProxies(c *gateway.Config) { c.Proxies = netip.MustParsePrefix("127.0.3.0/28").Contains }

// TestProxyProtocol: a session through a proxy appears under its client's address in the record and
// in the list of sessions. A header from any other address is not believed.
func TestProxyProtocol(t *testing.T) {
	f := newFixture(t, behindProxies)
	f.real(pgtest.Start(t))
	const v2 = "\r\n\r\n\x00\r\nQUIT\n"
	for _, row := range []struct {
		name, header string
		from         byte
		want         string // "": no logon
	}{
		{"version 1", "PROXY TCP4 198.51.100.7 10.0.0.1 50432 5439\r\n", 1, "198.51.100.7:50432"},
		{"version 2", v2 + "\x21\x11\x00\x0c\xc6\x33\x64\x07\x0a\x00\x00\x01\xc5\x00\x15\x3f", 2, "198.51.100.7:50432"},
		{"version 2, IPv6", v2 + "\x21\x21\x00\x24" + strings.Repeat("\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07", 2) +
			"\xc5\x00\x15\x3f", 2, "[2001:db8::7]:50432"},
		{"no header", "", 1, ""},
		{"a stranger without", "", 20, "127.0.3.20:"},
		{"a stranger with one", "PROXY TCP4 198.51.100.7 10.0.0.1 50432 5439\r\n", 20, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			g := f.grant("alice")
			config, err := pgx.ParseConfig(f.url(g.LogonName(), f.mint(g), ""))
			if err != nil {
				t.Fatal(err)
			}
			config.DialFunc = func(context.Context, string, string) (net.Conn, error) {
				return f.dialProxied(row.from, row.header), nil
			}
			conn, err := pgx.ConnectConfig(t.Context(), config)
			if row.want == "" {
				if err == nil {
					conn.Close(t.Context())
					t.Fatal("it logged on")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(t.Context())
			if got := f.audit.lastLogon(t).Client.String(); !strings.HasPrefix(got, row.want) {
				t.Errorf("the record has the client %s, want %s", got, row.want)
			}
			for _, s := range f.server.Sessions() {
				if got := s.Client.String(); !strings.HasPrefix(got, row.want) {
					t.Errorf("the session has the client %s, want %s", got, row.want)
				}
			}
			if err := conn.Close(t.Context()); err != nil {
				t.Error(err)
			}
			pgtest.Eventually(t, "the session ends", func() bool { return len(f.server.Sessions()) == 0 })
		})
	}
}

// TestProxiedIsNotLocal: without TLS only clients on this machine can log on, even if the proxy
// is on this machine.
func TestProxiedIsNotLocal(t *testing.T) {
	f := newFixture(t, behindProxies)
	f.real(pgtest.Start(t))
	for header, local := range map[string]bool{
		"PROXY TCP4 198.51.100.7 127.0.0.1 50432 5439\r\n": false,
		"PROXY TCP4 127.0.0.1 127.0.0.1 50432 5439\r\n":    true,
		"PROXY UNKNOWN\r\n":                      false,
		"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00": false,
	} {
		c := &client{Conn: f.dialProxied(1, header), t: t}
		c.send(startup(version30, "user", "IAM:alice"))
		first := c.read(1)
		if got := first[0] == 'R'; got != local {
			t.Errorf("%q: the password is asked for: %t, want %t", header, got, local)
		}
	}
}

// TestProxiedCrowd: a client that fills the room through a proxy uses up its own address's
// share, and others get in through the same proxy.
func TestProxiedCrowd(t *testing.T) {
	f := newFixture(t, func(c *gateway.Config) {
		behindProxies(c)
		c.Limits.HalfOpen, c.Limits.HalfOpenPerAddress = 50, 5
	})
	f.real(pgtest.Start(t))
	for range 40 {
		f.dialProxied(1, "PROXY TCP4 198.51.100.7 10.0.0.1 50432 5439\r\n")
	}
	pgtest.Eventually(t, "the client has its share", func() bool { return f.server.HalfOpen() <= 5 })
	g := f.grant("alice")
	config, err := pgx.ParseConfig(f.url(g.LogonName(), f.mint(g), ""))
	if err != nil {
		t.Fatal(err)
	}
	config.DialFunc = func(context.Context, string, string) (net.Conn, error) {
		return f.dialProxied(1, "PROXY TCP4 198.51.100.8 10.0.0.1 50432 5439\r\n"), nil
	}
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close(t.Context())
}
