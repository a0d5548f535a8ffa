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

// SetStrangerLines bounds what is written down of strangers.
func (s *Server) SetStrangerLines(l throttle.Limit) { s.record.strangers = throttle.NewLines(l, l) }

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

// Exchange is what the relay knows of a session, by itself.
type Exchange struct{ x exchange }

// NewExchange is of a session that waits for its client.
func NewExchange() *Exchange {
	e := &Exchange{}
	e.x.state.Store('I')
	return e
}

// FromClient and FromServer note a piece of a direction's bytes.
func (e *Exchange) FromClient(b []byte) (terminated bool, err error) { return e.x.fromClient(b) }
func (e *Exchange) FromServer(b []byte) error                        { return e.x.fromServer(b) }

// State is the status of the last ReadyForQuery, 0 while an answer is owed.
func (e *Exchange) State() byte { return byte(e.x.state.Load()) }

// Verdict is all that is known.
func (e *Exchange) Verdict() string {
	return fmt.Sprintf("state %q, queue %d, client at a boundary %v, server %v, ready %v", e.State(), e.x.asked, e.x.up.boundary(), e.x.down.boundary(), e.x.ready())
}

// Miscounted reports whether what is counted along is not what is there.
func (e *Exchange) Miscounted() bool {
	owed, maybes := 0, 0
	for i, r := range e.x.asked {
		if r.active() {
			owed++
		}
		if r == maybeSync && i == maybes {
			maybes++
		}
	}
	return !e.x.lost && (e.x.owed != owed || e.x.maybes > maybes)
}

// Asked is the length of the queue.
func (e *Exchange) Asked() int { return len(e.x.asked) }
