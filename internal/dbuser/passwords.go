package dbuser

// PasswordRemoval selects the database users whose passwords are disabled, so that they cannot
// be used to bypass the gateway. A user can set a password in any session (ALTER ROLE
// CURRENT_USER PASSWORD), and revoking privileges cannot prevent that.
type PasswordRemoval int

const (
	// RemoveAutoCreated disables those of the users that AutoCreate makes. It is the default.
	RemoveAutoCreated PasswordRemoval = iota
	// RemoveAllPasswords also disables those of all other users at their next logon, except
	// superusers.
	RemoveAllPasswords
	// RemoveNoPasswords disables none.
	RemoveNoPasswords
)

// NoPassword are the role options that make every password useless, present or future.
// PostgreSQL compares VALID UNTIL with its clock whenever it checks a password of any kind, so a
// password that the user sets in a session never works, even before it is removed. Changing
// VALID UNTIL takes CREATEROLE and, from 16 on, ADMIN OPTION on the role. The options also mark
// these users for good.
const NoPassword = "password null valid until '-infinity'"
