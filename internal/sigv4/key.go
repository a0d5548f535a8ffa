package sigv4

import (
	"crypto/hmac"
	"crypto/sha256"
	"hash"
	"strings"
	"sync"
)

// signingKey is the key derived from a secret access key for one day, region and
// service.
type signingKey struct{ macs sync.Pool } // of *keyed

// keyed is an HMAC that has its key, and space for what it works on.
type keyed struct {
	hash.Hash
	message [256]byte
	mac     [sha256.Size]byte
}

func newSigningKey(key []byte) *signingKey {
	return &signingKey{macs: sync.Pool{New: func() any { return &keyed{Hash: hmac.New(sha256.New, key)} }}}
}

// sign returns the MAC of the bytes that write appends.
func (k *signingKey) sign(write func(b []byte) []byte) (mac [sha256.Size]byte) {
	h := k.macs.Get().(*keyed)
	defer k.macs.Put(h)
	h.Reset()
	h.Write(write(h.message[:0]))
	h.Sum(h.mac[:0])
	return h.mac
}

func hmacSHA256(key, message []byte) (mac [sha256.Size]byte) {
	h := hmac.New(sha256.New, key)
	h.Write(message)
	h.Sum(mac[:0])
	return mac
}

// keyParts are the inputs of a signing key, and the key of the cache. So a cache entry is never
// stale: a changed secret gets a new entry.
type keyParts struct {
	secret, date, region, service string
}

func (p keyParts) derive() *signingKey {
	key := hmacSHA256([]byte("AWS4"+p.secret), []byte(p.date))
	key = hmacSHA256(key[:], []byte(p.region))
	key = hmacSHA256(key[:], []byte(p.service))
	key = hmacSHA256(key[:], []byte(terminator))
	return newSigningKey(key[:])
}

// clone copies the parts, which would otherwise keep the whole request in memory.
func (p keyParts) clone() keyParts {
	return keyParts{strings.Clone(p.secret), strings.Clone(p.date), strings.Clone(p.region), strings.Clone(p.service)}
}

// cacheGeneration is the number of signing keys in each half of the cache. Each pair of an
// access key and a service in use takes one.
const cacheGeneration = 8192

// keyCache caches signing keys. It has two generations: a full young one becomes the
// old one, whose entries are dropped unless they are used again. The zero value is
// ready.
type keyCache struct {
	mu         sync.RWMutex
	young, old map[keyParts]*signingKey // guarded by mu
}

// get returns the signing key, derived if need be.
func (c *keyCache) get(p keyParts) *signingKey {
	c.mu.RLock()
	key, young := c.young[p]
	known := young
	if !young {
		key, known = c.old[p]
	}
	c.mu.RUnlock()
	if young {
		return key
	}
	if !known {
		key = p.derive()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.young) >= cacheGeneration {
		c.young, c.old = nil, c.young
	}
	if c.young == nil {
		c.young = make(map[keyParts]*signingKey)
	}
	c.young[p.clone()] = key
	return key
}
