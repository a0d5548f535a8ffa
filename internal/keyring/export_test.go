package keyring

// SealXAES seals with a bare XAES-256-GCM key, for the published vectors.
func SealXAES(key [32]byte, nonce, plaintext, additional []byte) []byte {
	return newXAES(key).seal(nil, nonce, plaintext, additional)
}
