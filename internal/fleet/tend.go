package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/registry"
)

// tendLoop maintains the keys after each read of the records. Every write is compare-and-swap,
// so several servers may try the same one.
func (f *Fleet) tendLoop(ctx context.Context) {
	ticker := time.NewTicker(2 * registry.Beat)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.poke:
		case <-ticker.C:
		}
		if f.Err() != nil {
			continue // it is not known which servers are alive and what they have seen
		}
		if !f.tend(ctx) {
			continue
		}
		select { // servers that disagree may write without end, but not without a pause
		case <-ctx.Done():
		case <-time.After(registry.Beat / 4):
		}
	}
}

// step is one write.
type step func(ctx context.Context, store registry.Store) error

// tend reports whether there was something to write.
func (f *Fleet) tend(ctx context.Context) bool {
	f.mu.Lock()
	steps := f.planLocked()
	changed := f.renewLocked(f.view) // a key may have begun to sign, or have run out
	f.mu.Unlock()
	if changed {
		nudge(f.again)
		if f.config.Changed != nil {
			f.config.Changed()
		}
	}
	limited, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var failed error
	for _, one := range steps {
		if err := one(limited, f.config.Store); err != nil && !errors.Is(err, registry.ErrConflict) && ctx.Err() == nil {
			failed = err // the next round finds what is left to do
			break
		}
	}
	if failed != nil {
		failed = fmt.Errorf("writing what the servers share: %w", failed)
	}
	f.tell("writing", failed)
	return len(steps) > 0
}

// planLocked lists the writes that the view calls for.
func (f *Fleet) planLocked() (steps []step) {
	now, v := f.config.Now(), f.view
	if next := f.planSharedLocked(now); next != nil {
		steps = append(steps, next)
	}
	steps = append(steps, f.planOwnLocked(now)...)
	mine := func(id string) bool {
		return f.own != nil && f.own.ID() == id || f.candidate != nil && f.candidate.ID() == id
	}
	for id, s := range v.signers {
		switch {
		case v.revoked[id] != nil:
			if s.there {
				steps = append(steps, remove(s.record))
			}
		case !s.there && !mine(id) && now.Before(s.until()):
			steps = append(steps, v.put(s.record.Key, s.value))
		case s.there && !bytes.Equal(s.value, s.record.Value):
			steps = append(steps, replace(s.record, s.value))
		case s.there && over(s.until(), s.since, now):
			steps = append(steps, remove(s.record))
		}
	}
	for id, s := range v.servers {
		if id != f.self && !s.gone && time.Since(s.since) > lingering {
			steps = append(steps, remove(s.record))
		}
	}
	for id, r := range v.revoked {
		switch {
		case !r.there:
			steps = append(steps, v.put(r.record.Key, r.record.Value))
		case r.Version == recordVersion && over(v.revokedUntil(id), r.since, now):
			steps = append(steps, remove(r.record))
		}
	}
	return steps
}

// over reports whether a record may be deleted: its time has passed by the clock, and this process
// has seen it unchanged for as long as anything that it signed could be valid. The second condition
// is there because a clock may be far ahead. It no longer applies when the time has passed by more
// than abandoned: people notice a clock that is days ahead, and servers that restart often never
// see a record for long.
func over(until, since, now time.Time) bool {
	return now.After(until.Add(slack)) && time.Since(since) > keyring.CredentialLifetime+keyring.Margin || now.After(until.Add(abandoned))
}

// put writes a record that does not exist. It replaces a record that is not believed, which
// someone may have written to block the true one.
func (v *view) put(key string, value []byte) step {
	if unread, found := v.unread[key]; found {
		return replace(unread, value)
	}
	return create(key, value)
}

func create(key string, value []byte) step {
	return func(ctx context.Context, store registry.Store) error {
		_, err := store.Create(ctx, key, value)
		return err
	}
}

func remove(record registry.Record) step {
	return func(ctx context.Context, store registry.Store) error { return store.Delete(ctx, record) }
}

func replace(record registry.Record, value []byte) step {
	return func(ctx context.Context, store registry.Store) error {
		_, err := store.Replace(ctx, record, value)
		return err
	}
}

func (f *Fleet) planSharedLocked(now time.Time) step {
	v := f.view
	switch {
	case v.sharedRecord.Key == "":
		return create(sharedKey, seal(f.config.Roots, v.shared))
	case v.problems[sharedKey] != nil:
		// Another server may have that root key, or run the release that can read this.
		if err := v.problems[sharedKey]; errors.Is(err, keyring.ErrUnknownRoot) || errors.Is(err, errLater) {
			return nil
		}
		return replace(v.sharedRecord, seal(f.config.Roots, v.shared))
	case v.shared.After(v.sharedThere), v.sharedRoot != f.config.Roots.ID() && !v.sealsWith(v.sharedRoot, f.self):
		return replace(v.sharedRecord, seal(f.config.Roots, v.shared))
	case v.shared.Pending() && len(v.behind(v.sharedRecord.Revision, f.self)) == 0:
		return replace(v.sharedRecord, seal(f.config.Roots, v.shared.Activate(now)))
	}
	return nil
}

// planOwnLocked takes this server's key through its phases.
func (f *Fleet) planOwnLocked(now time.Time) (steps []step) {
	v := f.view
	useless := func(o *own) bool { return o.epoch < v.shared.Epoch() || v.revoked[o.ID()] != nil }
	if f.candidate != nil && useless(f.candidate) {
		f.candidate = nil
	}
	if v.shared.Epoch() > 0 && f.candidate == nil && (f.own == nil || useless(f.own)) {
		f.candidate = &own{Signer: keyring.NewSigner(now), epoch: v.shared.Epoch(), created: now}
	}
	if c := f.candidate; c != nil {
		s := v.signers[c.ID()]
		switch {
		case s == nil || !s.there:
			steps = append(steps, f.publishLocked(c, now))
			c.since = time.Time{}
		case c.since.IsZero():
			c.since = time.Now()
		case time.Since(c.since) >= unseen && len(v.behind(s.record.Revision, f.self)) == 0 && len(v.without(f.config.Roots.ID(), f.self)) == 0:
			if retired := f.retireLocked(now); retired != nil {
				steps = append(steps, retired)
			}
			f.own, f.candidate = c, nil
		}
	}
	if o := f.own; o != nil && v.revoked[o.ID()] == nil {
		s := v.signers[o.ID()]
		switch {
		case s == nil || !s.there:
			steps = append(steps, f.publishLocked(o, now))
		case s.SignsUntil.Sub(now) < window-renewal || s.SignsUntil.Sub(now) > window+renewal: // or the clock was put right
			steps = append(steps, replace(s.record, f.certificateLocked(o, now, now.Add(window))))
		}
	}
	return steps
}

func (f *Fleet) publishLocked(o *own, now time.Time) step {
	return f.view.put(signerPrefix+o.ID(), f.certificateLocked(o, now, now.Add(window)))
}

// certificateLocked returns a certificate that is later than the previous one, even if the clock was
// set back: of two certificates every server believes the later one.
func (f *Fleet) certificateLocked(o *own, now, until time.Time) []byte {
	certified := now
	if s := f.view.signers[o.ID()]; s != nil && !certified.After(s.Certified) {
		certified = s.Certified.Add(time.Millisecond)
	}
	return certify(f.config.Roots, signerPrefix+o.ID(), signerStatement{Version: recordVersion, Server: f.self, Public: slices.Clone(o.Public()),
		Epoch: o.epoch, Created: o.created.UTC(), Certified: certified.UTC(), SignsUntil: until.UTC().Truncate(time.Second)})
}

// retireLocked writes into the registry that the signing key no longer signs.
func (f *Fleet) retireLocked(now time.Time) step {
	if f.own == nil {
		return nil
	}
	s := f.view.signers[f.own.ID()]
	if s == nil || !s.there || f.view.revoked[f.own.ID()] != nil {
		return nil
	}
	// Credentials that were signed a moment ago bear the current second.
	return replace(s.record, f.certificateLocked(f.own, now, now.Add(2*time.Second)))
}

// Leave retires this server's key, so that it is forgotten soon. Call it after Run has returned,
// and sign nothing after it.
func (f *Fleet) Leave(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	f.mu.Lock()
	retired := f.retireLocked(f.config.Now())
	f.mu.Unlock()
	if retired != nil {
		_ = retired(limited, f.config.Store) // it runs out by itself
	}
}
