package dbuser

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/pgsql"
)

// checkLent applies the rules for what may be lent. It returns the user, or nil if it has to be
// created, and whether a membership in a session role has to be revoked before the answer is
// final.
//
// A membership counts through any number of roles: a role that may SET ROLE to a superuser is
// treated as one, whether or not it inherits anything.
func (s *state) checkLent(n Need, c *Config) (user *role, heal bool, err error) {
	user, heal, err = s.checkUser(n, c)
	if err != nil {
		return nil, false, err
	}
	for _, g := range n.Groups {
		again, err := s.checkGroup(g, c)
		if err != nil {
			return nil, false, err
		}
		heal = heal || again
	}
	return user, heal, nil
}

func (s *state) checkUser(n Need, c *Config) (*role, bool, error) {
	refuse := func(format string, args ...any) (*role, bool, error) {
		return nil, false, &adminconn.Error{Kind: ErrUserRefused, Name: n.User,
			Message: fmt.Sprintf("user %q may not be used: ", n.User) + fmt.Sprintf(format, args...)}
	}
	switch {
	case IsPredefined(n.User):
		return refuse("PostgreSQL reserves names that begin with pg_")
	case n.User == MarkerRole:
		return refuse("it marks session roles")
	case s.isAdmin(n.User):
		return refuse("it is the administrative login")
	case c.neverLends(n.User):
		return refuse("never_lend of the configuration names it")
	case n.User == "public" || n.User == "none":
		return refuse("PostgreSQL reserves the name")
	}
	u := s.role(n.User)
	if u != nil && u.ours() && n.Identity {
		return nil, false, nil // the session role will be retired, and the user created
	}
	if u == nil {
		if !n.AutoCreate {
			return nil, false, &adminconn.Error{Kind: ErrUserMissing, Name: n.User, Message: fmt.Sprintf("user %q does not exist", n.User)}
		}
		return nil, false, nil
	}
	switch {
	case u.Session:
		return refuse("it is a session role")
	case u.Super && !c.AllowSuperusers:
		return refuse("it is a superuser")
	case u.CreateRole && s.makesAnything() && !c.AllowSuperusers:
		return refuse("%s", mayMakeRoles)
	}
	heal := false
	for _, r := range s.Carries {
		if r.Root != u.OID {
			continue
		}
		switch {
		case s.isAdmin(r.Name):
			return refuse("it is a member of the administrative login")
		case r.Super && !c.AllowSuperusers:
			return refuse("it is a member of the superuser %q", r.Name)
		case slices.Contains(serverRoles, r.Name) && !c.AllowSuperusers:
			return refuse("it is a member of %s, which amounts to a superuser", r.Name)
		case r.Session || r.Name == MarkerRole:
			heal = true
		case r.CreateRole && s.makesAnything() && !c.AllowSuperusers:
			return refuse("it is a member of %q: %s", r.Name, mayMakeRoles)
		}
	}
	if !u.Login {
		return nil, false, &adminconn.Error{Kind: ErrUserCannotLogin, Name: n.User, Message: fmt.Sprintf("user %q is not permitted to log in", n.User)}
	}
	return u, heal, nil
}

// makesAnything reports whether CREATEROLE amounts to all rights. Before 16 it can grant every
// role, including those that reach the server's files and run its programs, and can change every
// role that is not a superuser, including our session roles.
func (s *state) makesAnything() bool { return s.version < 160000 }

const mayMakeRoles = "it has CREATEROLE, which before PostgreSQL 16 amounts to a superuser: " +
	"take it away (ALTER ROLE ... NOCREATEROLE), or set allow_superusers"

func (s *state) checkGroup(name string, c *Config) (heal bool, err error) {
	refuse := func(format string, args ...any) (bool, error) {
		return false, &adminconn.Error{Kind: ErrGroupRefused, Name: name,
			Message: fmt.Sprintf("group %q may not be joined: ", name) + fmt.Sprintf(format, args...)}
	}
	switch {
	case IsPredefined(name) && !c.AllowPredefinedRoles:
		return refuse("it is a predefined role")
	case slices.Contains(serverRoles, name) && !c.AllowSuperusers:
		return refuse("it amounts to a superuser")
	case name == MarkerRole:
		return refuse("it marks session roles")
	case s.isAdmin(name):
		return refuse("it is the administrative login")
	case c.neverLends(name):
		return refuse("never_lend of the configuration names it")
	}
	g := s.role(name)
	switch {
	case g == nil:
		return false, &adminconn.Error{Kind: ErrGroupMissing, Name: name, Message: fmt.Sprintf("group %q does not exist", name)}
	case g.Session:
		return refuse("it is a session role")
	case g.Super:
		return refuse("it is a superuser")
	case g.Login:
		return false, &adminconn.Error{Kind: ErrNotAGroup, Name: name, Message: fmt.Sprintf("%q is a user, not a group: it can log in", name)}
	case g.CreateRole:
		return refuse("it can create roles")
	case g.Repl:
		return refuse("it can replicate")
	}
	for _, r := range s.Carries {
		if r.Root != g.OID {
			continue
		}
		switch {
		case s.isAdmin(r.Name):
			return refuse("it is a member of the administrative login")
		case r.Super:
			return refuse("it is a member of the superuser %q", r.Name)
		case slices.Contains(serverRoles, r.Name) && !(c.AllowPredefinedRoles && c.AllowSuperusers):
			return refuse("it is a member of %s, which amounts to a superuser", r.Name)
		case r.Session || r.Name == MarkerRole:
			heal = true
		case r.CreateRole && s.makesAnything():
			// Not from 16 on: there any user with CREATEROLE can create such a role and make
			// any group a member of it, and the group gains no rights over other roles.
			return refuse("it is a member of %q, which can create roles", r.Name)
		}
	}
	return heal, nil
}

// NeverLends reports whether never_lend of the configuration names a role.
func (a *Admin) NeverLends(name string) bool { return a.cfg.neverLends(name) }

// NotLent applies the rules to existing users and groups, with a single query. It returns, by
// name, why those that may not be lent are refused.
func (a *Admin) NotLent(ctx context.Context, c *adminconn.Conn, users, groups []string) (map[string]*adminconn.Error, error) {
	st, err := readState(ctx, c, Need{Groups: slices.Concat(users, groups)}, sessionNames{})
	if err != nil {
		return nil, err
	}
	refusals := map[string]*adminconn.Error{}
	refused := func(name string, err error) {
		if refusal, ok := errors.AsType[*adminconn.Error](err); ok {
			refusals[name] = refusal
		}
	}
	for _, name := range users {
		_, _, err := st.checkUser(Need{User: name}, &a.cfg)
		refused(name, err)
	}
	for _, name := range groups {
		_, err := st.checkGroup(name, &a.cfg)
		refused(name, err)
	}
	return refusals, nil
}

// LendStatement lets an administrative login lend a role without having its rights.
func LendStatement(role, admin string) string {
	return fmt.Sprintf("grant %s to %s with admin true, inherit false, set false", pgsql.Ident(role), pgsql.Ident(admin))
}
