// Package login is the client side of signing in. It does what `aws login` does, and writes the
// files that the AWS CLI and SDKs read: their cache and a profile. The protocol is described in
// package signin, the server side; the two share no code.
package login

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	sameDevice  = "arn:aws:signin:::devtools/same-device"
	crossDevice = "arn:aws:signin:::devtools/cross-device"

	pathToken = "/v1/token"

	// patience is how long a person may take.
	patience = 15 * time.Minute
	// maxAnswer is the longest answer of the server that is read.
	maxAnswer = 64 << 10
)

// Config configures a sign-in. All fields are required except Open and Paste.
type Config struct {
	Endpoint string // URL of the API
	HTTP     interface {
		Do(*http.Request) (*http.Response, error)
	}
	Now func() time.Time
	// Show tells the person the address to open.
	Show func(address string)
	// Open opens the address in a browser on this machine. It may fail without harm.
	Open func(address string)
	// Paste asks the person for the code that the browser shows. If it is set, the browser may
	// be on another machine, and Open is not called.
	Paste func(context.Context) (string, error)
}

// Session is a sign-in in the form in which the AWS CLI keeps it.
type Session struct {
	ARN   string // of the role session
	token token
}

// token is a file in the AWS CLI's cache.
type token struct {
	AccessToken  accessToken `json:"accessToken"`
	TokenType    string      `json:"tokenType"`
	ClientID     string      `json:"clientId"`
	RefreshToken string      `json:"refreshToken"`
	IDToken      string      `json:"idToken"`
	DPoPKey      string      `json:"dpopKey"`
}

type accessToken struct {
	AccessKeyID     string `json:"accessKeyId"`
	SecretAccessKey string `json:"secretAccessKey"`
	SessionToken    string `json:"sessionToken"`
	AccountID       string `json:"accountId"`
	ExpiresAt       string `json:"expiresAt"`
}

// SignIn signs a person in through their browser, and returns the session.
func SignIn(ctx context.Context, c Config) (*Session, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("no one signed in within 15 minutes: run the command again"))
	defer cancel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	base := strings.TrimRight(c.Endpoint, "/")
	if err := c.reach(ctx, base); err != nil {
		return nil, err
	}
	client, redirect := crossDevice, base+"/v1/sessions/confirmation"
	verifier, state := rand.Text()+rand.Text(), rand.Text()
	var listener *callbackListener
	if c.Paste == nil {
		if listener, err = listen(state); err != nil {
			return nil, err
		}
		defer listener.close()
		client, redirect = sameDevice, listener.redirect
	}
	challenge := sha256.Sum256([]byte(verifier))
	address := base + "/v1/authorize?" + url.Values{
		"response_type": {"code"}, "client_id": {client}, "state": {state}, "scope": {"openid"}, "redirect_uri": {redirect},
		"code_challenge_method": {"SHA-256"}, "code_challenge": {base64.RawURLEncoding.EncodeToString(challenge[:])},
	}.Encode()
	c.Show(address)
	var answer url.Values
	if listener != nil {
		c.Open(address)
		answer, err = listener.wait(ctx)
	} else {
		answer, err = pasted(ctx, c.Paste)
	}
	switch {
	case err != nil:
		return nil, err
	case answer.Get("state") != state:
		return nil, errors.New("the browser's answer is for another sign-in: run the command again")
	case answer.Get("code") == "":
		return nil, errors.New("the browser sent no code: run the command again")
	}
	return c.redeem(ctx, key, client, map[string]string{"clientId": client, "grantType": "authorization_code",
		"code": answer.Get("code"), "codeVerifier": verifier, "redirectUri": redirect})
}

// maxSkew is how far the server lets a clock be off.
const maxSkew = 5 * time.Minute

// reach makes sure that the server can be reached, that its certificate is accepted, that people can
// sign in there, and that the two clocks agree, before a person is sent there. The request is for the
// address that the keys come from. It is not the request for keys, so the server refuses it.
func (c Config) reach(ctx context.Context, base string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, base+pathToken, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Cache-Control", "no-cache")
	response, err := c.HTTP.Do(request)
	if err != nil {
		return err
	}
	if err := response.Body.Close(); err != nil {
		return err
	}
	if response.StatusCode == http.StatusNotFound {
		return noSignIn(base)
	}
	there, err := http.ParseTime(response.Header.Get("Date"))
	if err != nil {
		return nil // the server, or a balancer, does not tell
	}
	if off := c.Now().Sub(there).Round(time.Second); off.Abs() > maxSkew {
		side := "ahead of"
		if off < 0 {
			side = "behind"
		}
		return fmt.Errorf("the clock of this machine is %v %s that of %s, which refuses a sign-in for more than %v: set the clock", off.Abs(), side, base, maxSkew)
	}
	return nil
}

func noSignIn(base string) error {
	return fmt.Errorf("%s: people cannot sign in at this server: check the endpoint, or ask the server's operator to configure sign_in", base)
}

func pasted(ctx context.Context, paste func(context.Context) (string, error)) (url.Values, error) {
	text, err := paste(ctx)
	if err != nil {
		return nil, err
	}
	plain, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil {
		return nil, errors.New("that is not the code that the browser shows: copy the whole of it")
	}
	return url.ParseQuery(string(plain))
}

// redeem exchanges the code for keys.
func (c Config) redeem(ctx context.Context, key *ecdsa.PrivateKey, client string, body map[string]string) (*Session, error) {
	endpoint := strings.TrimRight(c.Endpoint, "/") + pathToken
	var answer struct {
		token
		ExpiresIn int `json:"expiresIn"`
	}
	if err := c.post(ctx, key, endpoint, body, &answer); err != nil {
		return nil, err
	}
	arn, account, err := subject(answer.IDToken)
	if err != nil {
		return nil, err
	}
	pemKey, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	s := &Session{ARN: arn, token: answer.token}
	s.token.ClientID = client
	s.token.DPoPKey = string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: pemKey}))
	s.token.AccessToken.AccountID = account
	s.token.AccessToken.ExpiresAt = c.Now().Add(time.Duration(answer.ExpiresIn) * time.Second).UTC().Format(time.RFC3339)
	if s.token.AccessToken.AccessKeyID == "" || s.token.AccessToken.SecretAccessKey == "" || s.token.RefreshToken == "" || answer.ExpiresIn <= 0 || answer.ExpiresIn > 3600 {
		return nil, fmt.Errorf("%s: the answer has no keys in it", endpoint)
	}
	return s, nil
}

// proof returns the DPoP header: RFC 9449, section 4.2.
func (c Config) proof(key *ecdsa.PrivateKey, endpoint string) (string, error) {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{EmbedJWK: true}).WithType("dpop+jwt"))
	if err != nil {
		return "", err
	}
	claims, err := json.Marshal(map[string]any{"htm": http.MethodPost, "htu": endpoint, "iat": c.Now().Unix(), "jti": rand.Text()})
	if err != nil {
		return "", err
	}
	jws, err := signer.Sign(claims)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

// subject reads the ARN from the ID token. It is only displayed, so it is not verified.
func subject(idToken string) (arn, account string, err error) {
	bad := errors.New("the server's answer does not name the person: its idToken has no ARN")
	parts := strings.Split(idToken, ".")
	if len(parts) != 3 {
		return "", "", bad
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Subject string `json:"sub"`
	}
	if err != nil || json.Unmarshal(payload, &claims) != nil {
		return "", "", bad
	}
	fields := strings.SplitN(claims.Subject, ":", 6)
	if len(fields) != 6 || fields[0] != "arn" || len(claims.Subject) > 2048 || strings.ContainsFunc(claims.Subject, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", "", bad
	}
	return claims.Subject, fields[4], nil
}
