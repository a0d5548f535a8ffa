package keyring

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Shared holds the secrets that all servers of an installation have in common: the keys that
// seal session tokens, and the key that upstream passwords are derived from. Each server signs
// credentials with a key of its own (Signer). The exceptions are keys from a keyring file
// (SharedOf): every server signs with those until the first Rotate.
//
// Shared is immutable; its methods return a changed copy with the next serial number, which shows
// that it is the later one. Marshal writes it with the secrets, to be sealed by Roots.
type Shared struct {
	serial uint64
	epoch  uint64 // signers of an earlier epoch must be replaced
	floor  uint64 // signers of an earlier epoch are refused

	// brought are credential keys from a keyring file. They sign while epoch is 0, and are
	// accepted in checks until broughtUntil.
	brought      []*key
	broughtUntil time.Time

	session  []*key // in the order in which they became active
	next     *key   // a session key that not every server has seen yet; nil: none
	upstream *key
}

// settle is how long a server may take after Rotate until it signs with a key of its own. A
// server that is cut off from the others for longer issues nothing.
const settle = 10 * time.Minute

// NewShared returns fresh secrets.
func NewShared(now time.Time) *Shared {
	return &Shared{serial: 1, epoch: 1, session: []*key{generate(Session, now)}, upstream: generate(Upstream, now)}
}

// SharedOf returns the secrets of a keyring file. Until Rotate all servers sign with its
// credential keys, so servers with the file and servers without it accept each other's
// credentials.
func SharedOf(k *Keyring) *Shared {
	return &Shared{serial: 1, brought: k.credential, session: k.session, upstream: k.upstream}
}

// Serial grows with every change.
func (s *Shared) Serial() uint64 { return s.serial }

// After reports whether s wins over other if both exist. The later serial number wins. If two
// copies with the same number were made independently, the later floor wins, then the later epoch,
// then the document that sorts last. So every server makes the same choice.
func (s *Shared) After(other *Shared) bool {
	if by := cmp.Or(cmp.Compare(s.serial, other.serial), cmp.Compare(s.floor, other.floor), cmp.Compare(s.epoch, other.epoch)); by != 0 {
		return by > 0
	}
	return bytes.Compare(s.Marshal(), other.Marshal()) > 0
}

// Keeps reports whether s still contains the change that made other: its latest session key, and
// the epoch and floor that it set for signers.
func (s *Shared) Keeps(other *Shared) bool {
	latest := other.session[len(other.session)-1]
	if other.next != nil {
		latest = other.next
	}
	has := s.next != nil && s.next.id == latest.id || slices.ContainsFunc(s.session, func(k *key) bool { return k.id == latest.id })
	return has && s.epoch >= other.epoch && s.floor >= other.floor
}

// Epoch returns the earliest epoch whose signers need no replacement. While it is 0, the keys from
// the keyring file sign.
func (s *Shared) Epoch() uint64 { return s.epoch }

// Floor returns the earliest epoch of signers that are accepted.
func (s *Shared) Floor() uint64 { return s.floor }

// Pending reports whether a session key is waiting for Activate.
func (s *Shared) Pending() bool { return s.next != nil }

func (s *Shared) changed(now time.Time) *Shared {
	next := *s
	next.serial++
	next.session = alive(s.session, Session, now)
	if !next.broughtUntil.IsZero() && !now.Before(next.broughtUntil) {
		next.brought, next.broughtUntil = nil, time.Time{}
	}
	return &next
}

// Rotate requires a new signing key from every server, and adds a session key that is not used
// for sealing before Activate.
func (s *Shared) Rotate(now time.Time) *Shared {
	next := s.changed(now)
	if next.epoch == 0 && len(next.brought) > 0 {
		next.broughtUntil = now.Add(settle + retention(Credential)).UTC().Truncate(time.Second)
	}
	next.epoch++
	if next.next == nil {
		next.next = generate(Session, now)
	}
	return next
}

// Activate starts sealing with the session key that Rotate added.
func (s *Shared) Activate(now time.Time) *Shared {
	next := s.changed(now)
	if next.next != nil {
		active := now
		if last := next.session[len(next.session)-1].active; active.Before(last) {
			active = last // a clock that is behind
		}
		next.session = append(slices.Clone(next.session), newKey(Session, active, next.next.secret))
		next.next = nil
	}
	return next
}

// Discard replaces all keys that sign or seal, and invalidates everything that they made.
func (s *Shared) Discard(now time.Time) *Shared {
	next := s.changed(now)
	next.epoch++
	next.floor = next.epoch
	next.brought, next.broughtUntil, next.next = nil, time.Time{}, nil
	next.session = []*key{generate(Session, now)}
	return next
}

// RotateUpstream replaces the key that upstream passwords are derived from.
func (s *Shared) RotateUpstream(now time.Time) *Shared {
	next := s.changed(now)
	next.upstream = generate(Upstream, now)
	return next
}

// storedShared is the document; the keys are as in a keyring file.
type storedShared struct {
	Version      int         `json:"version"`
	Serial       uint64      `json:"serial"`
	Epoch        uint64      `json:"epoch"`
	Floor        uint64      `json:"floor"`
	Brought      []storedKey `json:"brought,omitempty"`
	BroughtUntil *time.Time  `json:"brought_until,omitempty"`
	Session      []storedKey `json:"session"`
	Next         *storedKey  `json:"next,omitempty"`
	Upstream     storedKey   `json:"upstream"`
}

// Marshal returns a document for ParseShared. It contains the secrets.
func (s *Shared) Marshal() []byte {
	d := storedShared{Version: formatVersion, Serial: s.serial, Epoch: s.epoch, Floor: s.floor,
		Brought: storeAll(s.brought), Session: storeAll(s.session), Upstream: store(s.upstream)}
	if !s.broughtUntil.IsZero() {
		d.BroughtUntil = &s.broughtUntil
	}
	if s.next != nil {
		d.Next = new(store(s.next))
	}
	data, err := json.Marshal(d)
	if err != nil {
		panic("internal error: keyring: " + err.Error())
	}
	return data
}

// ParseShared reads a document of Marshal. It ignores unknown names, because a later release may
// write more. Errors never quote the document.
func ParseShared(data []byte) (*Shared, error) {
	if len(data) > maxSize {
		return nil, fmt.Errorf("longer than %d bytes", maxSize)
	}
	var d storedShared
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&d); err != nil {
		return nil, jsonError(data, err)
	}
	if d.Version != formatVersion {
		return nil, fmt.Errorf("version %d of the shared keys; this daypass reads version %d", d.Version, formatVersion)
	}
	if d.Serial == 0 {
		return nil, errors.New("no serial number")
	}
	s := &Shared{serial: d.Serial, epoch: d.Epoch, floor: d.Floor}
	var err error
	if s.session, err = parseKeys(Session, d.Session); err != nil {
		return nil, err
	}
	upstream, err := parseKeys(Upstream, []storedKey{d.Upstream})
	if err != nil {
		return nil, err
	}
	s.upstream = upstream[0]
	if len(d.Brought) > 0 {
		if s.brought, err = parseKeys(Credential, d.Brought); err != nil {
			return nil, err
		}
	}
	if d.BroughtUntil != nil {
		s.broughtUntil = d.BroughtUntil.UTC()
	}
	if d.Next != nil {
		next, err := parseKeys(Session, []storedKey{*d.Next})
		if err != nil {
			return nil, err
		}
		s.next = next[0]
	}
	if s.epoch == 0 && len(s.brought) == 0 {
		return nil, errors.New("no key that signs")
	}
	return s, nil
}

// Signer is the key that one server signs credentials with. Its private half never
// leaves the process.
type Signer struct{ key *key }

// NewSigner returns a fresh key.
func NewSigner(now time.Time) *Signer { return &Signer{generate(Credential, now)} }

// ID names the key: 16 hexadecimal digits.
func (s *Signer) ID() string { return s.key.hexID() }

// Public returns the public half, which checks the key's signatures.
func (s *Signer) Public() ed25519.PublicKey { return s.key.public() }

// Public is the public half of any server's credential key.
type Public struct {
	Key   ed25519.PublicKey
	Until time.Time // when nothing that the key signed can still be valid
}

// PublicID returns the identifier of a key with this public half.
func PublicID(public ed25519.PublicKey) string {
	k := key{}
	k.identify(Credential, public)
	return k.hexID()
}

// With returns the keyring of one of several servers. It signs with own until signsUntil, and
// checks with every known key. If own is nil it signs with the keys from the keyring file. These
// keys are left out if they have expired at now.
func (s *Shared) With(own *Signer, signsUntil time.Time, known []Public, now time.Time) *Keyring {
	k := &Keyring{session: s.session, waiting: s.next, upstream: s.upstream, signsUntil: signsUntil}
	v := &Verifier{keys: make(map[keyID]verifyingKey, len(known)+len(s.brought)+1)}
	if s.broughtUntil.IsZero() || now.Before(s.broughtUntil) {
		for i, one := range s.brought {
			u := until(s.brought, i, Credential)
			if u.IsZero() {
				u = s.broughtUntil
			}
			v.keys[one.id] = verifyingKey{one.public(), u}
		}
		if own == nil {
			k.credential = s.brought
		}
	}
	for _, p := range known {
		var one key
		one.identify(Credential, p.Key)
		v.keys[one.id] = verifyingKey{p.Key, p.Until}
	}
	if own != nil {
		k.credential = []*key{own.key}
	}
	k.verifier = v
	return k
}

// Describe lists the shared keys, as Keyring.Keys does.
func (s *Shared) Describe(now time.Time) []Info {
	k := s.With(nil, time.Time{}, nil, now)
	infos := k.Keys(now)
	for i := range infos {
		if infos[i].Purpose == Credential && !s.broughtUntil.IsZero() && infos[i].Until.IsZero() {
			infos[i].State, infos[i].Until = Kept, s.broughtUntil
		}
	}
	return infos
}
