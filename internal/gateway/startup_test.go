package gateway_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/daypass/daypass/test/pgtest"
)

// TestPreStartup sends each kind of packet that can precede the start-up message, and checks the
// gateway's answer byte by byte. There is no TLS here; the peer is local.
func TestPreStartup(t *testing.T) {
	f := newFixture(t, nil)
	hello := startup(version30, "user", "IAM:alice")
	layout := func(b []byte) []byte { return packet(version30, b) }
	for _, test := range []struct {
		name  string
		send  [][]byte // each is sent after the one-byte answer to the previous one
		reply string   // the one-byte answers
		ask   bool     // then the gateway asks for a password
		error string   // or it sends this SQLSTATE, text and hint; empty: it sends nothing
	}{
		{"start-up", [][]byte{hello}, "", true, ""},
		{"GSS, start-up", [][]byte{gssencRequest, hello}, "N", true, ""},
		{"GSS twice", [][]byte{gssencRequest, gssencRequest}, "N", false, "0A000 unsupported frontend protocol 1234.5680: server supports 3.0 to 3.2"},
		{"GSS with more", [][]byte{slices.Concat(gssencRequest, hello), nil}, "N", false, "08P01 received unencrypted data after GSSAPI encryption request"},
		{"SSL with more", [][]byte{slices.Concat(sslRequest, hello), nil}, "S", false, ""},
		{"SSL with one byte more", [][]byte{slices.Concat(sslRequest, []byte{0}), nil}, "S", false, ""},
		{"protocol 3.1", [][]byte{startup(3<<16|1, "user", "IAM:alice")}, "", true, ""},
		{"protocol 4.0", [][]byte{startup(4<<16, "user", "IAM:alice")}, "", false, "0A000 unsupported frontend protocol 4.0: server supports 3.0 to 3.2"},
		{"length 7", [][]byte{append(be32(7), 0, 0, 0)}, "", false, ""},
		{"length 0", [][]byte{be32(0)}, "", false, ""},
		{"length negative", [][]byte{be32(0xffffffff)}, "", false, ""},
		{"length 10004", [][]byte{startup(version30, "user", "IAM:alice", "application_name", strings.Repeat("x", 10004-4-4-5-10-17-2))}, "", true, ""},
		{"length 10005", [][]byte{startup(version30, "user", "IAM:alice", "application_name", strings.Repeat("x", 10005-4-4-5-10-17-2))}, "", false, ""},
		{"HTTP", [][]byte{[]byte("GET / HTTP/1.1\r\n\r\n")}, "", false, ""},
		{"no user", [][]byte{startup(version30, "database", "dev")}, "", false, "28000 no PostgreSQL user name specified"},
		{"empty user", [][]byte{startup(version30, "user", "")}, "", false, "28000 no PostgreSQL user name specified"},
		{"no terminator", [][]byte{layout([]byte("user\x00IAM:alice\x00"))}, "", false, "08P01 invalid startup packet layout: expected terminator as last byte"},
		{"value without end", [][]byte{layout([]byte("user\x00IAM:alice"))}, "", false, "08P01 invalid startup packet layout"},
		{"name without value", [][]byte{layout([]byte("user\x00"))}, "", false, "08P01 invalid startup packet layout"},
		{"bytes after the terminator", [][]byte{layout([]byte("user\x00IAM:alice\x00\x00user\x00postgres\x00\x00"))}, "", false, "08P01 invalid startup packet layout"},
		{"nothing", [][]byte{layout(nil)}, "", false, "08P01 invalid startup packet layout"},
		{"replication", [][]byte{startup(version30, "user", "IAM:alice", "replication", "true")}, "", false, "0A000 replication connections are not supported through the gateway; Connect to the PostgreSQL server itself"},
		{"replication of a database", [][]byte{startup(version30, "user", "IAM:alice", "replication", "database")}, "", false, "0A000 replication"},
		{"replication abbreviated", [][]byte{startup(version30, "user", "IAM:alice", "replication", "T")}, "", false, "0A000 replication"},
		{"replication off", [][]byte{startup(version30, "user", "IAM:alice", "replication", "Off")}, "", true, ""},
		{"role", [][]byte{startup(version30, "user", "IAM:alice", "role", "postgres")}, "", false, `42501 parameter "role" cannot be set when logging on through the gateway; The credential decides`},
		{"ROLE", [][]byte{startup(version30, "user", "IAM:alice", "RoLe", "postgres")}, "", false, `42501 parameter "RoLe" cannot be set`},
		{"role in options", [][]byte{startup(version30, "user", "IAM:alice", "options", "-crole=postgres")}, "", false, `42501 parameter "role" cannot be set`},
		{"other switches", [][]byte{startup(version30, "user", "IAM:alice", "options", "-d 5")}, "", false, "42601 invalid command-line argument for server process: -d; Only settings"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f.t = t
			c := f.dial()
			for i, b := range test.send {
				c.send(b)
				if i < len(test.reply) {
					if got := c.read(1); got != test.reply[i:i+1] {
						t.Fatalf("answer %d = %q, want %q", i, got, test.reply[i:i+1])
					}
				}
			}
			if test.ask {
				if got := c.read(len(askPassword)); got != string(askPassword) {
					t.Errorf("answer %q, want the question for a password", got)
				}
				return
			}
			if test.error == "" { // like PostgreSQL, the gateway sends nothing
				if rest := c.rest(); rest != "" {
					t.Errorf("answer %q, want none", rest)
				}
				return
			}
			fields := c.fatal()
			if got := fields['C'] + " " + fields['M'] + "; " + fields['H']; !strings.HasPrefix(got, test.error) {
				t.Errorf("answer %q, want %q", got, test.error)
			}
			if rest := c.rest(); rest != "" {
				t.Errorf("after the error: %q", rest)
			}
		})
	}
	f.t = t
	// The client named a user, and the rest of the message was refused.
	if logons, _ := f.audit.count(); logons != 7 {
		t.Errorf("%d logons recorded, want 7", logons)
	}
	if r := f.audit.lastLogon(t); r.User != "IAM:alice" || r.SQLState != "42601" || r.SessionID == "" || !strings.Contains(r.Reason, "-d") {
		t.Errorf("recorded %+v", r)
	}
}

// TestParametersBeforeTheUser: the record names the user wherever the user parameter is.
func TestParametersBeforeTheUser(t *testing.T) {
	f := newFixture(t, nil)
	c := f.dial()
	c.send(startup(version30, "role", "postgres", "database", "dev", "user", "IAM:alice"))
	c.fatal()
	if r := f.audit.lastLogon(t); r.User != "IAM:alice" || r.Database != "dev" || r.SQLState != "42501" {
		t.Errorf("recorded %+v", r)
	}
}

// TestSQLStatesAreInTheManual: the manual lists every SQLSTATE that the gateway itself sends.
func TestSQLStatesAreInTheManual(t *testing.T) {
	manual, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"../pgwire/sqlstate.go"} {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range regexp.MustCompile(`State\w+ += "(\w{5})"`).FindAllSubmatch(source, -1) {
			if state := string(match[1]); state != "00000" && !bytes.Contains(manual, match[1]) {
				t.Errorf("docs/api.md does not have %s", state)
			}
		}
	}
}

// TestProtocol2: messages of protocol 2 have no length field.
func TestProtocol2(t *testing.T) {
	f := newFixture(t, nil)
	c := f.dial()
	body := make([]byte, 288)
	copy(body, "dev")
	copy(body[64:], "alice")
	c.send(packet(2<<16, body))
	if got, want := c.rest(), "EFATAL:  unsupported frontend protocol 2.0: server supports 3.0 to 3.2\n\x00"; got != want {
		t.Errorf("answer %q, want %q", got, want)
	}
}

func TestTLSNegotiation(t *testing.T) {
	f := newFixture(t, nil)
	hello := startup(version30, "user", "IAM:alice")
	asks := func(c *client) {
		t.Helper()
		if got := c.read(len(askPassword)); got != string(askPassword) {
			t.Errorf("answer %q, want the question for a password", got)
		}
	}

	c := f.dialTLS()
	c.send(hello)
	asks(c)

	c = f.dial() // GSS first, as libpq does with gssencmode=prefer
	c.send(gssencRequest)
	c.read(1)
	c.send(sslRequest)
	c.read(1)
	c = f.secure(c, []string{"postgresql"})
	c.send(hello)
	asks(c)

	direct := f.secure(f.dial(), []string{"postgresql"})
	direct.send(hello)
	asks(direct)

	withoutALPN := f.secure(f.dial(), nil)
	if rest := withoutALPN.rest(); rest != "" {
		t.Errorf("direct TLS without ALPN: %q", rest)
	}

	if err := tls.Client(f.dial().Conn, f.clientTLS([]string{"http/1.1"})).Handshake(); err == nil {
		t.Error("direct TLS for another protocol: the handshake succeeded")
	}

	old := f.clientTLS([]string{"postgresql"})
	old.MaxVersion = tls.VersionTLS11
	if err := tls.Client(f.dial().Conn, old).Handshake(); err == nil {
		t.Error("TLS 1.1: the handshake succeeded")
	}

	for name, b := range map[string][]byte{"SSLRequest": sslRequest, "GSSENCRequest": gssencRequest} {
		c := f.dialTLS()
		c.send(b)
		if fields := c.fatal(); fields['C'] != "0A000" {
			t.Errorf("%s inside TLS: %q", name, fields)
		}
	}

	// A start-up message in the place of the ClientHello never reaches the parser.
	c = f.dial()
	c.send(sslRequest)
	c.read(1)
	c.send(hello)
	if rest := c.rest(); strings.Contains(rest, string(askPassword)) {
		t.Errorf("plain start-up message after SSLRequest: %q", rest)
	}
}

// TestRedshiftDriver sends the same messages as redshift_connector, and reads each answer as
// that driver does.
func TestRedshiftDriver(t *testing.T) {
	f := newFixture(t, nil)
	pg := pgtest.Start(t)
	cluster := f.real(pg)
	g := f.grant(pg.Name("gina"))
	c := f.dialTLS()
	c.send(startup(version30, "user", g.LogonName(), "database", cluster.Database, "application_name", "x",
		"client_protocol_version", "2", "driver_version", "Redshift Python Driver 2.1", "os_version", "Linux", "_pq_.compression", "lz4:1", "plugin_name", "none"))
	var order strings.Builder
	status := map[string]string{}
	for {
		kind, body := c.message()
		order.WriteByte(kind)
		switch kind {
		case 'R':
			if bytes.Equal(body, []byte{0, 0, 0, 3}) {
				c.send(passwordMessage(f.mint(g)))
			}
			continue
		case 'S':
			parts := bytes.Split(body, []byte{0})
			status[string(parts[0])] = string(parts[1])
			continue
		case 'K':
			if len(body) != 8 {
				t.Errorf("cancel key of %d bytes, want 4", len(body)-4)
			}
			continue
		case 'Z':
		default:
			t.Fatalf("message %q %q", kind, body)
		}
		break
	}
	if !strings.HasPrefix(order.String(), "RRS") || !strings.HasSuffix(order.String(), "KZ") {
		t.Errorf("order of messages %q", order.String())
	}
	if got, want := status["server_version"], fmt.Sprint(pg.Major()); !strings.HasPrefix(got, want) || strings.Trim(got, "0123456789.") != "" {
		t.Errorf("server_version = %q, want a bare number", got)
	}
	if status["client_encoding"] != "UTF8" || status["integer_datetimes"] != "on" || status["application_name"] != "x" {
		t.Errorf("parameter statuses %v", status)
	}
	c.send(typed('Q', []byte("SELECT 1\x00")))
	if kind, _ := c.message(); kind != 'T' {
		t.Errorf("answer to a query: %q", kind)
	}
}

// TestLargeHandshake: a client may offer a lot in its handshake, but not so much that strangers fill
// the memory.
func TestLargeHandshake(t *testing.T) {
	f := newFixture(t, nil)
	shake := func(size int) error {
		c := f.dial()
		c.send(sslRequest)
		c.read(1)
		protocols := []string{"postgresql"}
		for range size / 256 {
			protocols = append(protocols, strings.Repeat("x", 255))
		}
		return tls.Client(c.Conn, f.clientTLS(protocols)).HandshakeContext(t.Context())
	}
	if err := shake(12 << 10); err != nil {
		t.Errorf("12 KiB: %v", err)
	}
	if err := shake(17 << 10); err == nil {
		t.Error("17 KiB: the handshake succeeded")
	}
	pgtest.Eventually(t, "the log has the reason", func() bool { return strings.Contains(f.log.String(), "the client sent more than 16384 bytes") })
}
