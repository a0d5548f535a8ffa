package signin

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"net/url"
	"strings"
	"sync"
	"time"
)

// A proof shows that the sender has a private key (RFC 9449). AWS's clients sign with
// ES256 only.
type proof struct {
	key      []byte // thumbprint of the public key, RFC 7638
	id       string // jti
	issuedAt time.Time
}

const (
	// proofAge is how far a proof's time may be from our clock. A proof is made for one request,
	// but the clocks of laptops are often wrong.
	proofAge = 5 * time.Minute
	maxProof = 4 << 10
	// maxProofs is how many proofs are remembered, so that none is accepted twice. Only proofs
	// that came with a genuine code or refresh token are remembered.
	maxProofs = 1 << 16
)

// errProof is the reason why a proof is refused. It is sent to the client, which needs to know
// it; nothing in it is secret.
type errProof string

func (e errProof) Error() string { return "the DPoP proof " + string(e) }

// coordinate is the length of a coordinate of a public key. Some clients drop leading zeros,
// against RFC 7518, section 6.2.1.2. If short coordinates were refused, one key in 128 would never
// work.
const coordinate = 32

// checkProof verifies a DPoP header for a POST to address, one of this server's addresses, at
// the time now.
func checkProof(header, address string, now time.Time) (*proof, error) {
	if len(header) > maxProof {
		return nil, errProof("is too long")
	}
	parts := strings.Split(header, ".")
	if len(parts) != 3 {
		return nil, errProof("is not a JSON web token")
	}
	var head struct {
		Type      string          `json:"typ"`
		Algorithm string          `json:"alg"`
		Key       json.RawMessage `json:"jwk"`
		Critical  json.RawMessage `json:"crit"`
	}
	var claims struct {
		ID       string `json:"jti"`
		Method   string `json:"htm"`
		Address  string `json:"htu"`
		IssuedAt int64  `json:"iat"`
	}
	signature, err := decodePart(parts[2])
	if err != nil || len(signature) != 2*coordinate {
		return nil, errProof("has no ES256 signature")
	}
	if unmarshalPart(parts[0], &head) != nil || unmarshalPart(parts[1], &claims) != nil {
		return nil, errProof("is not a JSON web token")
	}
	switch {
	case head.Type != "dpop+jwt" || head.Algorithm != "ES256":
		return nil, errProof("must have typ dpop+jwt and alg ES256")
	case head.Critical != nil:
		return nil, errProof("has critical extensions that are not known here")
	}
	key, thumbprint, err := parseKey(head.Key)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	r, s := new(big.Int).SetBytes(signature[:coordinate]), new(big.Int).SetBytes(signature[coordinate:])
	if !ecdsa.Verify(key, sum[:], r, s) {
		return nil, errProof("has a signature that does not match its key")
	}
	at := time.Unix(claims.IssuedAt, 0)
	switch {
	case claims.Method != "POST":
		return nil, errProof("must have htm POST")
	case !sameAddress(claims.Address, address):
		return nil, errProof("is for " + quoted(claims.Address) + ", and this server is " + address + ": give your tool this address")
	case claims.IssuedAt <= 0 || now.Sub(at) > proofAge || at.Sub(now) > proofAge:
		return nil, errProof("was made more than 5 minutes ago or ahead: set the clock of your machine")
	case len(claims.ID) == 0 || len(claims.ID) > 128:
		return nil, errProof("must have a jti of at most 128 characters")
	}
	return &proof{thumbprint, claims.ID, at}, nil
}

func decodePart(part string) ([]byte, error) {
	if strings.ContainsAny(part, "\r\n") {
		return nil, errors.New("line breaks")
	}
	return base64.RawURLEncoding.Strict().DecodeString(part)
}

// unmarshalPart reads a JSON object.
func unmarshalPart(part string, into any) error {
	data, err := decodePart(part)
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")) {
		return errors.New("not an object")
	}
	return json.Unmarshal(data, into)
}

// parseKey reads a public key on P-256 and returns it with its thumbprint. The thumbprint is
// that of the key with full-length coordinates, so that each key has exactly one.
func parseKey(data []byte) (*ecdsa.PublicKey, []byte, error) {
	var jwk struct {
		Type    string          `json:"kty"`
		Curve   string          `json:"crv"`
		X       string          `json:"x"`
		Y       string          `json:"y"`
		Private json.RawMessage `json:"d"`
	}
	if json.Unmarshal(data, &jwk) != nil || jwk.Type != "EC" || jwk.Curve != "P-256" || jwk.Private != nil {
		return nil, nil, errProof("must have a public key on P-256")
	}
	point := make([]byte, 1+2*coordinate)
	point[0] = 4 // uncompressed
	for i, text := range []string{jwk.X, jwk.Y} {
		bytes, err := decodePart(text)
		if err != nil || len(bytes) == 0 || len(bytes) > coordinate {
			return nil, nil, errProof("must have a public key on P-256")
		}
		copy(point[1+(i+1)*coordinate-len(bytes):], bytes)
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return nil, nil, errProof("must have a public key on P-256")
	}
	encode := base64.RawURLEncoding.EncodeToString
	sum := sha256.Sum256([]byte(`{"crv":"P-256","kty":"EC","x":"` + encode(point[1:1+coordinate]) + `","y":"` + encode(point[1+coordinate:]) + `"}`))
	return key, sum[:], nil
}

// sameAddress compares htu with our address as RFC 9449, section 4.3, requires: without query
// and fragment, after the normalization of RFC 3986.
func sameAddress(given, ours string) bool {
	a, errA := url.Parse(given)
	b, errB := url.Parse(ours)
	return errA == nil && errB == nil && a.User == nil && a.Opaque == "" &&
		strings.EqualFold(a.Scheme, b.Scheme) && strings.EqualFold(a.Hostname(), b.Hostname()) && portOf(a) == portOf(b) && a.EscapedPath() == b.EscapedPath()
}

func portOf(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case strings.EqualFold(u.Scheme, "https"):
		return "443"
	}
	return "80"
}

// proofs remembers the proofs that were accepted. The zero value is ready.
type proofs struct {
	mu    sync.Mutex
	until map[[sha256.Size]byte]time.Time // guarded by mu
}

// use accepts a proof once, and refuses it after that.
func (p *proofs) use(one *proof, now time.Time) error {
	key := sha256.Sum256([]byte(string(one.key) + one.id))
	p.mu.Lock()
	defer p.mu.Unlock()
	if until, used := p.until[key]; used && now.Before(until) {
		return errProof("has been used: make one for each request")
	}
	if len(p.until) >= maxProofs {
		for old, until := range p.until {
			if !now.Before(until) {
				delete(p.until, old)
			}
		}
		if len(p.until) >= maxProofs {
			return errProof("is refused because too many arrive at once: try again in a minute")
		}
	}
	if p.until == nil {
		p.until = map[[sha256.Size]byte]time.Time{}
	}
	p.until[key] = one.issuedAt.Add(proofAge + time.Second)
	return nil
}
