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

// What a session role may do ends with its last session, whatever it owns by then:
// a function or a view of its would lend the user's and the groups' rights to
// whom it was granted. So the role is stripped: its memberships are taken away
// and it may not log in, before and apart from sorting out what it owns. That
// needs nothing that a holder could lock, set, own or delay: it touches only the
// catalogs of roles, in the database of the administrative login. The next logon
// finds the memberships missing and grants them again.

// maxStripped is how many roles are stripped in one transaction.
const maxStripped = 32

// mustStrip reports whether a role that is not in use has rights it should not
// keep. One that owns nothing, is nobody's group and was not revoked gives its
// rights to nobody; it keeps them, so that the next logon has nothing to do, as
// long as a logon would find VALID UNTIL in the future.
func mustStrip(o dbuser.ExistingRole, revoked bool) bool {
	return !o.Live && (o.Held || o.Members || revoked && o.Login) &&
		(len(o.Databases) > 0 || o.Mentioned || o.Members || o.Retired() || o.Expired() || revoked)
}

// membership is what the strip takes away: Member is no longer in Role.
type membership struct {
	Role, Member        string
	Admin, Inherit, Set bool
	Grantor             string
	mine                bool // the administrative login may revoke it
}

// revoke is the statement that takes the membership away.
func (m membership) revoke(version int) string {
	sql := fmt.Sprintf("revoke %s from %s", pgsql.Ident(m.Role), pgsql.Ident(m.Member))
	if version >= 160000 {
		sql += " granted by " + pgsql.Ident(m.Grantor)
	}
	return sql + " cascade"
}

// grant is the statement that gives it back.
func (m membership) grant(version int) string {
	sql := fmt.Sprintf("grant %s to %s", pgsql.Ident(m.Role), pgsql.Ident(m.Member))
	if version >= 160000 {
		return sql + fmt.Sprintf(" with admin %v, inherit %v, set %v", m.Admin, m.Inherit, m.Set)
	}
	if m.Admin {
		sql += " with admin option"
	}
	return sql
}

// membershipsQuery lists what the roles in $1 are members of but the marker, and
// who is a member of them. From 16 on a plain login revokes what it has granted.
func membershipsQuery(version int) string {
	inherit, set, mine, held, members := "true", "true", "true", "", ""
	if version >= 160000 {
		inherit, set, mine = "m.inherit_option", "m.set_option", "me.rolsuper or m.grantor = me.oid"
		held = "and (m.inherit_option or m.set_option or m.grantor <> 10)"
		members = "and (m.inherit_option or m.set_option)"
	}
	return strings.NewReplacer("{inherit}", inherit, "{set}", set, "{mine}", mine, "{held}", held, "{members}", members).Replace(`
select g.rolname::text, r.rolname::text, m.admin_option, {inherit}, {set}, coalesce(pg_get_userbyid(m.grantor), '')::text, {mine}
from pg_auth_members m join pg_roles g on g.oid = m.roleid join pg_roles r on r.oid = m.member
cross join (select oid, rolsuper from pg_roles where rolname = current_user) me
where (r.rolname = any ($1::text[]::name[]) and g.rolname <> '` + dbuser.MarkerRole + `' {held})
   or (g.rolname = any ($1::text[]::name[]) and r.rolname not in (current_user, session_user) {members})
order by 2, 1`)
}

func readMemberships(ctx context.Context, c *adminconn.Conn, roles []string) ([]membership, error) {
	rows, err := c.Query(ctx, membershipsQuery(c.Version), roles)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []membership
	for rows.Next() {
		var m membership
		if err := rows.Scan(&m.Role, &m.Member, &m.Admin, &m.Inherit, &m.Set, &m.Grantor, &m.mine); err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, rows.Err()
}

// stripped says how it went with one role. Both empty: the role is in use.
type stripped struct {
	done bool
	left error // what could not be taken away
}

// strip strips those of the roles that must be, a few in a transaction. A role that
// a logon of this process is opening a session with, or that has a session, is
// left out.
func (a *Admin) strip(ctx context.Context, roles []string, revoked func(role string) bool) map[string]stripped {
	result := map[string]stripped{}
	for len(roles) > 0 && ctx.Err() == nil {
		some := roles[:min(maxStripped, len(roles))]
		roles = roles[len(some):]
		err := a.stripSome(ctx, some, revoked, false, result)
		if err == nil {
			continue
		}
		// Something is locked, or may not be taken away: then each statement by
		// itself, so that it keeps nothing but itself.
		for _, role := range some {
			if err := a.stripSome(ctx, []string{role}, revoked, true, result); err != nil {
				result[role] = stripped{left: err}
			}
		}
	}
	return result
}

// errSlipped is why a strip is undone: a session began in the meantime.
var errSlipped = errors.New("a session began in the meantime")

// stripSome is one transaction of strip. careful has it go on after a statement that
// fails.
//
// A logon of this process cannot come in between: it waits for the strip, or the
// strip leaves its role out. One through another gateway can. Before the commit it
// may be logged on already, and everything is rolled back; after it, it fails for
// NOLOGIN and the other gateway puts the role right (Ensure). What is left is a
// logon that the server has let in before the commit and shows after it. This
// looks for it and gives back what it took; one that shows still later is found
// by its own gateway, which looks at the role again after each logon (Opened).
func (a *Admin) stripSome(ctx context.Context, roles []string, revoked func(role string) bool, careful bool, result map[string]stripped) error {
	var taken []membership
	var nologin, touched []string
	left := map[string]error{}
	version := 0
	over := func() {}
	err := a.Pool.InLane(ctx, func(ctx context.Context, c *adminconn.Conn) ([]adminconn.Step, error) {
		version = c.Version
		var free []string
		free, over = a.BeginStrip(roles)
		if len(free) == 0 {
			return nil, nil
		}
		now, err := a.Existing(ctx, c, free)
		if err != nil {
			return nil, err
		}
		var login []string
		for _, o := range now {
			if mustStrip(o, revoked(o.Role)) {
				touched = append(touched, o.Role)
				if o.Login && o.Alterable {
					login = append(login, o.Role)
				}
				if !o.Alterable {
					left[o.Role] = errOtherLogin(o.Role, a.Pool.Config().User)
				}
			}
		}
		if len(touched) == 0 {
			return nil, nil
		}
		all, err := readMemberships(ctx, c, touched)
		if err != nil {
			return nil, err
		}
		attempt := func(role string, s adminconn.Step) (bool, error) {
			steps := []adminconn.Step{s}
			if careful {
				steps = []adminconn.Step{{SQL: "savepoint one"}, s, {SQL: "release one"}}
			}
			err := a.Pool.Run(ctx, c, steps)
			if err == nil || !careful || !adminconn.Refused(err) && !adminconn.IsCode(err, "55P03", "40P01") {
				return err == nil, err
			}
			left[role] = fmt.Errorf("%s: %w", s.SQL, err)
			return false, a.Pool.Run(ctx, c, []adminconn.Step{{SQL: "rollback to one"}, {SQL: "release one"}})
		}
		for _, m := range all {
			role := m.Member
			if !slices.Contains(touched, role) {
				role = m.Role
			}
			if !m.mine {
				left[role] = fmt.Errorf("%q granted it %q, which the administrative login may not take back: %s", m.Grantor, m.Role, m.revoke(c.Version))
				continue
			}
			ok, err := attempt(role, adminconn.Step{SQL: m.revoke(c.Version)})
			if err != nil {
				return nil, err
			}
			if ok {
				taken = append(taken, m)
			}
		}
		for _, role := range login {
			ok, err := attempt(role, adminconn.Step{SQL: "alter role " + pgsql.Ident(role) + " nologin"})
			if err != nil {
				return nil, err
			}
			if ok {
				nologin = append(nologin, role)
			}
		}
		if live, err := a.LiveAmong(ctx, c, touched); err != nil || len(live) > 0 {
			return nil, errors.Join(err, errSlipped)
		}
		return nil, nil
	})
	over()
	if errors.Is(err, errSlipped) && len(roles) == 1 {
		return nil // in use again; it is looked at when that ends
	}
	if err != nil {
		return err
	}
	wasRevoked := map[string]bool{}
	for _, role := range touched {
		wasRevoked[role] = revoked(role)
		result[role] = stripped{done: true, left: left[role]}
		if left[role] == nil {
			a.mu.Lock()
			delete(a.ended.revoked, role)
			a.mu.Unlock()
		}
	}
	if len(taken)+len(nologin) > 0 {
		if err := a.giveBack(ctx, touched, taken, nologin, wasRevoked, version); err != nil {
			a.Pool.Log.Warn("sessions that began during a clean-up not looked for", "cluster", a.Pool.Cluster, "err", err)
		}
	}
	return nil
}

// giveBack undoes the strip of roles that have a session all the same. Where a
// credential was revoked it does not: a logon with another one has the role
// granted again.
func (a *Admin) giveBack(ctx context.Context, touched []string, taken []membership, nologin []string, wasRevoked map[string]bool, version int) error {
	c, err := a.Pool.Acquire(ctx)
	if err != nil {
		return err
	}
	live, err := a.LiveAmong(ctx, c, touched)
	a.Pool.Release(c)
	live = slices.DeleteFunc(live, func(role string) bool { return wasRevoked[role] })
	if err != nil || len(live) == 0 {
		return err
	}
	a.Pool.Log.Info("session roles granted again: sessions began while they were stripped", "cluster", a.Pool.Cluster, "roles", live)
	return a.Pool.Retried(ctx, func(context.Context, *adminconn.Conn) ([]adminconn.Step, error) {
		var steps []adminconn.Step
		for _, m := range taken {
			if slices.Contains(live, m.Member) {
				steps = append(steps, adminconn.Step{SQL: m.grant(version)})
			}
		}
		for _, role := range nologin {
			if slices.Contains(live, role) {
				steps = append(steps, adminconn.Step{SQL: "alter role " + pgsql.Ident(role) + " login"})
			}
		}
		return steps, nil
	})
}

// errOtherLogin is why a session role cannot be changed from 16 on: it was made by
// another login, or by one that was a superuser then.
func errOtherLogin(role, login string) error {
	return fmt.Errorf("another login made it; a superuser hands it over with: %s", dbuser.LendStatement(role, login))
}

// markElsewhere marks the roles as live that have a session at another host of the
// cluster: pg_stat_activity of the primary does not show the sessions of standbys.
// Only roles are asked for that something would happen to; where there are none, or
// one host, nobody is asked. A host that does not answer has no say: rights do not
// last because it is gone.
func (a *Admin) markElsewhere(ctx context.Context, all []dbuser.ExistingRole, unused time.Duration) {
	if !a.Pool.SeveralHosts() {
		return
	}
	var roles []string
	for _, o := range all {
		if !o.Live && (mustStrip(o, a.wasRevoked(o.Role)) || len(o.Databases) > 0 || o.Mentioned || unused > 0 && o.UnusedFor(unused)) {
			roles = append(roles, o.Role)
		}
	}
	live := a.LiveElsewhere(ctx, roles)
	for i := range all {
		all[i].Live = all[i].Live || slices.Contains(live, all[i].Role)
	}
}
