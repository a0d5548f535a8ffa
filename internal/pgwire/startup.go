package pgwire

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// MaxStartupPacket is PostgreSQL's MAX_STARTUP_PACKET_LENGTH, without the length itself.
const MaxStartupPacket = 10000

// Startup is a start-up message.
type Startup struct {
	Version  uint32 // the version that both sides speak: Version30 or Version32
	User     string
	Database string  // empty: not given
	Params   []Param // for the upstream, in order
	Redshift bool    // a Redshift driver sent it

	// negotiate holds the protocol options to decline in a NegotiateProtocolVersion
	// message; nil: no such message is due.
	negotiate []string
}

// Param is a parameter of the start-up message.
type Param struct{ Name, Value string }

// StartupError is the reason why a start-up message is refused.
type StartupError struct {
	SQLState string
	Message  string
	Hint     string
	Legacy   bool // the client speaks protocol 1 or 2, and needs an answer in its form
}

func (e *StartupError) Error() string { return e.Message }

// ParseStartup reads a start-up message, without its length: the version, then names
// and values in turn, each ended by a NUL, and a final NUL that must be the last byte.
// Therefore a value cannot smuggle in a name. A message whose parameters are refused
// is returned together with the error, so that it can be recorded.
func ParseStartup(packet []byte) (*Startup, *StartupError) {
	asked, given, failed := SplitStartup(packet)
	if failed != nil {
		return nil, failed
	}
	m := &Startup{Version: min(asked, Version32)}
	if err := m.take(given); err != nil {
		return m, err
	}
	if m.User == "" {
		return nil, &StartupError{SQLState: StateInvalidAuthorization, Message: "no PostgreSQL user name specified in startup packet"}
	}
	if asked > Version32 && m.negotiate == nil {
		m.negotiate = []string{}
	}
	if m.Redshift {
		// Redshift's JDBC driver treats anything but an authentication request or an
		// error as a broken connection.
		m.negotiate = nil
	}
	return m, nil
}

// SplitStartup reads a start-up message as ParseStartup does, and returns the version and the
// parameters as the client sent them, in their order.
func SplitStartup(packet []byte) (version uint32, params []Param, failed *StartupError) {
	version = binary.BigEndian.Uint32(packet)
	if major := version >> 16; major != 3 {
		return version, nil, &StartupError{SQLState: StateFeatureNotSupported, Legacy: version != 0 && major < 3, Message: fmt.Sprintf(
			"unsupported frontend protocol %d.%d: server supports 3.0 to 3.2", major, version&0xffff)}
	}
	badLayout := &StartupError{SQLState: StateProtocolViolation, Message: "invalid startup packet layout: expected terminator as last byte"}
	body := packet[4:]
	for {
		name, rest, ok := CutString(body)
		if !ok || name == "" {
			if !ok || len(rest) != 0 {
				return version, nil, badLayout
			}
			return version, params, nil
		}
		value, rest, ok := CutString(rest)
		if !ok {
			return version, nil, badLayout
		}
		body = rest
		if params == nil {
			params = make([]Param, 0, 8)
		}
		params = append(params, Param{name, value})
	}
}

// AppendNegotiation appends a NegotiateProtocolVersion message where one is due: the
// newest version that we speak, and the options that we do not know.
func (m *Startup) AppendNegotiation(b []byte) []byte {
	if m.negotiate == nil {
		return b
	}
	b, at := Begin(b, MsgNegotiateProtocolVersion)
	b = AppendUint32(b, m.Version)
	b = AppendUint32(b, uint32(len(m.negotiate)))
	for _, name := range m.negotiate {
		b = AppendString(b, name)
	}
	return Finish(b, at)
}

// AppendStartup appends the start-up message of a client.
func AppendStartup(b []byte, version uint32, params []Param) []byte {
	at := len(b)
	b = AppendUint32(AppendUint32(b, 0), version)
	for _, p := range params {
		b = AppendString(AppendString(b, p.Name), p.Value)
	}
	return Finish(append(b, 0), at)
}

// ParsePassword reads the body of a password message: one string, whose NUL is the
// last byte.
func ParsePassword(body []byte) (string, bool) {
	password, rest, ok := CutString(body)
	return password, ok && len(rest) == 0
}

// isProtocolOption reports whether a parameter is an option of the protocol rather
// than a setting.
func isProtocolOption(name string) bool { return strings.HasPrefix(name, "_pq_.") }
