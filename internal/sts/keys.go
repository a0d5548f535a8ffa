package sts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/daypass/daypass/internal/directory"
)

// How old keys may be. A key that the provider has withdrawn is refused no later than keysFresh
// plus fetchTimeout after it was read, or keysStale if the provider does not answer. Calls,
// strangers' tokens and changes of the clock do not extend these times.
const (
	keysFresh = 15 * time.Minute
	keysStale = time.Hour
	// fetchPause is the pause between the end of an attempt that failed and the next one.
	fetchPause = 5 * time.Second
	// A token with an unknown key makes us fetch the keys again. Anyone can send such a
	// token, so these fetches are limited to unknownBurst at once and one every
	// unknownEvery. Each fetch brings all keys, so a new key is in use at most
	// unknownEvery after it was published.
	unknownBurst = 5
	unknownEvery = 10 * time.Second
	// clockStep is how far the clock may be set back before keys count as old.
	clockStep = time.Minute
	// maxWaiting is how many tokens wait for an answer of one provider at a time.
	// Others are refused at once, and may be tried again.
	maxWaiting = 16
)

// errFetchedEnough means that strangers have used up the fetches for unknown keys.
var errFetchedEnough = errors.New("too many tokens with unknown keys")

// errBusy is for tokens that would have to wait with too many others.
var errBusy = fmt.Errorf("%w: too many tokens wait for the provider's answer", ErrUnreachable)

// keySource has the public keys of one identity provider, from a file or by
// discovery (OpenID Connect Discovery 1.0; RFC 7517).
//
// A new answer of a source replaces the earlier one at once, even if it has fewer keys
// or none. A file is read for each token; if it is missing or damaged there are no
// keys. Keys from discovery are kept within the bounds above.
type keySource struct {
	issuer   string
	jwksFile string
	caFile   string
	changed  func(KeyState)
	current  atomic.Pointer[keySet]
	waiting  atomic.Int32  // callers of refresh
	fetching chan struct{} // capacity 1: one fetch at a time

	mu       sync.Mutex // guards what follows
	failure  error      // of the last attempt to read the keys
	failed   time.Time  // when that attempt ended
	allowed  float64    // fetches for unknown keys that are left
	refilled time.Time  // when allowed was last updated
	told     keyStatus  // the status when the keys were last read
}

// keySet are the keys of a provider at one time. It may be empty.
type keySet struct {
	keys []jose.JSONWebKey
	read time.Time
	data []byte // of the file
}

// KeyState describes a provider's keys. Keys that are too old do not count.
type KeyState struct {
	Issuer string
	File   string    // jwks_file; empty: discovery
	Keys   int       // in use
	Read   time.Time // of the keys in use; zero: none, or not asked for yet
	Err    error     // why the last attempt to read them failed; nil: it succeeded, or there was none
}

type keyStatus uint8

const (
	keysUntold keyStatus = iota
	keysGood
	keysNone   // the provider has none
	keysUnread // they cannot be read
)

func (s *KeyState) status() keyStatus {
	switch {
	case s.Err != nil:
		return keysUnread
	case s.Keys == 0:
		return keysNone
	}
	return keysGood
}

// source returns the keys' source for a provider.
func (w *WebIdentities) source(p *directory.Provider) *keySource {
	key := sourceKey{p.Issuer, p.JWKSFile, p.CAFile}
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.sources[key]
	if s == nil {
		s = &keySource{issuer: p.Issuer, jwksFile: p.JWKSFile, caFile: p.CAFile, changed: w.Changed,
			allowed: unknownBurst, fetching: make(chan struct{}, 1)}
		if w.sources == nil {
			w.sources = make(map[sourceKey]*keySource)
		}
		w.sources[key] = s
	}
	return s
}

// States returns the state of the keys of each provider in the directory, in no particular
// order. It reads files but calls no provider.
func (w *WebIdentities) States(d *directory.Directory, now time.Time) []KeyState {
	var states []KeyState
	for _, p := range d.Providers() {
		s := w.source(p)
		if s.jwksFile != "" {
			_, _ = s.readFile(now) // the error is part of the state
		}
		states = append(states, s.state(now))
	}
	return states
}

func (s *keySource) state(now time.Time) KeyState {
	state := KeyState{Issuer: s.issuer, File: s.jwksFile}
	s.mu.Lock()
	state.Err = s.failure
	s.mu.Unlock()
	if set := s.current.Load(); set != nil && age(now, set.read) < keysStale {
		state.Keys, state.Read = len(set.keys), set.read
	}
	return state
}

// verify returns nil when one of the provider's keys has signed the token.
func (s *keySource) verify(ctx context.Context, now time.Time, jws *jose.JSONWebSignature) error {
	known, err := s.keys(ctx, now)
	if err != nil {
		return err
	}
	if known.verify(jws) {
		return nil
	}
	if s.jwksFile != "" {
		return ErrBadSignature
	}
	// The key may be younger than our copy (OpenID Connect Core 1.0, section
	// 10.1.1).
	fresh, err := s.refresh(ctx, now, known, true)
	switch {
	case errors.Is(err, errFetchedEnough):
		return ErrBadSignature
	case err != nil:
		return err
	case !fresh.verify(jws):
		return ErrBadSignature
	}
	return nil
}

// verify tries the keys that the token names, or all when it names none.
func (s *keySet) verify(jws *jose.JSONWebSignature) bool {
	if len(jws.Signatures) != 1 {
		return false
	}
	header := jws.Signatures[0].Header
	for i := range s.keys {
		key := &s.keys[i]
		if header.KeyID != "" && key.KeyID != header.KeyID || key.Algorithm != "" && key.Algorithm != header.Algorithm {
			continue
		}
		if _, err := jws.Verify(key); err == nil {
			return true
		}
	}
	return false
}

// keys returns the keys to begin with. They are never older than the bounds.
func (s *keySource) keys(ctx context.Context, now time.Time) (*keySet, error) {
	if s.jwksFile != "" {
		return s.readFile(now)
	}
	set := s.current.Load()
	if set != nil && age(now, set.read) < keysFresh {
		return set, nil
	}
	usable := set != nil && age(now, set.read) < keysStale
	if usable && len(s.fetching) > 0 {
		return set, nil // another call fetches them: only one waits for a provider that hangs
	}
	fresh, err := s.refresh(ctx, now, set, false)
	switch {
	case err == nil:
		return fresh, nil
	case usable:
		return set, nil
	}
	return nil, err
}

// refresh fetches the provider's keys, unless they were fetched after known, or the
// last attempt failed a moment ago. For an unknown key, which anyone can make up,
// unknownBurst and unknownEvery limit the fetches; keys that are due are fetched
// regardless. At most maxWaiting callers wait.
func (s *keySource) refresh(ctx context.Context, now time.Time, known *keySet, unknown bool) (*keySet, error) {
	defer s.waiting.Add(-1)
	if s.waiting.Add(1) > maxWaiting {
		return nil, errBusy
	}
	select {
	case s.fetching <- struct{}{}:
		defer func() { <-s.fetching }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, ctx.Err())
	}
	if set := s.current.Load(); set != known && set != nil {
		return set, nil
	}
	if err := s.mayFetch(now, unknown); err != nil {
		return nil, err
	}
	began := time.Now()
	set, err := s.fetch(ctx, now)
	now = now.Add(time.Since(began)) // for the pause; the keys are as old as the attempt
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrUnreachable, err)
	} else {
		s.current.Store(set)
	}
	s.note(now, err)
	return set, err
}

// mayFetch returns nil when the provider may be asked now.
func (s *keySource) mayFetch(now time.Time, unknown bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	// A call that began before the attempt pauses too.
	if s.failure != nil && age(now, s.failed) < fetchPause {
		return s.failure
	}
	if !unknown {
		return nil
	}
	// A token bucket. A call that began before others does not set its time back.
	if now.After(s.refilled) {
		if !s.refilled.IsZero() {
			s.allowed = min(unknownBurst, s.allowed+now.Sub(s.refilled).Seconds()/unknownEvery.Seconds())
		}
		s.refilled = now
	}
	if s.allowed < 1 {
		return errFetchedEnough
	}
	s.allowed--
	return nil
}

// note records the result of an attempt, and calls Changed if the status has changed.
func (s *keySource) note(now time.Time, err error) {
	s.mu.Lock()
	s.failure, s.failed = err, now
	s.mu.Unlock()
	state := s.state(now)
	s.mu.Lock()
	before := s.told
	s.told = state.status()
	s.mu.Unlock()
	// Good keys on the first attempt are not reported: they change nothing.
	if s.changed != nil && before != state.status() && (before != keysUntold || state.status() != keysGood) {
		s.changed(state)
	}
}

// readFile reads the key file. If it cannot be read, there are no keys.
func (s *keySource) readFile(now time.Time) (*keySet, error) {
	set, err := s.parseFile(now)
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	s.current.Store(set)
	s.note(now, err)
	return set, err
}

func (s *keySource) parseFile(now time.Time) (*keySet, error) {
	data, err := readKeyFile(s.jwksFile)
	if err != nil {
		return nil, err
	}
	if known := s.current.Load(); known != nil && bytes.Equal(known.data, data) {
		return &keySet{keys: known.keys, read: now, data: known.data}, nil
	}
	keys, err := parseKeys(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.jwksFile, err)
	}
	return &keySet{keys: keys, read: now, data: data}, nil
}

// age returns the time from then to now by the wall clock or by the monotonic clock, whichever
// shows more: only the wall clock counts while the machine sleeps, and only the monotonic clock is
// right after the wall clock was set back. After a large step back the age is unknown, and
// everything counts as old.
func age(now, then time.Time) time.Duration {
	monotonic, wall := now.Sub(then), now.Round(0).Sub(then.Round(0))
	if wall < -clockStep {
		return 1<<63 - 1
	}
	return max(monotonic, wall, 0)
}
