package adminconn

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
)

// Why a cluster cannot be administered. Test with errors.Is.
var (
	ErrRights      = errors.New("administrative login lacks rights")
	ErrUnreachable = errors.New("cluster unreachable")
)

// Kinds of ErrUnreachable, which errors.Is matches as well: the cluster is there but cannot
// serve now. Each of them is temporary, so a retry makes sense.
var (
	ErrNotReady = fmt.Errorf("%w: starting up or shutting down", ErrUnreachable)
	ErrFull     = fmt.Errorf("%w: out of connections", ErrUnreachable)
	ErrReadOnly = fmt.Errorf("%w: in recovery", ErrUnreachable)  // a change is needed, and no primary answers
	ErrLagging  = fmt.Errorf("%w: standby lags", ErrUnreachable) // the standby has not replayed the session role
)

// Causes of an Error.
var (
	// ErrPooler is the cause when something that is not PostgreSQL answers.
	ErrPooler = errors.New("a connection pooler answers in place of PostgreSQL; name the server itself")
	// ErrRecovery is the cause when a change is needed but the server is read-only.
	ErrRecovery = errors.New("the server is in recovery and cannot change roles")

	errClosed = errors.New("shutting down")
)

// Error is the error of the packages that administer a cluster: which rule failed, for which
// name, and why.
type Error struct {
	Kind    error  // a sentinel of this package or of dbuser
	Name    string // the user or group concerned; may be empty
	Message string // may be shown to the holder of a credential
	Cause   error  // for the log only; may be nil
}

func (e *Error) Error() string {
	if e.Cause != nil {
		return e.Message + ": " + e.Cause.Error()
	}
	return e.Message
}

// Unwrap lets errors.Is find the sentinel and errors.As the cause, such as a *pgconn.PgError.
func (e *Error) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Cause}
}

// IsCode reports whether err is a server error with one of the SQLSTATEs.
func IsCode(err error, codes ...string) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && slices.Contains(codes, pg.Code)
}

// CertificateFault returns why the certificate of a server was not accepted: an
// x509.CertificateInvalidError, x509.UnknownAuthorityError or x509.HostnameError. It returns nil for
// every other error.
func CertificateFault(err error) error {
	if fault, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		return fault
	}
	if fault, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return fault
	}
	if fault, ok := errors.AsType[x509.HostnameError](err); ok {
		return fault
	}
	return nil
}

// PlainError returns the server's message without severity and code.
func PlainError(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Message
	}
	return err.Error()
}

// Transient reports whether the same change may succeed when it is tried again
// on the current state: another transaction changed, created or removed the same rows.
func Transient(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return false
	}
	switch pg.Code {
	case pgerrcode.SerializationFailure, pgerrcode.DeadlockDetected, pgerrcode.LockNotAvailable,
		pgerrcode.DuplicateObject, pgerrcode.UniqueViolation: // it already exists, or was created at the same time
		return true
	case pgerrcode.UndefinedObject: // the role does not exist any more, or the parameter does not exist at all
		var bad *StepError
		return !(errors.As(err, &bad) && bad.Parameter)
	case pgerrcode.InternalError:
		return strings.Contains(pg.Message, "tuple concurrently") || strings.Contains(pg.Message, "cache lookup failed")
	}
	return false
}

// Refused reports whether PostgreSQL rejected the statement itself and would do so again. A
// lock or a timeout does not count.
func Refused(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || Transient(err) || len(pg.Code) != 5 {
		return false
	}
	switch pg.Code[:2] {
	case "22", "42", "0A", "0L", "F0":
		return true
	}
	return pg.Code == pgerrcode.CantChangeRuntimeParam
}

// ConnectionLost reports whether the connection broke, not the statement. Every change may be
// retried, because changes are idempotent.
func ConnectionLost(err error) bool {
	if _, ok := errors.AsType[*Error](err); ok || errors.Is(err, ErrRecovery) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return false
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return strings.HasPrefix(pg.Code, "57P") || strings.HasPrefix(pg.Code, "08") ||
			pg.Code == pgerrcode.IdleInTransactionSessionTimeout // this process did not go on with its transaction in time
	}
	return true
}
