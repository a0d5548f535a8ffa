package signin

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"
)

// The error codes of AWS's model.
const (
	errTokenExpired       = "TOKEN_EXPIRED"
	errCodeExpired        = "AUTHCODE_EXPIRED"
	errCredentialsChanged = "USER_CREDENTIALS_CHANGED"
	errNoPermission       = "INSUFFICIENT_PERMISSIONS"
	errInvalidRequest     = "INVALID_REQUEST"
	errServer             = "server_error"
)

// tokenError is an error that /v1/token answers.
type tokenError struct {
	status  int
	code    string
	message string
}

// tokenRequest is CreateOAuth2TokenRequestBody.
type tokenRequest struct {
	ClientID     string `json:"clientId"`
	GrantType    string `json:"grantType"`
	Code         string `json:"code"`
	RedirectURI  string `json:"redirectUri"`
	CodeVerifier string `json:"codeVerifier"`
	RefreshToken string `json:"refreshToken"`
	DeviceCode   string `json:"deviceCode"` // not in AWS's model
}

// tokenAnswer is CreateOAuth2TokenResponseBody.
type tokenAnswer struct {
	AccessToken struct {
		AccessKeyID     string `json:"accessKeyId"`
		SecretAccessKey string `json:"secretAccessKey"`
		SessionToken    string `json:"sessionToken"`
	} `json:"accessToken"`
	TokenType    string `json:"tokenType"`
	ExpiresIn    int    `json:"expiresIn"`
	RefreshToken string `json:"refreshToken"`
	IDToken      string `json:"idToken,omitempty"`
}

const (
	grantCode    = "authorization_code"
	grantRefresh = "refresh_token"
)

// token is the operation CreateOAuth2Token.
func (e *exchange) token() {
	var in tokenRequest
	if !e.readJSON(2*maxSealed, &in) {
		return
	}
	answer, refused := e.exchangeToken(&in)
	if refused != nil {
		e.tokenError(refused)
		return
	}
	e.writeJSON(http.StatusOK, answer)
}

func (e *exchange) exchangeToken(in *tokenRequest) (*tokenAnswer, *tokenError) {
	if in.ClientID != sameDevice && in.ClientID != crossDevice {
		return nil, invalid("clientId is not that of a client known here.")
	}
	shown, refused := e.proof(pathToken)
	if refused != nil {
		return nil, refused
	}
	switch in.GrantType {
	case grantCode:
		return e.redeem(in, shown)
	case grantRefresh:
		return e.renew(in, shown)
	case grantDevice:
		return e.pollLogin(in, shown)
	}
	return nil, invalid("grantType must be authorization_code, refresh_token or " + grantDevice + ".")
}

// proof returns the DPoP proof of a request to a path.
func (e *exchange) proof(path string) (*proof, *tokenError) {
	if n := len(e.r.Header.Values("DPoP")); n != 1 {
		return nil, invalid("The header DPoP is required once.")
	}
	shown, err := checkProof(e.r.Header.Get("DPoP"), e.settings.URL+path, e.now)
	if err != nil {
		return nil, invalid(err.Error() + ".")
	}
	return shown, nil
}

func invalid(message string) *tokenError {
	return &tokenError{http.StatusBadRequest, errInvalidRequest, message}
}

// redeem exchanges a code. Only the client that holds the code's verifier learns why the code is
// refused.
func (e *exchange) redeem(in *tokenRequest, shown *proof) (*tokenAnswer, *tokenError) {
	var c code
	if err := unseal(e.keyring, e.now, forCode, in.Code, &c); err != nil {
		return nil, invalid("code is not one of this server's.")
	}
	sum := sha256.Sum256([]byte(in.CodeVerifier))
	if n := len(in.CodeVerifier); n < 43 || n > 128 || subtle.ConstantTimeCompare(sum[:], c.Challenge) != 1 ||
		in.ClientID != c.ClientID || in.RedirectURI != c.Redirect {
		return nil, invalid("code was given to another client.")
	}
	end := time.Unix(c.NotAfter, 0)
	if !e.now.Before(end) {
		return nil, &tokenError{http.StatusUnauthorized, errCodeExpired, "The code has expired. Sign in again."}
	}
	if refused := e.take(c.Identity.Session, shown); refused != nil {
		return nil, refused
	}
	// The code is used up before the keys are made. If making them fails, the client signs
	// in again.
	switch err := e.config.UseOnce(e.r.Context(), c.ID, end); {
	case errors.Is(err, ErrUsed):
		e.config.Log.WarnContext(e.r.Context(), "signing in: a code was sent twice", "session", c.Identity.Session, "client", e.config.Authority.Source(e.r))
		return nil, &tokenError{http.StatusUnauthorized, errCodeExpired, "The code has been used. Sign in again."}
	case err != nil:
		e.config.Log.ErrorContext(e.r.Context(), "signing in: using a code", "err", err)
		return nil, &tokenError{http.StatusServiceUnavailable, errServer, "The registry cannot be written at the moment. Try again."}
	}
	return e.issue(&refresh{Identity: c.Identity, Role: c.Role, RoleID: c.RoleID, ClientID: c.ClientID, Key: shown.key,
		NotAfter: c.Identity.Since + int64(e.settings.Duration/time.Second)}, grantCode)
}

// ErrUsed is what Config.UseOnce returns for a code that has been used.
var ErrUsed = errors.New("signin: the code has been used")

// renew exchanges a refresh token. The token may be used any number of times, because several
// clients share one file.
func (e *exchange) renew(in *tokenRequest, shown *proof) (*tokenAnswer, *tokenError) {
	var t refresh
	if err := unseal(e.keyring, e.now, forRefresh, in.RefreshToken, &t); err != nil {
		return nil, &tokenError{http.StatusUnauthorized, errTokenExpired, "refreshToken is not one of this server's, or its key is gone. Sign in again."}
	}
	if in.ClientID != t.ClientID || subtle.ConstantTimeCompare(t.Key, shown.key) != 1 {
		return nil, invalid("refreshToken was given to another client.")
	}
	if refused := e.take(t.Identity.Session, shown); refused != nil {
		return nil, refused
	}
	return e.issue(&t, grantRefresh)
}

// take counts a request of a person and uses its proof up.
func (e *exchange) take(session string, shown *proof) *tokenError {
	if !e.people.Take(session, 0, e.now) {
		return &tokenError{http.StatusTooManyRequests, errInvalidRequest, "You sent too many requests at once. Try again in a minute."}
	}
	if err := e.proofs.use(shown, e.now); err != nil {
		return invalid(err.Error() + ".")
	}
	return nil
}

// issue evaluates the policies and issues the keys. t is the refresh token that is sent with
// them.
func (e *exchange) issue(t *refresh, grant string) (*tokenAnswer, *tokenError) {
	// A limit that was lowered in the meantime applies to people who are signed in, too.
	t.NotAfter = min(t.NotAfter, t.Identity.Since+int64(e.settings.Duration/time.Second))
	left := time.Unix(t.NotAfter, 0).Sub(e.now)
	if left < time.Second {
		return nil, &tokenError{http.StatusUnauthorized, errTokenExpired, "The sign-in has ended after " + e.settings.Duration.String() + ". Sign in again."}
	}
	who, err := e.again(&t.Identity)
	if err != nil {
		return nil, &tokenError{http.StatusForbidden, errCredentialsChanged, "The identity provider is not the one to sign in at any more. Sign in again."}
	}
	keys, err := e.config.Authority.Assume(e.r, who, Assumption{Role: t.Role, ID: t.RoleID, Lifetime: left, ClientID: t.ClientID, GrantType: grant})
	var refusal *Refusal
	switch {
	case errors.As(err, &refusal):
		return nil, e.refusalAnswer(refusal)
	case err != nil:
		e.config.Log.ErrorContext(e.r.Context(), "signing in", "err", err)
		return nil, &tokenError{http.StatusInternalServerError, errServer, "Signing in has failed because of an internal error."}
	}
	answer := &tokenAnswer{TokenType: "aws_sigv4", ExpiresIn: int(keys.Expiration.Sub(e.now) / time.Second)}
	answer.AccessToken.AccessKeyID = keys.AccessKeyID
	answer.AccessToken.SecretAccessKey = keys.Secret.Reveal()
	answer.AccessToken.SessionToken = keys.Token.Reveal()
	if answer.RefreshToken, err = seal(e.keyring, e.now, forRefresh, t); err != nil {
		e.config.Log.ErrorContext(e.r.Context(), "signing in", "err", err)
		return nil, &tokenError{http.StatusInternalServerError, errServer, "Signing in has failed because of an internal error."}
	}
	if grant != grantRefresh {
		answer.IDToken = unsignedToken(keys.ARN, e.settings.URL, e.now, t.NotAfter)
	}
	return answer, nil
}

func (e *exchange) refusalAnswer(r *Refusal) *tokenError {
	switch r.Kind {
	case SignedOut:
		return &tokenError{http.StatusForbidden, errCredentialsChanged, r.Message}
	case TooMany:
		return &tokenError{http.StatusTooManyRequests, errInvalidRequest, r.Message}
	case Unavailable:
		return &tokenError{http.StatusServiceUnavailable, errServer, r.Message}
	}
	return &tokenError{http.StatusForbidden, errNoPermission, r.Message}
}

// unsignedToken tells the client who is signed in. Clients read the subject and cannot verify a
// signature. A token that comes straight from the token endpoint needs no signature (OpenID Connect
// Core 1.0, section 2), and this server never accepts such a token.
func unsignedToken(subject, issuer string, now time.Time, end int64) string {
	payload, err := json.Marshal(map[string]any{"sub": subject, "iss": issuer, "iat": now.Unix(), "exp": end})
	if err != nil {
		panic("internal error: " + err.Error())
	}
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"none"}`)) + "." + encode(payload) + "."
}

// tokenError answers with an error of AWS's API model.
func (e *exchange) tokenError(t *tokenError) {
	exception := "AccessDeniedException"
	switch {
	case t.status == http.StatusTooManyRequests:
		exception = "TooManyRequestsError"
	case t.status >= 500:
		exception = "InternalServerException"
	case t.code == errInvalidRequest:
		exception = "ValidationException"
	}
	e.w.Header().Set("X-Amzn-ErrorType", exception)
	e.writeJSON(t.status, map[string]string{"error": t.code, "message": t.message})
}

func (e *exchange) writeJSON(status int, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		panic("internal error: " + err.Error())
	}
	e.w.Header().Set("Content-Type", "application/json")
	e.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	e.w.WriteHeader(status)
	_, _ = e.w.Write(body) // a client that is gone needs no answer
}
