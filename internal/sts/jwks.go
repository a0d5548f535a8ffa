package sts

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/go-jose/go-jose/v4"
)

// signingAlgorithms are those that providers may use. Symmetric ones are not among
// them, and "none" is not one.
var signingAlgorithms = []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.EdDSA}

// maxKeys bounds a set: a token without the name of its key is tried with each.
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
		return fmt.Errorf("%s: JWK set has no RSA, P-256 or Ed25519 key for signatures", path)
	}
	return nil
}

// readKeyFile reads a file of a JWK set, of bounded size.
func readKeyFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxKeyDocument+1))
	if err == nil && len(data) > maxKeyDocument {
		err = fmt.Errorf("%s: larger than %d bytes", path, maxKeyDocument)
	}
	return data, err
}

// parseKeys reads a JWK set. Keys that cannot be for us are left out, as RFC 7517,
// section 5, asks for; what is left may be none. A document that is no JWK set is an
// error.
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
		if json.Unmarshal(raw, &key) != nil || key.Use != "" && key.Use != "sig" || !key.Valid() {
			continue
		}
		switch public := key.Key.(type) {
		case *rsa.PublicKey:
			if public.N.BitLen() < 2048 {
				continue
			}
		case *ecdsa.PublicKey, ed25519.PublicKey:
		default:
			continue
		}
		keys = append(keys, key)
	}
	return keys, nil
}
