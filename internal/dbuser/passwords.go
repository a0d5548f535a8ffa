package dbuser

// PasswordRemoval says of which database users no password is valid, so that
// nobody can log on as them past the gateway with one. A user may set a password
// in any session (ALTER ROLE CURRENT_USER PASSWORD), and no right can be taken away
// that would prevent it.
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
// every kind, so one that the user sets in a session is refused from the start, not
// only once somebody has removed it. To change VALID UNTIL takes CREATEROLE, and
// from 16 on ADMIN OPTION on the role. It is also the durable mark of these users.
const NoPassword = "password null valid until '-infinity'"
