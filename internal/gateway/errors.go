package gateway

import (
	"errors"
	"fmt"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/dbuser"
)

// refusal is why a logon does not become a session: what the client is told, and
// what is the matter in truth.
type refusal struct {
	reason  string // one of the Reason constants, or notALogon
	state   string // SQLSTATE
	message string
	detail  string
	hint    string
	cause   error  // for the audit line and the log only
	body    []byte // the upstream's own ErrorResponse, passed on instead of the above

	silent bool // there is nobody to tell, or it would not be understood
	forged bool // a password that is not a credential: slowed down, and never told why
	untold bool // answered, but not written down: one like it was a moment ago
	old    bool // answer in the form of protocol 1 and 2
}

func (r *refusal) Error() string {
	if r.cause != nil {
		return r.cause.Error()
	}
	return r.message
}

// The SQLSTATEs that the gateway itself answers with. An upstream's own errors
// keep theirs.
const (
	stateProtocolViolation    = "08P01"
	stateCannotConnect        = "08001" // no host of the cluster could be reached
	stateConnectionFailure    = "08006" // it was reached, and the connection failed
	stateRejected             = "08004" // it was reached, and does not want the gateway
	stateFeatureNotSupported  = "0A000"
	stateInvalidParameter     = "22023"
	stateInvalidAuthorization = "28000"
	stateSyntaxError          = "42601"
	stateInsufficientRights   = "42501"
	stateUndefinedObject      = "42704"
	stateNameTooLong          = "42622"
	stateInvalidName          = "42602"
	stateWrongObjectType      = "42809"
	stateUndefinedDatabase    = "3D000"
	stateTooManyConnections   = "53300"
	stateLimitReached         = "53400" // as PostgreSQL: configuration_limit_exceeded
	stateLimitExceeded        = "54000"
	stateAdminShutdown        = "57P01"
	stateCannotConnectNow     = "57P03"
	stateSystemError          = "58000"
	stateIOError              = "58030"
	stateInternalError        = "XX000"
)

// credentialRefusals is what becomes of the errors of a credential check, and
// roleRefusals of those of preparing the session role. The first row that fits
// counts. Rows without a message take dbuser's, which is meant to be shown.
var (
	credentialRefusals = []struct {
		err            error
		reason         string
		state, message string
		hint           string
	}{
		// Only behind a right signature: the holder is told the truth. The
		// text of the first is Redshift's, and drivers look for it.
		{credential.ErrExpired, ReasonExpired, stateInvalidAuthorization, "IAM Authentication token has expired", "Ask for a new one with GetClusterCredentials."},
		{credential.ErrNotYetValid, ReasonNotYetValid, stateInvalidAuthorization, "IAM Authentication token is not valid yet", "The clock of the gateway or of the API is wrong."},
	}

	roleRefusals = []struct {
		err            error
		reason         string
		state, message string
		hint           string
	}{
		{dbuser.ErrUserMissing, ReasonRefused, stateInvalidAuthorization, "", "Ask for the credential with AutoCreate, or have the user created."},
		{dbuser.ErrUserCannotLogin, ReasonRefused, stateInvalidAuthorization, "", ""},
		{dbuser.ErrUserRefused, ReasonRefused, stateInsufficientRights, "", ""},
		{dbuser.ErrGroupMissing, ReasonRefused, stateUndefinedObject, "", ""},
		{dbuser.ErrNotAGroup, ReasonRefused, stateWrongObjectType, "", ""},
		{dbuser.ErrGroupRefused, ReasonRefused, stateInsufficientRights, "", ""},
		{dbuser.ErrNameTooLong, ReasonRefused, stateNameTooLong, "", ""},
		{dbuser.ErrNameInvalid, ReasonRefused, stateInvalidName, "", ""},
		{dbuser.ErrDatabaseMissing, ReasonRefused, stateUndefinedDatabase, "", ""},
		{adminconn.ErrRights, ReasonRights, stateSystemError, "", ""},
		// Clients and proxies take 57P03 for a reason to try again, or to go on to
		// the next host.
		{adminconn.ErrNotReady, ReasonNotReady, stateCannotConnectNow, "", ""},
		{adminconn.ErrLagging, ReasonNotReady, stateCannotConnectNow, "", ""},
		{adminconn.ErrReadOnly, ReasonNotReady, stateCannotConnectNow, "", ""},
		{adminconn.ErrFull, ReasonFull, stateTooManyConnections, "", ""},
		{adminconn.ErrUnreachable, ReasonUnreachable, stateCannotConnect, "", ""},
	}
)

// refuseForged is the one answer to a password that is not a credential for this
// user: forged, altered, signed by an unknown key, of another user, no credential
// at all.
func refuseForged(user string, cause error) *refusal {
	return &refusal{
		reason: ReasonForged, state: stateInvalidAuthorization, forged: true, cause: cause,
		message: fmt.Sprintf("IAM authentication failed for user \"%s\"", clip(user)),
		hint:    "Log on as the DbUser and with the whole DbPassword of one answer of GetClusterCredentials, at the cluster that it is for.",
	}
}

// refuseCredential translates an error of the credential check.
func refuseCredential(user string, err error) *refusal {
	for _, row := range credentialRefusals {
		if errors.Is(err, row.err) {
			return &refusal{reason: row.reason, state: row.state, message: row.message, hint: row.hint, cause: err}
		}
	}
	return refuseForged(user, err)
}

// refuseRole translates an error of preparing the session role.
func refuseRole(cluster string, err error) *refusal {
	r := &refusal{reason: ReasonInternal, state: stateInternalError, message: "internal error while preparing the session", cause: err}
	var known *adminconn.Error
	for _, row := range roleRefusals {
		if !errors.Is(err, row.err) {
			continue
		}
		r.reason, r.state, r.message, r.hint = row.reason, row.state, row.message, row.hint
		if r.message == "" && errors.As(err, &known) {
			r.message = known.Message
		}
		if r.message == "" {
			r.message = row.err.Error()
		}
		return r
	}
	if timedOut(err) {
		r.reason, r.state, r.message = ReasonUnreachable, stateConnectionFailure, fmt.Sprintf("cluster \"%s\" did not answer in time", cluster)
	}
	return r
}

// passwordRefused reports whether the server refuses the session role's password,
// which setting it anew mends. What a session's own login trigger raises does not
// count, whatever its SQLSTATE.
func passwordRefused(err error) bool {
	var said *serverError
	if errors.As(err, &said) {
		return said.state == "28P01" && !said.late
	}
	return errors.Is(err, errPasswordNotOurs)
}

// refuseUpstream passes the server's own errors on, except where they are about
// the gateway's logon and would send the client looking in the wrong place.
func (l *logon) refuseUpstream(cluster *Cluster, err error) *refusal {
	var said *serverError
	theirs := errors.As(err, &said)
	if theirs && !said.late && (said.state == "28P01" || said.state == "28000") || errors.Is(err, errAuthentication) {
		return &refusal{reason: ReasonUpstream, state: stateRejected, cause: err,
			message: fmt.Sprintf("cluster \"%s\" does not let the gateway open a session", cluster.Identifier),
			hint:    "An operator finds the cause in the gateway's log and with `daypass cluster check " + cluster.Identifier + "`."}
	}
	if wrong := (*identityError)(nil); errors.As(err, &wrong) {
		return &refusal{reason: ReasonUpstream, state: stateSystemError, cause: err,
			message: fmt.Sprintf("cluster \"%s\" gives sessions that do not work as their user", cluster.Identifier),
			hint:    "An operator finds the cause in the gateway's log and with `daypass cluster check " + cluster.Identifier + "`."}
	}
	if theirs {
		if said.body == nil {
			return &refusal{reason: ReasonUpstream, state: said.state, message: said.message, cause: err}
		}
		return &refusal{reason: ReasonUpstream, state: said.state, message: said.message, body: said.body, cause: err}
	}
	var known *adminconn.Error
	if errors.As(err, &known) {
		return refuseRole(cluster.Identifier, err)
	}
	r := &refusal{reason: ReasonUnreachable, state: stateCannotConnect, cause: err, message: fmt.Sprintf("cluster \"%s\" cannot be reached", cluster.Identifier)}
	var failed *connectError
	if errors.As(err, &failed) && failed.reached {
		r.state, r.message = stateConnectionFailure, fmt.Sprintf("the connection to cluster \"%s\" failed", cluster.Identifier)
	}
	return r
}

func refuseProtocol(message string) *refusal {
	return &refusal{reason: ReasonProtocol, state: stateProtocolViolation, message: message}
}

// refuseSilently is for what PostgreSQL answers with nothing but the end of the
// connection: it may come from anything, and not everything takes an error for one.
func refuseSilently(cause error) *refusal {
	return &refusal{reason: ReasonProtocol, silent: true, cause: cause}
}

// refuseGone is for a client that is not there any more, or cannot be talked to.
func refuseGone(cause error) *refusal {
	return &refusal{reason: ReasonGone, silent: true, cause: cause}
}

// appendError appends an ErrorResponse.
func appendError(b []byte, severity, state, message, detail, hint string) []byte {
	b, at := begin(b, 'E')
	for _, field := range []struct {
		kind byte
		text string
	}{{'S', severity}, {'V', severity}, {'C', state}, {'M', message}, {'D', detail}, {'H', hint}} {
		if field.text != "" {
			b = appendString(append(b, field.kind), field.text)
		}
	}
	return finish(append(b, 0), at)
}

// answer is what the client is sent.
func (r *refusal) answer() []byte {
	switch {
	case r.silent:
		return nil
	case r.body != nil:
		return appendMessage(nil, 'E', r.body)
	case r.old: // no length, no fields
		return appendString([]byte{'E'}, "FATAL:  "+r.message+"\n")
	}
	return appendError(nil, "FATAL", r.state, r.message, r.detail, r.hint)
}

// serverError is an ErrorResponse of the upstream.
type serverError struct {
	state, message string
	body           []byte
	routine        string // of the server's source, in every language the same
	late           bool   // it came after AuthenticationOk and is about the session, not about the gateway's logon
}

func (e *serverError) Error() string { return e.message + " (SQLSTATE " + e.state + ")" }

func parseServerError(body []byte) *serverError {
	e := &serverError{body: append([]byte(nil), body...)}
	for len(body) > 1 {
		kind := body[0]
		text, rest, ok := cutString(body[1:])
		if !ok {
			break
		}
		switch kind {
		case 'C':
			e.state = text
		case 'M':
			e.message = text
		case 'R':
			e.routine = text
		}
		body = rest
	}
	return e
}

// clip keeps what strangers send from filling messages and logs.
func clip(s string) string {
	const most = 256
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
