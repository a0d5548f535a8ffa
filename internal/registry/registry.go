// Package registry keeps revocations, which all servers of an installation share. Checking a
// credential needs no lookup, so a revoked credential has to be remembered until it has
// expired, an hour at most.
//
// A Registry keeps them in a Store, and in an index in memory, which a Watch keeps up
// to date, so that checking a credential costs a few map look-ups. It fails closed: if
// the store cannot be read, has a record that cannot be parsed, or has not confirmed
// for a while that nothing has changed, Revoked returns an error.
//
// Registry does not end sessions and knows no policies: the gateway asks it about
// its sessions after each change, and the API decides who may revoke what.
package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Beat is the longest time between two reports of a Store's Watch.
const Beat = 500 * time.Millisecond

// StaleAfter is how old the last confirmation of the revocations may be. It is measured when a
// credential is checked, so it also holds for a process that was stopped in between.
const StaleAfter = 2 * time.Second

// maxTold limits how many different problems are reported until the store can be read again.
const maxTold = 64

// Config is what a Registry needs. Store is required.
type Config struct {
	Store Store
	// Now is the clock for the times in revocations. Optional: time.Now. The index's age and
	// the minimum time for which a revocation is kept are measured with the machine's
	// monotonic clock.
	Now func() time.Time
	// Changed is called after each change of the revocations. Optional. It must return
	// soon, since the registry waits for it.
	Changed func()
	// Problem is called with an error when the store cannot be read, once for each
	// different cause, and with nil when it can be read again. Optional.
	Problem func(error)
}

// Registry has the revocations in force. It is safe for concurrent use.
type Registry struct {
	config Config
	begun  time.Time                 // the start time that onceTidied is relative to
	asOf   atomic.Pointer[time.Time] // of the last report of the Watch; nil: none yet
	index  atomic.Pointer[index]
	// onceTidied is when the records of UseOnce were last tidied, since begun.
	onceTidied atomic.Int64

	mu     sync.Mutex
	err    error           // why there is no index, guarded by mu
	told   map[string]bool // the problems reported since the store was last readable, guarded by mu
	change chan struct{}   // closed and replaced at each change of index, guarded by mu
	// writing counts the narrow revocations that are being written, in total and by
	// principal. Guarded by mu.
	writing   int
	writingBy map[string]int
}

var errNotStarted = errors.New("the registry has not been read yet")

// New makes a Registry. It knows no revocations before Run.
func New(config Config) *Registry {
	if config.Now == nil {
		config.Now = time.Now
	}
	return &Registry{config: config, begun: time.Now(), err: errNotStarted, told: map[string]bool{}, change: make(chan struct{}),
		writingBy: map[string]int{}}
}

// sighting is when this process first saw a record in its present form.
type sighting struct {
	record Record
	at     time.Time // on the monotonic clock
}

// Run keeps the index up to date, and deletes expired revocations, until ctx is done. Then it
// returns nil.
func (r *Registry) Run(ctx context.Context) error {
	var known map[string]sighting
	var tidied time.Time
	for ctx.Err() == nil {
		err := r.config.Store.Watch(ctx, revocationPrefix, func(records []Record, changed bool, asOf time.Time) {
			if changed {
				known = sightings(known, records)
				r.replace(records, asOf)
			}
			r.asOf.Store(&asOf)
			if time.Since(tidied) > time.Minute && r.tidy(ctx, known) {
				tidied = time.Now()
			}
		})
		if ctx.Err() != nil {
			break
		}
		r.fail(fmt.Errorf("reading the registry: %w", err))
		select {
		case <-ctx.Done():
		case <-time.After(Beat / 2):
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = errors.New("the registry is closed")
	r.index.Store(nil)
	return nil
}

func (r *Registry) replace(records []Record, asOf time.Time) {
	before := r.index.Load()
	next, err := newIndex(before, records)
	if err != nil {
		r.fail(err)
		return
	}
	r.mu.Lock()
	healed := r.err != nil && r.err != errNotStarted
	r.err, r.told = nil, map[string]bool{}
	r.asOf.Store(&asOf)
	r.index.Store(next)
	close(r.change)
	r.change = make(chan struct{})
	r.mu.Unlock()
	if healed && r.config.Problem != nil {
		r.config.Problem(nil)
	}
	if r.config.Changed != nil {
		r.config.Changed()
	}
}

// fail removes the index.
func (r *Registry) fail(err error) {
	r.mu.Lock()
	known := r.told[err.Error()] || len(r.told) >= maxTold
	if !known {
		r.told[err.Error()] = true
	}
	r.err = err
	r.index.Store(nil)
	r.mu.Unlock()
	if !known && r.config.Problem != nil {
		r.config.Problem(err)
	}
}

// sightings returns the sightings of records. Unchanged records keep their time from before.
func sightings(before map[string]sighting, records []Record) map[string]sighting {
	known := make(map[string]sighting, len(records))
	for _, record := range records {
		seen, ok := before[record.Key]
		if !ok || seen.record.Revision != record.Revision {
			seen = sighting{record, time.Now()}
		}
		known[record.Key] = seen
	}
	return known
}

// tidy deletes expired records. It reports whether it deleted all; it stops early rather than
// delay the Watch beyond the next beat. An expired record is kept until this process has seen
// it for its whole lifetime. Otherwise a clock that is ahead, or was corrected, could make
// revoked credentials valid again. Errors do not matter: the next round tries again, and a
// conflict means that the record was renewed, or deleted by another server.
func (r *Registry) tidy(ctx context.Context, known map[string]sighting) bool {
	ctx, cancel := context.WithTimeout(ctx, Beat/2)
	defer cancel()
	now := r.config.Now()
	for _, seen := range known {
		if time.Since(seen.at) < Keep {
			continue
		}
		if revocation, err := decode(seen.record); err == nil && !revocation.later && time.Since(seen.at) >= revocation.keep() && !now.Before(revocation.Expires()) {
			_ = r.config.Store.Delete(ctx, seen.record)
		}
		if ctx.Err() != nil {
			return false
		}
	}
	return true
}

// Err returns the reason why the revocations are unknown, or nil.
func (r *Registry) Err() error {
	_, err := r.fresh()
	return err
}

func (r *Registry) fresh() (*index, error) {
	x := r.index.Load()
	if x == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.err != nil {
			return nil, r.err
		}
		x = r.index.Load()
	}
	if age := Age(*r.asOf.Load()); age > StaleAfter {
		return nil, fmt.Errorf("the revocations were last read %v ago, and may be at most %v old", age.Round(time.Millisecond), StaleAfter)
	}
	return x, nil
}

// Revoked reports whether a credential is revoked. An error means that this is unknown, and
// that the credential must be refused.
func (r *Registry) Revoked(c Credential) (bool, error) {
	x, err := r.fresh()
	if err != nil {
		return false, err
	}
	return x.revoked(&c), nil
}

// PersonRevoked reports whether a revocation applies to a person who signed in at the time since.
// Such a revocation selects everything, or a role session, in any IAM role, with the person's
// session name. Like Revoked, PersonRevoked fails closed.
func (r *Registry) PersonRevoked(session string, since time.Time) (bool, error) {
	x, err := r.fresh()
	if err != nil {
		return false, err
	}
	return x.personRevoked(session, since), nil
}

// Wait returns once the revocations are known, or with ctx's error.
func (r *Registry) Wait(ctx context.Context) error {
	return r.until(ctx, func(x *index) bool { return x != nil })
}

// until waits for an index that satisfies done.
func (r *Registry) until(ctx context.Context, done func(*index) bool) error {
	for {
		r.mu.Lock()
		change, x := r.change, r.index.Load()
		r.mu.Unlock()
		if done(x) {
			return nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Revoke revokes credentials and returns the revocation in force. If one with the same
// selector already covers it, that one is returned. After it returns nil, this process
// refuses the credentials, and other servers do within a second. After an error other
// than ErrInvalid and ErrTooMany the revocation may or may not be in force; it may be
// called again.
func (r *Registry) Revoke(ctx context.Context, revocation Revocation) (Revocation, error) {
	now := r.config.Now().UTC().Round(0)
	revocation.RevokedAt = now
	if revocation.IssuedBefore.IsZero() && revocation.CredentialID == "" {
		revocation.IssuedBefore = now
	}
	revocation.IssuedBefore = revocation.IssuedBefore.UTC().Round(0)
	revocation.Principal = normal(revocation.Principal)
	if err := errors.Join(revocation.check(now), revocation.checkNames()); err != nil {
		return Revocation{}, err
	}
	leave, err := r.enter(&revocation, now)
	if err != nil {
		return Revocation{}, err
	}
	defer leave()
	for {
		record, inForce, err := r.write(ctx, &revocation)
		switch {
		case errors.Is(err, ErrConflict) && ctx.Err() == nil:
			continue // another writer was faster: try again with its record
		case err != nil:
			return Revocation{}, fmt.Errorf("writing the registry: %w", err)
		}
		// If the index does not catch up in this time, it is stale and refuses every
		// credential.
		wait, cancel := context.WithTimeout(ctx, 3*StaleAfter)
		defer cancel()
		_ = r.until(wait, func(x *index) bool { return x != nil && x.revisions[record.Key] >= record.Revision })
		return inForce, nil
	}
}

func (r *Registry) write(ctx context.Context, revocation *Revocation) (Record, Revocation, error) {
	store, key := r.config.Store, revocation.key()
	old, err := store.Get(ctx, key)
	if errors.Is(err, ErrNotFound) {
		record, err := store.Create(ctx, key, revocation.encode())
		return record, *revocation, err
	}
	if err != nil {
		return Record{}, Revocation{}, err
	}
	before, err := decode(old)
	if err != nil {
		return Record{}, Revocation{}, err
	}
	if before.later && before.covers(revocation) {
		return old, before, nil
	}
	// A revocation close to its expiry is renewed, so that every server ends sessions that
	// outlive their credentials.
	if before.covers(revocation) && revocation.RevokedAt.Before(before.Expires().Add(-Keep/2)) {
		return old, before, nil
	}
	next := *revocation
	if before.covers(revocation) {
		next.IssuedBefore = before.IssuedBefore
	}
	record, err := store.Replace(ctx, old, next.encode())
	return record, next, err
}

// Revocations returns the stored revocations, newest first.
func (r *Registry) Revocations(ctx context.Context) ([]Revocation, error) {
	records, err := r.config.Store.List(ctx, revocationPrefix)
	if err != nil {
		return nil, fmt.Errorf("reading the registry: %w", err)
	}
	now := r.config.Now()
	list := make([]Revocation, 0, len(records))
	for _, record := range records {
		revocation, err := decode(record)
		if err != nil {
			return nil, err
		}
		if revocation.later || now.Before(revocation.Expires()) {
			list = append(list, revocation)
		}
	}
	slices.SortStableFunc(list, func(a, b Revocation) int {
		return cmp.Or(b.RevokedAt.Compare(a.RevokedAt), cmp.Compare(a.key(), b.key()))
	})
	return list, nil
}
