package pgwire

import (
	"crypto/tls"
	"fmt"
)

// SplitOptions splits the options of a start-up message.
var SplitOptions = splitOptions

// RunSCRAM runs the client's side against a server, given as a function.
func RunSCRAM(offered []string, password string, state *tls.ConnectionState, server func(mechanism, first string) (serverFirst string, verify func(final string) string)) error {
	c, err := NewSCRAM(offered, password, state, "prefer", true)
	if err != nil {
		return err
	}
	serverFirst, verify := server(c.Mechanism, c.First())
	final, err := c.Final(serverFirst)
	if err != nil {
		return fmt.Errorf("final: %w", err)
	}
	return c.Verify(verify(final))
}

// SCRAMWithNonce runs the exchange with a given nonce, for published examples.
func SCRAMWithNonce(nonce, password, serverFirst string) (final string, verify func(string) error, err error) {
	c := &SCRAM{Mechanism: scramSHA256, password: password, nonce: nonce, header: "n,,"}
	final, err = c.Final(serverFirst)
	return final, c.Verify, err
}

// Tracked is an Exchange with methods for tests.
type Tracked struct{ Exchange }

// NewTracked returns the Exchange of a session that waits for its client.
func NewTracked() *Tracked { return &Tracked{NewExchange(StatusIdle)} }

// State returns the status of the last ReadyForQuery, or 0 while the server owes an answer.
func (e *Tracked) State() byte { return e.Status() }

// Verdict describes everything that the Exchange knows.
func (e *Tracked) Verdict() string {
	return fmt.Sprintf("state %q, queue %d, client at a boundary %v, server %v, ready %v", e.State(), e.asked, e.ClientBoundary(), e.ServerBoundary(), e.Ready())
}

// Miscounted reports whether the running counts differ from the queue.
func (e *Tracked) Miscounted() bool {
	owed, maybes := 0, 0
	for i, r := range e.asked {
		if r.keepsBusy() {
			owed++
		}
		if r == maybeSync && i == maybes {
			maybes++
		}
	}
	return !e.lost && (e.owed != owed || e.maybes > maybes)
}

// Asked returns the length of the queue.
func (e *Tracked) Asked() int { return len(e.asked) }
