package server

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"

	"github.com/daypass/daypass/internal/keyring"
)

// A running server has a secret in the lock file of its data directory, made when it starts. A program that can
// read that file sends a challenge with a probe, and the proof in the answer shows whether the
// server that uses the directory has answered, or another one. A proof tells nothing to those who do not
// know the secret, which is for nothing else.
const (
	// ChallengeHeader is the header of a request for /readyz with the challenge, at most 64 bytes.
	ChallengeHeader = "Daypass-Challenge"
	// ProofHeader is the header of the answer with the proof.
	ProofHeader = "Daypass-Proof"
)

// Proof returns what the server with the secret answers to a challenge.
func Proof(secret keyring.Secret, challenge string) string {
	mac := hmac.New(sha256.New, []byte(secret.Reveal()))
	mac.Write([]byte(challenge))
	return hex.EncodeToString(mac.Sum(nil))
}

// prove answers the challenge of a request, if it has one.
func (h *health) prove(w http.ResponseWriter, r *http.Request) {
	if challenge := r.Header.Get(ChallengeHeader); challenge != "" && len(challenge) <= 64 {
		w.Header().Set(ProofHeader, Proof(h.instance, challenge))
	}
}
