package registry

import (
	"errors"
	"fmt"
	"time"
)

// How many revocations are remembered at a time. What takes back everything, or all
// credentials of a cluster, is never refused, and takes the place of any number.
const (
	// MaxByOne is of one principal: an IAM user, or an IAM role with all its sessions.
	MaxByOne = 1000
	// MaxInAll is of all principals. One that has few is not kept out by the others:
	// it may always have MaxReserved.
	MaxInAll    = 10_000
	MaxReserved = 20
)

// ErrTooMany is wrapped by Revoke's error when there are too many revocations. It has
// changed nothing.
var ErrTooMany = errors.New("registry: too many revocations")

// enter counts a revocation that is about to be written, until leave. Several servers
// count what they have read: together they may be a few calls beyond the bounds.
func (r *Registry) enter(revocation *Revocation, now time.Time) (leave func(), err error) {
	if !revocation.narrow() {
		return func() {}, nil
	}
	by, key := revoker(revocation.RevokedBy), revocation.key()
	r.mu.Lock()
	defer r.mu.Unlock()
	// What is not known cannot be counted, and is not a reason to leave credentials in
	// force.
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

// count is how many narrow revocations there are, in all and by one principal. What has
// expired may not be forgotten yet, and does not count.
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
