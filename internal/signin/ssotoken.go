package signin

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"time"

	"github.com/daypass/daypass/internal/sts"
)

// accessLifetime is how long an access token is valid before the client has to refresh it.
const accessLifetime = time.Hour

const signInAgain = "Sign in again."

// createTokenRequest is CreateTokenRequest.
type createTokenRequest struct {
	ClientID     string `json:"clientId"`
	ClientSecret string `json:"clientSecret"`
	GrantType    string `json:"grantType"`
	DeviceCode   string `json:"deviceCode"`
	Code         string `json:"code"`
	RefreshToken string `json:"refreshToken"`
	RedirectURI  string `json:"redirectUri"`
	CodeVerifier string `json:"codeVerifier"`
}

// createToken is the operation CreateToken.
func (e *exchange) createToken() {
	var in createTokenRequest
	if !e.readJSON(maxOIDC, &in) {
		return
	}
	answer, problem := e.grantToken(&in)
	if problem != nil {
		e.oidcError(problem)
		return
	}
	e.writeJSON(http.StatusOK, answer)
}

func (e *exchange) grantToken(in *createTokenRequest) (map[string]any, *oidcProblem) {
	client, p := e.authenticate(in.ClientID, in.ClientSecret)
	if p != nil {
		return nil, p
	}
	switch in.GrantType {
	case grantCode:
		return e.redeemClientCode(client, in)
	case grantDevice:
		return e.poll(client, in)
	case grantRefresh:
		return e.renewAccess(client, in)
	}
	return nil, &oidcProblem{status: http.StatusBadRequest, exception: "UnsupportedGrantTypeException", code: "unsupported_grant_type",
		description: "grantType must be authorization_code, refresh_token or " + grantDevice + "."}
}

// redeemClientCode exchanges a code. Only the client that holds the code's verifier learns why the
// code is refused.
func (e *exchange) redeemClientCode(client *registration, in *createTokenRequest) (map[string]any, *oidcProblem) {
	var c ssoCode
	sum := sha256.Sum256([]byte(in.CodeVerifier))
	if n := len(in.CodeVerifier); unseal(e.keyring, e.now, forSSOCode, in.Code, &c) != nil || n < 43 || n > 128 ||
		subtle.ConstantTimeCompare(sum[:], c.Challenge) != 1 || subtle.ConstantTimeCompare(c.Client, client.ID) != 1 || in.RedirectURI != c.Redirect {
		return nil, invalidGrant("The code is not one of this server's, or was given to another client. " + signInAgain)
	}
	end := time.Unix(c.NotAfter, 0)
	if !e.now.Before(end) {
		return nil, expiredToken("The code has expired. " + signInAgain)
	}
	if !e.people.Take(c.Identity.Session, 0, e.now) {
		return nil, slowDown("You sent too many requests at once. Try again in a minute.")
	}
	switch err := e.config.UseOnce(e.r.Context(), c.ID, end); {
	case errors.Is(err, ErrUsed):
		e.config.Log.WarnContext(e.r.Context(), "signing in: a code was sent twice", "session", c.Identity.Session, "client", e.config.Authority.Source(e.r))
		return nil, invalidGrant("The code has been used. " + signInAgain)
	case err != nil:
		return nil, serverProblem("The registry cannot be written at the moment. Try again.", err)
	}
	return e.grantAccess(client, &grant{ID: c.ID, Identity: c.Identity}, in.GrantType)
}

// renewAccess exchanges a refresh token. It may be used any number of times, because several
// clients share one file.
func (e *exchange) renewAccess(client *registration, in *createTokenRequest) (map[string]any, *oidcProblem) {
	var g grant
	if unseal(e.keyring, e.now, forRenewal, in.RefreshToken, &g) != nil || subtle.ConstantTimeCompare(g.Client, client.ID) != 1 {
		return nil, invalidGrant("The refresh token is not one of this server's, or was given to another client. " + signInAgain)
	}
	if !e.people.Take(g.Identity.Session, 0, e.now) {
		return nil, slowDown("You sent too many requests at once. Try again in a minute.")
	}
	return e.grantAccess(client, &g, in.GrantType)
}

// grantAccess makes the tokens of a sign-in, if the sign-in has not ended.
func (e *exchange) grantAccess(client *registration, g *grant, grantType string) (map[string]any, *oidcProblem) {
	if _, ended, err := e.signedIn(g, Check{"CreateToken", client.Name, grantType}); ended != nil || err != nil {
		var refusal *Refusal
		switch {
		case ended != nil:
			return nil, invalidGrant(ended.Message)
		case errors.As(err, &refusal) && refusal.Kind == TooMany:
			return nil, slowDown(refusal.Message)
		case errors.As(err, &refusal) && refusal.Kind != Unavailable:
			return nil, accessDenied(refusal.Message)
		}
		return nil, serverProblem("Signing in is not possible at the moment. Try again.", err)
	}
	end := e.end(&g.Identity)
	if g.NotAfter != 0 { // a refresh token, whose end stays if the limit was raised in the meantime
		end = time.Unix(min(end.Unix(), g.NotAfter), 0)
	}
	if !e.now.Before(end.Add(-time.Second)) {
		return nil, invalidGrant("The sign-in has ended. " + signInAgain)
	}
	last := end
	if client.Refreshable {
		last = e.now.Add(min(accessLifetime, end.Sub(e.now)))
	}
	access, err := seal(e.keyring, e.now, forAccess, grant{ID: g.ID, Identity: g.Identity, NotAfter: last.Unix()})
	if err != nil {
		return nil, serverProblem("Signing in has failed because of an internal error.", err)
	}
	answer := map[string]any{"accessToken": access, "tokenType": "Bearer", "expiresIn": int(last.Sub(e.now) / time.Second)}
	if client.Refreshable {
		renewal, err := seal(e.keyring, e.now, forRenewal, grant{ID: g.ID, Identity: g.Identity, Client: client.ID, NotAfter: end.Unix()})
		if err != nil {
			return nil, serverProblem("Signing in has failed because of an internal error.", err)
		}
		answer["refreshToken"] = renewal
	}
	return answer, nil
}

// signedIn returns the person of a token. ended tells the client why the sign-in has ended. err is
// an error of another kind.
func (e *exchange) signedIn(g *grant, check Check) (who *sts.Person, ended *Refusal, err error) {
	if end := e.end(&g.Identity); !e.now.Before(end.Add(-time.Second)) {
		return nil, &Refusal{Kind: SignedOut, Message: "The sign-in has ended after " + e.settings.Duration.String() + ". " + signInAgain}, nil
	}
	if who, err = e.again(&g.Identity); err != nil {
		return nil, &Refusal{Kind: SignedOut, Message: "The identity provider is not the one to sign in at any more. " + signInAgain}, nil
	}
	used, err := e.config.Used(e.r.Context(), endedID(g.ID))
	if err != nil {
		return nil, nil, err
	}
	if used {
		return nil, &Refusal{Kind: SignedOut, Message: "The sign-in was ended with a logout. " + signInAgain}, nil
	}
	err = e.config.Authority.SignedIn(e.r, who, check)
	if refusal, ok := errors.AsType[*Refusal](err); ok && refusal.Kind == SignedOut {
		return nil, refusal, nil
	}
	return who, nil, err
}
