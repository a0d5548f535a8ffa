package api

import (
	"net/http"
	"time"

	"github.com/daypass/daypass/internal/awsquery"
)

// CallEvent is an API call that has been answered. Its times are real times, not those
// of Config.Now: they are for measuring.
type CallEvent struct {
	RequestID    string
	Service      string // redshift if it is not known
	Action       string // empty if it is not known or does not exist
	Code         string // of the error; empty: success
	Status       int    // of HTTP
	Principal    string // ARN; empty: not authenticated
	CredentialID string // of a credential that was issued
	// Effect and Layer describe the denial behind an AccessDenied: Deny or
	// ImplicitDeny, and the kind of policy. Both are empty if no policy denied the
	// call.
	Effect, Layer string
	Header        http.Header // the request's; must not be kept

	Began         time.Time
	Authenticated time.Time // when the signature was verified; zero if it was not
	Acted         time.Time // the answer was made, or the error
	Recorded      time.Time // the audit line is written
	Ended         time.Time // the answer was written to the connection
}

// observe calls Config.Observe, if there is one.
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

// mark notes the time of a step if there is an observer.
func (c *call) mark(step *time.Time) {
	if c.handler.config.Observe != nil {
		*step = time.Now()
	}
}
