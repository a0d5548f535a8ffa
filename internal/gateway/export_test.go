package gateway

import (
	"crypto/tls"
	"fmt"

	"github.com/daypass/daypass/internal/throttle"
)

// What the parsers make of their input, for tests that need no socket.

// Parsed is a start-up message as the gateway understands it.
type Parsed struct {
	Version        uint32
	User, Database string
	Params         [][2]string
	Redshift       bool
	Negotiation    []byte
}

// ParseStartup parses a start-up packet without its length. state is the SQLSTATE
// of a refusal.
func ParseStartup(packet []byte) (p Parsed, state string) {
	m, r := parseStartup(packet)
	if r != nil {
		return Parsed{}, r.state
	}
	p = Parsed{Version: m.version, User: m.user, Database: m.database, Redshift: m.redshift, Negotiation: m.appendNegotiation(nil)}
	for _, given := range m.params {
		p.Params = append(p.Params, [2]string{given.name, given.value})
	}
	return p, ""
}

// ParsePassword parses the body of a password message.
var ParsePassword = parsePassword

// BareVersion is what a Redshift driver is told.
var BareVersion = bareVersion

// WholeMessages says whether b is a sequence of messages.
var WholeMessages = wholeMessages

// Pipelined says whether b asks for more than one ReadyForQuery.
var Pipelined = pipelined

// SetStrangerLines bounds what is written down of strangers.
func (s *Server) SetStrangerLines(l throttle.Limit) { s.strangers = throttle.NewLines(l, l) }

// SCRAM runs the client's side against a server, given as a function.
func SCRAM(offered []string, password string, state *tls.ConnectionState, server func(mechanism, first string) (serverFirst string, verify func(final string) string)) error {
	c, err := newSCRAM(offered, password, state, "prefer", true)
	if err != nil {
		return err
	}
	serverFirst, verify := server(c.mechanism, c.first())
	final, err := c.final(serverFirst)
	if err != nil {
		return fmt.Errorf("final: %w", err)
	}
	return c.verify(verify(final))
}

// SCRAMWithNonce is the exchange with a given nonce, for published examples.
func SCRAMWithNonce(nonce, password, serverFirst string) (final string, verify func(string) error, err error) {
	c := &scramClient{mechanism: scramSHA256, password: password, nonce: nonce, header: "n,,"}
	final, err = c.final(serverFirst)
	return final, c.verify, err
}

// SplitOptions splits the options of a start-up message.
var SplitOptions = splitOptions

// HalfOpen is how many connections are not logged on yet.
func (s *Server) HalfOpen() int { return s.waiting.Stats().Open }

// SCRAMFirst is the client's first message.
func SCRAMFirst(offered []string, state *tls.ConnectionState, binding string, verified bool) (string, error) {
	c, err := newSCRAM(offered, "password", state, binding, verified)
	if err != nil {
		return "", err
	}
	return c.first(), nil
}
