package registry

import (
	"errors"
	"fmt"
	"time"
)

// Limits on the number of revocations. A revocation of all credentials, or of all credentials
// of a cluster, is never refused, and replaces any number of others.
const (
	// MaxByOne is the limit for one principal: an IAM user, or an IAM role with all its
	// sessions.
	MaxByOne = 1000
	// MaxInAll is the limit for all principals together. Each principal may have
	// MaxReserved of its own even when it is reached.
	MaxInAll    = 10_000
	MaxReserved = 20
)

// ErrTooMany is wrapped by Revoke's error if there are too many revocations. Nothing
// was changed.
var ErrTooMany = errors.New("registry: too many revocations")

// enter counts a revocation that is about to be written, until leave is called. Each server
// counts only records that it has read, so several servers together may exceed the limits
// slightly.
func (r *Registry) enter(revocation *Revocation, now time.Time) (leave func(), err error) {
	if !revocation.narrow() {
		return func() {}, nil
	}
	by, key := revoker(revocation.RevokedBy), revocation.key()
	r.mu.Lock()
	defer r.mu.Unlock()
	// Without an index there is nothing to count, but that must not prevent a revocation.
	if x := r.index.Load(); x != nil {
		if _, there := x.decoded[key]; !there {
			all, own := x.count(by, now)
			all, own = all+r.writing, own+r.writingBy[by]
			if own >= MaxByOne || all >= MaxInAll && own >= MaxReserved {
				return nil, fmt.Errorf("%w: %d by %s, %d in all", ErrTooMany, own, by, all)
			}
		}
	}
	r.writing++
	r.writingBy[by]++
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.writing--
		if r.writingBy[by]--; r.writingBy[by] == 0 {
			delete(r.writingBy, by)
		}
	}, nil
}

// count returns the number of narrow revocations, in total and by one principal.
// Expired ones that are still stored do not count.
func (x *index) count(by string, now time.Time) (all, own int) {
	for _, r := range x.decoded {
		if !r.narrow() || !now.Before(r.Expires()) {
			continue
		}
		all++
		if revoker(r.RevokedBy) == by {
			own++
		}
	}
	return all, own
}
