package api

import "github.com/daypass/daypass/internal/throttle"

// SetGates puts other gates before the work of h.
func (h *Handler) SetGates(work, outside, large *throttle.Gate) {
	h.pressure.work, h.pressure.outside, h.pressure.large = work, outside, large
}
