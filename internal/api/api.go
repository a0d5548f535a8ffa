// Package api is the AWS-compatible HTTP endpoint: redshift, sts and iam in the
// AWS Query protocol on one listener (docs/api.md; the bytes are those of the
// Redshift API Reference, version 2012-12-01, and of the STS API Reference,
// version 2011-06-15).
//
// Every call goes through the same steps, in Handler.call:
//
//	read       a bounded body, a bounded query
//	who        SigV4, and the session token when there is one
//	what       the action's row, by the credential scope's service, Version, Action
//	may they   every (action, resource) pair that the row names
//	act        validate, find the cluster, make the answer
//	audit      one line, for refused calls too
//	answer     nothing leaves the process before this
//
// If the audit line cannot be written, no credential is handed out. errors.go turns the
// errors of all layers into AWS codes; an error that it does not know becomes
// InternalFailure, and only the log has its cause.
//
// Only caches outlive a call (signing keys, opened session tokens, identity providers'
// keys), and the one-time passwords that were used.
package api

import (
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/iam"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/sigv4"
	"github.com/daypass/daypass/internal/sts"
)

// Config is what a Handler needs. Directory, Keyring and Audit are required.
type Config struct {
	// Directory returns the configuration in force. A call asks when it has its body.
	Directory func() *directory.Directory
	// Keyring returns the keys in force. A call asks when it has its body.
	Keyring func() *keyring.Keyring
	// Audit takes one record per call. A nil error means that the line is
	// written; *audit.Writer keeps that promise.
	Audit Recorder
	// Revocations and Sessions serve the actions of our own service, which is absent
	// without them. Optional, both or neither.
	Revocations Revocations
	Sessions    Sessions
	// TrustedProxies returns the addresses whose X-Forwarded-For and X-Forwarded-Proto
	// are trusted. Optional: none.
	TrustedProxies func() []netip.Prefix
	// ForSignIn reports whether a token with this issuer and audience is for signing in at
	// the browser. AssumeRoleWithWebIdentity refuses such tokens: its caller would choose
	// the session name, and no revocation would reach the sign-in. Optional: by default no
	// token is.
	ForSignIn func(issuer string, audience []string) bool
	// Observe is called after each call has been answered. It must not block. Optional.
	Observe func(CallEvent)
	// Log gets internal errors, with the request id. Optional.
	Log *slog.Logger
	// Now is the clock. Optional: time.Now.
	Now func() time.Time
}

// Recorder writes the audit line of a call before its answer leaves. It returns the length of
// the line, which the caller is charged for.
type Recorder interface {
	Call(*audit.CallRecord) (size int, err error)
}

// Handler answers the API. It is safe for concurrent use.
type Handler struct {
	config  Config
	actions map[actionKey]*action
	// current verifies signatures for the region in force. A reload that changes the
	// region replaces it.
	current atomic.Pointer[sigv4.Verifier]

	pressure *pressure

	sessions   sts.Opener
	mfa        sts.MFA
	identities sts.WebIdentities
	issued     issued

	// nobody is the trust policy that is evaluated for a role that does not exist. It
	// trusts no real caller.
	nobody *iam.Policy
}

// New makes a Handler.
func New(config Config) *Handler {
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.TrustedProxies == nil {
		config.TrustedProxies = func() []netip.Prefix { return nil }
	}
	nobody, err := iam.ParsePolicy(iam.TrustPolicy, "nobody", []byte(`{"Version": "2012-10-17", "Statement": [
		{"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::000000000000:root"}, "Action": "sts:AssumeRole"}]}`))
	if err != nil {
		panic("internal error: " + err.Error())
	}
	h := &Handler{config: config, actions: make(map[actionKey]*action), nobody: nobody, pressure: newPressure()}
	h.identities.Changed = h.logKeys
	for _, a := range actions() {
		if a.service == daypassService && (config.Revocations == nil || config.Sessions == nil) {
			continue
		}
		h.actions[actionKey{a.service, a.name}] = &a
	}
	return h
}

// ServeHTTP answers one HTTP request. Errors are AWS XML, or AWS JSON for a client of
// one of its JSON protocols, never HTML, an empty body or a redirect.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{
		handler: h,
		http:    r,
		writer:  w,
		visitor: visitorOf(r.Context()),
		id:      newRequestID(),
		service: redshiftService,
	}
	c.asOfNow()
	c.mark(&c.began)
	if r.URL.Path != "/" && r.URL.Path != "" {
		awsquery.WriteError(w, redshiftService.namespace, c.id, errNoSuchPath)
		return
	}
	if fromWebPage(r) {
		awsquery.WriteError(w, redshiftService.namespace, c.id, errWebPage)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		w.Header().Set("Allow", "GET, POST")
		awsquery.WriteError(w, redshiftService.namespace, c.id, errMethod)
		return
	}
	defer c.done()
	result, err := c.serve()
	if err == nil {
		c.visitor.Known() // unsigned calls too
	}
	c.mark(&c.acted)
	answer := h.conclude(c, err)
	c.visitor.Served()
	if h.config.Observe != nil {
		defer c.observe(answer)
	}
	if answer != nil {
		if c.denial != "" {
			w.Header().Set(authorizationMessageHeader, c.denial)
		}
		c.writeError(answer)
		return
	}
	awsquery.WriteResult(w, c.service.namespace, c.action.name, c.id, result)
}

// verifier returns the verifier for a region.
func (h *Handler) verifier(region string) *sigv4.Verifier {
	v := h.current.Load()
	if v != nil && v.Region == region {
		return v
	}
	v = &sigv4.Verifier{
		Region:         region,
		Services:       []string{redshiftService.name, stsService.name, iamService.name, daypassService.name},
		GlobalServices: []string{stsService.name, iamService.name},
		GlobalRegion:   iam.GlobalRegion(region),
		Now:            h.config.Now,
	}
	h.current.Store(v)
	return v
}

// newRequestID makes a random UUID, version 4.
func newRequestID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	var text [36]byte
	hex.Encode(text[0:8], b[0:4])
	hex.Encode(text[9:13], b[4:6])
	hex.Encode(text[14:18], b[6:8])
	hex.Encode(text[19:23], b[8:10])
	hex.Encode(text[24:36], b[10:16])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return string(text[:])
}
