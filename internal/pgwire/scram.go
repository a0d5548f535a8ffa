package pgwire

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ErrForeignVerifier means that the server has a verifier for the session role that
// the gateway did not set: its holder has changed the password, and the gateway has to
// set it again.
var ErrForeignVerifier = errors.New("the session role has a password that is not the gateway's")

// SCRAM is the client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677), as far as a
// session role needs it: the password is ASCII, so SASLprep changes nothing, and the
// user name is empty, since PostgreSQL takes the one of the start-up message.
//
//	client → server    gs2 header, r=nonce
//	server → client    r=nonce and more, s=salt, i=iterations
//	client → server    c=channel binding, r=, p=proof
//	server → client    v=signature
type SCRAM struct {
	Mechanism string // the mechanism that was chosen
	password  string
	nonce     string
	header    string // gs2 header
	binding   []byte // channel binding data; nil without
	signature []byte // what the server must answer with
}

const (
	scramSHA256     = "SCRAM-SHA-256"
	scramSHA256Plus = "SCRAM-SHA-256-PLUS"
)

// maxSessionIterations is the largest iteration count that is computed for a session
// role. The gateway's own verifiers have one iteration. A holder can set a password
// with any count, and every logon with the session role would have to compute it.
const maxSessionIterations = 1 << 14

// NewSCRAM chooses among the mechanisms that the server offers. Under TLS the
// exchange is bound to the server's certificate, which keeps a man in the middle out
// even where the certificate is not verified. If the server does not offer that, the
// exchange says that the gateway supports it ("y"): a server that did offer it then
// knows that its offer was removed on the way. binding is libpq's channel_binding;
// verified means that TLS has verified the certificate.
func NewSCRAM(offered []string, password string, state *tls.ConnectionState, binding string, verified bool) (*SCRAM, error) {
	c := &SCRAM{password: password, nonce: rand.Text(), header: "n,,"}
	plus, required := slices.Contains(offered, scramSHA256Plus), binding == "require"
	if state != nil && binding != "disable" {
		data := endPointBinding(state)
		switch {
		case data == nil && (required || !verified):
			return nil, fmt.Errorf("channel binding is not defined for the server's certificate (%s): set sslmode=verify-full in upstream, "+
				"use a certificate with an RSA or ECDSA signature, or set channel_binding=disable", signatureOf(state))
		case data == nil: // TLS has verified who the server is
		case plus:
			c.Mechanism, c.header, c.binding = scramSHA256Plus, "p=tls-server-end-point,,", data
			return c, nil
		default:
			c.header = "y,,"
		}
	}
	switch {
	case required:
		return nil, errors.New("upstream has channel_binding=require, and the server does not offer SCRAM-SHA-256-PLUS")
	case !slices.Contains(offered, scramSHA256):
		return nil, fmt.Errorf("server offers no SASL mechanism that the gateway knows: %s", Clip(strings.Join(offered, ", ")))
	}
	c.Mechanism = scramSHA256
	return c, nil
}

// First returns the first message.
func (c *SCRAM) First() string { return c.header + c.bare() }

func (c *SCRAM) bare() string { return "n=,r=" + c.nonce }

// Final answers the server's first message.
func (c *SCRAM) Final(serverFirst string) (string, error) {
	fields := strings.Split(serverFirst, ",")
	if len(fields) < 3 || !strings.HasPrefix(fields[0], "r=") || !strings.HasPrefix(fields[1], "s=") || !strings.HasPrefix(fields[2], "i=") {
		return "", errors.New("malformed SCRAM server-first message")
	}
	nonce := fields[0][2:]
	if len(nonce) <= len(c.nonce) || !strings.HasPrefix(nonce, c.nonce) {
		return "", errors.New("SCRAM nonce is not ours")
	}
	salt, err := base64.StdEncoding.DecodeString(fields[1][2:])
	if err != nil || len(salt) == 0 {
		return "", errors.New("malformed SCRAM salt")
	}
	iterations, err := strconv.Atoi(fields[2][2:])
	switch {
	case err != nil || iterations < 1:
		return "", errors.New("SCRAM iteration count out of range")
	case iterations > maxSessionIterations:
		return "", fmt.Errorf("server asks for %d SCRAM iterations: %w", iterations, ErrForeignVerifier)
	}
	salted, err := pbkdf2.Key(sha256.New, c.password, salt, iterations, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("SCRAM: %w", err)
	}
	clientKey := mac(salted, "Client Key")
	storedKey := sha256.Sum256(clientKey)
	serverKey := mac(salted, "Server Key")

	withoutProof := "c=" + base64.StdEncoding.EncodeToString(append([]byte(c.header), c.binding...)) + ",r=" + nonce
	message := c.bare() + "," + serverFirst + "," + withoutProof
	c.signature = mac(serverKey, message)
	proof := mac(storedKey[:], message)
	subtle.XORBytes(proof, proof, clientKey)
	return withoutProof + ",p=" + base64.StdEncoding.EncodeToString(proof), nil
}

// Verify checks the server's last message: only a server that has the verifier can
// compute it.
func (c *SCRAM) Verify(serverFinal string) error {
	text, ok := strings.CutPrefix(serverFinal, "v=")
	if !ok || c.signature == nil {
		return errors.New("malformed SCRAM server-final message")
	}
	text, _, _ = strings.Cut(text, ",")
	signature, err := base64.StdEncoding.DecodeString(text)
	if err != nil || !hmac.Equal(signature, c.signature) {
		return errors.New("SCRAM server signature is wrong: the server does not know the session role")
	}
	return nil
}

func mac(key []byte, message string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(message))
	return h.Sum(nil)
}

// signatureOf names the signature algorithm of the server's certificate.
func signatureOf(state *tls.ConnectionState) string {
	if len(state.PeerCertificates) == 0 {
		return "none"
	}
	return state.PeerCertificates[0].SignatureAlgorithm.String()
}

// endPointBinding returns the channel binding data of a connection, or nil.
func endPointBinding(state *tls.ConnectionState) []byte {
	if len(state.PeerCertificates) == 0 {
		return nil
	}
	return EndPointBinding(state.PeerCertificates[0])
}

// ParseMechanisms reads the list in an AuthenticationSASL message.
func ParseMechanisms(body []byte) []string {
	var list []string
	for len(body) > 1 {
		name, rest, ok := bytes.Cut(body, []byte{0})
		if !ok {
			break
		}
		list = append(list, string(name))
		body = rest
	}
	return list
}
