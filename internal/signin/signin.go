// Package signin is where people sign in with their company's account (docs/people.md). It
// serves, beside the API and at its address,
//
//   - pages, for a browser: an OpenID Connect client of one of the configured identity
//     providers (OpenID Connect Core 1.0, section 3.1: authorization code with PKCE,
//     RFC 7636, state and nonce);
//   - the sign-in service of AWS (botocore's model signin/2023-01-01), for `aws login` and
//     the login providers of the SDKs: OAuth 2.0 with PKCE, and keys bound to a key of the
//     client's with DPoP (RFC 9449);
//   - SSO OIDC and the portal of IAM Identity Center (botocore's models sso-oidc/2019-06-10 and
//     sso/2019-06-10), for `aws sso login` and profiles with an sso-session: see sso.go.
//
// The steps of a sign-in:
//
//	client    opens  GET /v1/authorize          with its challenge and a loopback address
//	browser   goes to the provider              state: all of the request, sealed; a cookie
//	provider  sends it to /sign-in/callback     code, state
//	we        ask the provider for the ID token, decide on the IAM roles, show a page
//	browser   sends  POST /sign-in/continue     the chosen role, and the identity, sealed
//	browser   goes to the client's address      our code: the identity and the role, sealed
//	client    sends  POST /v1/token             code, verifier, DPoP: keys and a refresh token
//	client    sends  POST /v1/token             refresh token, DPoP: new keys
//
// A machine without a browser shows a code instead (device.go, logindevice.go).
//
// A sign-in to the console begins at /sign-in/console and ends with a cookie instead of a code
// (session.go).
//
// Between these steps the registry stores only the used codes (device.go describes what else it
// stores while a device waits for a browser). All other state travels with the requests. The
// keyring seals it for its step, and it is bound to the browser by a cookie, to the client by its
// challenge, and to the client's key by the key's thumbprint. Authority decides who may have
// which IAM role.
package signin

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/admission"
	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/sts"
	"github.com/daypass/daypass/internal/throttle"
)

// Settings are the settings of sign-ins in the configuration.
type Settings struct {
	URL          string // of the API as browsers and clients reach it, without a path
	Issuer       string // of the provider that people sign in at
	ClientID     string // ours, at the provider
	ClientSecret keyring.Secret
	Scopes       []string
	SessionClaim string        // the claim that the role session is named after
	Duration     time.Duration // of a sign-in, at most keyring.SignInLifetime
	Console      bool          // people may sign in to the console
}

// Role is an IAM role of the sign-in page, and whether the person may assume it.
type Role struct {
	Name, ID string
	Open     bool
	Unmet    []string // condition keys that keep the person out
}

// Keys are temporary access keys of a role session.
type Keys struct {
	sts.Credentials
	ARN string // of the role session
}

// Authority decides which IAM roles a person may have, enforces the limits and writes the
// record. Its errors are *Refusal.
type Authority interface {
	// Roles returns the IAM roles whose trust policy names the person's provider.
	Roles(r *http.Request, who *sts.Person) ([]Role, error)
	// Assume issues keys for a role that the person may assume.
	Assume(*http.Request, *sts.Person, Assumption) (*Keys, error)
	// SignedIn returns an error if a revocation has ended the sign-in of a person for all of
	// their roles.
	SignedIn(*http.Request, *sts.Person, Check) error
	// Enter decides whether a person may enter the console with an IAM role, and records it.
	Enter(*http.Request, *Session) error
	// Verify checks a token of a provider.
	Verify(r *http.Request, token string) (*sts.WebIdentity, error)
	// Attend keeps the client's connection from being closed while the server works on the
	// request. Call the function that it returns when the work is done.
	Attend(r *http.Request) func()
	// Source is the client's address.
	Source(r *http.Request) netip.Addr
}

// Assumption is a request for keys, for Authority.Assume.
type Assumption struct {
	// Role and ID are the IAM role's name and id.
	Role, ID string
	Lifetime time.Duration // of the keys, at most
	// ClientID and GrantType are for the record.
	ClientID, GrantType string
	// Portal means that the person has signed in for all IAM roles that let them in, and
	// names one of them now, whatever its ID.
	Portal bool
}

// Check is a question for Authority.SignedIn.
type Check struct {
	Event string // the operation
	// ClientName and GrantType are for the record. Without a GrantType, only a refusal is
	// recorded.
	ClientName, GrantType string
}

// Refusal is why an Authority refuses a request.
type Refusal struct {
	Kind    RefusalKind
	Message string // for the person
}

func (r *Refusal) Error() string { return r.Message }

// RefusalKind is the kind of a Refusal.
type RefusalKind int

// The kinds of refusals.
const (
	Denied      RefusalKind = iota // by policies
	SignedOut                      // by a revocation
	TooMany                        // by a limit
	Unavailable                    // for now
)

// Config configures a Handler. All fields are required.
type Config struct {
	// Settings returns the settings in force, or nil if sign-in is not configured.
	Settings  func() *Settings
	Directory func() *directory.Directory
	Keyring   func() *keyring.Keyring
	Authority Authority
	// UseOnce marks a code as used, on all servers. It returns nil the first time and ErrUsed
	// after that.
	UseOnce func(ctx context.Context, id []byte, until time.Time) error
	// Used reports whether UseOnce has marked an id, on any server.
	Used func(ctx context.Context, id []byte) (bool, error)
	// Rendezvous changes the value that all servers keep under id until the given time. change
	// is given the present value, or nil, and returns nil to leave it. It may be called
	// several times; the last call counts.
	Rendezvous func(ctx context.Context, id []byte, until time.Time, change func([]byte) []byte) error
	Log        *slog.Logger
	Now        func() time.Time
}

// Handler answers the requests of sign-ins. Safe for concurrent use.
type Handler struct {
	config    Config
	addresses *throttle.Keys[netip.Addr]
	asking    *throttle.Keys[netip.Addr] // of requests that need the provider
	people    *throttle.Keys[string]     // by session name
	outside   *throttle.Gate             // requests that wait for the provider
	polls     *throttle.Keys[string]     // of devices, by their codes
	typed     *throttle.Keys[string]     // user codes, by session name
	meetings  *throttle.Gate             // look-ups of user codes by devices
	lookers   *throttle.Gate             // pages that wait for a device
	providers providers
	patience  time.Duration // with each exchange with the provider
	proofs    proofs
}

// perAddress limits the requests of one address. It leaves room for an office behind one
// address: a thousand people who refresh every 15 minutes make about one request a second.
var perAddress = throttle.Limit{Rate: 20, Burst: 600, Concurrent: 64}

// perAsking limits the requests to the provider that one address causes. No account is needed to
// cause them, but a stranger must not use up the provider's own limits, or the few places for
// waiting requests.
var perAsking = throttle.Limit{Rate: 4, Burst: 200, Concurrent: outsidePlaces / 4}

// perPerson limits the codes and refresh tokens that one person exchanges. Each exchange
// takes memory for its proof, and each code takes a record in the registry.
var perPerson = throttle.Limit{Rate: 1, Burst: 300}

// outsidePlaces is how many requests may wait for the provider at a time.
const outsidePlaces = 32

// New makes a Handler.
func New(config Config) *Handler {
	return &Handler{
		config:    config,
		addresses: throttle.NewKeys[netip.Addr](perAddress, 1<<16),
		asking:    throttle.NewKeys[netip.Addr](perAsking, 1<<16),
		people:    throttle.NewKeys[string](perPerson, 1<<16),
		patience:  providerTimeout,
		outside:   throttle.NewGate(outsidePlaces, outsidePlaces, time.Second),
		polls:     throttle.NewKeys[string](perDevice, 1<<16),
		typed:     throttle.NewKeys[string](perTyping, 1<<16),
		meetings:  throttle.NewGate(16, 256, 2*time.Second),
		lookers:   throttle.NewGate(64, 64, time.Second),
	}
}

// The paths of sign-ins. AWS's clients expect the ones under /v1.
const (
	pathAuthorize    = "/v1/authorize"
	pathToken        = "/v1/token"
	pathLoginDevice  = "/v1/device_authorization"
	pathConfirmation = "/v1/sessions/confirmation"
	pathCallback     = "/sign-in/callback"
	pathContinue     = "/sign-in/continue"
	pathStyle        = "/sign-in/style.css"
	pathEnter        = "/sign-in/console"
)

// route is how a path is answered.
type route struct {
	method string
	format format
	answer func(*exchange)
}

// format is the form of an error.
type format int

const (
	asPage   format = iota
	asSignIn        // of AWS's sign-in service
	asOIDC          // of SSO OIDC
	asPortal        // of the portal
)

var routes = map[string]route{
	pathAuthorize:    {http.MethodGet, asPage, (*exchange).authorize},
	pathCallback:     {http.MethodGet, asPage, (*exchange).callback},
	pathContinue:     {http.MethodPost, asPage, (*exchange).proceed},
	pathConfirmation: {http.MethodGet, asPage, (*exchange).confirmation},
	pathStyle:        {http.MethodGet, asPage, (*exchange).style},
	pathEnter:        {http.MethodGet, asPage, (*exchange).enter},
	pathToken:        {http.MethodPost, asSignIn, (*exchange).token},
	pathLoginDevice:  {http.MethodPost, asSignIn, (*exchange).startLogin},

	pathSSOAuthorize: {http.MethodGet, asPage, (*exchange).authorizeClient},
	pathRegister:     {http.MethodPost, asOIDC, (*exchange).register},
	pathDeviceCode:   {http.MethodPost, asOIDC, (*exchange).startDevice},
	pathSSOToken:     {http.MethodPost, asOIDC, (*exchange).createToken},
	pathDevice:       {http.MethodGet, asPage, (*exchange).device},
	pathDeviceLook:   {http.MethodPost, asPage, (*exchange).lookUp},
	pathDeviceAnswer: {http.MethodPost, asPage, (*exchange).answerDevice},
	pathCredentials:  {http.MethodGet, asPortal, (*exchange).roleCredentials},
	pathAccounts:     {http.MethodGet, asPortal, (*exchange).listAccounts},
	pathRoles:        {http.MethodGet, asPortal, (*exchange).listRoles},
	pathLogout:       {http.MethodPost, asPortal, (*exchange).logout},
}

// Before serves the paths of sign-ins, and passes other requests to next.
func (h *Handler) Before(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.URL.Path) > 1 && h.serve(w, r) {
			return
		}
		next.ServeHTTP(w, r)
	})
}

// exchange is one request in progress. It uses the same configuration throughout: that of the
// moment at which its body has arrived (receive).
type exchange struct {
	*Handler
	w         http.ResponseWriter
	r         *http.Request
	settings  *Settings
	directory *directory.Directory
	keyring   *keyring.Keyring
	now       time.Time
	format    format
	retry     string // the next step for someone whose sign-in failed
}

// exchange begins to answer a request. It returns nil if sign-in is not configured.
func (h *Handler) exchange(w http.ResponseWriter, r *http.Request) *exchange {
	e := &exchange{Handler: h, w: w, r: r, retry: runAgain}
	if !e.asOfNow() {
		return nil
	}
	return e
}

// asOfNow takes the time, the configuration and the keys that decide about the request. It changes
// nothing and returns false if sign-in is not configured.
func (e *exchange) asOfNow() bool {
	settings := e.config.Settings()
	if settings == nil {
		return false
	}
	e.settings, e.directory, e.keyring, e.now = settings, e.config.Directory(), e.config.Keyring(), e.config.Now()
	return true
}

// receive reads the body, of at most most bytes. After that the request is decided as of now: a
// body may take half a minute to arrive. If receive returns false, it has already answered the
// client. It tells about a body that does not arrive whole with problem and next, as refuse does.
func (e *exchange) receive(most int64, problem, next string) ([]byte, bool) {
	body, err := io.ReadAll(http.MaxBytesReader(e.w, e.r.Body, most))
	switch {
	case !e.asOfNow():
		e.refuse(http.StatusForbidden, "The configuration has changed meanwhile: people can no longer sign in here.", askAdmin)
		return nil, false
	case err != nil:
		e.refuse(http.StatusBadRequest, problem, next)
		return nil, false
	}
	return body, true
}

// readJSON reads a body of at most most bytes. If it returns false, it has already answered the
// client.
func (e *exchange) readJSON(most int64, into any) bool {
	const malformed = "The body must be a JSON object, as the AWS CLI and SDKs send it."
	body, ok := e.receive(most, malformed, "")
	if ok && json.Unmarshal(body, into) != nil {
		e.refuse(http.StatusBadRequest, malformed, "")
		ok = false
	}
	return ok
}

// serve answers the request if its path is one of ours, and reports whether it did.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request) bool {
	route, ok := routes[r.URL.Path]
	if !ok {
		return false
	}
	e := h.exchange(w, r)
	if e == nil || r.URL.Path == pathEnter && !e.settings.Console {
		return false
	}
	e.format = route.format
	e.setHeaders()
	if r.Method != route.method {
		w.Header().Set("Allow", route.method)
		e.refuse(http.StatusMethodNotAllowed, "This address takes "+route.method+" requests only.", "")
		return true
	}
	// Another site's page cannot send the headers of our clients without a preflight request,
	// which gets no answer.
	if site := r.Header.Get("Sec-Fetch-Site"); route.format != asPage && (r.Header.Get("Origin") != "" || site != "" && site != "none") {
		e.refuse(http.StatusForbidden, "Requests from web pages are not accepted.", "")
		return true
	}
	address := admission.Network(h.config.Authority.Source(r))
	pass, verdict := h.addresses.Enter(address, e.now)
	if verdict != throttle.Admitted {
		e.crowded()
		return true
	}
	defer h.addresses.Leave(address, pass)
	route.answer(e)
	return true
}

// crowded refuses an address that is over its limit.
func (e *exchange) crowded() {
	e.refuse(http.StatusTooManyRequests, "There are too many requests from your network at once.", "Wait a minute, then try again.")
}

// setHeaders sets the headers of every answer: it may not be cached, framed or read by other
// sites, and our pages load nothing but the style sheet.
func (e *exchange) setHeaders() {
	header := e.w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Security-Policy", contentPolicy("'self'"))
	header.Set("X-Frame-Options", "DENY")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
}

// contentPolicy returns a Content-Security-Policy that lets the page's form lead to the sources
// in forms.
func contentPolicy(forms string) string {
	return "default-src 'none'; style-src 'self'; form-action " + forms + "; frame-ancestors 'none'; base-uri 'none'"
}

// refuse answers with an error page, or an error of the API that the path belongs to.
func (e *exchange) refuse(status int, problem, next string) {
	message := strings.TrimSpace(problem + " " + next)
	switch {
	case e.format == asPage:
		e.show(status, "problem", problemPage{Problem: problem, Next: next})
	case e.format == asOIDC:
		e.oidcError(oidcRefusal(status, message))
	case e.format == asPortal:
		e.portalError(status, message)
	case status >= 500:
		e.tokenError(&tokenError{status, errServer, message})
	default:
		e.tokenError(&tokenError{status, errInvalidRequest, message})
	}
}

// secure reports whether browsers use TLS. Without TLS, only loopback addresses are allowed.
func (s *Settings) secure() bool { return strings.HasPrefix(s.URL, "https://") }

// host returns the Host header of requests to URL.
func (s *Settings) host() string {
	scheme, host, _ := strings.Cut(s.URL, "://")
	if scheme == "https" {
		return strings.TrimSuffix(host, ":443")
	}
	return strings.TrimSuffix(host, ":80")
}
