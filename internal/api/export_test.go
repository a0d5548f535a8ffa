package api

import "github.com/daypass/daypass/internal/throttle"

// SetGates puts other gates before the work of h.
func (h *Handler) SetGates(work, outside, large *throttle.Gate) {
	h.pressure.work, h.pressure.outside, h.pressure.large = work, outside, large
}

// SetStrangerLines bounds the audit lines of callers that nobody knows, for each
// address and for all of them.
func (h *Handler) SetStrangerLines(l throttle.Limit) {
	h.pressure.strangers = throttle.NewLines(l, l)
}
