package sts

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/daypass/daypass/internal/keyring"
)

// cacheGeneration is the number of sessions in each half of the cache.
const cacheGeneration = 2048

// Opener opens session tokens, and remembers the opened ones, because a client sends the same token
// with every call until the token expires. Its zero value is ready. It is safe for concurrent use.
//
// The cache has two generations. A full young one becomes the old one, whose entries
// are dropped unless they are used again. The cache belongs to one keyring, so tokens
// of a key that was removed from the keyring are refused.
type Opener struct {
	mu         sync.Mutex
	keyring    *keyring.Keyring        // guarded by mu, as are
	young, old map[sessionKey]*Session // both generations
}

type sessionKey struct {
	accessKeyID string
	token       [sha256.Size]byte
}

// Open returns the session of an access key and its token, which must not be
// changed. The error is ErrInvalidToken or ErrExpired; with ErrExpired the session
// is returned too, for the record.
func (o *Opener) Open(k *keyring.Keyring, now time.Time, accessKeyID, token string) (*Session, error) {
	key := sessionKey{accessKeyID, sha256.Sum256([]byte(token))}
	s := o.get(k, key)
	if s == nil {
		var err error
		if s, err = open(k, now, accessKeyID, token); err != nil {
			return nil, err
		}
		o.put(k, key, s)
	}
	if !now.Before(s.NotAfter) {
		return s, ErrExpired
	}
	return s, nil
}

func (o *Opener) get(k *keyring.Keyring, key sessionKey) *Session {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.keyring != k {
		return nil
	}
	if s, ok := o.young[key]; ok {
		return s
	}
	s, ok := o.old[key]
	if ok {
		o.putLocked(key, s)
	}
	return s
}

func (o *Opener) put(k *keyring.Keyring, key sessionKey, s *Session) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.keyring != k {
		o.keyring, o.young, o.old = k, nil, nil
	}
	o.putLocked(key, s)
}

func (o *Opener) putLocked(key sessionKey, s *Session) {
	if len(o.young) >= cacheGeneration {
		o.young, o.old = nil, o.young
	}
	if o.young == nil {
		o.young = make(map[sessionKey]*Session)
	}
	o.young[key] = s
}
