package sts

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"github.com/daypass/daypass/internal/filemode"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// signingAlgorithms are the algorithms that providers may use: RFC 7518, section 3.1,
// without the symmetric ones and "none", and RFC 8037. The library checks that key and
// algorithm match: each ES algorithm has one curve, EdDSA means Ed25519.
var signingAlgorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512,
	jose.PS256, jose.PS384, jose.PS512,
	jose.ES256, jose.ES384, jose.ES512,
	jose.EdDSA,
}

// AlgorithmError is an error about a token with an algorithm that is not accepted.
type AlgorithmError struct {
	Algorithm string // as the token has it; empty if it cannot be a name
}

func (e *AlgorithmError) Error() string {
	names := make([]string, len(signingAlgorithms))
	for i, a := range signingAlgorithms {
		names[i] = string(a)
	}
	return "web identity token is signed with " + cmp.Or(e.Algorithm, "an unknown algorithm") +
		"; accepted are " + strings.Join(names, ", ")
}

// Unwrap returns ErrAlgorithm.
func (*AlgorithmError) Unwrap() error { return ErrAlgorithm }

// algorithmError returns an AlgorithmError if a parse error is about the token's algorithm,
// and nil otherwise.
func algorithmError(err error) *AlgorithmError {
	unexpected, ok := errors.AsType[*jose.ErrUnexpectedSignatureAlgorithm](err)
	if !ok {
		return nil
	}
	name := string(unexpected.Got)
	if len(name) > 32 || strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
	}) {
		name = "" // not an algorithm's name
	}
	return &AlgorithmError{name}
}

// maxKeys bounds a set: a token that does not name its key is tried with every key.
const maxKeys = 200

// CheckKeyFile returns nil when the file has a JWK set with a key that a provider's
// tokens can be signed with.
func CheckKeyFile(path string) error {
	data, err := readKeyFile(path)
	if err != nil {
		return err
	}
	keys, err := parseKeys(data)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", path, err)
	case len(keys) == 0:
		return fmt.Errorf("%s: JWK set has no key for signatures; accepted are RSA from %d to %d bits, P-256, P-384, P-521 and Ed25519", path, leastRSA, mostRSA)
	}
	return nil
}

// readKeyFile reads a file of a JWK set, of bounded size.
func readKeyFile(path string) ([]byte, error) {
	data, _, err := filemode.ReadRegular(path, maxKeyDocument)
	return data, err
}

// parseKeys reads a JWK set. Keys that we cannot use are skipped, as RFC 7517, section
// 5, demands, so the result may be empty. Anything but a JWK set is an error.
func parseKeys(data []byte) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys *[]json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, fmt.Errorf("JWK set: %w", err)
	}
	switch {
	case set.Keys == nil:
		return nil, errors.New("JWK set has no member keys")
	case len(*set.Keys) > maxKeys:
		return nil, fmt.Errorf("JWK set has more than %d keys", maxKeys)
	}
	var keys []jose.JSONWebKey
	for _, raw := range *set.Keys {
		var key jose.JSONWebKey
		var more struct {
			Operations []string `json:"key_ops"`
		}
		if json.Unmarshal(raw, &key) == nil && json.Unmarshal(raw, &more) == nil &&
			(key.Use == "" || key.Use == "sig") && (more.Operations == nil || slices.Contains(more.Operations, "verify")) &&
			key.Valid() && strong(key.Key) {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// RSA keys have at least the size that RFC 7518, section 3.3, requires, and a maximum
// that keeps verification cheap.
const (
	leastRSA = 2048
	mostRSA  = 4096 // the library's too
)

// strong reports whether a key is public, of an accepted kind, and not weak.
func strong(key any) bool {
	switch key := key.(type) {
	case *rsa.PublicKey:
		bits := key.N.BitLen()
		// With the exponent 1 every message is its own signature.
		return bits >= leastRSA && bits <= mostRSA && key.E >= 3 && key.E%2 == 1
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	}
	return false
}
