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

// RoleNameIsOf reports whether name is the name of a session role, and whether it is one of
// user's.
func RoleNameIsOf(name, user string) (ok, of bool) {
	n, ok := ParseRoleName(name)
	return ok, ok && n.IsOf(user)
}

// RetiredName returns the name of a session role that was retired.
var RetiredName = retiredName

// KeyedName returns the third name of the session role for n.
func (a *Admin) KeyedName(n Need) string { return a.cfg.names(n).keyed }
