package gateway

import (
	"crypto/tls"

	"github.com/daypass/daypass/internal/pgwire"
	"github.com/daypass/daypass/internal/throttle"
)

// SetStrangerLines bounds what is written about strangers.
func (s *Server) SetStrangerLines(l throttle.Limit) { s.record.strangers = throttle.NewLines(l, l) }

// HalfOpen is how many connections are not logged on yet.
func (s *Server) HalfOpen() int { return s.waiting.Stats().Open }

// SCRAMFirst is the client's first message.
func SCRAMFirst(offered []string, state *tls.ConnectionState, binding string, verified bool) (string, error) {
	c, err := pgwire.NewSCRAM(offered, "password", state, binding, verified)
	if err != nil {
		return "", err
	}
	return c.First(), nil
}
