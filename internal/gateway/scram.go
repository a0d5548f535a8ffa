package gateway

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

	"github.com/daypass/daypass/internal/pgwire"
)

// scramClient is the client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677) as the
// gateway needs it: the password is ASCII, so SASLprep changes nothing, and the
// user name is empty, since PostgreSQL takes the one of the start-up message.
//
//	client → server    gs2 header, r=nonce
//	server → client    r=nonce and more, s=salt, i=iterations
//	client → server    c=channel binding, r=, p=proof
//	server → client    v=signature
type scramClient struct {
	mechanism string
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

// maxIterations is the largest iteration count that is answered. The gateway's own
// verifiers have one iteration; a holder may set a password of any number, which
// everyone who logs on with the session role would have to compute.
const maxIterations = 1 << 14

// newSCRAM chooses among the mechanisms that the server offers. Under TLS the
// exchange is bound to the server's certificate, so that nobody can sit in between
// even where the certificate is not verified. Where the server does not offer that,
// it is told that the gateway would have been able to ("y"): a server that did
// offer it then knows that somebody has taken the offer away. binding is libpq's
// channel_binding; verified says that TLS has verified the certificate.
func newSCRAM(offered []string, password string, state *tls.ConnectionState, binding string, verified bool) (*scramClient, error) {
	c := &scramClient{password: password, nonce: rand.Text(), header: "n,,"}
	plus, required := slices.Contains(offered, scramSHA256Plus), binding == "require"
	if state != nil && binding != "disable" {
		data := endPointBinding(state)
		switch {
		case data == nil && (required || !verified):
			return nil, fmt.Errorf("channel binding is not defined for the server's certificate (%s): set sslmode=verify-full in upstream, "+
				"use a certificate with an RSA or ECDSA signature, or set channel_binding=disable", signatureOf(state))
		case data == nil: // TLS has verified who the server is
		case plus:
			c.mechanism, c.header, c.binding = scramSHA256Plus, "p=tls-server-end-point,,", data
			return c, nil
		default:
			c.header = "y,,"
		}
	}
	switch {
	case required:
		return nil, errors.New("upstream has channel_binding=require, and the server does not offer SCRAM-SHA-256-PLUS")
	case !slices.Contains(offered, scramSHA256):
		return nil, fmt.Errorf("server offers none of the SASL mechanisms we know: %s", clip(strings.Join(offered, ", ")))
	}
	c.mechanism = scramSHA256
	return c, nil
}

func (c *scramClient) first() string { return c.header + c.bare() }

func (c *scramClient) bare() string { return "n=,r=" + c.nonce }

// final answers the server's first message.
func (c *scramClient) final(serverFirst string) (string, error) {
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
	case iterations > maxIterations:
		return "", fmt.Errorf("server asks for %d SCRAM iterations: %w", iterations, errPasswordNotOurs)
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

// verify checks the server's last message: only who has the verifier can know it.
func (c *scramClient) verify(serverFinal string) error {
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

// endPointBinding is the channel binding data of a connection; nil where there is
// none.
func endPointBinding(state *tls.ConnectionState) []byte {
	if len(state.PeerCertificates) == 0 {
		return nil
	}
	return pgwire.EndPointBinding(state.PeerCertificates[0])
}

// mechanisms reads the list in an AuthenticationSASL message.
func mechanisms(body []byte) []string {
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
