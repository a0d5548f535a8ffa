package server

import (
	"github.com/daypass/daypass/internal/api"
	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/throttle"
)

// setLimits puts the limits in force that may change while the server runs.
func (s *service) setLimits(cfg *config.Config) {
	principal := principalLimit(cfg)
	s.api.SetLimits(api.Limits{Principal: principal, Address: cfg.API.Limits.PerAddress})
	s.front.SetPrincipalLimit(gatewayLimit(principal))
}

// Bounds on what may be written to the audit log of one principal: how many seconds'
// worth at once after a pause, and how much more at the gateway than at the API.
const (
	principalBurst = 64
	gatewayShare   = 4
)

// principalLimit is what one principal may take of the API.
func principalLimit(cfg *config.Config) throttle.Limit {
	l := cfg.API.Limits
	return throttle.Limit{Rate: float64(l.Rate), Burst: l.Burst, Concurrent: l.Concurrent,
		Bytes: float64(cfg.Audit.PrincipalBytes), BytesBurst: principalBurst * cfg.Audit.PrincipalBytes}
}

// gatewayLimit is what one principal may take of the gateway.
func gatewayLimit(l throttle.Limit) throttle.Limit {
	return throttle.Limit{Bytes: gatewayShare * l.Bytes, BytesBurst: gatewayShare * l.BytesBurst}
}
