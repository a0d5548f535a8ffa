// Package proxyproto reads the header that a TCP balancer sends ahead of a connection's
// bytes to name the client: the PROXY protocol of HAProxy, versions 1 and 2
// (https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt).
//
//	v1  PROXY TCP4 192.0.2.7 10.0.0.1 50432 5439\r\n
//	v2  0D 0A 0D 0A 00 0D 0A 51 55 49 54 0A  21 11 000C  addresses and ports, then TLVs
//
// Anyone can send a header, so only connections from proxies that the operator has named
// may be read in this way. On these the header is required and has to come first, as the
// protocol demands; it is never guessed whether there is one.
//
// Read takes no byte beyond the header, because TLS and the relay use the plain socket
// afterwards. For that reason, and to refuse headers that are not exactly as specified,
// this is not a library's reader. TLVs are bounded and skipped.
package proxyproto

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// ErrMalformed is wrapped by Read's error for bytes that are not a header.
var ErrMalformed = errors.New("not a PROXY protocol header")

const (
	// maxV1 is the longest header of version 1, line end included.
	maxV1 = 107
	// maxV2 bounds what follows the first 16 bytes of version 2. Addresses take at most
	// 36 bytes, the TLVs of balancers some hundreds.
	maxV2 = 4096
	// shortest is the length of the shortest header, "PROXY UNKNOWN\r\n".
	shortest = 15
)

const signature = "\r\n\r\n\x00\r\nQUIT\n"

// Read reads a header from the beginning of a connection, and returns the client's
// address. It is the zero AddrPort when the proxy speaks for itself (a health check) or
// does not know the client.
//
// The caller sets a deadline: a proxy sends the header at once.
func Read(r io.Reader) (client netip.AddrPort, err error) {
	var space [maxV1]byte
	head := space[:shortest]
	// Check the first byte alone. A client that sends no header may have sent fewer bytes
	// than this and be waiting for an answer, so do not wait for more of them.
	if _, err := io.ReadFull(r, head[:1]); err != nil {
		return netip.AddrPort{}, unread(err)
	}
	if head[0] != 'P' && head[0] != signature[0] {
		return netip.AddrPort{}, fmt.Errorf("%w: it begins with %q", ErrMalformed, head[:1])
	}
	if err := readRest(r, head[1:]); err != nil {
		return netip.AddrPort{}, err
	}
	switch {
	case string(head[:len(signature)]) == signature:
		return readV2(r, head)
	case string(head[:6]) == "PROXY ":
		return readV1(r, space[:], shortest)
	}
	return netip.AddrPort{}, fmt.Errorf("%w: it begins with %q", ErrMalformed, head)
}

// readRest reads more of a header that has begun.
func readRest(r io.Reader, b []byte) error {
	_, err := io.ReadFull(r, b)
	switch {
	case err == io.EOF && len(b) > 0:
		return unread(io.ErrUnexpectedEOF)
	case err != nil:
		return unread(err)
	}
	return nil
}

func unread(err error) error { return fmt.Errorf("reading the PROXY protocol header: %w", err) }

// readV1 reads the rest of a line, whose first n bytes are already in line. It reads byte
// by byte so that it takes nothing after the line's end.
func readV1(r io.Reader, line []byte, n int) (netip.AddrPort, error) {
	for string(line[n-2:n]) != "\r\n" {
		if n == len(line) {
			return netip.AddrPort{}, fmt.Errorf("%w: no line end within %d bytes", ErrMalformed, maxV1)
		}
		if err := readRest(r, line[n:n+1]); err != nil {
			return netip.AddrPort{}, err
		}
		n++
	}
	text := string(line[:n-2])
	if text == "PROXY UNKNOWN" || strings.HasPrefix(text, "PROXY UNKNOWN ") {
		return netip.AddrPort{}, nil // the rest is to be ignored
	}
	parts := strings.Split(text, " ")
	bad := fmt.Errorf("%w: %q", ErrMalformed, text)
	if len(parts) != 6 || parts[1] != "TCP4" && parts[1] != "TCP6" {
		return netip.AddrPort{}, bad
	}
	source, ok := parseAddress(parts[2], parts[1] == "TCP6")
	if _, right := parseAddress(parts[3], parts[1] == "TCP6"); !ok || !right {
		return netip.AddrPort{}, bad
	}
	port, ok := parsePort(parts[4])
	if _, right := parsePort(parts[5]); !ok || !right {
		return netip.AddrPort{}, bad
	}
	return netip.AddrPortFrom(source, port), nil
}

func parseAddress(text string, six bool) (netip.Addr, bool) {
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" || a.Is6() != six {
		return netip.Addr{}, false
	}
	return a.Unmap(), true
}

// parsePort takes a decimal number without leading zeros.
func parsePort(text string) (uint16, bool) {
	n, err := strconv.ParseUint(text, 10, 16)
	return uint16(n), err == nil && strconv.FormatUint(n, 10) == text
}

// The commands and families of version 2 for streams.
const (
	commandLocal = 0x20
	commandProxy = 0x21

	familyUnspecified = 0x00
	familyTCP4        = 0x11
	familyTCP6        = 0x21
	familyUnix        = 0x31
)

// readV2 reads the rest of a header of version 2.
func readV2(r io.Reader, head []byte) (netip.AddrPort, error) {
	var fixed [16]byte
	n := copy(fixed[:], head)
	if err := readRest(r, fixed[n:]); err != nil {
		return netip.AddrPort{}, err
	}
	command, family, length := fixed[12], fixed[13], int(binary.BigEndian.Uint16(fixed[14:]))
	if length > maxV2 {
		return netip.AddrPort{}, fmt.Errorf("%w: %d bytes of addresses and TLVs, %d are the limit", ErrMalformed, length, maxV2)
	}
	rest := make([]byte, length)
	if err := readRest(r, rest); err != nil {
		return netip.AddrPort{}, err
	}
	bad := fmt.Errorf("%w: version and command %#x, family %#x, %d bytes", ErrMalformed, command, family, length)
	switch command {
	case commandLocal: // the proxy's own connection; its addresses are ignored
		return netip.AddrPort{}, nil
	case commandProxy:
	default:
		return netip.AddrPort{}, bad
	}
	size := 0 // of an address
	switch family {
	case familyUnspecified, familyUnix: // no address
		return netip.AddrPort{}, nil
	case familyTCP4:
		size = 4
	case familyTCP6:
		size = 16
	default: // datagrams, or unknown
		return netip.AddrPort{}, bad
	}
	if length < 2*size+4 {
		return netip.AddrPort{}, bad
	}
	source, _ := netip.AddrFromSlice(rest[:size])
	return netip.AddrPortFrom(source.Unmap(), binary.BigEndian.Uint16(rest[2*size:])), nil
}
