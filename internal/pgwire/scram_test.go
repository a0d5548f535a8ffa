package pgwire_test

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strconv"
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/pgwire"
)

// TestSCRAM plays the server's part of RFC 5802, section 3.
func TestSCRAM(t *testing.T) {
	password := "pencil"
	serve := func(iterations int, tamper func(string) string) func(mechanism, first string) (string, func(string) string) {
		return func(mechanism, first string) (string, func(string) string) {
			bare := first[strings.Index(first, "n="):]
			salt := []byte("W22ZaJ0SNY7soEsUEjb6gQ==")
			serverFirst := "r=" + strings.TrimPrefix(bare, "n=,r=") + "server,s=" + base64.StdEncoding.EncodeToString(salt) + ",i=" + strconv.Itoa(iterations)
			return serverFirst, func(final string) string {
				salted, _ := pbkdf2.Key(sha256.New, password, salt, iterations, 32)
				withoutProof, proof64, _ := strings.Cut(final, ",p=")
				message := bare + "," + serverFirst + "," + withoutProof
				clientKey := sum(salted, "Client Key")
				stored := sha256.Sum256(clientKey)
				proof, _ := base64.StdEncoding.DecodeString(proof64)
				key := make([]byte, len(proof))
				subtle.XORBytes(key, proof, sum(stored[:], message))
				if len(key) != 32 || !hmac.Equal(key, clientKey) {
					return "e=invalid-proof"
				}
				return tamper("v=" + base64.StdEncoding.EncodeToString(sum(sum(salted, "Server Key"), message)))
			}
		}
	}
	keep := func(s string) string { return s }
	for _, test := range []struct {
		name     string
		offered  []string
		password string
		server   func(string, string) (string, func(string) string)
		ok       bool
	}{
		{"one iteration", []string{"SCRAM-SHA-256"}, password, serve(1, keep), true},
		{"4096 iterations", []string{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"}, password, serve(4096, keep), true},
		{"wrong password", []string{"SCRAM-SHA-256"}, "pen", serve(1, keep), false},
		{"no iterations", []string{"SCRAM-SHA-256"}, password, serve(0, keep), false},
		{"too many iterations", []string{"SCRAM-SHA-256"}, password, serve(1<<30, keep), false},
		{"wrong signature", []string{"SCRAM-SHA-256"}, password, serve(1, func(s string) string { return "v=" + strings.Repeat("A", 43) + "=" }), false},
		{"no signature", []string{"SCRAM-SHA-256"}, password, serve(1, func(string) string { return "v=" }), false},
		{"an error", []string{"SCRAM-SHA-256"}, password, serve(1, func(string) string { return "e=other-error" }), false},
		{"only with channel binding, without TLS", []string{"SCRAM-SHA-256-PLUS"}, password, serve(1, keep), false},
	} {
		if err := pgwire.RunSCRAM(test.offered, test.password, nil, test.server); (err == nil) != test.ok {
			t.Errorf("%s: %v, want ok %v", test.name, err, test.ok)
		}
	}
	for _, first := range []string{"", "r=abc", "r=abcd,s=,i=1", "r=abcd,s=!,i=1", "r=abcd,s=c2FsdA==", "r=abcd,s=c2FsdA==,i=x", "r=abc,s=c2FsdA==,i=1", "r=xabcd,s=c2FsdA==,i=1", "m=x,r=abcd,s=c2FsdA==,i=1"} {
		if _, _, err := pgwire.SCRAMWithNonce("abc", password, first); err == nil {
			t.Errorf("server-first message %q was taken", first)
		}
	}
}

func sum(key []byte, message string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(message))
	return h.Sum(nil)
}
