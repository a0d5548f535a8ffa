package pgwire

// The SQLSTATEs that the gateway answers with itself. A server's own errors keep
// theirs.
const (
	StateSuccess              = "00000" // of notices
	StateProtocolViolation    = "08P01"
	StateCannotConnect        = "08001" // no host of the cluster could be reached
	StateConnectionFailure    = "08006" // a host was reached, and the connection failed
	StateRejected             = "08004" // a host was reached, and refuses the gateway
	StateFeatureNotSupported  = "0A000"
	StateInvalidParameter     = "22023"
	StateIdleInTransaction    = "25P03" // idle_in_transaction_session_timeout
	StateInvalidAuthorization = "28000"
	StateSyntaxError          = "42601"
	StateInsufficientRights   = "42501"
	StateUndefinedObject      = "42704"
	StateNameTooLong          = "42622"
	StateInvalidName          = "42602"
	StateWrongObjectType      = "42809"
	StateUndefinedDatabase    = "3D000"
	StateTooManyConnections   = "53300"
	StateLimitReached         = "53400" // configuration_limit_exceeded
	StateLimitExceeded        = "54000"
	StateAdminShutdown        = "57P01"
	StateCannotConnectNow     = "57P03"
	StateIdleSession          = "57P05" // idle_session_timeout
	StateSystemError          = "58000"
	StateIOError              = "58030"
	StateInternalError        = "XX000"
)

// RefusedPassword is the SQLSTATE invalid_password. Its name differs from the others because the
// gateway reads it and does not send it.
const RefusedPassword = "28P01"
