package api

import (
	"github.com/daypass/daypass/internal/admission"
	"github.com/daypass/daypass/internal/throttle"
)

// SetGates replaces the gates of h. outside is the gate for tokens whose issuer is not
// configured.
func (h *Handler) SetGates(work, outside *throttle.Gate, large *admission.Room) {
	h.pressure.work, h.pressure.outside.gates[""], h.pressure.large = work, outside, large
}

// SetStrangerLines bounds the audit lines about unknown callers, for each address and in total.
func (h *Handler) SetStrangerLines(l throttle.Limit) {
	h.pressure.strangers = throttle.NewLines(l, l)
}

// SetSimulations replaces the gate of simulations, and bounds the simulations of one principal.
func (h *Handler) SetSimulations(g *throttle.Gate, share int) {
	h.pressure.simulations = g
	h.pressure.simulators.SetLimit(throttle.Limit{Concurrent: share})
}
