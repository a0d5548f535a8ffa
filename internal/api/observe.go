package api

import (
	"net/http"
	"time"

	"github.com/daypass/daypass/internal/awsquery"
)

// CallEvent is an API call that has been answered. Times are the machine's own,
// not Config.Now's: they are for measuring.
type CallEvent struct {
	RequestID    string
	Service      string // as far as it is known; else redshift
	Action       string // empty: not known, or none that there is
	Code         string // of the error; empty: success
	Status       int    // of HTTP
	Principal    string // ARN; empty: not authenticated
	CredentialID string // of a credential that was issued
	// Effect and Layer say what denied an AccessDenied: Deny or ImplicitDeny, and
	// the kind of policy. Empty: no policy did.
	Effect, Layer string
	Header        http.Header // the request's; not to be kept

	Began         time.Time
	Authenticated time.Time // the signature is right; zero: it was not
	Acted         time.Time // the answer was made, or the error
	Recorded      time.Time // the audit line is written
	Ended         time.Time // the answer was written to the connection
}

// observe tells about the call, when somebody asks.
func (c *call) observe(answer *awsquery.Error) {
	e := CallEvent{
		RequestID: c.id, Service: c.service.name, Status: http.StatusOK, Header: c.http.Header,
		Began: c.began, Authenticated: c.authenticated, Acted: c.acted, Recorded: c.recorded, Ended: time.Now(),
	}
	if c.action != nil {
		e.Action = c.action.name
	}
	if c.caller != nil {
		e.Principal = c.caller.Principal.ARN
	}
	if answer == nil {
		e.CredentialID = c.credentialID
	} else {
		e.Code, e.Status = answer.Code, answer.Status
		if n := len(c.decisions); n > 0 && c.decisions[n-1].Effect != "Allow" {
			e.Effect, e.Layer = c.decisions[n-1].Effect, c.decisions[n-1].Layer
		}
	}
	c.handler.config.Observe(e)
}

// mark notes the time of a step, when somebody asks.
func (c *call) mark(step *time.Time) {
	if c.handler.config.Observe != nil {
		*step = time.Now()
	}
}
