package gateway

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxStartupPacket is PostgreSQL's MAX_STARTUP_PACKET_LENGTH, without the length itself.
const maxStartupPacket = 10000

// tlsHandshake is the first byte of a TLS connection: the record type of a
// ClientHello. No start-up packet of a permitted length begins with it.
const tlsHandshake = 0x16

// startup is a start-up message.
type startup struct {
	version  uint32 // as agreed: protocol30 or protocol32
	user     string
	database string  // empty: not given
	params   []param // for the upstream, in order
	redshift bool    // a driver of Redshift's sent it
	// negotiate holds the protocol options to be declined in a
	// NegotiateProtocolVersion message; nil means that none is due.
	negotiate []string
}

// param is a parameter of the start-up message.
type param struct{ name, value string }

// greet takes the client from its first byte to its start-up message: TLS, GSS,
// cancel requests. It returns neither a message nor a refusal when the connection
// has served its purpose; both when the message asks for what is not to be had.
func (l *logon) greet() (*startup, *refusal) {
	var askedTLS, askedGSS bool
	in := newReader(l.client.socket)
	if err := in.need(1); err != nil {
		return nil, refuseGone(err)
	}
	if in.buf[0] == tlsHandshake {
		l.client.ahead = append([]byte(nil), in.rest()...)
		if r := l.startTLS(true); r != nil {
			return nil, r
		}
		in = newReader(l.client)
		askedTLS, askedGSS = true, true // nothing may be negotiated inside
	}
	for {
		packet, err := in.startupPacket(4 + maxStartupPacket)
		switch {
		case errors.Is(err, errTooLong):
			return nil, refuseSilently(errors.New("invalid length of startup packet"))
		case err != nil:
			return nil, refuseGone(err)
		}
		switch code := binary.BigEndian.Uint32(packet); {
		case code == codeCancelRequest:
			l.visitor.Serve()
			if !l.server.cancel(packet[4:], l.peer) {
				return nil, &refusal{reason: notALogon, silent: true, forged: true, cause: errors.New("cancel request for no session")}
			}
			return nil, nil

		// Each may be asked for once, in either order, and before TLS.
		case code == codeSSLRequest && !askedTLS:
			// What was sent with the request was sent in the clear, perhaps by
			// somebody in between, and must not be taken for what comes inside
			// TLS (CVE-2021-23214).
			// PostgreSQL, too, answers before it looks, and says no more to a client
			// that does not do a handshake.
			askedTLS = true
			if _, err := l.client.Write([]byte{'S'}); err != nil {
				return nil, refuseGone(err)
			}
			if len(in.rest()) > 0 {
				return nil, refuseSilently(errors.New("received unencrypted data after SSL request"))
			}
			if r := l.startTLS(false); r != nil {
				return nil, r
			}
			askedGSS = true
			in = newReader(l.client)

		case code == codeGSSENCRequest && !askedGSS:
			askedGSS = true
			if _, err := l.client.Write([]byte{'N'}); err != nil {
				return nil, refuseGone(err)
			}
			if len(in.rest()) > 0 {
				return nil, refuseProtocol("received unencrypted data after GSSAPI encryption request")
			}

		default:
			l.in = in
			return parseStartup(packet)
		}
	}
}

// startTLS does the handshake, under the deadline of the logon.
func (l *logon) startTLS(direct bool) *refusal {
	conn := tls.Server(l.client.socket, l.server.tls)
	if err := conn.Handshake(); err != nil {
		return refuseGone(fmt.Errorf("TLS handshake: %w", err))
	}
	if direct && conn.ConnectionState().NegotiatedProtocol != alpnProtocol {
		// As PostgreSQL does: without ALPN this may be a connection that was
		// meant for another service.
		return refuseSilently(errors.New("direct TLS without ALPN protocol " + alpnProtocol))
	}
	l.client.tls = conn
	return nil
}

// parseStartup reads the start-up message proper: version, then names and values
// in turn, each ended by a NUL, then one NUL more that must be the last byte. A
// value can therefore not smuggle in a name. A message whose parameters are refused
// is returned as well, to be recorded.
func parseStartup(packet []byte) (*startup, *refusal) {
	asked := binary.BigEndian.Uint32(packet)
	if major := asked >> 16; major != 3 {
		return nil, &refusal{reason: ReasonProtocol, state: stateFeatureNotSupported, old: asked != 0 && major < 3, message: fmt.Sprintf(
			"unsupported frontend protocol %d.%d: server supports 3.0 to 3.2", major, asked&0xffff)}
	}
	m := &startup{version: min(asked, protocol32)}

	body := packet[4:]
	var given []param
	for {
		name, rest, ok := cutString(body)
		if !ok || name == "" {
			if !ok || len(rest) != 0 {
				return nil, refuseProtocol("invalid startup packet layout: expected terminator as last byte")
			}
			break
		}
		value, rest, ok := cutString(rest)
		if !ok {
			return nil, refuseProtocol("invalid startup packet layout: expected terminator as last byte")
		}
		body = rest
		if len(given) == cap(given) && cap(given) == 0 {
			given = make([]param, 0, 8)
		}
		given = append(given, param{name, value})
	}
	if r := m.take(given); r != nil {
		return m, r
	}
	if m.user == "" {
		return nil, &refusal{reason: ReasonProtocol, state: stateInvalidAuthorization, message: "no PostgreSQL user name specified in startup packet"}
	}
	if asked > protocol32 && m.negotiate == nil {
		m.negotiate = []string{}
	}
	if m.redshift {
		// Redshift's JDBC driver takes anything but an authentication request or
		// an error for a broken connection.
		m.negotiate = nil
	}
	return m, nil
}

// appendNegotiation appends a NegotiateProtocolVersion message: the newest
// version we speak, and the options we do not know.
func (m *startup) appendNegotiation(b []byte) []byte {
	if m.negotiate == nil {
		return b
	}
	b, at := begin(b, 'v')
	b = appendUint32(b, m.version)
	b = appendUint32(b, uint32(len(m.negotiate)))
	for _, name := range m.negotiate {
		b = appendString(b, name)
	}
	return finish(b, at)
}

// maxPassword is the longest password that is read at all.
const maxPassword = 4096

// askPassword asks for a password and reads it. AuthenticationCleartextPassword
// is the one method that every family of drivers answers; inside TLS it is as
// good as any for a password that is a signature and expires.
func (l *logon) askPassword(m *startup) (string, *refusal) {
	out := m.appendNegotiation(nil)
	out = appendMessage(out, 'R', []byte{0, 0, 0, 3})
	if _, err := l.client.Write(out); err != nil {
		return "", refuseGone(err)
	}
	kind, body, err := l.in.message(maxPassword + 1)
	if err == nil || errors.Is(err, errTooLong) || errors.Is(err, errMalformed) {
		if kind != 'p' {
			return "", refuseProtocol(fmt.Sprintf("expected password response, got message type %d", kind))
		}
	}
	switch {
	case errors.Is(err, errTooLong), errors.Is(err, errMalformed):
		return "", refuseForged(m.user, fmt.Errorf("password message: %w", err))
	case err != nil:
		// psql leaves here to ask its user, and comes back.
		if !errors.Is(err, io.EOF) {
			err = fmt.Errorf("waiting for the password: %w", err)
		}
		return "", refuseGone(err)
	}
	password, ok := parsePassword(body)
	if !ok {
		return "", refuseForged(m.user, errors.New("password message: not one NUL-terminated string"))
	}
	return password, nil
}

// parsePassword takes the password out of the body of a password message: one
// string, whose NUL is the last byte.
func parsePassword(body []byte) (string, bool) {
	password, rest, ok := cutString(body)
	return password, ok && len(rest) == 0
}

// isProtocolOption says whether a parameter is an option of the protocol, not a
// setting.
func isProtocolOption(name string) bool { return strings.HasPrefix(name, "_pq_.") }
