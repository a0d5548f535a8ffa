package dbuser

import (
	"errors"
	"fmt"
)

// The ways in which a logon cannot get its session role. Test with errors.Is.
var (
	ErrUserMissing     = errors.New("user does not exist")
	ErrUserRefused     = errors.New("user may not be lent") // superuser, administrative login, session role, pg_*
	ErrUserCannotLogin = errors.New("user cannot log in")
	ErrGroupMissing    = errors.New("group does not exist")
	ErrNotAGroup       = errors.New("not a group") // a role that can log in
	ErrGroupRefused    = errors.New("group may not be lent")
	ErrNameTooLong     = errors.New("name too long")
	ErrNameInvalid     = errors.New("name invalid")
	ErrDatabaseMissing = errors.New("database does not exist") // never from Ensure: the upstream says 3D000 itself
	ErrRights          = errors.New("administrative login lacks rights")
	ErrUnreachable     = errors.New("cluster unreachable")
)

// Kinds of ErrUnreachable, for which errors.Is is true as well: the cluster is
// there and cannot serve now. Each passes, so trying again makes sense.
var (
	ErrNotReady = fmt.Errorf("%w: starting up or shutting down", ErrUnreachable)
	ErrFull     = fmt.Errorf("%w: out of connections", ErrUnreachable)
	ErrReadOnly = fmt.Errorf("%w: in recovery", ErrUnreachable)  // and something has to be changed
	ErrLagging  = fmt.Errorf("%w: standby lags", ErrUnreachable) // it has not replayed the session role
)

// Error is what Ensure and Heal return: which rule, about which name, and why.
type Error struct {
	Kind    error  // one of the sentinels above
	Name    string // the user or group it is about; may be empty
	Message string // may be shown to the holder of a credential
	Cause   error  // for the log only; may be nil
}

func (e *Error) Error() string {
	if e.Cause != nil {
		return e.Message + ": " + e.Cause.Error()
	}
	return e.Message
}

// Unwrap makes errors.Is work for the sentinel and errors.As for the cause, a
// *pgconn.PgError for instance.
func (e *Error) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Cause}
}
