package sts

import "github.com/go-jose/go-jose/v4"

// VerifyJWS verifies a signature over anything with the keys of a JWK set.
func VerifyJWS(set []byte, compact string) error {
	keys, err := parseKeys(set)
	if err != nil {
		return err
	}
	jws, err := jose.ParseSignedCompact(compact, signingAlgorithms)
	if err != nil {
		return err
	}
	if !(&keySet{keys: keys}).verify(jws) {
		return ErrBadSignature
	}
	return nil
}
