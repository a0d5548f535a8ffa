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

// RoleNameIsOf reports whether a session role's name is one, and says of whom.
func RoleNameIsOf(name, user string) (ok, of bool) {
	n, ok := ParseRoleName(name)
	return ok, ok && n.IsOf(user)
}

// RetiredName is the name of a session role that stepped aside.
var RetiredName = retiredName

// KeyedName is the third name of the session role for n.
func (a *Admin) KeyedName(n Need) string { return a.cfg.names(n).keyed }
