package dbuser

var (
	Verifier    = verifier
	MatchesName = matchesName
)

// SessionRoleNames returns the preferred and the fallback name.
func SessionRoleNames(user string, groups []string, identity bool) (preferred, fallback string) {
	n := sessionRoleNames(user, groups, identity)
	return n.preferred, n.fallback
}

// RoleNameIsOf reports whether name is the name of a session role (ok), and whether that role
// belongs to user (of).
func RoleNameIsOf(name, user string) (ok, of bool) {
	n, ok := ParseRoleName(name)
	return ok, ok && n.IsOf(user)
}

// RetiredName returns the name that a session role gets when it is retired.
var RetiredName = retiredName

// SetMostRoles sets how many session roles one user may have.
func (a *Admin) SetMostRoles(n int) { a.most = n }

// KeyedName returns the third choice of a name for n's session role.
func (a *Admin) KeyedName(n Need) string { return a.cfg.names(n).keyed }

// ExistingQuery is the query of Existing.
var ExistingQuery = existingQuery

// StateQuery is the query of a logon.
var StateQuery = stateQuery

// NamePattern is the pattern of the names of session roles, for PostgreSQL.
const NamePattern = namePattern
