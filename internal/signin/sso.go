package signin

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/keyring"
)

// This file, ssotoken.go, device.go and portal.go are for `aws sso login` and profiles with an
// sso-session:
//
//	client    sends  POST /client/register         its name: an ID and a secret
//	client    opens  GET /authorize                as for aws login, or, on a machine without a browser,
//	client    sends  POST /device_authorization    and shows a code, for /device in any browser
//	client    sends  POST /token                   its code: an access token and a refresh token
//	client    sends  GET /federation/credentials   access token, IAM role: keys
//
// The access token stands for the person. Which IAM roles they may have is decided for each
// request for keys. Registrations are sealed in the client's ID, and not stored.
const (
	pathSSOAuthorize = "/authorize"
	pathRegister     = "/client/register"
	pathDeviceCode   = "/device_authorization"
	pathSSOToken     = "/token"
)

const (
	// registrationLifetime is the least time for which the keys that sealed a registration are kept
	// after a rotation. Clients keep registrations for that long too.
	registrationLifetime = keyring.SessionLifetime

	accountScope = "sso:account:access"

	grantDevice = "urn:ietf:params:oauth:grant-type:device_code"

	maxName = 64

	maxOIDC = 4 * maxSealed // bytes of a request to SSO OIDC
)

// registration is a client of SSO OIDC. Anyone can register, so it proves nothing; codes and
// refresh tokens are bound to it.
type registration struct {
	ID          []byte `cbor:"1,keyasint"`
	Name        string `cbor:"2,keyasint"` // what it calls itself
	Refreshable bool   `cbor:"3,keyasint,omitempty"`
	NotAfter    int64  `cbor:"4,keyasint"`
}

// oidcProblem is an error of SSO OIDC: an exception of AWS's model, and a code of RFC 6749,
// section 5.2, or RFC 8628, section 3.5.
type oidcProblem struct {
	status          int
	exception, code string
	description     string
	logged          error
}

func invalidRequest(description string) *oidcProblem {
	return &oidcProblem{status: http.StatusBadRequest, exception: "InvalidRequestException", code: "invalid_request", description: description}
}

func invalidClient() *oidcProblem {
	return &oidcProblem{status: http.StatusUnauthorized, exception: "InvalidClientException", code: "invalid_client",
		description: "The client was not registered here, or has expired. Remove the files of ~/.aws/sso/cache and sign in again."}
}

func invalidGrant(description string) *oidcProblem {
	return &oidcProblem{status: http.StatusBadRequest, exception: "InvalidGrantException", code: "invalid_grant", description: description}
}

func expiredToken(description string) *oidcProblem {
	return &oidcProblem{status: http.StatusBadRequest, exception: "ExpiredTokenException", code: "expired_token", description: description}
}

func accessDenied(description string) *oidcProblem {
	return &oidcProblem{status: http.StatusBadRequest, exception: "AccessDeniedException", code: "access_denied", description: description}
}

func slowDown(description string) *oidcProblem {
	return &oidcProblem{status: http.StatusBadRequest, exception: "SlowDownException", code: "slow_down", description: description}
}

func serverProblem(description string, err error) *oidcProblem {
	return &oidcProblem{status: http.StatusInternalServerError, exception: "InternalServerException", code: "server_error", description: description, logged: err}
}

// oidcRefusal returns the error for a request that is refused before it is read.
func oidcRefusal(status int, message string) *oidcProblem {
	switch {
	case status == http.StatusTooManyRequests:
		return slowDown(message)
	case status >= 500:
		return serverProblem(message, nil)
	}
	return invalidRequest(message)
}

func (e *exchange) oidcError(p *oidcProblem) {
	if p.logged != nil {
		e.config.Log.ErrorContext(e.r.Context(), "signing in", "err", p.logged)
	}
	e.w.Header().Set("X-Amzn-ErrorType", p.exception)
	// botocore shows message only, which is not in the model.
	e.writeJSON(p.status, map[string]string{"error": p.code, "error_description": p.description, "message": p.description})
}

// register is the operation RegisterClient.
func (e *exchange) register() {
	var in struct {
		ClientName   string   `json:"clientName"`
		ClientType   string   `json:"clientType"`
		Scopes       []string `json:"scopes"`
		RedirectURIs []string `json:"redirectUris"`
		GrantTypes   []string `json:"grantTypes"`
	}
	if !e.readJSON(maxOIDC, &in) {
		return
	}
	if in.ClientName == "" {
		e.oidcError(invalidRequest("clientName is required."))
		return
	}
	if in.ClientType != "public" {
		e.oidcError(&oidcProblem{status: http.StatusBadRequest, exception: "InvalidClientMetadataException", code: "invalid_client_metadata", description: "clientType must be public."})
		return
	}
	for _, scope := range in.Scopes {
		if scope != accountScope {
			e.oidcError(&oidcProblem{status: http.StatusBadRequest, exception: "InvalidScopeException", code: "invalid_scope", description: "scopes must be " + accountScope + "."})
			return
		}
	}
	for _, grant := range in.GrantTypes {
		if grant != grantCode && grant != grantRefresh && grant != grantDevice {
			e.oidcError(&oidcProblem{status: http.StatusBadRequest, exception: "UnsupportedGrantTypeException", code: "unsupported_grant_type",
				description: "grantTypes must be authorization_code, refresh_token or " + grantDevice + "."})
			return
		}
	}
	for _, uri := range in.RedirectURIs {
		// A client may leave the port out, and choose it later: RFC 8252, section 7.3.
		if uri != "http://127.0.0.1/oauth/callback" && !isLoopbackRedirect(uri) {
			e.oidcError(&oidcProblem{status: http.StatusBadRequest, exception: "InvalidRedirectUriException", code: "invalid_redirect_uri",
				description: "redirectUris must be http://127.0.0.1/oauth/callback."})
			return
		}
	}
	end := e.now.Add(registrationLifetime)
	// Without a scope it is a client from before refresh tokens.
	client := registration{ID: newID(), Name: printable(in.ClientName), Refreshable: len(in.Scopes) > 0, NotAfter: end.Unix()}
	id, err := seal(e.keyring, e.now, forClient, client)
	if err == nil {
		var secret string
		if secret, err = seal(e.keyring, e.now, forSecret, client.ID); err == nil {
			e.writeJSON(http.StatusOK, map[string]any{
				"clientId": id, "clientSecret": secret, "clientIdIssuedAt": e.now.Unix(), "clientSecretExpiresAt": end.Unix(),
				"authorizationEndpoint": e.settings.URL + pathSSOAuthorize, "tokenEndpoint": e.settings.URL + pathSSOToken,
			})
			return
		}
	}
	e.oidcError(serverProblem("Registering has failed because of an internal error.", err))
}

// printable returns a stranger's name as a page may show it: short, and with letters, digits and a
// few signs only, so that it cannot be mistaken for our own text.
func printable(name string) string {
	kept := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r) {
			return r
		}
		return '_'
	}, name)
	return kept[:min(len(kept), maxName)]
}

// openClient opens the ID of a registered client.
func (e *exchange) openClient(id string) (*registration, error) {
	var client registration
	if err := unseal(e.keyring, e.now, forClient, id, &client); err != nil {
		return nil, err
	}
	if e.now.Unix() >= client.NotAfter {
		return nil, errSealed
	}
	return &client, nil
}

// authenticate returns the client with this ID and secret.
func (e *exchange) authenticate(id, secret string) (*registration, *oidcProblem) {
	client, err := e.openClient(id)
	var of []byte
	if err != nil || unseal(e.keyring, e.now, forSecret, secret, &of) != nil || !slices.Equal(of, client.ID) {
		return nil, invalidClient()
	}
	return client, nil
}

// authorizeClient starts a sign-in of a registered client in the browser of its machine.
func (e *exchange) authorizeClient() {
	if e.elsewhere() {
		return
	}
	q, err := parseClientRequest(e.r.URL.RawQuery, e.openClient)
	if err != nil {
		e.refuseLink(err)
		return
	}
	e.askForIdentity(q)
}

// ssoCode is the authorization code of a registered client.
type ssoCode struct {
	ID        []byte   `cbor:"1,keyasint"`
	Identity  identity `cbor:"2,keyasint"`
	Client    []byte   `cbor:"3,keyasint"`
	Redirect  string   `cbor:"4,keyasint"`
	Challenge []byte   `cbor:"5,keyasint"`
	NotAfter  int64    `cbor:"6,keyasint"`
}

// clientCode makes the code for a registered client.
func (e *exchange) clientCode(given *consent) (string, error) {
	q := &given.Request
	return seal(e.keyring, e.now, forSSOCode, ssoCode{ID: newID(), Identity: given.Identity, Client: q.Client.ID,
		Redirect: q.Redirect, Challenge: q.Challenge, NotAfter: e.now.Add(codeLifetime).Unix()})
}

// grant is an access token or a refresh token. An access token names no client: anyone who has it
// can use it, as at AWS's portal.
type grant struct {
	ID       []byte   `cbor:"1,keyasint"` // of the sign-in
	Identity identity `cbor:"2,keyasint"`
	Client   []byte   `cbor:"3,keyasint,omitempty"`
	NotAfter int64    `cbor:"4,keyasint"`
}

// end returns the end of the sign-in, after which nothing is issued.
func (e *exchange) end(of *identity) time.Time {
	return time.Unix(of.Since, 0).Add(e.settings.Duration)
}

// endedID returns the id with which UseOnce remembers that a sign-in was ended with Logout.
func endedID(signIn []byte) []byte { return append([]byte("logged out\x00"), signIn...) }
