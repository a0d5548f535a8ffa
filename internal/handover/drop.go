package handover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/pgsql"
)

// errInUse is returned if a session began after the sweep looked.
var errInUse = errors.New("in use again")

// A role that cannot be cleared or dropped until an operator acts is tried again after
// retryMin, and then less and less often.
const (
	retryMin = time.Minute
	retryMax = time.Hour
)

// retry remembers a session role that could not be cleared.
type retry struct {
	err   error
	after time.Time
	pause time.Duration
}

// dueAgain reports whether it is time to try to clear a role.
func (a *Admin) dueAgain(role string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.retries[role]
	return r == nil || !a.Pool.Now().Before(r.after)
}

// whyKept returns the error of the last attempt, or nil if there was none.
func (a *Admin) whyKept(role string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r := a.retries[role]; r != nil {
		return r.err
	}
	return nil
}

// triedAgain records how an attempt ended.
func (a *Admin) triedAgain(role string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil || adminconn.Transient(err) || errors.Is(err, errInUse) || len(a.retries) >= maxEnded && a.retries[role] == nil {
		delete(a.retries, role)
		return
	}
	pause := retryMin
	if r := a.retries[role]; r != nil {
		pause = min(2*r.pause, retryMax)
	}
	a.retries[role] = &retry{err: err, after: a.Pool.Now().Add(pause), pause: pause}
}

// clearAndDrop revokes what others have granted to a session role and removes everything else
// that refers to it, in every database. Then it drops the role, if it is to be dropped and not
// in use. A logon that needs the role waits for the lane and creates it again.
func (a *Admin) clearAndDrop(ctx context.Context, role string, drop bool, unused time.Duration) (dropped bool, err error) {
	for range 2 {
		databases, err := a.dropUnlessNamed(ctx, role, drop, unused)
		switch {
		case err != nil:
			return false, err
		case len(databases) == 0:
			return drop, nil
		}
		if databases[0] == "" && len(databases) > 1 {
			databases = databases[1:] // what belongs to the whole cluster is handled from any database
		}
		for _, database := range databases {
			if err := a.forget(ctx, role, database); err != nil {
				return false, fmt.Errorf("removing what names it in database %q: %w", database, err)
			}
		}
	}
	return false, errors.New("an object or a grant still refers to it")
}

// dropUnlessNamed drops a session role, if it is to be dropped and nothing refers to it. Otherwise
// it returns the databases in which something does, and the role may not log in any more.
func (a *Admin) dropUnlessNamed(ctx context.Context, role string, drop bool, unused time.Duration) (databases []string, err error) {
	err = a.Pool.InLane(ctx, func(ctx context.Context, c *adminconn.Conn) ([]adminconn.Step, error) {
		now, err := a.Existing(ctx, c, []string{role})
		if err != nil || len(now) == 0 {
			return nil, err // gone already: as it should be
		}
		o := now[0]
		if o.Live || drop && (!o.UnusedFor(unused) || a.guards(ctx, c, o)) {
			return nil, errInUse
		}
		if !o.Alterable {
			return nil, errOtherLogin(role, a.Pool.Config().User)
		}
		if len(o.Databases) > 0 || o.Mentioned {
			if databases, err = readMentions(ctx, c, role); err != nil {
				return nil, err
			}
		}
		switch {
		case len(databases) > 0 && o.Login:
			// The role must not log in while everything that refers to it is being looked
			// up.
			return []adminconn.Step{{SQL: "alter role " + pgsql.Ident(role) + " nologin"}}, nil
		case len(databases) > 0, !drop:
			return nil, nil
		}
		administered, err := a.passOn(ctx, c, role)
		if err != nil {
			return nil, err
		}
		return append(administered, adminconn.Step{SQL: "drop role if exists " + pgsql.Ident(role)}), nil
	})
	return databases, err
}

// guards reports whether an unused role must be kept: its name cannot be guessed, and it
// replaces names that other roles have taken.
func (a *Admin) guards(ctx context.Context, c *adminconn.Conn, o dbuser.ExistingRole) bool {
	if !o.Name.Keyed() {
		return false
	}
	var taken bool
	readable, _, _ := strings.Cut(o.Role, "~")
	err := c.QueryRow(ctx, `select exists (select from pg_roles r where left(r.rolname, length($1)) = $1
		and r.oid not in (`+dbuser.SessionRoles+`))`, readable).Scan(&taken)
	return err != nil || taken
}

// passOn makes the user the administrator of the roles that the session role created. Otherwise,
// from 16 on, only superusers could administer them. Only a superuser can do this.
func (a *Admin) passOn(ctx context.Context, c *adminconn.Conn, role string) ([]adminconn.Step, error) {
	if c.Version < 160000 {
		return nil, nil
	}
	var made []string
	var super bool
	err := c.QueryRow(ctx, `select coalesce(array_agg(distinct g.rolname::text order by g.rolname::text), '{}'), (select rolsuper from pg_roles where rolname = current_user)
		from pg_auth_members m join pg_roles r on r.oid = m.member join pg_roles g on g.oid = m.roleid
		where r.rolname = $1 and m.admin_option and not m.inherit_option and not m.set_option`, role).Scan(&made, &super)
	if err != nil || len(made) == 0 {
		return nil, err
	}
	user, err := a.UserOf(ctx, c, role)
	if err != nil {
		return nil, err
	}
	var steps []adminconn.Step
	for _, m := range made {
		steps = append(steps, adminconn.Step{SQL: dbuser.LendStatement(m, user)})
	}
	if !super {
		return nil, fmt.Errorf("it made the role %s, which it alone administers; as a superuser: %s", pgsql.Names(made), steps[0].SQL)
	}
	return steps, nil
}

// readMentions lists the databases in which anything depends on the role.
func readMentions(ctx context.Context, c *adminconn.Conn, role string) ([]string, error) {
	var databases []string
	err := c.QueryRow(ctx, `
		select coalesce(array_agg(distinct coalesce(d.datname::text, '')), '{}')
		from pg_shdepend s join pg_roles r on r.oid = s.refobjid left join pg_database d on d.oid = s.dbid
		where s.refclassid = 'pg_authid'::regclass and r.rolname = $1`, role).Scan(&databases)
	return databases, err
}

// forget removes everything that refers to a session role in one database: grants to it,
// policies, default privileges. DROP OWNED also drops the role's objects, so they are handed
// over first in the same transaction, which then checks that none is left. The role cannot log
// in and has no session that could create more. Grants that remain afterwards were made by roles
// whose grants the login may not revoke.
func (a *Admin) forget(ctx context.Context, role, database string) error {
	var left []grant
	err := a.Pool.InDatabase(ctx, database, func(ctx context.Context, lane, c *adminconn.Conn) error {
		live, err := a.LiveAmong(ctx, lane, []string{role})
		if err == nil && len(live) > 0 {
			err = errInUse
		}
		if err != nil {
			return err
		}
		grants, err := readGrants(ctx, c, role)
		if err != nil {
			return err
		}
		back := slices.DeleteFunc(slices.Clone(grants), func(g grant) bool { return !g.lendable && !g.held })
		temp, err := tempGrantsToAct(ctx, lane, role, "")
		if err != nil {
			return err
		}
		var inner []adminconn.Step
		var owner bool
		if err := c.QueryRow(ctx, "select "+owns("$1"), role).Scan(&owner); err != nil {
			return err
		}
		if owner {
			user, err := a.UserOf(ctx, lane, role)
			if err != nil {
				return err
			}
			if temp, err = a.tempGrantsToGive(ctx, lane, c, role, user); err != nil {
				return err
			}
			inner = append(inner, adminconn.Step{SQL: fmt.Sprintf("reassign owned by %s to %s", pgsql.Ident(role), pgsql.Ident(user))})
		}
		inner = append(inner, adminconn.Step{SQL: ownsNothing(role)}, adminconn.Step{SQL: "drop owned by " + pgsql.Ident(role)})
		if err := a.Pool.Run(ctx, c, append(takeBack(back, role, c.Version), temp.around(inner...)...)); err != nil {
			return err
		}
		left, err = readGrants(ctx, c, role)
		return err
	})
	if err != nil || len(left) == 0 {
		return err
	}
	return grantedByOthers(left, role)
}

// grantedByOthers returns an error that names grants, the roles that can revoke them, and the
// statements.
func grantedByOthers(grants []grant, role string) error {
	var said []string
	for _, g := range grants {
		said = append(said, fmt.Sprintf("%q granted it rights on %s; as %q or a superuser: %s", g.grantor, g.object, g.grantor, revokeStatement(g.object, role)))
	}
	if more := len(said) - maxExamples; more > 0 {
		said = append(said[:maxExamples], fmt.Sprintf("and %d more", more))
	}
	return errors.New(strings.Join(said, "; "))
}

// owns returns the condition that a role owns an object in the present database, or one of the whole
// cluster. name is an expression of SQL.
func owns(name string) string {
	return `exists (select from pg_shdepend s join pg_roles r on r.oid = s.refobjid
    where s.refclassid = 'pg_authid'::regclass and s.deptype = 'o' and r.rolname = ` + name + `
      and s.classid not in ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass)
      and s.dbid in (0, (select oid from pg_database where datname = current_database())))`
}

// ownsNothing returns a statement that fails while the role owns an object.
func ownsNothing(role string) string {
	return `do $$ begin if ` + owns(pgsql.BodyLiteral(role)) + ` then raise exception 'the role owns objects'; end if; end $$`
}
