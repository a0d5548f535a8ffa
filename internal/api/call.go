package api

import (
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/admission"
	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/sigv4"
	"github.com/daypass/daypass/internal/sts"
	"github.com/daypass/daypass/internal/throttle"
)

// call is one API call in progress. Each step sets what the next one needs.
type call struct {
	handler *Handler
	http    *http.Request
	writer  http.ResponseWriter
	visitor *admission.Visitor // the connection, as the listener's bounds know it
	id      string             // the request id

	// The configuration and the time stay the same for the whole call.
	directory *directory.Directory
	keyring   *keyring.Keyring
	now       time.Time
	source    source

	service *service // determines the error format; redshift until known
	query   *awsquery.Request
	foreign string // the service that the request is signed for, if it is not one of ours
	// claim is the signature as it was read, not verified. If claimErr is set, there is none.
	claim    sigv4.Claim
	claimErr error
	claimed  string  // access key id in the request, not verified; empty if it has no valid form
	caller   *Caller // nil until authenticated, and for unsigned actions
	action   *action // nil until found
	// federated is the caller of an unsigned action, once the token is verified.
	federated *audit.Identity
	// fromConsole is true if a page of the console makes the call.
	fromConsole bool
	// hiding: the call is explained to its caller, who must not learn what exists.
	hiding bool
	// mfaChecked is true if the call carried a correct one-time password.
	mfaChecked bool
	// denial is the sealed message for DecodeAuthorizationMessage, after an
	// AccessDenied.
	denial string

	gate *throttle.Gate // where the call has a place; nil if it has none
	// unrecorded: the call was refused by a limit before anything was done.
	unrecorded bool
	charged    []account // for the audit line
	leaves     []func()  // release the call's places and counts
	// subject identifies the holder of a verified web identity token, for the limits.
	subject                               string
	began, authenticated, acted, recorded time.Time // zero without Config.Observe

	// taken: credentials were revoked, even if that cannot be recorded.
	taken bool

	// For the audit line.
	request      []audit.Field
	response     []audit.Field
	decisions    []audit.Decision
	credentialID string
	line         audit.CallRecord // set by auditRecord

	// space is for the lists of a usual call, so that they take no memory of their own.
	space struct {
		leaves    [3]func()
		charged   [2]account
		request   [8]audit.Field
		response  [3]audit.Field
		decisions [8]audit.Decision
	}
}

// serve runs the call up to its result. It writes nothing to the client.
func (c *call) serve() (result awsquery.Result, err error) {
	defer func() {
		if v := recover(); v != nil {
			result, err = nil, &panicError{v, debug.Stack()}
		}
	}()
	c.source = sourceOf(c.http, c.handler.config.TrustedProxies())
	if err := c.admitAddress(); err != nil {
		return nil, err
	}
	body, err := c.readBody()
	if err != nil {
		return nil, err
	}
	c.asOfNow()
	c.visitor.Serve()
	if err := c.enter(c.handler.pressure.work); err != nil {
		return nil, err
	}
	defer c.leave()
	query, malformed := awsquery.Parse(c.http, body)
	if malformed == nil {
		c.query = query
		if c.claimed == "" && query.Version == stsService.version {
			c.service = stsService // for the error format
		}
	}
	if malformed == nil && c.findUnsigned() {
		c.leave()
		token, _, _ := c.query.Params.String("WebIdentityToken")
		if err := c.enter(c.handler.pressure.outside.gate(c.directory, token)); err != nil {
			return nil, err
		}
		return c.action.run(c)
	}
	if err := c.authenticate(body); err != nil {
		return nil, err
	}
	c.mark(&c.authenticated)
	if err := c.admitPrincipal(); err != nil {
		return nil, err
	}
	if malformed != nil {
		return nil, malformed
	}
	if err := c.findAction(); err != nil {
		return nil, err
	}
	return c.action.run(c)
}

// asOfNow takes the time, the configuration and the keys that decide about the call. They are taken
// anew when the body has arrived, which takes as long as the client likes, up to half a minute.
func (c *call) asOfNow() {
	c.directory, c.keyring, c.now = c.handler.config.Directory(), c.handler.config.Keyring(), c.handler.config.Now()
}

// authenticate finds the caller by the signature.
func (c *call) authenticate(body []byte) error {
	if c.claimErr != nil {
		return c.claimErr
	}
	var candidate *Caller
	signature, err := c.handler.verifier(c.directory.Region).VerifyClaim(c.claim, c.http, body, c.lookup(&candidate))
	if err != nil {
		return err
	}
	c.service, _ = serviceByName(signature.Service)
	c.caller = candidate
	c.visitor.Known()
	return nil
}

// findAction finds the row of the table. Version has to be that of the service that the
// request is signed for.
func (c *call) findAction() error {
	if c.query.Action == "" {
		return errMissingAction
	}
	a, ok := c.handler.actions[actionKey{c.service, c.query.Action}]
	if !ok || c.query.Version != c.service.version {
		return errInvalidAction(c.query.Action, c.query.Version)
	}
	c.action = a
	return c.sessionMay()
}

// findUnsigned finds the row of an action without a signature, which is authenticated
// by a parameter. A signature on such a call is ignored, as at AWS.
func (c *call) findUnsigned() bool {
	a, ok := c.handler.actions[actionKey{stsService, c.query.Action}]
	if !ok || !a.unsigned || c.query.Version != stsService.version {
		return false
	}
	c.service, c.action = stsService, a
	return true
}

// sessionMay refuses what sessions of GetSessionToken may not do, whatever policies
// allow (STS API Reference, GetSessionToken).
func (c *call) sessionMay() error {
	s := c.caller.Session
	if s == nil || s.Kind != sts.UserSession {
		return nil
	}
	switch {
	case c.service == stsService && c.action.name != "AssumeRole" && c.action.name != "GetCallerIdentity":
		return errAccessDenied("Cannot call " + c.action.name + " with session credentials")
	case c.service == iamService && s.MFA.IsZero():
		return errAccessDenied("Cannot call IAM with session credentials that MFA was not used for")
	}
	return nil
}

// conclude records a call that has been carried out or has failed with err. It returns the answer to
// a call that failed or could not be recorded, or nil.
func (h *Handler) conclude(c *call, err error) (answer *awsquery.Error) {
	if err != nil {
		answer = h.translate(c, err)
	}
	if record := c.auditRecord(answer, err); !c.unrecorded && c.mayRecord(record) {
		if errors.Is(err, sigv4.ErrSignature) {
			h.config.Log.InfoContext(c.http.Context(), "signature does not match", "request", c.id, "access_key", c.claimed,
				"client", c.source.address, "host", clip(c.http.Host, 255))
		}
		if err := c.record(record); err != nil {
			h.config.Log.ErrorContext(c.http.Context(), "audit line not written, call refused",
				"request", c.id, "taken_back", c.taken, "err", err)
			if answer = errNoAudit; c.taken {
				answer = errUnrecorded
			}
		}
	}
	c.mark(&c.recorded)
	return answer
}

// auditRecord returns the call's line for the audit log. answer is nil if the call
// succeeded; cause is the error behind answer.
func (c *call) auditRecord(answer *awsquery.Error, cause error) *audit.CallRecord {
	record := &c.line
	*record = audit.CallRecord{
		Time:        c.now,
		EventSource: c.service.source,
		Region:      c.directory.Region,
		AccountID:   c.directory.Account,
		RequestID:   c.id,
		Identity:    c.identity(),
		Source:      c.source.address,
		UserAgent:   clip(c.http.UserAgent(), 512),
		TLS:         audit.TLSDetails(c.http.TLS),
		Request:     c.request,
		Decisions:   c.decisions,
		FromConsole: c.fromConsole,
	}
	switch {
	case c.action != nil:
		record.EventName, record.ReadOnly = c.action.name, c.action.readOnly
	case c.query == nil:
	case isAction(c.query.Action):
		record.EventName = c.query.Action
	default:
		record.Request = append(record.Request, audit.Omitted("action", len(c.query.Action)))
	}
	if answer == nil {
		record.Response, record.CredentialID = c.response, c.credentialID
		return record
	}
	record.ErrorCode, record.ErrorMessage = answer.Code, clip(answer.Message, 512)
	if c.foreign != "" && errors.Is(cause, sigv4.ErrScopeService) {
		record.EventSource = c.foreign + ".amazonaws.com"
	}
	// Details that the answer leaves out.
	switch told := error(answer); {
	case errors.Is(cause, sigv4.ErrSignature):
		record.Reason = fmt.Sprintf("%v: the request arrived with Host %.255q, and has to be signed for this one", cause, c.http.Host)
	case answer.Cause != nil:
		record.Reason = clip(answer.Cause.Error(), 512)
	case cause != told:
		record.Reason = clip(cause.Error(), 512)
	}
	return record
}

// clip shortens a text that may repeat the caller's input, for the audit log.
func clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "")
}
