package handover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgerrcode"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/pgsql"
)

// The rights of a session role end with its last session. Otherwise a function or a view
// that it owns would keep lending the rights of the user and the groups to others. So the
// role is stripped first: its memberships are revoked and it may not log in. Its objects
// are handed over afterwards. A strip touches only the catalogs of roles, in the database
// of the administrative login, so a holder cannot delay it with locks, settings or objects
// of their own. The next logon grants the memberships again.

// maxStripped is how many roles are stripped in one transaction.
const maxStripped = 32

// mustStrip reports whether a role that is not in use has rights that it must not keep.
// A role that owns nothing, has no members and was not revoked lends its rights to no
// one. It keeps them until VALID UNTIL passes, so that the next logon has nothing to do.
func mustStrip(o dbuser.ExistingRole, revoked bool) bool {
	return !o.Live && (o.Held || o.Members || revoked && o.Login) &&
		(len(o.Databases) > 0 || o.Mentioned || o.Members || o.Retired() || o.Expired() || revoked)
}

// membership is one that a strip revokes: Member is a member of Role.
type membership struct {
	Role, Member                string
	Admin, Inherit, Set         bool
	Grantor                     string
	mine                        bool // the administrative login may revoke it
	roleID, memberID, grantorID uint32
}

// named reports whether a statement can name the roles. One that was made in a database with another
// encoding may have a name that is not valid UTF-8.
func (m membership) named() bool { return utf8.ValidString(m.Role + m.Member + m.Grantor) }

// revokeAll returns the statement that revokes memberships with the same member and grantor. If there
// is only one, its roles need not be named.
func revokeAll(all []membership, version int) string {
	if m := all[0]; !m.named() {
		grantor := ""
		if version >= 160000 {
			grantor = " granted by %3$I"
		}
		return fmt.Sprintf("do $$ begin execute format('revoke %%1$I from %%2$I%s cascade', pg_get_userbyid(%d), pg_get_userbyid(%d), pg_get_userbyid(%d)); end $$",
			grantor, m.roleID, m.memberID, m.grantorID)
	}
	var roles []string
	for _, m := range all {
		roles = append(roles, m.Role)
	}
	sql := fmt.Sprintf("revoke %s from %s", pgsql.Idents(roles), pgsql.Ident(all[0].Member))
	if version >= 160000 {
		sql += " granted by " + pgsql.Ident(all[0].Grantor)
	}
	return sql + " cascade"
}

// grant returns the statement that grants it again.
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

// membershipsQuery lists the memberships of the roles in $1, except in the marker, and
// their members. It looks them up role by role: the server would otherwise read all memberships.
// From 16 on a plain login may revoke only what it has granted.
func membershipsQuery(version int) string {
	inherit, set, mine, held, members := "true", "true", "true", "", ""
	if version >= 160000 {
		inherit, set, mine = "m.inherit_option", "m.set_option", "me.rolsuper or m.grantor = me.oid"
		held = "and (m.inherit_option or m.set_option or m.grantor <> 10)"
		members = "and (m.inherit_option or m.set_option)"
	}
	return strings.NewReplacer("{inherit}", inherit, "{set}", set, "{mine}", mine, "{held}", held, "{members}", members).Replace(`
with role as materialized (select oid from pg_roles where rolname = any ($1::text[]::name[])),
me as materialized (select oid, rolsuper from pg_roles where rolname = current_user)
select pg_get_userbyid(m.roleid)::text, pg_get_userbyid(m.member)::text, m.admin, m.inherit, m.set, coalesce(pg_get_userbyid(m.grantor), '')::text, m.mine,
  m.roleid, m.member, m.grantor
from (
  select m.* from role r cross join lateral (
    select m.roleid, m.member, m.grantor, m.admin_option as admin, {inherit} as inherit, {set} as set, {mine} as mine
    from pg_auth_members m cross join me where m.member = r.oid and m.roleid is distinct from (select oid from pg_roles where rolname = '` + dbuser.MarkerRole + `') and ` + dbuser.RoleThere + ` {held} offset 0) m
  union
  select m.* from role r cross join lateral (
    select m.roleid, m.member, m.grantor, m.admin_option, {inherit}, {set}, {mine}
    from pg_auth_members m cross join me where m.roleid = r.oid and pg_get_userbyid(m.member) not in (current_user, session_user) and ` + dbuser.MemberThere + ` {members} offset 0) m) m
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
		if err := rows.Scan(&m.Role, &m.Member, &m.Admin, &m.Inherit, &m.Set, &m.Grantor, &m.mine, &m.roleID, &m.memberID, &m.grantorID); err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, rows.Err()
}

// stripped is the result for one role. If both fields are empty, the role is in use.
type stripped struct {
	done bool
	left error // what could not be taken away
}

// strip strips those of the roles that must be stripped, a few per transaction. It skips roles
// that have a session, or that a logon of this process is opening a session with.
func (a *Admin) strip(ctx context.Context, roles []string, revoked func(role string) bool) map[string]stripped {
	result := map[string]stripped{}
	for len(roles) > 0 && ctx.Err() == nil {
		some := roles[:min(maxStripped, len(roles))]
		roles = roles[len(some):]
		err := a.stripSome(ctx, some, revoked, false, result)
		if err == nil {
			continue
		}
		// A row is locked, or a membership may not be revoked. Run the statements one by one, so
		// that a failure does not stop the others.
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

// stripSome is one transaction of strip. With careful it goes on after a statement that
// fails.
//
// A logon of this process cannot interfere: it waits for the strip, or the strip leaves
// its role out. A logon through another gateway can. If its session shows before the
// commit, everything is rolled back. If it comes after the commit, it fails because of
// NOLOGIN, and the other gateway restores the role (Ensure). In between, the server may
// admit a session before the commit and show it only afterwards: stripSome looks for it
// and gives the memberships back. A session that shows even later is found by its own
// gateway, which checks the role again after each logon (Opened).
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
				// In a message of its own: the server may refuse the next one as a whole.
				if err := a.Pool.Run(ctx, c, []adminconn.Step{{SQL: "savepoint one"}}); err != nil {
					return false, err
				}
				steps = append(steps, adminconn.Step{SQL: "release one"})
			}
			err := a.Pool.Run(ctx, c, steps)
			if err == nil || !careful || !adminconn.Refused(err) && !adminconn.IsCode(err, pgerrcode.LockNotAvailable, pgerrcode.DeadlockDetected, pgerrcode.UndefinedObject) {
				return err == nil, err
			}
			left[role] = fmt.Errorf("%s: %w", s.SQL, err)
			return false, a.Pool.Run(ctx, c, []adminconn.Step{{SQL: "rollback to one"}, {SQL: "release one"}})
		}
		// From 16 on, each statement after a change of a membership makes the server read all
		// memberships of a plain login again. So NOLOGIN comes first, and one statement revokes
		// several memberships.
		for _, role := range login {
			ok, err := attempt(role, adminconn.Step{SQL: "alter role " + pgsql.Ident(role) + " nologin"})
			if err != nil {
				return nil, err
			}
			if ok {
				nologin = append(nologin, role)
			}
		}
		for len(all) > 0 {
			m := all[0]
			role := m.Member
			if !slices.Contains(touched, role) {
				role = m.Role
			}
			if !m.mine {
				left[role] = fmt.Errorf("%q granted it %q, which the administrative login may not take back: %s", m.Grantor, m.Role, revokeAll(all[:1], c.Version))
				all = all[1:]
				continue
			}
			n := 1
			for !careful && m.named() && n < len(all) && all[n].mine && all[n].named() && all[n].Member == m.Member && all[n].Grantor == m.Grantor {
				n++
			}
			ok, err := attempt(role, adminconn.Step{SQL: revokeAll(all[:n], c.Version)})
			if err != nil {
				return nil, err
			}
			if ok {
				taken = append(taken, all[:n]...)
			}
			all = all[n:]
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

// giveBack undoes the strip of roles that turn out to have a session, unless a credential
// was revoked: then the next logon with another credential grants the role again.
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
			if slices.Contains(live, m.Member) && m.named() {
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

// errOtherLogin returns the error for a session role that cannot be changed from 16 on, because
// it was created by another login, or by one that was a superuser then.
func errOtherLogin(role, login string) error {
	return fmt.Errorf("another login made it; a superuser hands it over with: %s", dbuser.LendStatement(role, login))
}

// markElsewhere marks the roles as live that have a session at another host of the
// cluster: pg_stat_activity of the primary does not show the sessions of standbys.
// It asks only about roles that would otherwise be changed, and only where there are
// several hosts. A host that does not answer is ignored: rights must not last because a
// host is down.
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
