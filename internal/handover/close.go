package handover

import (
	"context"
	"maps"
	"slices"
	"time"
)

const (
	// closeFor is how long Close looks after the last sessions, and closeAgain its pause before another
	// look.
	closeFor   = 2 * time.Second
	closeAgain = 20 * time.Millisecond
)

// Close takes away the rights of the session roles whose last sessions have just ended, as far as
// that succeeds within closeFor. Then it closes the standing connections and waits for the statements
// that run on them. Calls in progress fail.
func (a *Admin) Close() {
	a.mu.Lock()
	a.closed = true
	left, ended := a.ended.left, slices.Collect(maps.Keys(a.ended.until))
	a.ended.left = map[string][]leftBackend{}
	a.mu.Unlock()
	ctx, cancel := context.WithTimeout(a.base, closeFor)
	a.endLast(ctx, left)
	a.stripLast(ctx, append(ended, a.revokedRoles()...))
	cancel()
	a.cancel()
	a.Admin.Close()
	a.work.Wait()
}

// endLast terminates backends and waits until they are gone, for half of closeFor at most.
func (a *Admin) endLast(ctx context.Context, left map[string][]leftBackend) {
	ctx, cancel := context.WithTimeout(ctx, closeFor/2)
	defer cancel()
	for left = a.endBackends(ctx, left); len(left) > 0 && pause(ctx, closeAgain); {
		there, err := a.present(ctx, left)
		if err != nil {
			return
		}
		left = there
	}
}

// stripLast strips the session roles that have no session any more. The process may not start again
// for days, and there may be no other that would strip them.
func (a *Admin) stripLast(ctx context.Context, roles []string) {
	for len(roles) > 0 {
		found, err := a.existing(ctx, roles)
		if err != nil {
			a.Pool.Log.Warn("ended sessions not checked", "cluster", a.Pool.Cluster, "roles", len(roles), "err", err)
			return
		}
		a.markElsewhere(ctx, found, 0)
		var strip []string
		for _, o := range found {
			if mustStrip(o, a.wasRevoked(o.Role)) {
				strip = append(strip, o.Role)
			}
		}
		result := a.strip(ctx, strip, a.wasRevoked)
		roles = nil
		for _, role := range strip {
			switch r := result[role]; {
			case r.left != nil:
				a.Pool.Log.Warn("rights not taken away from a session role yet", "cluster", a.Pool.Cluster, "role", role, "err", r.left)
			case !r.done:
				roles = append(roles, role) // followEnded is stripping it, or has been
			}
		}
		if len(roles) > 0 && !pause(ctx, closeAgain) {
			return
		}
	}
}

// pause reports whether the time has passed before ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
