package api

import (
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/iam"
	"github.com/daypass/daypass/internal/registry"
	"github.com/daypass/daypass/internal/sigv4"
	"github.com/daypass/daypass/internal/sts"
)

// This file implements the interface that package signin calls: the decisions of
// AssumeRoleWithWebIdentity for people who signed in at an identity provider, under the same
// limits and with the same record.

// signInKeys is the lifetime of the keys of someone who has signed in. They are refreshed,
// and the policies are evaluated again, for as long as the sign-in lasts.
const signInKeys = 15 * time.Minute

// SignInRole is an IAM role whose trust policy names the person's identity provider.
type SignInRole struct {
	Name, ID string
	Open     bool // the person may assume it
	// Unmet are the condition keys that keep the person out, as in
	// "idp.example.com:groups". If it is empty although Open is false, a Deny or the
	// conditions of the tags keep them out.
	Unmet []string
}

// SignInKeys are temporary access keys of a role session, and its ARN.
type SignInKeys struct {
	sts.Credentials
	ARN string
}

// portalKeys is the longest lifetime of the keys that the portal of IAM Identity Center issues. Its
// clients refresh keys 15 minutes before their end, so shorter ones would be refreshed at every
// call.
const portalKeys = time.Hour

// SignInCall is a request for keys.
type SignInCall struct {
	// Role and ID are the IAM role's name and id.
	Role, ID string
	Lifetime time.Duration // of the keys, at most
	// ClientID and GrantType are for the record.
	ClientID, GrantType string
	// Portal means that the person has signed in for all IAM roles that let them in, and
	// names one of them now, whatever its ID.
	Portal bool
}

// ErrSignedOut is the answer when a revocation has reached a sign-in.
var ErrSignedOut = &awsquery.Error{Code: "SignedOut", Status: http.StatusForbidden,
	Message: "The sign-in was ended by an administrator. Sign in again."}

// Source returns the client of a request, behind the trusted proxies.
func (h *Handler) Source(r *http.Request) netip.Addr {
	return sourceOf(r, h.config.TrustedProxies()).address
}

// Attend keeps the connection of a request from being closed while the server works on the
// request. Call the function that it returns when the work is done.
func (h *Handler) Attend(r *http.Request) func() {
	visitor := visitorOf(r.Context())
	visitor.Serve()
	return visitor.Served
}

// VerifyIdentity verifies the provider's token of a person who signs in.
func (h *Handler) VerifyIdentity(r *http.Request, token string) (*sts.WebIdentity, error) {
	return h.identities.Verify(r.Context(), h.config.Directory(), h.config.Now(), token)
}

// SignInRoles decides for each IAM role whether its trust policy lets a person in, and
// returns those that name the person's provider, sorted by name. An error is an
// *awsquery.Error. If no role is open to the person, the record has a line for them.
func (h *Handler) SignInRoles(r *http.Request, who *sts.Person) (roles []SignInRole, err error) {
	err = h.signIn(r, signinService, "Authorize", func(c *call) error {
		identity := &webIdentity{}
		if err := identity.read(c, who.Identity); err != nil {
			return err
		}
		open := false
		for _, arn := range c.directory.RoleARNs() {
			role, _ := c.directory.Role(lastPart(arn))
			if found, ok := c.signInRole(who, role); ok {
				roles = append(roles, found)
				open = open || found.Open
			}
		}
		slices.SortFunc(roles, func(a, b SignInRole) int { return strings.Compare(a.Name, b.Name) })
		if !open {
			return errAccessDenied("Not authorized to perform sts:AssumeRoleWithWebIdentity on any IAM role")
		}
		c.unrecorded = true // nothing has been handed out; Assume will be recorded
		return nil
	})
	if answer := answerTo(err); answer != nil && answer.Code == "AccessDenied" {
		err = nil
	}
	return roles, err
}

// signInRole decides for one role. It also reports whether the role's trust policy is about
// the person's provider at all.
func (c *call) signInRole(who *sts.Person, role *directory.Role) (SignInRole, bool) {
	p := newSignIn(who, role)
	found := SignInRole{Name: role.Name, ID: role.ID, Open: true}
	ask := c.ask()
	for _, k := range p.needs(c) {
		d := ask.decide(&k)
		if d.Allowed() {
			continue
		}
		found.Open = false
		trusting := iam.Policies{Resource: role.Trust}
		misses := trusting.NearMisses(iam.TrustLayer, ask.request(&k))
		for _, miss := range misses {
			for _, unmet := range miss.Unmet {
				if !slices.Contains(found.Unmet, unmet.Key) {
					found.Unmet = append(found.Unmet, unmet.Key)
				}
			}
		}
		return found, len(misses) > 0 || d.Effect == iam.ExplicitDeny || k.action != "sts:AssumeRoleWithWebIdentity"
	}
	return found, true
}

func newSignIn(who *sts.Person, role *directory.Role) *webIdentity {
	return &webIdentity{identity: who.Identity, assumption: assumption{
		arn: role.ARN, role: role, session: who.Session, signedIn: who.Since,
		tags: who.Identity.Tags, transitive: who.Identity.Transitive, sourceIdentity: who.Identity.SourceIdentity,
	}}
}

// SignInAs decides whether a person may assume an IAM role, and makes the keys. The error is an
// *awsquery.Error: ErrSignedOut, AccessDenied, Throttling or one of the 5xx.
func (h *Handler) SignInAs(r *http.Request, who *sts.Person, in SignInCall) (keys *SignInKeys, err error) {
	service, event, longest := signinService, "CreateOAuth2Token", signInKeys
	if in.Portal {
		service, event, longest = ssoService, "GetRoleCredentials", portalKeys
	}
	err = h.signIn(r, service, event, func(c *call) error {
		if !in.Portal {
			c.request = append(c.request, audit.String("clientId", in.ClientID), audit.String("grantType", in.GrantType))
		}
		identity := &webIdentity{}
		if err := identity.read(c, who.Identity); err != nil {
			return err
		}
		known, ok := c.directory.Role(in.Role)
		if !ok || known.ID != in.ID && !in.Portal {
			return errAccessDenied("The IAM role " + in.Role + " does not exist any more")
		}
		p := newSignIn(who, known)
		p.seconds = int(min(in.Lifetime, longest, known.MaxSessionDuration) / time.Second)
		c.request = append(c.request, audit.String("roleArn", known.ARN), audit.String("roleSessionName", who.Session))
		if err := c.stillSignedIn(sessionARN(c.directory, known, who.Session), who.Since); err != nil {
			return err
		}
		if in.Portal {
			if err := c.personSignedIn(who); err != nil {
				return err
			}
		}
		if err := c.authorize(p.needs(c)); err != nil {
			return err
		}
		made, err := c.assume(&p.assumption, sts.ProviderOrigin(who.Identity.Provider), who.Identity.Federated(c.directory))
		if err != nil {
			return err
		}
		keys = &SignInKeys{Credentials: made.credentials, ARN: made.arn}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return keys, nil
}

// SignInCheck is a request for something else than keys.
type SignInCheck struct {
	Event string // the operation
	// ClientName and GrantType are for the record. Without a GrantType, only a refusal is
	// recorded.
	ClientName, GrantType string
}

// SignedIn returns ErrSignedOut if a revocation has reached a person who has signed in for all
// IAM roles that let them in.
func (h *Handler) SignedIn(r *http.Request, who *sts.Person, in SignInCheck) error {
	return h.signIn(r, ssoService, in.Event, func(c *call) error {
		if in.GrantType != "" {
			c.request = append(c.request, audit.String("clientName", in.ClientName), audit.String("grantType", in.GrantType))
		}
		c.request = append(c.request, audit.String("roleSessionName", who.Session))
		identity := &webIdentity{}
		if err := identity.read(c, who.Identity); err != nil {
			return err
		}
		if err := c.personSignedIn(who); err != nil {
			return err
		}
		c.unrecorded = in.GrantType == ""
		return nil
	})
}

// personSignedIn is stillSignedIn for someone who has signed in for several IAM roles: a
// revocation of one of their role sessions ends the whole sign-in.
func (c *call) personSignedIn(who *sts.Person) error {
	if c.handler.config.Revocations == nil {
		return nil
	}
	revoked, err := c.handler.config.Revocations.PersonRevoked(who.Session, who.Since)
	switch {
	case err != nil:
		return errRegistry(err)
	case revoked:
		return ErrSignedOut
	}
	return nil
}

// stillSignedIn returns an error if a revocation has reached someone who signed in at since, or
// if revocations cannot be read.
func (c *call) stillSignedIn(principal string, since time.Time) error {
	if c.handler.config.Revocations == nil {
		return nil
	}
	revoked, err := c.handler.config.Revocations.Revoked(registry.Credential{Principal: principal, IssuedAt: since})
	switch {
	case err != nil:
		return errRegistry(err)
	case revoked && (c.service == signinService || c.service == ssoService):
		return ErrSignedOut
	case revoked:
		return sigv4.ErrInvalidToken
	}
	return nil
}

// signIn applies the limits to a call of package signin and records it. A call that cannot
// be recorded fails.
func (h *Handler) signIn(r *http.Request, service *service, event string, run func(*call) error) error {
	c := h.pageCall(r, &action{service: service, name: event})
	defer c.done()
	err := c.runAdmitted(run)
	if err == nil {
		c.visitor.Known()
	}
	c.mark(&c.acted)
	return h.concludePage(c, err)
}

// runAdmitted runs a call that arrives without a signature within the limits for its address. A
// panic becomes an error.
func (c *call) runAdmitted(run func(*call) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{v, debug.Stack()}
		}
	}()
	if err := c.admitAddress(); err != nil {
		return err
	}
	if err := c.enter(c.handler.pressure.work); err != nil {
		return err
	}
	return run(c)
}
