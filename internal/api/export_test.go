package api

import (
	"github.com/daypass/daypass/internal/admission"
	"github.com/daypass/daypass/internal/throttle"
)

// SetGates puts other gates before the work of h: outside is for tokens of no
// identity provider.
func (h *Handler) SetGates(work, outside *throttle.Gate, large *admission.Room) {
	h.pressure.work, h.pressure.outside.gates[""], h.pressure.large = work, outside, large
}

// SetStrangerLines bounds the audit lines about unknown callers, for each address and in total.
func (h *Handler) SetStrangerLines(l throttle.Limit) {
	h.pressure.strangers = throttle.NewLines(l, l)
}
