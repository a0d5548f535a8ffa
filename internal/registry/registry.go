// Package registry is what the nodes of an installation have to agree on beside
// the configuration: revocations. A credential is checked without asking anybody;
// that one was taken back is the exception, and has to be remembered for as long
// as the credential can be alive, an hour at most.
//
// A Registry keeps them in a Store, and an index of them in memory, which a Watch
// keeps up to date: asking whether a credential is revoked costs a few map
// look-ups. It fails closed. When the store cannot be read, holds a record that
// is not understood, or has not confirmed for a while that nothing has changed,
// nobody can tell that a credential is not revoked, and Revoked returns an error.
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

// Beat is the longest time between two signs of life of a Store's Watch.
const Beat = 500 * time.Millisecond

// staleAfter is how long an index is believed without a sign of life.
const staleAfter = 3 * time.Second

// maxTold is how many causes are told until the store can be read again.
const maxTold = 64

// Config is what a Registry needs. Store is required.
type Config struct {
	Store Store
	// Now is the clock of revocations. Optional: time.Now. How old the index may
	// be, and how long a revocation is kept at least, is measured with the machine's
	// monotonic clock instead.
	Now func() time.Time
	// Changed is called after each change of what is revoked. Optional. It must
	// return soon: the registry waits for it.
	Changed func()
	// Problem is called when the store cannot be read, once for each cause however
	// often causes take turns, and with nil when it can be read again. Optional.
	Problem func(error)
}

// Registry knows what is revoked. It is safe for concurrent use.
type Registry struct {
	config Config
	begun  time.Time    // what beats are measured from
	beat   atomic.Int64 // of the last sign of life, since begun
	index  atomic.Pointer[index]

	mu     sync.Mutex
	err    error           // why there is no index, guarded by mu
	told   map[string]bool // the problems told since it was known last, guarded by mu
	change chan struct{}   // closed and replaced at each change of index, guarded by mu
	// writing are the narrow revocations that are being written, in all and by each
	// principal. Guarded by mu.
	writing   int
	writingBy map[string]int
}

var errNotStarted = errors.New("the registry has not been read yet")

// New makes a Registry that knows nothing before Run.
func New(config Config) *Registry {
	if config.Now == nil {
		config.Now = time.Now
	}
	return &Registry{config: config, begun: time.Now(), err: errNotStarted, told: map[string]bool{}, change: make(chan struct{}),
		writingBy: map[string]int{}}
}

// sighting is when this process first saw a record as it is.
type sighting struct {
	record Record
	at     time.Time // of the monotonic clock
}

// Run keeps the index up to date, and forgets revocations that are over, until ctx
// is done. Then it returns nil.
func (r *Registry) Run(ctx context.Context) error {
	var known map[string]sighting
	var tidied time.Time
	for ctx.Err() == nil {
		err := r.config.Store.Watch(ctx, revocationPrefix, func(records []Record, changed bool) {
			if changed {
				known = sightings(known, records)
				r.replace(records)
			}
			r.beat.Store(int64(time.Since(r.begun)))
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

func (r *Registry) replace(records []Record) {
	before := r.index.Load()
	next, err := newIndex(before, records)
	if err != nil {
		r.fail(err)
		return
	}
	r.mu.Lock()
	healed := r.err != nil && r.err != errNotStarted
	r.err, r.told = nil, map[string]bool{}
	r.index.Store(next)
	r.beat.Store(int64(time.Since(r.begun)))
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

// fail takes the index away.
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

// sightings takes over what is the same in before.
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

// tidy forgets what is over, and says whether it is through: the Watch waits for
// it, and must not be kept from its next sign of life. What is over by the clock is
// kept for as long as this process has not known it for its whole time: a clock that
// was ahead when the machine started, or is put right again, must not bring
// credentials back. Errors do not matter: the next round finds it again, and
// a conflict says that somebody has revoked anew, or that another node was faster.
func (r *Registry) tidy(ctx context.Context, known map[string]sighting) bool {
	ctx, cancel := context.WithTimeout(ctx, Beat/2)
	defer cancel()
	now := r.config.Now()
	for _, seen := range known {
		if time.Since(seen.at) < Keep {
			continue
		}
		if revocation, err := decode(seen.record); err == nil && !now.Before(revocation.Expires()) {
			_ = r.config.Store.Delete(ctx, seen.record)
		}
		if ctx.Err() != nil {
			return false
		}
	}
	return true
}

// Err says why nobody can tell what is revoked, nil when it is known.
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
	if silent := time.Since(r.begun) - time.Duration(r.beat.Load()); silent > staleAfter {
		return nil, fmt.Errorf("the registry has been silent for %v", silent.Round(time.Millisecond))
	}
	return x, nil
}

// Revoked says whether a credential is revoked. An error means that it is not
// known, and the credential must not be honoured.
func (r *Registry) Revoked(c Credential) (bool, error) {
	x, err := r.fresh()
	if err != nil {
		return false, err
	}
	return x.revoked(&c), nil
}

// Wait returns as soon as it is known what is revoked, or with ctx's error.
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

// Revoke takes credentials back, and returns the revocation as it is in force now.
// When one with the same selector already says as much, that one is returned. When
// Revoke returns nil, this process honours none of the credentials any more, and
// the others follow within a second. An error other than ErrInvalid and
// ErrTooMany leaves open whether it is in force; it may be called again.
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
			continue // somebody else was faster; look again
		case err != nil:
			return Revocation{}, fmt.Errorf("writing the registry: %w", err)
		}
		// An index that does not follow goes stale, and honours nothing.
		wait, cancel := context.WithTimeout(ctx, 2*staleAfter)
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
	// One that is about to be forgotten is renewed, so that sessions which
	// outlive their credentials are found on every node.
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

// Revocations lists what is remembered, the newest first.
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
		if now.Before(revocation.Expires()) {
			list = append(list, revocation)
		}
	}
	slices.SortStableFunc(list, func(a, b Revocation) int {
		return cmp.Or(b.RevokedAt.Compare(a.RevokedAt), cmp.Compare(a.key(), b.key()))
	})
	return list, nil
}
