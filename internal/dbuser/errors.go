package dbuser

import (
	"errors"
)

// The reasons why a logon cannot get its session role, in addition to those of adminconn. Test
// with errors.Is. Errors are *adminconn.Error.
var (
	ErrUserMissing     = errors.New("user does not exist")
	ErrUserRefused     = errors.New("user may not be lent") // superuser, administrative login, session role, pg_*
	ErrUserCannotLogin = errors.New("user cannot log in")
	ErrGroupMissing    = errors.New("group does not exist")
	ErrNotAGroup       = errors.New("not a group") // a role that can log in
	ErrGroupRefused    = errors.New("group may not be lent")
	ErrNameTooLong     = errors.New("name too long")
	ErrNameInvalid     = errors.New("name invalid")
	ErrManyRoles       = errors.New("too many sets of groups")
	ErrDatabaseMissing = errors.New("database does not exist") // never from Ensure: the upstream says 3D000 itself
)
