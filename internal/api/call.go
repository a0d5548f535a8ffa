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

// call is one API call on its way: each step fills what the next one needs.
type call struct {
	handler *Handler
	http    *http.Request
	writer  http.ResponseWriter
	visitor *admission.Visitor // the connection, as the listener's bounds know it
	id      string             // the request id

	// One configuration and one time from the first check to the last.
	directory *directory.Directory
	keyring   *keyring.Keyring
	now       time.Time
	source    source

	service *service // whose error format it is; redshift until known
	query   *awsquery.Request
	foreign string  // service that the request is signed for, if that is none of ours
	claimed string  // access key id that the request says it is signed with; empty: not a valid one
	caller  *Caller // nil until authenticated, and for unsigned actions
	action  *action // nil until found
	// federated is who an unsigned action found its caller to be.
	federated *audit.Identity
	// mfaChecked says that the call carried a one-time password that is right.
	mfaChecked bool
	// denial is what DecodeAuthorizationMessage explains, when access was denied.
	denial string

	gate *throttle.Gate // where the call has a place; nil: nowhere
	// unrecorded: refused for being too much, before anything was done.
	unrecorded bool
	charged    []account // for the audit line
	leaves     []func()  // give back what the call counts for
	// subject is the key of the holder of a web identity token that is genuine.
	subject                               string
	began, authenticated, acted, recorded time.Time // zero when nobody asks

	// taken: something was taken back, whether or not it can be recorded.
	taken bool

	// For the audit line.
	request      []audit.Field
	response     []audit.Field
	decisions    []audit.Decision
	credentialID string
}

// serve takes the call from the wire to its result. It writes nothing.
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
	c.visitor.Serve()
	if err := c.enter(c.handler.pressure.work); err != nil {
		return nil, err
	}
	defer c.leave()
	query, malformed := awsquery.Parse(c.http, body)
	if malformed == nil {
		c.query = query
		if c.claimed == "" && query.Version == stsService.version {
			c.service = stsService // so that it gets its answer in its own form
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

// authenticate finds the caller by the signature.
func (c *call) authenticate(body []byte) error {
	var candidate *Caller
	signature, err := c.handler.verifier(c.directory.Region).Verify(c.http, body, c.lookup(&candidate))
	if err != nil {
		return err
	}
	c.service, _ = serviceByName(signature.Service)
	c.caller = candidate
	c.visitor.Known()
	return nil
}

// findAction finds the row of the table. The service is the one that was signed
// for; the version has to be that service's.
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

// findUnsigned finds the row of an action that carries its proof in a parameter. A
// signature on such a call is not looked at, as at AWS.
func (c *call) findUnsigned() bool {
	a, ok := c.handler.actions[actionKey{stsService, c.query.Action}]
	if !ok || !a.unsigned || c.query.Version != stsService.version {
		return false
	}
	c.service, c.action = stsService, a
	return true
}

// sessionMay keeps sessions of GetSessionToken from what they may not do, whatever
// policies say (STS API Reference, GetSessionToken).
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

// auditRecord is the call's line in the audit log. answer is nil when the call
// succeeded; cause is what answer was made of.
func (c *call) auditRecord(answer *awsquery.Error, cause error) audit.CallRecord {
	record := audit.CallRecord{
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
	// What the caller was told less of than is known.
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

// clip cuts what is written to the audit log and may repeat what a caller sent.
func clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "")
}
