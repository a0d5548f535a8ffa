package keyring

// SealXAES seals with a bare XAES-256-GCM key, for the published vectors.
func SealXAES(key [32]byte, nonce, plaintext, additional []byte) []byte {
	return newXAES(key).seal(nil, nonce, plaintext, additional)
}

// Remembered returns how many signatures the Verifier remembers, and the most that it may.
func (v *Verifier) Remembered() (n, most int) {
	v.valid.mu.Lock()
	defer v.valid.mu.Unlock()
	return len(v.valid.recent) + len(v.valid.former), 2 * maxRecent
}
