package api

import (
	"slices"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/sts"
)

// KeyState describes the keys of an identity provider.
type KeyState = sts.KeyState

// ProviderKeys returns the state of the keys of each identity provider, by issuer. It
// may read files, but calls no provider.
func (h *Handler) ProviderKeys() []KeyState {
	states := h.identities.States(h.config.Directory(), h.config.Now())
	slices.SortFunc(states, func(a, b KeyState) int { return strings.Compare(a.Issuer, b.Issuer) })
	return states
}

// logKeys logs a change of a provider's keys.
func (h *Handler) logKeys(s KeyState) {
	attributes := []any{"issuer", s.Issuer}
	if s.File != "" {
		attributes = append(attributes, "jwks_file", s.File)
	}
	switch {
	case s.Err != nil && s.Keys > 0:
		h.config.Log.Warn("identity provider's keys cannot be read: those at hand are used until they are an hour old",
			append(attributes, "keys", s.Keys, "read", s.Read.UTC().Format(time.RFC3339), "err", s.Err)...)
	case s.Err != nil:
		h.config.Log.Error("identity provider's keys cannot be read: its tokens are refused", append(attributes, "err", s.Err)...)
	case s.Keys == 0:
		h.config.Log.Error("identity provider has no keys any more: its tokens are refused", attributes...)
	default:
		h.config.Log.Info("identity provider's keys are in use", append(attributes, "keys", s.Keys)...)
	}
}
