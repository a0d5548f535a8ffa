package keyring

import (
	"crypto/ed25519"
	"crypto/sha256"
	"sync"
)

// validSignatures remembers signatures that are valid. Clients connect again and again with the same
// credential, and a signature that was valid for a key and a message always is; whether the key may
// still sign, and whether the message has expired, is checked each time. Only holders of valid
// credentials add to it. The zero value remembers none. Safe for concurrent use.
type validSignatures struct {
	mu sync.Mutex // guards what follows
	// The digests are in two sets. When recent is full it becomes former, whose digests are forgotten.
	recent, former map[[sha256.Size]byte]struct{}
}

// maxRecent bounds each of the two sets: 200 KiB for both.
const maxRecent = 1 << 10

// signatureDigest stands for a key, a message and a signature. The key and the signature have fixed
// sizes, so the parts cannot run into each other.
func signatureDigest(key ed25519.PublicKey, msg, sig []byte) (digest [sha256.Size]byte) {
	h := sha256.New()
	h.Write(key)
	h.Write(sig)
	h.Write(msg)
	h.Sum(digest[:0])
	return digest
}

func (v *validSignatures) known(digest [sha256.Size]byte) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, ok := v.recent[digest]; ok {
		return true
	}
	if _, ok := v.former[digest]; !ok {
		return false
	}
	v.rememberLocked(digest)
	return true
}

func (v *validSignatures) remember(digest [sha256.Size]byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.rememberLocked(digest)
}

func (v *validSignatures) rememberLocked(digest [sha256.Size]byte) {
	if v.recent == nil || len(v.recent) >= maxRecent {
		v.recent, v.former = make(map[[sha256.Size]byte]struct{}), v.recent
	}
	v.recent[digest] = struct{}{}
}
