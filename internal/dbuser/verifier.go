package dbuser

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"

	"github.com/daypass/daypass/internal/keyring"
)

// upstreamPassword returns the password of a session role: 256 bits that every gateway can
// derive from the cluster's key, so the password is not stored anywhere.
func upstreamPassword(key [32]byte, cluster, role string) keyring.Secret {
	return keyring.Secret(base64.RawURLEncoding.EncodeToString(derive(key, "password", cluster, role)))
}

func derive(key [32]byte, purpose, cluster, role string) []byte {
	h := hmac.New(sha256.New, key[:])
	for _, part := range []string{"daypass session role", purpose, cluster, role} {
		h.Write([]byte(part))
		h.Write([]byte{0}) // names hold no NUL, so the parts cannot run into each other
	}
	return h.Sum(nil)
}

// verifier returns what CREATE ROLE stores for the password: SCRAM-SHA-256 (RFC
// 5802, RFC 7677) with one iteration. More iterations would slow down guessing, but
// no one can guess 256 random bits. With one, CREATE ROLE is ten times cheaper, and the
// gateway does not have to compute PBKDF2 at each logon. The salt is derived as well, so
// that two gateways that write at the same time write the same verifier.
func verifier(key [32]byte, cluster, role string) string {
	password := upstreamPassword(key, cluster, role).Reveal()
	salt := derive(key, "salt", cluster, role)[:16]

	// Hi(password, salt, 1) is one HMAC over the salt and the block number.
	salted := mac([]byte(password), append(salt[:16:16], 0, 0, 0, 1))
	stored := sha256.Sum256(mac(salted, []byte("Client Key")))
	server := mac(salted, []byte("Server Key"))
	b64 := base64.StdEncoding.EncodeToString
	return "SCRAM-SHA-256$1:" + b64(salt) + "$" + b64(stored[:]) + ":" + b64(server)
}

func mac(key, message []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(message)
	return h.Sum(nil)
}
