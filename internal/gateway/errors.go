package gateway

import (
	"errors"
	"fmt"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/pgwire"
)

// refusal is why a logon is refused: the message for the client, and the real cause.
type refusal struct {
	reason  string // one of the Reason constants, or notALogon
	state   string // SQLSTATE
	message string
	detail  string
	hint    string
	cause   error  // for the audit line and the log only
	body    []byte // the upstream's own ErrorResponse, passed on instead of the above

	silent     bool // the client gets no answer: it has left, or would not understand one
	forged     bool // the password is not a credential: the answer is delayed and does not tell why
	unrecorded bool // the client gets an answer, but the refusal is not recorded: one like it just was
	legacy     bool // the answer has the form of protocol 1 and 2
}

func (r *refusal) Error() string {
	if r.cause != nil {
		return r.cause.Error()
	}
	return r.message
}

// refusalRow says how to refuse a logon after an error.
type refusalRow struct {
	err                          error
	reason, state, message, hint string
}

// credentialRefusals translates the errors of a credential check, and roleRefusals those of
// preparing the session role. The first matching row counts. A row without a message uses the
// text of the dbuser error, which is meant for clients.
var (
	credentialRefusals = []refusalRow{
		// A client gets here only with a valid signature, so it may be told the cause. The first
		// text is Redshift's; drivers search for it.
		{credential.ErrExpired, ReasonExpired, pgwire.StateInvalidAuthorization, "IAM Authentication token has expired", "Ask for a new one with GetClusterCredentials."},
		{credential.ErrNotYetValid, ReasonNotYetValid, pgwire.StateInvalidAuthorization, "IAM Authentication token is not valid yet", "The clock of the gateway or of the API is wrong."},
	}

	roleRefusals = []refusalRow{
		{dbuser.ErrUserMissing, ReasonRefused, pgwire.StateInvalidAuthorization, "", "Ask for the credential with AutoCreate, or have the user created."},
		{dbuser.ErrUserCannotLogin, ReasonRefused, pgwire.StateInvalidAuthorization, "", ""},
		{dbuser.ErrUserRefused, ReasonRefused, pgwire.StateInsufficientRights, "", ""},
		{dbuser.ErrGroupMissing, ReasonRefused, pgwire.StateUndefinedObject, "", "Ask for the credential without this group, or have the group created."},
		{dbuser.ErrNotAGroup, ReasonRefused, pgwire.StateWrongObjectType, "", "Ask for the credential without it, or have it made NOLOGIN."},
		{dbuser.ErrGroupRefused, ReasonRefused, pgwire.StateInsufficientRights, "", ""},
		{dbuser.ErrNameTooLong, ReasonRefused, pgwire.StateNameTooLong, "", ""},
		{dbuser.ErrNameInvalid, ReasonRefused, pgwire.StateInvalidName, "", ""},
		{dbuser.ErrManyRoles, ReasonLimit, pgwire.StateLimitReached, "", ""},
		{dbuser.ErrDatabaseMissing, ReasonRefused, pgwire.StateUndefinedDatabase, "", ""},
		{adminconn.ErrRights, ReasonRights, pgwire.StateSystemError, "", ""},
		// Clients and proxies try again after 57P03, or go on to the next host.
		{adminconn.ErrNotReady, ReasonNotReady, pgwire.StateCannotConnectNow, "", ""},
		{adminconn.ErrLagging, ReasonNotReady, pgwire.StateCannotConnectNow, "", ""},
		{adminconn.ErrReadOnly, ReasonNotReady, pgwire.StateCannotConnectNow, "", ""},
		{adminconn.ErrFull, ReasonFull, pgwire.StateTooManyConnections, "", ""},
		{adminconn.ErrUnreachable, ReasonUnreachable, pgwire.StateCannotConnect, "", ""},
	}
)

// refuseForged is the one answer to every password that is not a credential for this
// user: forged, altered, signed by an unknown key, another user's, or no credential
// at all.
func refuseForged(user string, cause error) *refusal {
	return &refusal{
		reason: ReasonForged, state: pgwire.StateInvalidAuthorization, forged: true, cause: cause,
		message: fmt.Sprintf("IAM authentication failed for user \"%s\"", pgwire.Clip(user)),
		hint:    "Use the DbUser and the whole DbPassword of one answer of GetClusterCredentials, and the cluster that it was asked for.",
	}
}

// refuseCredential returns the refusal for an error of the credential check.
func refuseCredential(user string, err error) *refusal {
	for _, row := range credentialRefusals {
		if errors.Is(err, row.err) {
			return &refusal{reason: row.reason, state: row.state, message: row.message, hint: row.hint, cause: err}
		}
	}
	return refuseForged(user, err)
}

// refuseRole returns the refusal for an error of preparing the session role.
func refuseRole(cluster string, err error) *refusal {
	r := &refusal{reason: ReasonInternal, state: pgwire.StateInternalError, message: "internal error while preparing the session", cause: err}
	for _, row := range roleRefusals {
		if !errors.Is(err, row.err) {
			continue
		}
		r.reason, r.state, r.message, r.hint = row.reason, row.state, row.message, row.hint
		if known, ok := errors.AsType[*adminconn.Error](err); ok && r.message == "" {
			r.message = known.Message
		}
		if r.message == "" {
			r.message = row.err.Error()
		}
		return r
	}
	if timedOut(err) {
		r.reason, r.state, r.message = ReasonUnreachable, pgwire.StateConnectionFailure, fmt.Sprintf("cluster \"%s\" did not answer in time", cluster)
	}
	return r
}

// passwordRefused reports whether the server refused the session role's password, so that
// setting it again helps. An error that a login event trigger raises does not count, whatever
// its SQLSTATE.
func passwordRefused(err error) bool {
	if said, ok := errors.AsType[*serverError](err); ok {
		return said.state == pgwire.RefusedPassword && !said.late
	}
	return errors.Is(err, pgwire.ErrForeignVerifier)
}

// refuseUpstream passes the server's own errors on, except for errors about the
// gateway's own logon: those would mislead the client.
func (l *logon) refuseUpstream(cluster *Cluster, err error) *refusal {
	var said *serverError
	theirs := errors.As(err, &said)
	if theirs && !said.late && (said.state == pgwire.RefusedPassword || said.state == pgwire.StateInvalidAuthorization) || errors.Is(err, errAuthentication) {
		return &refusal{reason: ReasonUpstream, state: pgwire.StateRejected, cause: err,
			message: fmt.Sprintf("cluster \"%s\" does not let the gateway open a session", cluster.Identifier),
			hint:    "An operator finds the cause in the gateway's log and with `daypass cluster check " + cluster.Identifier + "`."}
	}
	if _, ok := errors.AsType[*identityError](err); ok {
		return &refusal{reason: ReasonUpstream, state: pgwire.StateSystemError, cause: err,
			message: fmt.Sprintf("cluster \"%s\" gives sessions that do not work as their user", cluster.Identifier),
			hint:    "An operator finds the cause in the gateway's log and with `daypass cluster check " + cluster.Identifier + "`."}
	}
	if theirs {
		if said.body == nil {
			return &refusal{reason: ReasonUpstream, state: said.state, message: said.message, cause: err}
		}
		return &refusal{reason: ReasonUpstream, state: said.state, message: said.message, body: said.body, cause: err}
	}
	if _, ok := errors.AsType[*adminconn.Error](err); ok {
		return refuseRole(cluster.Identifier, err)
	}
	if errors.Is(err, errNoPlace) {
		return &refusal{reason: ReasonLimit, state: pgwire.StateTooManyConnections, cause: err,
			message: fmt.Sprintf("cluster \"%s\" is starting too many sessions that do not begin", cluster.Identifier),
			hint:    "The server is slow, or someone keeps a database locked, perhaps by an ALTER DATABASE that is not committed: an operator finds the process in pg_locks and ends it."}
	}
	r := &refusal{reason: ReasonUnreachable, state: pgwire.StateCannotConnect, cause: err, message: fmt.Sprintf("cluster \"%s\" cannot be reached", cluster.Identifier)}
	if failed, ok := errors.AsType[*connectError](err); ok && failed.reached {
		r.state, r.message = pgwire.StateConnectionFailure, fmt.Sprintf("the connection to cluster \"%s\" failed", cluster.Identifier)
	}
	return r
}

func refuseProtocol(message string) *refusal {
	return &refusal{reason: ReasonProtocol, state: pgwire.StateProtocolViolation, message: message}
}

// refuseSilently closes the connection without an answer, as PostgreSQL does when the peer may
// speak another protocol and would not understand an error.
func refuseSilently(cause error) *refusal {
	return &refusal{reason: ReasonProtocol, silent: true, cause: cause}
}

// refuseGone is the refusal for a client that has left or cannot be reached.
func refuseGone(cause error) *refusal {
	return &refusal{reason: ReasonGone, silent: true, cause: cause}
}

// answer returns the ErrorResponse for the client.
func (r *refusal) answer() []byte {
	switch {
	case r.silent:
		return nil
	case r.body != nil:
		return pgwire.AppendMessage(nil, pgwire.MsgErrorResponse, r.body)
	case r.legacy: // no length, no fields
		return pgwire.AppendString([]byte{pgwire.MsgErrorResponse}, "FATAL:  "+r.message+"\n")
	}
	return pgwire.AppendError(nil, pgwire.ErrorFields{Severity: pgwire.Fatal, SQLState: r.state, Message: r.message, Detail: r.detail, Hint: r.hint})
}

// serverError is an ErrorResponse from the upstream.
type serverError struct {
	state, message string
	body           []byte // the whole of it; nil: the gateway has made it up
	routine        string // in the server's source; it does not depend on the server's language
	late           bool   // it came after AuthenticationOk and is about the session, not about the gateway's logon
}

func (e *serverError) Error() string { return e.message + " (SQLSTATE " + e.state + ")" }

func parseServerError(body []byte) *serverError {
	fields := pgwire.ParseErrorFields(body)
	return &serverError{state: fields.SQLState, message: fields.Message, routine: fields.Routine, body: append([]byte(nil), body...)}
}
