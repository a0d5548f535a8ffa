// Package fleet lets any number of servers act as one service: they share keys without
// copying files, and know of one another. The shared records are in the registry, where
// others may be able to write. The root key, which is never in the registry, proves which
// records are genuine.
//
// Keys. Each server signs credentials with a key of its own, whose private half never
// leaves the process. The root key certifies the public half in a record, so that someone
// who can write to the registry cannot add a signer. A key goes through these phases:
//
//	published   its record is written; the key signs nothing yet
//	seen        every live server has read the record, as its announcement shows
//	signing     the key signs; its certificate is valid for six hours and renewed every hour
//	retired     a newer key signs, or the server has left; the key still checks
//	forgotten   nothing that the key signed can be valid any more
//
// A server that vanished may be frozen and come back. So its key is forgotten only when the key's
// last certificate has expired, and so has everything that could have been signed until then. A
// revoked key checks nothing as soon as a server has read its revocation.
//
// The secrets that all servers need, the keys of session tokens and the key behind upstream
// passwords, are in one record, sealed under the root key (keyring.Shared). A new session
// key is not used for sealing until every live server has seen it.
//
// A server remembers what it has read. If a record is deleted, or replaced by an older
// version, without having been revoked, the server ignores that and writes the record
// again. So neither someone who writes to the registry nor a restore from a backup can take
// away a record that a server still knows.
//
// Servers. Each server announces itself under a lease, with a statement that the root key
// signed (Self). A server whose announcement has not changed for fifteen seconds does not
// count as live.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/registry"
)

const (
	// window is how long a certificate of a key is valid, and renewal how often it is renewed.
	window  = 6 * time.Hour
	renewal = time.Hour
	// unseen is the least time between publishing a key and signing with it: a server that is
	// starting may have read the records just before, and not be announced yet.
	unseen = 2 * registry.Beat
	// lease is how long the announcement of a server outlives the server. silence is how long an
	// announcement that is not updated counts.
	lease   = 10 * time.Second
	silence = 15 * time.Second
	// stale is the greatest age of the records that decisions are based on.
	stale = registry.StaleAfter
	// buried is how long a server that is gone is remembered. lingering is how long an
	// announcement that is not updated stays in the registry: it has no lease.
	buried    = time.Hour
	lingering = time.Minute
	// settle is how long a server that is cut off from the registry signs with the keys of a keyring
	// file. After a rotation, the servers that check accept these keys for longer (settle in package
	// keyring).
	settle = 5 * time.Minute
	// slack is how long a record is kept beyond its time, for clocks that differ.
	slack = 10 * time.Minute
	// abandoned is how long after its time a record is deleted in any case.
	abandoned = 2 * 24 * time.Hour
	// mostTold bounds the reported problems with records per hour: otherwise someone who can
	// write to the registry could fill the log.
	mostTold = 64
	// callTimeout bounds the writes of one round.
	callTimeout = 5 * time.Second
)

// Store is the registry, with leases.
type Store interface {
	registry.Store
	// Announce keeps a record under a lease, as etcdstore's does.
	Announce(ctx context.Context, key string, lifetime time.Duration, value func() []byte, again <-chan struct{}, tell func(error))
}

// Config is what a Fleet needs. All fields but the callbacks are required.
type Config struct {
	Store Store
	Roots *keyring.Roots
	Now   func() time.Time
	// Self is called whenever the server announces itself.
	Self func() Self
	// Legacy is the keyring file of an installation without a root key, or nil if there is no
	// such file. If the file exists and the registry is empty, Open refuses.
	Legacy string
	// Changed is called after each change of Current. Optional.
	Changed func()
	// Problem is called once when a problem begins, and with nil when it ends. Optional.
	Problem func(about string, err error)
}

// Fleet is one server's membership in the fleet. Safe for concurrent use.
type Fleet struct {
	config  Config
	self    string
	current atomic.Pointer[keyring.Keyring]
	begun   time.Time
	asOf    atomic.Pointer[time.Time] // of the last report of the Watch; nil: none yet
	again   chan struct{}
	poke    chan struct{}

	mu          sync.Mutex // guards the fields below
	view        *view
	print       string // of current
	own         *own   // signs; nil: none yet
	candidate   *own   // is published; nil: none
	looked      chan struct{}
	told        map[string]bool
	recordsTold int // of the problems with records, since toldSince
	toldSince   time.Time
	err         error
}

// own is one of this server's own keys.
type own struct {
	*keyring.Signer
	epoch   uint64
	created time.Time
	since   time.Time // when it was first seen in the registry; monotonic
}

// Open reads the shared secrets from the registry, or creates them if there are none yet.
func Open(ctx context.Context, config Config) (*Fleet, error) {
	f := &Fleet{config: config, self: config.Self().ID, begun: time.Now(), view: newView(), told: map[string]bool{},
		again: make(chan struct{}, 1), poke: make(chan struct{}, 1), looked: make(chan struct{})}
	records, err := config.Store.List(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("reading what the servers share: %w", err)
	}
	v := f.view.next(config.Roots, records, config.Now(), true)
	if err := v.problems[sharedKey]; err != nil {
		return nil, unopened(err)
	}
	if v.shared == nil {
		if config.Legacy != "" {
			return nil, fmt.Errorf("%s has the keys of this installation and etcd has none: import them with `daypass keys move`, "+
				"or move the file away to start with new keys", config.Legacy)
		}
		record, err := config.Store.Create(ctx, sharedKey, seal(config.Roots, keyring.NewShared(config.Now())))
		if errors.Is(err, registry.ErrConflict) { // another server was faster
			return Open(ctx, config)
		}
		if err != nil {
			return nil, fmt.Errorf("writing what the servers share: %w", err)
		}
		v = f.view.next(config.Roots, append(records, record), config.Now(), true)
	}
	f.look(v)
	return f, nil
}

func unopened(err error) error {
	if errors.Is(err, keyring.ErrUnknownRoot) {
		return fmt.Errorf("the keys that the servers share are sealed under another root key: give this server the root key that the "+
			"others have (root_key), or the previous one on a second line: %w", err)
	}
	return fmt.Errorf("the keys that the servers share, record %s of the registry, cannot be read: %w", sharedKey, err)
}

// Run keeps the records up to date and maintains the keys until ctx is done.
func (f *Fleet) Run(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() { f.watch(ctx) })
	all.Go(func() { f.tendLoop(ctx) })
	all.Go(func() {
		f.config.Store.Announce(ctx, serverPrefix+f.self, lease, f.announcement, f.again, func(err error) {
			if err != nil {
				err = fmt.Errorf("announcing this server: %w", err)
			}
			f.tell("announcing", err)
		})
	})
	all.Wait()
}

func (f *Fleet) watch(ctx context.Context) {
	for ctx.Err() == nil {
		first := true
		err := f.config.Store.Watch(ctx, prefix, func(records []registry.Record, changed bool, asOf time.Time) {
			if changed {
				f.mu.Lock()
				v := f.view
				f.mu.Unlock()
				next := v.next(f.config.Roots, records, f.config.Now(), first)
				if last := f.asOf.Load(); last != nil && registry.Age(*last) > stale {
					next.resume(*last)
				}
				f.look(next)
			}
			f.asOf.Store(&asOf) // Err is nil from here on, because Current is the latest
			first = false
			f.mu.Lock()
			close(f.looked)
			f.looked = make(chan struct{})
			f.mu.Unlock()
			f.tell(reading, nil)
			if changed {
				nudge(f.poke)
			}
		})
		if ctx.Err() != nil {
			return
		}
		f.tell(reading, fmt.Errorf("reading what the servers share: %w", err))
		select {
		case <-ctx.Done():
		case <-time.After(registry.Beat / 2):
		}
	}
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// look adopts a new view and applies its consequences.
func (f *Fleet) look(v *view) {
	f.mu.Lock()
	before := f.view
	f.view = v
	if v.seen != before.seen {
		nudge(f.again)
	}
	changed := f.renewLocked(v)
	f.mu.Unlock()
	for key, err := range v.problems {
		f.tell(key, fmt.Errorf("registry record %s is not believed: %w", key, err))
	}
	for key := range before.problems {
		if v.problems[key] == nil {
			f.tell(key, nil)
		}
	}
	if changed && f.config.Changed != nil {
		f.config.Changed()
	}
}

// renewLocked builds the current keyring.
func (f *Fleet) renewLocked(v *view) (changed bool) {
	now := f.config.Now()
	var key *keyring.Signer
	until := time.Time{}
	switch {
	case f.own != nil:
		if s := v.signers[f.own.ID()]; s != nil && v.revoked[f.own.ID()] == nil && f.own.epoch >= v.shared.Floor() {
			key, until = f.own.Signer, s.SignsUntil
		} else {
			key, until = f.own.Signer, time.Unix(0, 0) // it is not certified, or not any more
		}
	default:
		// Keys from a keyring file, until this server has a key of its own.
		until = now.Add(settle).Truncate(time.Minute)
	}
	id := ""
	if key != nil {
		id = key.ID()
	}
	print := fmt.Sprintf("%s %s %d", v.fingerprint(now), id, until.Unix())
	if print == f.print {
		return false
	}
	f.print = print
	f.current.Store(v.shared.With(key, until, v.known(now), now))
	return true
}

// mayTellLocked reports whether one more problem with a record may be told.
func (f *Fleet) mayTellLocked() bool {
	if f.recordsTold == 0 || time.Since(f.toldSince) > time.Hour {
		f.recordsTold, f.toldSince = 0, time.Now()
	}
	f.recordsTold++
	return f.recordsTold <= mostTold
}

// tell reports the beginning and the end of a problem, each once.
func (f *Fleet) tell(about string, err error) {
	f.mu.Lock()
	known := f.told[about]
	switch {
	case err == nil:
		delete(f.told, about)
	case !known && strings.HasPrefix(about, prefix) && !f.mayTellLocked():
		known = true // too many
	default:
		f.told[about] = true
	}
	if about == reading {
		f.err = err
	}
	f.mu.Unlock()
	if known == (err == nil) && f.config.Problem != nil {
		f.config.Problem(about, err)
	}
}

// reading is the subject of problems that do not concern a single record.
const reading = "reading"

// Current returns the current keyring.
func (f *Fleet) Current() *keyring.Keyring { return f.current.Load() }

// Announce announces this server again, because Self has changed.
func (f *Fleet) Announce() { nudge(f.again) }

// Err returns why the servers' records cannot be read, or nil if they can.
func (f *Fleet) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	asOf := f.asOf.Load()
	if asOf == nil {
		return errors.New("reading what the servers share: not read yet")
	}
	if age := registry.Age(*asOf); age > stale {
		return fmt.Errorf("reading what the servers share: no answer for %v", age.Round(time.Millisecond))
	}
	return nil
}

// Await returns when the records have been read again after the call, or after two seconds. A
// credential may have been signed with a key that was published a moment ago.
func (f *Fleet) Await() {
	limit, began := time.After(4*registry.Beat), time.Now()
	for {
		f.mu.Lock()
		looked := f.looked
		f.mu.Unlock()
		if asOf := f.asOf.Load(); asOf != nil && !asOf.Before(began) {
			return
		}
		select {
		case <-looked:
		case <-limit:
			return
		}
	}
}

// WaitSigning waits until this server has a key that may sign. When ctx is done it returns the
// reason why there is no such key.
func (f *Fleet) WaitSigning(ctx context.Context) error {
	for {
		f.mu.Lock()
		looked := f.looked
		why := f.waitsForLocked()
		f.mu.Unlock()
		if f.Current().MaySign(f.config.Now()) {
			return nil
		}
		select {
		case <-looked:
		case <-ctx.Done():
			return errors.New(why)
		}
	}
}

// waitsForLocked returns why this server does not sign with a key of its own yet.
func (f *Fleet) waitsForLocked() string {
	if f.candidate == nil {
		return "no signing key could be published"
	}
	s := f.view.signers[f.candidate.ID()]
	if s == nil || !s.there {
		return "the signing key could not be published"
	}
	if names := f.view.without(f.config.Roots.ID(), f.self); len(names) > 0 {
		return "the first root key of this server is unknown to " + strings.Join(names, ", ") + ": give it to them first, on a second line"
	}
	return "the signing key was not seen by " + strings.Join(f.view.behind(s.record.Revision, f.self), ", ")
}

// announcement returns the server's current announcement.
func (f *Fleet) announcement() []byte {
	s := serverStatement{Version: recordVersion, Self: f.config.Self(), Clock: f.config.Now(), Running: time.Since(f.begun), Roots: f.config.Roots.IDs()}
	f.mu.Lock()
	s.Seen = f.view.seen
	if v := f.view; v.sharedThere != nil && v.shared.After(v.sharedThere) {
		// The record is an earlier state, which is about to be replaced. A rotation that began with
		// it is not complete, although this server has read it.
		s.Seen = min(s.Seen, v.sharedRecord.Revision-1)
	}
	if f.own != nil {
		s.Signing, s.Epoch = f.own.ID(), f.own.epoch
	}
	f.mu.Unlock()
	return certify(f.config.Roots, serverPrefix+s.ID, s)
}
