package sigv4

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
)

// CacheGeneration is the size of half the cache.
const CacheGeneration = cacheGeneration

// Bare returns the claim without what VerifyClaim needs, for comparisons.
func (c Claim) Bare() Claim {
	c.read = nil
	return c
}

// KeepPath switches path normalisation off, for the vectors that want it off.
func (v *Verifier) KeepPath() { v.keepPath = true }

// CachedKeys is the number of signing keys remembered.
func (v *Verifier) CachedKeys() int {
	v.keys.mu.RLock()
	defer v.keys.mu.RUnlock()
	return len(v.keys.young) + len(v.keys.old)
}

// Steps returns the stages of computing a signature. token reports whether a presigned URL had
// its session token when it was signed.
func (v *Verifier) Steps(r *http.Request, body []byte, secret string, token bool) (request, toSign, signature string, err error) {
	a, err := readAuthorization(r)
	if err != nil {
		return "", "", "", err
	}
	headers, err := checkHeaders(nil, r, a)
	if err != nil {
		return "", "", "", err
	}
	hash := sha256.Sum256(body)
	var payload payloadHash
	hex.Encode(payload[:], hash[:])
	canonical := v.appendCanonicalRequest(nil, r, a, headers, &payload, token)
	s := appendStringToSign(nil, a, canonical)
	mac := v.keys.get(keyParts{secret, a.date, a.region, a.service}).sign(func(b []byte) []byte { return append(b, s...) })
	return string(canonical), string(s), hex.EncodeToString(mac[:]), nil
}
