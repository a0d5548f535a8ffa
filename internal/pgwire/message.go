// Package pgwire is PostgreSQL's protocol without the sockets: messages and their
// constants, the start-up packet, SCRAM, what a server may send before it is ready,
// and the Exchange, which tracks where messages end and whether the server owes an
// answer. Bytes go in, values and verdicts come out. Every parser is fuzzed.
//
// The gateway's sessions use all of it. The administrative connections (package adminconn)
// use the parts that they share with sessions. Packages session and gateway deal with
// sockets and deadlines, and decide who may log on.
//
// The protocol is described in PostgreSQL 18's manual, "Frontend/Backend Protocol",
// versions 3.0 and 3.2.
package pgwire

import (
	"bytes"
	"encoding/binary"
)

// The codes that a packet has in the place of the protocol version.
const (
	CancelRequest = 1234<<16 | 5678
	SSLRequest    = 1234<<16 | 5679
	GSSENCRequest = 1234<<16 | 5680
)

// The protocol versions that the gateway speaks.
const (
	Version30 = 3 << 16
	Version32 = 3<<16 | 2
)

// ALPN is the protocol name that direct TLS must agree on, so that a TLS connection
// meant for another protocol is not accepted.
const ALPN = "postgresql"

// Message types that a client sends.
const (
	MsgBind         = 'B'
	MsgClose        = 'C'
	MsgCopyDone     = 'c'
	MsgCopyData     = 'd' // both sides send it
	MsgCopyFail     = 'f'
	MsgDescribe     = 'D'
	MsgExecute      = 'E'
	MsgFlush        = 'H'
	MsgFunctionCall = 'F'
	MsgParse        = 'P'
	MsgPassword     = 'p' // and SASL answers
	MsgQuery        = 'Q'
	MsgSync         = 'S'
	MsgTerminate    = 'X'
)

// Message types that a server sends.
const (
	MsgAuthentication           = 'R'
	MsgBackendKeyData           = 'K'
	MsgCommandComplete          = 'C'
	MsgCopyInResponse           = 'G'
	MsgDataRow                  = 'D'
	MsgErrorResponse            = 'E'
	MsgNegotiateProtocolVersion = 'v'
	MsgNoticeResponse           = 'N'
	MsgNotificationResponse     = 'A'
	MsgParameterStatus          = 'S'
	MsgReadyForQuery            = 'Z'
)

// Authentication requests, by the number that an Authentication message begins with.
const (
	AuthOK                = 0
	AuthCleartextPassword = 3
	AuthMD5Password       = 5
	AuthSASL              = 10
	AuthSASLContinue      = 11
	AuthSASLFinal         = 12
)

// Transaction statuses that ReadyForQuery reports.
const (
	StatusIdle          = 'I'
	StatusInTransaction = 'T'
	StatusFailed        = 'E' // in a transaction that has to be rolled back
)

// The answers to SSLRequest and GSSENCRequest.
const (
	Accepted = 'S'
	Declined = 'N'
)

// Terminate is the whole message.
const Terminate = "X\x00\x00\x00\x04"

// Begin appends the head of a message. Finish fills in the length once the body is
// appended: at is what Begin returned.
func Begin(b []byte, kind byte) (out []byte, at int) {
	return append(b, kind, 0, 0, 0, 0), len(b) + 1
}

// Finish completes the message or packet whose length stands at an offset of b.
func Finish(b []byte, at int) []byte {
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at))
	return b
}

// AppendMessage appends a message.
func AppendMessage(b []byte, kind byte, body []byte) []byte {
	b, at := Begin(b, kind)
	return Finish(append(b, body...), at)
}

// AppendString appends a NUL-terminated string.
func AppendString(b []byte, s string) []byte { return append(append(b, s...), 0) }

// AppendUint32 appends a number.
func AppendUint32(b []byte, n uint32) []byte { return binary.BigEndian.AppendUint32(b, n) }

// AppendPacket appends a packet without a type: its length, a code and the rest.
func AppendPacket(b []byte, code uint32, rest []byte) []byte {
	b = AppendUint32(b, uint32(8+len(rest)))
	return append(AppendUint32(b, code), rest...)
}

// CutString takes a NUL-terminated string off b.
func CutString(b []byte) (s string, rest []byte, ok bool) {
	i := bytes.IndexByte(b, 0)
	if i < 0 {
		return "", nil, false
	}
	return string(b[:i]), b[i+1:], true
}

// AppendWithStatus appends messages with the value of one ParameterStatus replaced.
func AppendWithStatus(b, messages []byte, name, value string) []byte {
	for len(messages) >= 5 {
		size := 1 + int(binary.BigEndian.Uint32(messages[1:]))
		message := messages[:size]
		messages = messages[size:]
		if got, _, ok := CutString(message[5:]); ok && message[0] == MsgParameterStatus && got == name {
			var at int
			b, at = Begin(b, MsgParameterStatus)
			b = Finish(AppendString(AppendString(b, name), value), at)
			continue
		}
		b = append(b, message...)
	}
	return b
}

// Clip shortens text that a peer sent to 256 bytes, for messages and logs.
func Clip(s string) string {
	const most = 256
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
