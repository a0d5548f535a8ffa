package proxyproto_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/daypass/daypass/internal/proxyproto"
)

const signature = "\r\n\r\n\x00\r\nQUIT\n"

// v2 is a header of version 2.
func v2(command, family byte, rest string) string {
	return signature + string([]byte{command, family}) + string(binary.BigEndian.AppendUint16(nil, uint16(len(rest)))) + rest
}

const (
	four = "\xc0\x00\x02\x07\x0a\x00\x00\x01\xc5\x00\x15\x3f" // 192.0.2.7:50432, 10.0.0.1:5439
	six  = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\xc5\x00\x15\x3f"
	mapped = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x07" +
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x0a\x00\x00\x01\xc5\x00\x15\x3f"
)

// good are headers, and the client's address in each.
var good = map[string]string{
	"PROXY TCP4 192.0.2.7 10.0.0.1 50432 5439\r\n":                                                               "192.0.2.7:50432",
	"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n":                                                 "255.255.255.255:65535",
	"PROXY TCP6 2001:db8::7 2001:db8::1 50432 5439\r\n":                                                          "[2001:db8::7]:50432",
	"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:10.0.0.1 50432 5439\r\n":                                                 "192.0.2.7:50432",
	"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n": "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
	"PROXY UNKNOWN\r\n": "",
	"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n": "",
	v2(0x21, 0x11, four): "192.0.2.7:50432",
	v2(0x21, 0x11, four+"\x04\x00\x03abc\xea\x00\x01x"): "192.0.2.7:50432",
	v2(0x21, 0x21, six):                               "[2001:db8::7]:50432",
	v2(0x21, 0x21, mapped):                            "192.0.2.7:50432",
	v2(0x21, 0x11, four+strings.Repeat("x", 4096-12)): "192.0.2.7:50432",
	v2(0x20, 0x00, ""):                                "",
	v2(0x20, 0x11, four):                              "", // LOCAL: addresses count for nothing
	v2(0x20, 0x00, "\x04\x00\x00"):                    "",
	v2(0x21, 0x00, ""):                                "",
	v2(0x21, 0x31, strings.Repeat("/", 216)):          "",
}

// TestRead: each header is read to its end and no further, however it arrives.
func TestRead(t *testing.T) {
	for header, want := range good {
		for name, reader := range map[string]func(io.Reader) io.Reader{
			"at once":     func(r io.Reader) io.Reader { return r },
			"in bytes":    iotest.OneByteReader,
			"with an end": iotest.DataErrReader,
		} {
			const after = "\x16\x03\x01PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n"
			all := bytes.NewReader([]byte(header + after))
			got, err := proxyproto.Read(reader(all))
			text := ""
			if got.IsValid() {
				text = got.String()
			}
			if err != nil || text != want {
				t.Errorf("%s: Read(%.60q) = %v, %v, want %q", name, header, got, err, want)
			}
			if all.Len() != len(after) && name != "with an end" {
				t.Errorf("%s: Read(%.60q) took %d bytes, and the header has %d", name, header, all.Size()-int64(all.Len()), len(header))
			}
		}
	}
}

// TestForgeries: input that is not exactly a header is an error, and never yields an address.
func TestForgeries(t *testing.T) {
	for _, header := range []string{
		strings.Repeat("x", 200),
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"proxy TCP4 192.0.2.7 10.0.0.1 50432 5439\r\n",
		"PROXY  TCP4 192.0.2.7 10.0.0.1 50432 5439\r\n",
		"PROXY TCP4 192.0.2.7 10.0.0.1 50432 5439 \r\n",
		"PROXY TCP4 192.0.2.7 10.0.0.1 50432 5439\n" + strings.Repeat("x", 100),
		"PROXY TCP4 192.0.2.7 10.0.0.1 50432\r\n",
		"PROXY TCP4 192.0.2.7 10.0.0.1 50432 5439 1\r\n",
		"PROXY TCP4 192.0.2.7 10.0.0.1 050432 5439\r\n",
		"PROXY TCP4 192.0.2.7 10.0.0.1 +5043 5439\r\n",
		"PROXY TCP4 192.0.2.7 10.0.0.1 65536 5439\r\n",
		"PROXY TCP4 192.0.2.7 10.0.0.1 -1 5439\r\n",
		"PROXY TCP4 192.0.2.07 10.0.0.1 50432 5439\r\n",
		"PROXY TCP4 192.0.2 10.0.0.1 50432 5439\r\n",
		"PROXY TCP4 192.0.2.7,1.1.1.1 10.0.0.1 50432 5439\r\n",
		"PROXY TCP4 2001:db8::7 2001:db8::1 50432 5439\r\n",
		"PROXY TCP6 192.0.2.7 10.0.0.1 50432 5439\r\n",
		"PROXY TCP6 fe80::1%eth0 fe80::2 50432 5439\r\n",
		"PROXY TCP5 192.0.2.7 10.0.0.1 50432 5439\r\n",
		"PROXY UDP4 192.0.2.7 10.0.0.1 50432 5439\r\n",
		"PROXY UNKNOWNX\r\n",
		"PROXY UNKNOWN " + strings.Repeat("x", 100) + "\r\n",
		"PROXY \r\nxxxxxxx\r\n",
		v2(0x21, 0x11, four[:11]),
		v2(0x21, 0x21, four),
		v2(0x21, 0x21, six[:35]),
		v2(0x21, 0x12, four),
		v2(0x21, 0x22, six),
		v2(0x21, 0x32, strings.Repeat("/", 216)),
		v2(0x21, 0x41, four),
		v2(0x22, 0x11, four),
		v2(0x11, 0x11, four),
		v2(0x31, 0x11, four),
		v2(0x00, 0x00, ""),
		v2(0x21, 0x11, four+strings.Repeat("x", 4097-12)),
		strings.Replace(v2(0x21, 0x11, four), "QUIT", "QUIt", 1),
	} {
		got, err := proxyproto.Read(strings.NewReader(header + strings.Repeat("x", 5000)))
		if !errors.Is(err, proxyproto.ErrMalformed) || got != (netip.AddrPort{}) {
			t.Errorf("Read(%.60q) = %v, %v, want ErrMalformed", header, got, err)
		}
	}
	if _, err := proxyproto.Read(strings.NewReader("\x00\x00\x00\x08")); !errors.Is(err, proxyproto.ErrMalformed) {
		t.Errorf("an SSLRequest that waits for its answer: %v, want ErrMalformed at once", err)
	}
	for header := range good {
		for n := range len(header) {
			if n > 0 {
				if _, err := proxyproto.Read(strings.NewReader(header[:n])); errors.Is(err, io.EOF) {
					t.Errorf("Read(%.60q), of which %d bytes come, fails as where nothing comes", header, n)
				}
			}
			if got, err := proxyproto.Read(strings.NewReader(header[:n])); err == nil || got.IsValid() {
				t.Errorf("Read(%.60q), of which %d bytes come, = %v, %v", header, n, got, err)
			}
		}
	}
}

// FuzzRead: Read never reads more than the longest header, and every client address that it
// accepts can be written in a header again.
func FuzzRead(f *testing.F) {
	for header := range good {
		f.Add([]byte(header))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		client, err := proxyproto.Read(r)
		if taken := len(data) - r.Len(); taken > 16+4096 {
			t.Fatalf("%d bytes taken", taken)
		}
		if err != nil {
			if client.IsValid() {
				t.Fatalf("Read() = %v with the error %v", client, err)
			}
			return
		}
		if !client.IsValid() {
			return
		}
		if client.Addr().Zone() != "" || client.Addr().Is4In6() {
			t.Fatalf("Read() = %v", client)
		}
		family, address := byte(0x21), client.Addr().AsSlice()
		if client.Addr().Is4() {
			family = 0x11
		}
		again := v2(0x21, family, string(address)+string(address)+string(binary.BigEndian.AppendUint16(nil, client.Port()))+"\x00\x01")
		if got, err := proxyproto.Read(strings.NewReader(again)); err != nil || got != client {
			t.Fatalf("Read of %v again = %v, %v", client, got, err)
		}
	})
}
