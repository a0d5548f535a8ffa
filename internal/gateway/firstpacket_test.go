package gateway_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/test/pgtest"
)

// firstPackets are the first bytes that strangers and broken clients send.
func firstPackets() map[string][][]byte {
	hello := startup(version30, "user", "IAM:alice", "database", "postgres")
	layout := func(b []byte) []byte { return packet(version30, b) }
	cancel := func(n int) []byte { return packet(80877102, make([]byte, n)) }
	return map[string][][]byte{
		"nothing":                         {},
		"a byte":                          {{0}},
		"three bytes":                     {{0, 0, 0}},
		"half a start-up message":         {hello[:20]},
		"Terminate":                       {typed('X', nil)},
		"a query":                         {typed('Q', []byte("select 1\x00"))},
		"a password":                      {passwordMessage("secret")},
		"Sync":                            {typed('S', nil)},
		"HTTP":                            {[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")},
		"SSH":                             {[]byte("SSH-2.0-OpenSSH_9.6\r\n")},
		"PROXY protocol":                  {[]byte("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")},
		"PROXY protocol 2":                {[]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x7f\x00\x00\x01\x7f\x00\x00\x01\x00\x01\x00\x02")},
		"zeros":                           {make([]byte, 100)},
		"ones":                            {[]byte(strings.Repeat("\xff", 100))},
		"length 0":                        {be32(0)},
		"length 3":                        {be32(3)},
		"length 4":                        {be32(4)},
		"length 7":                        {append(be32(7), 0, 0, 0)},
		"length 8, protocol 0.0":          {packet(0)},
		"length 8, protocol 3.0":          {packet(version30)},
		"length 10004":                    {startup(version30, "user", "IAM:alice", "database", strings.Repeat("x", 10004-4-4-5-10-9-2))},
		"length 10005":                    {startup(version30, "user", "IAM:alice", "database", strings.Repeat("x", 10005-4-4-5-10-9-2))},
		"length 2 GiB":                    {append(be32(0x7fffffff), 0, 3, 0, 0)},
		"length negative":                 {append(be32(0xffffffff), 0, 3, 0, 0)},
		"protocol 1.0":                    {startup(1<<16, "user", "IAM:alice")},
		"protocol 0.1":                    {packet(1)},
		"protocol 2.0":                    {packet(2<<16, make([]byte, 288))},
		"protocol 2.0, short":             {packet(2 << 16)},
		"protocol 4.0":                    {startup(4<<16, "user", "IAM:alice")},
		"protocol 65535.65535":            {packet(0xffffffff, []byte{0})},
		"protocol 1234.5677":              {packet(80877101)},
		"protocol 1234.5681":              {packet(80877105)},
		"no user":                         {startup(version30, "database", "dev")},
		"empty user":                      {startup(version30, "user", "")},
		"no terminator":                   {layout([]byte("user\x00IAM:alice\x00"))},
		"value without end":               {layout([]byte("user\x00IAM:alice"))},
		"name without value":              {layout([]byte("user\x00"))},
		"bytes after the terminator":      {layout([]byte("user\x00IAM:alice\x00\x00user\x00postgres\x00\x00"))},
		"cancel":                          {cancel(8)},
		"cancel, no key":                  {cancel(4)},
		"cancel, no process":              {cancel(0)},
		"cancel, three bytes of process":  {cancel(3)},
		"cancel, three bytes of key":      {cancel(7)},
		"cancel, five bytes of key":       {cancel(9)},
		"cancel, long key":                {cancel(4 + 32)},
		"cancel, key of 300 bytes":        {cancel(4 + 300)},
		"cancel with more":                {append(cancel(8), 1, 2, 3)},
		"SSL":                             {sslRequest},
		"SSL with a body":                 {packet(80877103, []byte("hello"))},
		"SSL with more":                   {slices.Concat(sslRequest, hello)},
		"SSL with one byte more":          {slices.Concat(sslRequest, []byte{0})},
		"SSL, then Terminate":             {sslRequest, typed('X', nil)},
		"SSL, then no TLS":                {sslRequest, hello},
		"SSL, then SSL":                   {sslRequest, sslRequest},
		"GSS":                             {gssencRequest},
		"GSS with a body":                 {packet(80877104, []byte("hello"))},
		"GSS with more":                   {slices.Concat(gssencRequest, hello)},
		"GSS, then GSS":                   {gssencRequest, gssencRequest},
		"GSS, then Terminate":             {gssencRequest, typed('X', nil)},
		"GSS, then SSL, then no TLS":      {gssencRequest, sslRequest, hello},
		"TLS: Terminate":                  {nil, typed('X', nil)},
		"TLS: HTTP":                       {nil, []byte("GET / HTTP/1.1\r\n\r\n")},
		"TLS: SSL":                        {nil, sslRequest},
		"TLS: GSS":                        {nil, gssencRequest},
		"TLS: length 0":                   {nil, be32(0)},
		"TLS: nothing":                    {nil, {}},
		"TLS: half a start-up message":    {nil, hello[:20]},
		"TLS: cancel, three bytes of key": {nil, cancel(7)},
		"TLS: no user":                    {nil, startup(version30, "database", "dev")},
	}
}

// answersTo sends the packets, each after a one-byte answer to the previous one, and returns
// everything that the server sends until it hangs up. A nil packet stands for a TLS handshake.
func answersTo(t *testing.T, addr string, packets [][]byte) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	tcp := conn.(*net.TCPConn)
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	answer := ""
	for i, b := range packets {
		if b == nil {
			if _, err := conn.Write(sslRequest); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
				return "hangs up at once"
			}
			secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
			if err := secure.Handshake(); err != nil {
				t.Fatal(err)
			}
			conn = secure
			continue
		}
		_, _ = conn.Write(b)
		if i < len(packets)-1 {
			var one [1]byte
			if _, err := io.ReadFull(conn, one[:]); err != nil {
				return answer + " hangs up"
			}
			answer += string(one[:])
		}
	}
	if conn == net.Conn(tcp) {
		_ = tcp.CloseWrite()
	} else {
		_ = conn.(interface{ CloseWrite() error }).CloseWrite()
	}
	b, err := io.ReadAll(conn)
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return answer + " and waits"
	}
	return answer + describeAnswer(b)
}

// describeAnswer describes an answer without the parts that differ between versions and servers,
// such as source positions and the text for old protocols.
func describeAnswer(b []byte) string {
	text := ""
	for len(b) > 0 {
		size := 0
		if len(b) >= 5 {
			size = int(b[1])<<24 + int(b[2])<<16 + int(b[3])<<8 + int(b[4])
		}
		if b[0] == 'N' && len(b) > 5 && b[1] == 'E' { // the answer to a request, then an error
			text, b = text+" N", b[1:]
			continue
		}
		if b[0] != 'E' && b[0] != 'R' && b[0] != 'v' || size < 4 || size >= len(b) {
			return strings.TrimSpace(text + fmt.Sprintf(" %.60q", b))
		}
		if b[0] == 'E' {
			fields := errorFields(b[5 : size+1])
			text += fmt.Sprintf(" %s %s %s", fields['S'], fields['C'], fields['M'])
		} else {
			text += fmt.Sprintf(" %c", b[0])
		}
		b = b[size+1:]
	}
	return strings.TrimSpace(text)
}

// TestFirstPackets: whatever a connection begins with, the gateway answers as a real server
// does. If the length makes no sense, it closes the connection, because the peer may speak
// another protocol.
func TestFirstPackets(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, pg *pgtest.Server) {
		f := newFixture(t, func(c *gateway.Config) { c.Limits.FailureDelay, c.Limits.FailureDelayMax = 1, 1 })
		alone := pg.StartAlone(t, nil)
		certificate, key := pgtest.Ed25519Certificate(t)
		alone.SecureWith(t, certificate, key)
		addr := net.JoinHostPort(alone.Host(), strconv.Itoa(alone.Port()))
		pgtest.Eventually(t, "the server does TLS", func() bool { return answersTo(t, addr, [][]byte{sslRequest}) == `"S"` })
		// Debian's PostgreSQL can encrypt with GSSAPI, and the gateway answers as one that cannot.
		gss := answersTo(t, addr, [][]byte{gssencRequest}) == `"G"`
		for name, packets := range firstPackets() {
			if gss && strings.HasPrefix(name, "GSS") {
				continue // TestPreStartup has the answers
			}
			if pg.Major() == 13 && (strings.Contains(name, "protocol 2.0") || strings.Contains(name, "protocol 0.0") || name == "GSS with more") {
				continue // version 13 still speaks protocol 2, and reports errors in its format as long as the version is unknown
			}
			want, got := answersTo(t, addr, packets), answersTo(t, f.addr, packets)
			if want = strings.NewReplacer("supports 3.0 to 3.0", "supports 3.0 to 3.2", "supports 2.0 to 3.0", "supports 3.0 to 3.2").Replace(want); want != got {
				t.Errorf("%s: PostgreSQL answers %q, the gateway %q", name, want, got)
			}
		}
	})
}

// TestRefusalsHaveReasons: every refusal in the code has a reason.
func TestRefusalsHaveReasons(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			literal, ok := n.(*ast.CompositeLit)
			if !ok {
				return true
			}
			if kind, ok := literal.Type.(*ast.Ident); !ok || kind.Name != "refusal" {
				return true
			}
			found++
			for _, e := range literal.Elts {
				if pair, ok := e.(*ast.KeyValueExpr); ok && pair.Key.(*ast.Ident).Name == "reason" {
					return true
				}
			}
			t.Errorf("%v: a refusal without a reason", set.Position(literal.Pos()))
			return true
		})
	}
	if found < 20 {
		t.Errorf("%d refusals found", found)
	}
}
