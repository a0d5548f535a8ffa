package api

import (
	"net/http"
	"net/url"
	"time"

	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/registry"
	"github.com/daypass/daypass/internal/sts"
)

// This file is for package console. Each call of the console is the API's call of the same name:
// the same row of the table, with the same authorization, limits and record. Only the caller
// differs. An API client signs its call with an access key; here the caller is a person who
// signed in with a browser, and whose session cookie was opened.

// ConsoleSession is the session of a browser at the console.
type ConsoleSession struct {
	ID       string // revoking it as a credential ends the session
	Person   *sts.Person
	Role     string // IAM role that the person chose
	RoleID   string
	NotAfter time.Time
}

// ErrConsoleEnded is the answer when a console session has been ended by a revocation, or by
// its own sign-out.
var ErrConsoleEnded = &awsquery.Error{Code: "SignedOut", Status: http.StatusForbidden,
	Message: "You are signed out: an administrator has ended this sign-in, or you have signed out of it elsewhere."}

// ErrConsoleClosed is the answer when the person may no longer use the session's IAM role.
var ErrConsoleClosed = &awsquery.Error{Code: "AccessDenied", Status: http.StatusForbidden,
	Message: "The IAM role that you signed in with is not open to you any more."}

// ConsoleEnter records that a person enters the console with an IAM role, if the role's trust
// policy lets them in. The error is an *awsquery.Error.
func (h *Handler) ConsoleEnter(r *http.Request, s *ConsoleSession) error {
	return h.console(r, s, &action{service: signinService, name: "ConsoleLogin"}, func(c *call) error {
		c.response = []audit.Field{audit.String("ConsoleLogin", "Success")}
		return nil
	})
}

// ConsoleLeave ends a session on all servers.
func (h *Handler) ConsoleLeave(r *http.Request, s *ConsoleSession) error {
	return h.console(r, s, &action{service: signinService, name: "ConsoleLogout"}, func(c *call) error {
		if c.handler.config.Revocations == nil {
			return nil
		}
		c.leave() // the registry may take its time
		_, err := c.handler.config.Revocations.Revoke(c.http.Context(), registry.Revocation{CredentialID: s.ID, RevokedBy: c.caller.Principal.ARN})
		if err != nil {
			return errRegistry(err)
		}
		c.taken = true
		return nil
	})
}

// ConsoleRights is a session's principal, and which pages it may use.
type ConsoleRights struct {
	ARN      string
	Sessions bool // daypass:ListSessions, for all clusters
	Some     bool // Sessions, but not of all principals
	Own      bool // Some, and this principal's own are among them
	// Details: sts:DecodeAuthorizationMessage, which shows what a refusal leaves out.
	Details bool
}

// ConsoleRights returns the rights of a session that is still in force. It is not recorded,
// because nothing is handed out.
func (h *Handler) ConsoleRights(r *http.Request, s *ConsoleSession) (rights ConsoleRights, err error) {
	err = h.console(r, s, &action{service: signinService, name: "ConsolePage", readOnly: true}, func(c *call) error {
		c.unrecorded = true
		ask := c.ask()
		list := c.mayList(&target{}, "*")
		details := mayDecode
		rights = ConsoleRights{ARN: c.caller.Principal.ARN, Sessions: ask.decide(&list).Allowed(), Some: list.someKey != "", Details: ask.decide(&details).Allowed()}
		rights.Own = rights.Some && c.mayListOwn()
		return nil
	})
	return rights, err
}

// ConsoleCall makes one call of the API for a session, and returns the element with the
// result. The error is an *awsquery.Error.
func (h *Handler) ConsoleCall(r *http.Request, s *ConsoleSession, service, name string, parameters url.Values) (result []byte, err error) {
	of, _ := serviceByName(service)
	row, ok := h.actions[actionKey{of, name}]
	if !ok {
		return nil, errInvalidAction(name, "")
	}
	err = h.console(r, s, row, func(c *call) error {
		if err := c.setParameters(parameters); err != nil {
			return err
		}
		answer, err := row.run(c)
		if err == nil {
			result = awsquery.EncodeResult(name, answer)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return result, nil
}

// setParameters reads parameters as if a client had sent them.
func (c *call) setParameters(parameters url.Values) error {
	body := parameters.Encode()
	if int64(len(body)) > c.service.maxBody {
		return errBodyTooLarge
	}
	query, err := awsquery.Parse(&http.Request{Method: http.MethodPost, Header: http.Header{}, URL: &url.URL{}}, []byte(body))
	if err != nil {
		return err
	}
	c.query = query
	return nil
}

// console runs a call for a session. It applies the limits, decides whether the session is
// still in force, and records the call. A call that cannot be recorded fails.
func (h *Handler) console(r *http.Request, s *ConsoleSession, row *action, run func(*call) error) error {
	c := h.pageCall(r, row)
	c.fromConsole = true
	defer c.done()
	c.visitor.Serve()
	defer c.visitor.Served()
	err := c.runConsole(s, run)
	c.mark(&c.acted)
	return h.concludePage(c, err)
}

// pageCall begins a call that a page makes, without a request of the API.
func (h *Handler) pageCall(r *http.Request, row *action) *call {
	c := &call{
		handler: h,
		http:    r,
		visitor: visitorOf(r.Context()),
		id:      newRequestID(),
		service: row.service,
		action:  row,
		source:  sourceOf(r, h.config.TrustedProxies()),
	}
	c.asOfNow()
	c.mark(&c.began)
	return c
}

// concludePage records a call that a page made, and returns the error that the page shows: an
// *awsquery.Error, or nil.
func (h *Handler) concludePage(c *call, err error) error {
	answer := h.conclude(c, err)
	if h.config.Observe != nil {
		c.observe(answer)
	}
	if answer != nil {
		return answer
	}
	return nil
}

func (c *call) runConsole(s *ConsoleSession, run func(*call) error) error {
	return c.runAdmitted(func(c *call) error {
		if err := c.authenticateConsole(s); err != nil {
			return err
		}
		c.mark(&c.authenticated)
		c.visitor.Known()
		if err := c.admitPrincipal(); err != nil {
			return err
		}
		return run(c)
	})
}

// authenticateConsole makes the session's principal the caller. It checks the IAM role's trust
// policy on every call, because a session has no keys whose refresh would check it.
func (c *call) authenticateConsole(s *ConsoleSession) error {
	role, ok := c.directory.Role(s.Role)
	if !ok || role.ID != s.RoleID {
		return ErrConsoleClosed
	}
	p := newSignIn(s.Person, role)
	if err := p.read(c, s.Person.Identity); err != nil {
		return err
	}
	ask := c.ask()
	for _, k := range p.needs(c) {
		if d := ask.decide(&k); !d.Allowed() {
			c.decisions = append(c.decisions, auditDecision(&k, d))
			return ErrConsoleClosed
		}
	}
	session := &sts.Session{
		Kind: sts.RoleSession, Account: c.directory.Account, Name: role.Name, PrincipalID: role.ID,
		SessionName: s.Person.Session, SourceIdentity: s.Person.Identity.SourceIdentity,
		Tags: s.Person.Identity.Tags, Transitive: s.Person.Identity.Transitive,
		Federated: s.Person.Identity.Federated(c.directory),
		SignedIn:  s.Person.Since, IssuedAt: s.Person.Since, NotAfter: s.NotAfter,
	}
	caller, ok := ofSession(c.directory, session)
	if !ok {
		return ErrConsoleClosed
	}
	if c.handler.config.Revocations != nil {
		revoked, err := c.handler.config.Revocations.Revoked(registry.Credential{ID: s.ID, Principal: caller.Principal.ARN, IssuedAt: s.Person.Since})
		switch {
		case err != nil:
			return errRegistry(err)
		case revoked:
			return ErrConsoleEnded
		}
	}
	c.caller, c.federated, c.subject = caller, nil, ""
	return nil
}
