package gateway

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/daypass/daypass/internal/pgwire"
)

// tlsHandshake is the first byte of a TLS connection: the record type of a
// ClientHello. No start-up packet of a permitted length begins with it.
const tlsHandshake = 0x16

// greet reads everything from the client's first byte to its start-up message, including requests
// for TLS and GSS. It returns neither a message nor a refusal if there is nothing left to do, as
// after a cancel request, and both if it refuses what the message asks for.
func (l *logon) greet() (*pgwire.Startup, *refusal) {
	var askedTLS, askedGSS bool
	in := pgwire.NewReader(l.client)
	first, err := in.Peek()
	if err != nil {
		return nil, refuseGone(err)
	}
	if first == tlsHandshake {
		l.client.Unread(in.Rest())
		if r := l.startTLS(true); r != nil {
			return nil, r
		}
		in = pgwire.NewReader(l.client)
		askedTLS, askedGSS = true, true // nothing may be negotiated inside
	}
	for {
		packet, err := in.Packet(4 + pgwire.MaxStartupPacket)
		switch {
		case errors.Is(err, pgwire.ErrTooLong):
			return nil, refuseSilently(errors.New("invalid length of startup packet"))
		case err != nil:
			return nil, refuseGone(err)
		}
		switch code := binary.BigEndian.Uint32(packet); {
		case code == pgwire.CancelRequest:
			l.visitor.Serve()
			if !l.server.cancel(packet[4:], l.peer, l.visitor) {
				return nil, &refusal{reason: notALogon, silent: true, forged: true, cause: errors.New("cancel request for no session")}
			}
			return nil, nil

		// Each may be asked for once, in either order, and before TLS.
		case code == pgwire.SSLRequest && !askedTLS:
			// Bytes that arrived together with the request were sent in the clear, perhaps by a
			// man in the middle, and must not be taken for the content of TLS (CVE-2021-23214).
			// PostgreSQL also answers before it checks, and sends nothing more to a client that
			// does not do a handshake.
			askedTLS = true
			if _, err := l.client.Write([]byte{pgwire.Accepted}); err != nil {
				return nil, refuseGone(err)
			}
			if in.Buffered() > 0 {
				return nil, refuseSilently(errors.New("received unencrypted data after SSL request"))
			}
			if r := l.startTLS(false); r != nil {
				return nil, r
			}
			askedGSS = true
			in = pgwire.NewReader(l.client)

		case code == pgwire.GSSENCRequest && !askedGSS:
			askedGSS = true
			if _, err := l.client.Write([]byte{pgwire.Declined}); err != nil {
				return nil, refuseGone(err)
			}
			if in.Buffered() > 0 {
				return nil, refuseProtocol("received unencrypted data after GSSAPI encryption request")
			}

		default:
			l.in = in
			m, failed := pgwire.ParseStartup(packet)
			if failed != nil {
				return m, &refusal{reason: ReasonProtocol, state: failed.SQLState, message: failed.Message, hint: failed.Hint, legacy: failed.Legacy}
			}
			return m, nil
		}
	}
}

// startTLS does the handshake, under the deadline of the logon.
func (l *logon) startTLS(direct bool) *refusal {
	if err := l.client.StartServerTLS(l.server.tls); err != nil {
		return refuseGone(fmt.Errorf("TLS handshake: %w", err))
	}
	if direct && l.client.TLS().NegotiatedProtocol != pgwire.ALPN {
		// As PostgreSQL does: without ALPN this may be a connection that was
		// meant for another service.
		return refuseSilently(errors.New("direct TLS without ALPN protocol " + pgwire.ALPN))
	}
	return nil
}

// maxPassword is the longest password that the gateway reads.
const maxPassword = 4096

// askPassword asks for a password and reads it. Every family of drivers can answer
// AuthenticationCleartextPassword, and no other method. Inside TLS it is as safe as any
// for a password that is a signature and expires.
func (l *logon) askPassword(m *pgwire.Startup) (string, *refusal) {
	out := m.AppendNegotiation(nil)
	out = appendAuthentication(out, pgwire.AuthCleartextPassword)
	if _, err := l.client.Write(out); err != nil {
		return "", refuseGone(err)
	}
	kind, body, err := l.in.Message(maxPassword + 1)
	if err == nil || errors.Is(err, pgwire.ErrTooLong) || errors.Is(err, pgwire.ErrMalformed) {
		if kind != pgwire.MsgPassword {
			return "", refuseProtocol(fmt.Sprintf("expected password response, got message type %d", kind))
		}
	}
	switch {
	case errors.Is(err, pgwire.ErrTooLong), errors.Is(err, pgwire.ErrMalformed):
		return "", refuseForged(m.User, fmt.Errorf("password message: %w", err))
	case err != nil:
		// psql disconnects here to ask its user, and connects again.
		if !errors.Is(err, io.EOF) {
			err = fmt.Errorf("waiting for the password: %w", err)
		}
		return "", refuseGone(err)
	}
	password, ok := pgwire.ParsePassword(body)
	if !ok {
		return "", refuseForged(m.User, errors.New("password message: not one NUL-terminated string"))
	}
	return password, nil
}

// appendAuthentication appends an Authentication message that has nothing but its
// number.
func appendAuthentication(b []byte, request uint32) []byte {
	b, at := pgwire.Begin(b, pgwire.MsgAuthentication)
	return pgwire.Finish(pgwire.AppendUint32(b, request), at)
}
