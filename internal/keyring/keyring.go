// Package keyring holds the secret keys of one installation. Each key has one purpose, and the
// package does everything that needs the key, so that no key ever leaves it:
//
//   - credential: Ed25519 keys that sign database credentials. A gateway needs only
//     their public half, Verifier.
//   - session: AES-256 keys that seal the session tokens of temporary access keys
//     (XAES-256-GCM, https://c2sp.org/XAES-256-GCM: 192-bit random nonces, so no
//     number of tokens wears a key out). Keys derived from them seal the state of
//     sign-ins (SealSignIn).
//   - upstream: one key from which the passwords of session roles are derived
//     (HKDF-Expand, RFC 5869, with an unambiguous encoding of the purpose).
//
// Rotate adds a credential and a session key. A key signs from the moment it becomes active until
// the next one does. It still checks until everything that it signed has expired: 1 h for
// credentials and 36 h for session tokens, plus Margin for clocks that disagree. After that it is
// refused, even if it is still in the file; the next Rotate drops it.
//
// A Keyring is immutable and safe for concurrent use. File keeps one on disk and
// lets a running server and `daypass keys rotate` work on it side by side. The
// package does no logging; the time is always passed in.
package keyring

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Purpose says what a key is for. No key serves two purposes.
type Purpose string

// The purposes of keys.
const (
	Credential Purpose = "credential" // Ed25519, signs database credentials
	Session    Purpose = "session"    // AES-256, seals STS session tokens
	Upstream   Purpose = "upstream"   // HKDF, derives upstream passwords
)

const (
	// CredentialLifetime is the longest life of a database credential.
	CredentialLifetime = time.Hour
	// SessionLifetime is the longest life of an STS session token (GetSessionToken
	// of an IAM user).
	SessionLifetime = 36 * time.Hour
	// Margin is how much longer a superseded key may check. It covers clocks of several machines
	// that disagree, and the time until a running server has noticed a rotation.
	Margin = 5 * time.Minute
)

// Ways in which a check fails.
var (
	// ErrUnknownKey is returned if the keyring does not have the key, or if nothing that the key
	// signed can still be valid.
	ErrUnknownKey = errors.New("unknown key")
	// ErrBadSignature is returned for a signature that the named key did not make.
	ErrBadSignature = errors.New("signature does not match")
	// ErrBadBox is returned for a box that was not sealed by the named key with the same
	// additional data, or that was altered.
	ErrBadBox = errors.New("sealed value is altered or was sealed for something else")
)

const (
	idSize     = 8
	secretSize = 32
)

type keyID [idSize]byte

// key is one secret. Its purpose decides whether private or sealer is set; the upstream key has
// neither.
type key struct {
	id      keyID
	active  time.Time // whole seconds, UTC
	secret  [secretSize]byte
	private ed25519.PrivateKey
	sealer  *xaes
	signIn  *xaes // of a session key: see SealSignIn
}

// Keyring is a set of keys. Make one with New or Parse.
type Keyring struct {
	credential []*key // in the order in which they become active
	session    []*key // the same
	upstream   *key
	verifier   *Verifier

	// For one of several servers (Shared.With):
	waiting    *key      // a session key that opens and does not seal yet; nil: none
	signsUntil time.Time // when the key that signs has to be certified again; zero: never
}

// New returns a keyring with fresh random keys, all of them active at now.
func New(now time.Time) *Keyring {
	return assemble(
		[]*key{generate(Credential, now)},
		[]*key{generate(Session, now)},
		generate(Upstream, now),
	)
}

func assemble(credential, session []*key, upstream *key) *Keyring {
	return &Keyring{credential: credential, session: session, upstream: upstream, verifier: newVerifier(credential)}
}

func generate(purpose Purpose, active time.Time) *key {
	var secret [secretSize]byte
	rand.Read(secret[:]) // never fails
	return newKey(purpose, active, secret)
}

func newKey(purpose Purpose, active time.Time, secret [secretSize]byte) *key {
	k := &key{active: active.UTC().Truncate(time.Second), secret: secret}
	material := secret[:]
	switch purpose {
	case Credential:
		k.private = ed25519.NewKeyFromSeed(secret[:])
		material = k.public()
	case Session:
		k.sealer = newXAES(secret)
		k.signIn = newXAES(signInSecret(secret))
	}
	k.identify(purpose, material)
	return k
}

// identify sets a key's identifier: a hash of its public half if it has one, else of its secret,
// under a separate label. A key that was damaged in the file no longer matches its identifier.
func (k *key) identify(purpose Purpose, material []byte) {
	h := sha256.New()
	h.Write([]byte("daypass key identifier: " + string(purpose) + "\x00"))
	h.Write(material)
	copy(k.id[:], h.Sum(nil))
}

// public returns the public half of a credential key.
func (k *key) public() ed25519.PublicKey { return ed25519.PublicKey(k.private[ed25519.PublicKeySize:]) }

func (k *key) hexID() string { return hex.EncodeToString(k.id[:]) }

// Rotate returns a keyring with a new credential key and a new session key, which become active
// at activate, or at now if that is later. It drops keys that can no longer check anything
// valid. An activation in the future leaves time to copy the file to other machines before any
// of them uses the keys. k is not changed.
func (k *Keyring) Rotate(now, activate time.Time) *Keyring {
	if activate.Before(now) {
		activate = now
	}
	add := func(keys []*key, purpose Purpose) []*key {
		kept := alive(keys, purpose, now)
		fresh := generate(purpose, activate)
		at := len(kept)
		for at > 0 && kept[at-1].active.After(fresh.active) {
			at--
		}
		return slices.Insert(kept, at, fresh)
	}
	return assemble(add(k.credential, Credential), add(k.session, Session), k.upstream)
}

// Discard returns a keyring with new credential and session keys, active at now, and without any
// older ones. It is for keys that someone may have read. Every credential and session token
// issued so far stops working. k is not changed.
func (k *Keyring) Discard(now time.Time) *Keyring {
	return assemble(
		[]*key{generate(Credential, now)},
		[]*key{generate(Session, now)},
		k.upstream,
	)
}

// RotateUpstream returns a keyring with a new upstream key, which changes every value that
// Derive returns. A gateway with the old key and one with the new key would overwrite each
// other's passwords of session roles, so copy the file to all machines soon. k is not changed.
func (k *Keyring) RotateUpstream(now time.Time) *Keyring {
	return assemble(k.credential, k.session, generate(Upstream, now))
}

// retention returns how long a key of a purpose may check after another key became active.
func retention(purpose Purpose) time.Duration {
	if purpose == Session {
		return SessionLifetime + Margin
	}
	return CredentialLifetime + Margin
}

// until returns the time from which keys[i] no longer checks anything, or the zero time if no
// key supersedes it.
func until(keys []*key, i int, purpose Purpose) time.Time {
	if i+1 == len(keys) {
		return time.Time{}
	}
	return keys[i+1].active.Add(retention(purpose))
}

func alive(keys []*key, purpose Purpose, now time.Time) []*key {
	var kept []*key
	for i, k := range keys {
		if u := until(keys, i, purpose); u.IsZero() || now.Before(u) {
			kept = append(kept, k)
		}
	}
	return kept
}

// inUse returns the index of the key that signs or seals at now: the latest active one. If the
// clock is before all of them, it is the earliest key, which every other machine knows.
func inUse(keys []*key, now time.Time) int {
	for i := len(keys) - 1; i > 0; i-- {
		if !keys[i].active.After(now) {
			return i
		}
	}
	return 0
}

// Sign signs msg with the credential key in use at now, and returns the key's identifier and an
// Ed25519 signature (RFC 8032, 64 bytes). The key signs only database credentials. The caller
// has to put into msg whatever binds it to that purpose (package credential: the external_aad of
// COSE).
func (k *Keyring) Sign(now time.Time, msg []byte) (keyID []byte, sig []byte) {
	id, sign := k.Signer(now)
	return id, sign(msg)
}

// Signer is Sign in two steps, for a message that has the key's identifier in it.
func (k *Keyring) Signer(now time.Time) (keyID []byte, sign func(msg []byte) []byte) {
	signer := k.credential[inUse(k.credential, now)]
	return slices.Clone(signer.id[:]), func(msg []byte) []byte {
		return ed25519.Sign(signer.private, msg)
	}
}

// MaySign reports whether a key may sign at now. It is false only on a server of a fleet, if the
// server has no key of its own yet or could not get it certified for hours.
func (k *Keyring) MaySign(now time.Time) bool {
	return len(k.credential) > 0 && (k.signsUntil.IsZero() || now.Before(k.signsUntil))
}

// Verifier returns the public half of the credential keys.
func (k *Keyring) Verifier() *Verifier { return k.verifier }

// Verifier checks what Sign signed. It holds public keys only; its answers never depend on earlier
// calls. Safe for concurrent use.
type Verifier struct {
	keys  map[keyID]verifyingKey
	valid validSignatures
}

type verifyingKey struct {
	public ed25519.PublicKey
	until  time.Time // zero: not superseded
}

func newVerifier(keys []*key) *Verifier {
	v := &Verifier{keys: make(map[keyID]verifyingKey, len(keys))}
	for i, k := range keys {
		v.keys[k.id] = verifyingKey{
			public: k.public(),
			until:  until(keys, i, Credential),
		}
	}
	return v
}

// Verify checks that sig is the signature of msg by the named key, and that something the key
// signed can still be valid at now. It accepts keys that are not active yet, because another
// machine's clock may be ahead. It returns ErrUnknownKey or ErrBadSignature. A valid signature
// cannot be rewritten as a second one, because crypto/ed25519 accepts only the canonical S.
func (v *Verifier) Verify(id, msg, sig []byte, now time.Time) error {
	if len(id) != idSize {
		return ErrUnknownKey
	}
	k, ok := v.keys[keyID(id)]
	if !ok || !k.until.IsZero() && !now.Before(k.until) {
		return ErrUnknownKey
	}
	if len(sig) != ed25519.SignatureSize {
		return ErrBadSignature
	}
	signed := signatureDigest(k.public, msg, sig)
	if v.valid.known(signed) {
		return nil
	}
	if !ed25519.Verify(k.public, msg, sig) {
		return ErrBadSignature
	}
	v.valid.remember(signed)
	return nil
}

// Derive returns 32 bytes that only a holder of the upstream key can compute. They depend on that
// key, the purpose and each element of context as a whole: ("a", "bc") and ("ab", "c") give
// unrelated values. Rotate keeps the values, RotateUpstream changes them.
func (k *Keyring) Derive(purpose string, context ...string) [32]byte {
	info := []byte("daypass derive 1\x00")
	for _, s := range append([]string{purpose}, context...) {
		info = binary.BigEndian.AppendUint64(info, uint64(len(s)))
		info = append(info, s...)
	}
	out, err := hkdf.Expand(sha256.New, k.upstream.secret[:], string(info), 32)
	if err != nil {
		panic("internal error: hkdf: " + err.Error())
	}
	return [32]byte(out)
}

// State is what a key does at some moment.
type State string

// The states of a key, in the order of its life.
const (
	Pending State = "pending" // known, and accepted in checks, but not used yet
	InUse   State = "in use"
	Kept    State = "kept"    // superseded; checks what it signed
	Expired State = "expired" // refused; the next Rotate drops it
)

// Info describes a key without its secret.
type Info struct {
	Purpose Purpose
	ID      string // 16 hex digits
	Active  time.Time
	// Until is the moment from which the key is refused. Zero: not superseded.
	Until time.Time
	State State
	// Public is the public key of a credential key, nil for others.
	Public ed25519.PublicKey
}

// Keys describes all keys as of now: by purpose, the oldest first.
func (k *Keyring) Keys(now time.Time) []Info {
	var infos []Info
	describe := func(purpose Purpose, keys []*key) {
		for i, one := range keys {
			info := Info{Purpose: purpose, ID: one.hexID(), Active: one.active, Until: until(keys, i, purpose)}
			switch used := inUse(keys, now); {
			case i == used:
				info.State = InUse
			case i > used:
				info.State = Pending
			case now.Before(info.Until):
				info.State = Kept
			default:
				info.State = Expired
			}
			if one.private != nil {
				info.Public = slices.Clone(one.public())
			}
			infos = append(infos, info)
		}
	}
	describe(Credential, k.credential)
	describe(Session, k.session)
	if k.waiting != nil {
		infos = append(infos, Info{Purpose: Session, ID: k.waiting.hexID(), Active: k.waiting.active, State: Pending})
	}
	describe(Upstream, []*key{k.upstream})
	return infos
}

// String names the keys in use and no secret.
func (k *Keyring) String() string {
	return fmt.Sprintf("keyring of %d credential and %d session keys", len(k.credential), len(k.session))
}

// GoString is String: %#v does not print secrets either.
func (k *Keyring) GoString() string { return k.String() }
