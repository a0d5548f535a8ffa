package dbuser

// PasswordRemoval selects the database users whose passwords are made invalid, so that
// they cannot be used to bypass the gateway. A user may set a password in any session
// (ALTER ROLE CURRENT_USER PASSWORD), and PostgreSQL has no right to revoke that would
// prevent it.
type PasswordRemoval int

const (
	// RemoveAutoCreated: users that AutoCreate makes. The default.
	RemoveAutoCreated PasswordRemoval = iota
	// RemoveAllPasswords: these, and every other user at the next logon, except
	// superusers.
	RemoveAllPasswords
	// RemoveNoPasswords: none.
	RemoveNoPasswords
)

// NoPassword are the options of a role that no password lets in, now or later.
// PostgreSQL compares VALID UNTIL with its clock whenever it checks a password, of
// every kind, so one that the user sets in a session never works, even before it is
// removed. To change VALID UNTIL takes CREATEROLE, and
// from 16 on ADMIN OPTION on the role. It is also the durable mark of these users.
const NoPassword = "password null valid until '-infinity'"
