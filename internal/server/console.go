package server

import (
	"encoding/pem"

	"github.com/daypass/daypass/internal/console"
	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/signin"
)

// newConsole makes the console's handler for the configuration in force.
func (s *service) newConsole(signIn *signin.Handler) *console.Handler {
	name := ""
	if s.member != nil {
		name = s.member.fixed.ID
	}
	return console.New(console.Config{
		Enabled:   func() bool { return s.live.Load().cfg.Console },
		Directory: func() *directory.Directory { return s.live.Load().cfg.Directory },
		API:       s.api,
		SignIn:    signIn,
		Audit:     s.audit,
		Authority: s.authorityPEM,
		Server:    name,
		Log:       s.log,
		Now:       s.opts.Now,
	})
}

// authorityPEM returns the certificate of the gateway's own CA, or nil if the operator provides
// the gateway's certificate.
func (s *service) authorityPEM() []byte {
	authority := s.authority.Load()
	if authority == nil {
		return nil
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Certificate().Raw})
}
