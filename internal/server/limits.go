package server

import (
	"github.com/daypass/daypass/internal/api"
	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/throttle"
)

// setLimits puts in force the limits that may change while the server runs.
func (s *service) setLimits(cfg *config.Config) {
	principal := principalLimit(cfg)
	s.api.SetLimits(api.Limits{Principal: principal, Address: cfg.API.Limits.PerAddress})
	s.front.SetPrincipalLimit(gatewayLimit(principal))
}

// Limits on what one principal may cause to be written to the audit log. After a pause it may
// write principalBurst seconds' worth at once. The gateway allows gatewayShare times as much
// as the API.
const (
	principalBurst = 64
	gatewayShare   = 4
)

// principalLimit returns the limit of one principal at the API.
func principalLimit(cfg *config.Config) throttle.Limit {
	l := cfg.API.Limits
	return throttle.Limit{Rate: float64(l.Rate), Burst: l.Burst, Concurrent: l.Concurrent,
		Bytes: float64(cfg.Audit.PrincipalBytes), BytesBurst: principalBurst * cfg.Audit.PrincipalBytes}
}

// gatewayLimit returns the limit of one principal at the gateway.
func gatewayLimit(l throttle.Limit) throttle.Limit {
	return throttle.Limit{Bytes: gatewayShare * l.Bytes, BytesBurst: gatewayShare * l.BytesBurst}
}
