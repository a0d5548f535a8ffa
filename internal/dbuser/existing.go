package dbuser

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/pgsql"
)

// SessionRoles selects the OIDs of the roles that may be changed, handed over and dropped
// as session roles. Membership in the marker alone proves nothing: before 16 a user with
// CREATEROLE can add any role to it. So the role must not be a superuser, and its name must
// begin like a session role's; ParseRoleName checks the whole name. From 16 on the login that
// created the marker administers it, and is a member for that reason. It is not a session role.
const SessionRoles = `select x.member from pg_auth_members x join pg_roles k on k.oid = x.roleid join pg_roles v on v.oid = x.member
  where k.rolname = '` + MarkerRole + `' and v.rolname not in (current_user, session_user) and not v.rolsuper and v.rolname ~ '^IAMA?:'
  group by x.member having not bool_or(x.admin_option)`

// isSessionRole is the condition that a row r of pg_roles is in SessionRoles. Unlike that list, it
// costs nothing for roles that another condition leaves out.
const isSessionRole = `r.rolname not in (current_user, session_user) and not r.rolsuper and r.rolname ~ '^IAMA?:'
  and (select not bool_or(x.admin_option) from pg_auth_members x
    where x.member = r.oid and x.roleid = (select oid from pg_roles where rolname = '` + MarkerRole + `'))`

// RoleThere and MemberThere are the conditions that the two roles of a row m of pg_auth_members exist.
// PostgreSQL leaves a row behind if a role is dropped while another transaction grants it (before 16)
// or grants something to it. Such a row gives no one anything, and no statement removes it. These are
// scalar subqueries, so that the server looks roles up one by one.
const (
	RoleThere   = `(select true from pg_roles x where x.oid = m.roleid)`
	MemberThere = `(select true from pg_roles x where x.oid = m.member)`
)

// isSession is the condition that a row a of pg_stat_activity is a session. The worker
// of a subscription runs as the subscription's owner, but it does not count as a session,
// because it can keep running for ever, and the owner would never lose its rights. A plain
// login does not see the type of another role's backend, but it does see which backends
// work for subscriptions.
const isSession = `coalesce(a.backend_type = 'client backend',
  a.pid not in (select w.pid from pg_stat_get_subscription(null) w where w.pid is not null))`

// ExistingRole is a session role, as the clean-up sees it.
type ExistingRole struct {
	Role       string
	Name       RoleName
	Live       bool // has backends
	Prepared   bool // has prepared transactions
	Login      bool // may log in
	Held       bool // is a member of more than the marker
	Members    bool // others are members of it
	Alterable  bool // the administrative login may change it
	ValidUntil time.Time
	Databases  []string // where it owns something; "" for what belongs to the whole cluster
	Mentioned  bool     // an ACL, a policy or default privileges name it
	Now        time.Time
}

// existingQuery reads pg_shdepend, which covers all databases, for all session
// roles ($1 null) or the named ones. Default privileges and user mappings
// of a session role matter to no other role and are not handed over.
//
// A cluster may have tens of thousands of session roles. So the sessions are read once, not once
// for each role, and the query for named roles does not read the other roles. It has a text of its own,
// because a generic plan cannot decide by $1. What a role owns is looked up in an index, role by role: without
// statistics, the server's plan for a join would read the whole catalog once for each role.
func existingQuery(version int, named bool) string {
	which := "$1::text[] is null"
	if named {
		which = "r.rolname = any ($1::text[]::name[])"
	}
	// From 16 on, the membership that a role's creator gets only lets it administer the role.
	held, members, alterable := "", "", "true"
	if version >= 160000 {
		held = "and (m.inherit_option or m.set_option or m.grantor <> 10)"
		members = "and (m.inherit_option or m.set_option)"
		alterable = `case when me.rolsuper or coalesce((select bool_or(m.admin_option) from pg_auth_members m
      where m.roleid = r.oid and m.member = me.oid), false) then true
    else pg_has_role(me.oid, r.oid, 'member with admin option') end`
	}
	return strings.NewReplacer("{which}", which, "{held}", held, "{members}", members, "{alterable}", alterable).Replace(`
with session_role as (
  select r.oid, r.rolname, r.rolvaliduntil, r.rolcanlogin
  from pg_roles r
  where {which} and ` + isSessionRole + `),
live as materialized (
  select a.usesysid from pg_stat_activity a where a.usesysid is not null and ` + isSession + `
    and not exists (select from unnest($2::int[], $3::int8[]) o (pid, role) where o.pid = a.pid and o.role = a.usesysid::int8)),
prepared as materialized (select x.owner from pg_prepared_xacts x where x.owner is not null)
select r.rolname::text, clock_timestamp(),
  case when isfinite(r.rolvaliduntil) then r.rolvaliduntil else 'epoch' end,
  r.oid = any (array(select usesysid from live)),
  r.rolname = any (array(select owner from prepared)),
  r.rolcanlogin,
  coalesce((select true from pg_auth_members m where m.member = r.oid
    and m.roleid <> (select oid from pg_roles where rolname = '` + MarkerRole + `') and ` + RoleThere + ` {held} limit 1), false),
  coalesce((select true from pg_auth_members m where m.roleid = r.oid and m.member <> me.oid
    and pg_get_userbyid(m.member) <> session_user and ` + MemberThere + ` {members} limit 1), false),
  {alterable},
  coalesce((select array_agg(distinct coalesce(d.datname::text, '') order by coalesce(d.datname::text, ''))
    from pg_shdepend s left join pg_database d on d.oid = s.dbid
    where s.refclassid = 'pg_authid'::regclass and s.refobjid = r.oid and s.deptype = 'o'
      and s.classid not in ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass)), '{}'),
  coalesce((select true from pg_shdepend s where s.refclassid = 'pg_authid'::regclass and s.refobjid = r.oid
    and (s.deptype <> 'o' or s.classid in ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass)) limit 1), false)
from session_role r cross join (select oid, rolsuper from pg_roles where rolname = current_user) me order by 1`)
}

// existingStatement is the name of the query of Existing for named roles. A connection prepares it once.
const existingStatement = "daypass_existing"

// Existing lists the session roles that exist, all of them (roles nil) or the named ones.
func (a *Admin) Existing(ctx context.Context, c *adminconn.Conn, roles []string) ([]ExistingRole, error) {
	pids, oids := a.outlasting(c)
	query := existingQuery(c.Version, roles != nil)
	if roles != nil {
		// Planning takes most of the query's time, and it runs three times a second while sessions
		// end.
		if _, err := c.Prepare(ctx, existingStatement, query); err != nil {
			return nil, err
		}
		query = existingStatement
	}
	rows, err := c.Query(ctx, query, roles, pids, oids)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []ExistingRole
	for rows.Next() {
		var o ExistingRole
		if err := rows.Scan(&o.Role, &o.Now, &o.ValidUntil, &o.Live, &o.Prepared, &o.Login, &o.Held, &o.Members, &o.Alterable, &o.Databases, &o.Mentioned); err != nil {
			return nil, err
		}
		var ok bool
		if o.Name, ok = ParseRoleName(o.Role); ok {
			all = append(all, o)
		}
	}
	return all, rows.Err()
}

// Retired reports whether another role took this one's place, so that no logon uses it any more.
func (o *ExistingRole) Retired() bool { return o.Name.tag == tagRetired }

// Expired reports whether the role's VALID UNTIL has passed, so that the next logon has to
// change it anyway. A role without VALID UNTIL never counts as expired.
func (o *ExistingRole) Expired() bool { return o.ValidUntil.Unix() > 0 && o.Now.After(o.ValidUntil) }

// UnusedFor reports whether the last logon is longer ago than d. Every logon pushes
// VALID UNTIL forward, so the answer survives restarts and covers all gateways. A role
// without VALID UNTIL is never unused; a retired one always is, since a holder can have
// roles retired at every logon.
func (o *ExistingRole) UnusedFor(d time.Duration) bool {
	return !o.Live && !o.Prepared && o.ValidUntil.Unix() > 0 && (o.Retired() || o.Now.Sub(o.ValidUntil.Add(-validFor)) > d)
}

// ReadForeign names the members of the marker that are left alone because they are
// neither session roles nor administrative logins.
func ReadForeign(ctx context.Context, c *adminconn.Conn) ([]string, error) {
	rows, err := c.Query(ctx, `select r.rolname::text, r.rolsuper
		from pg_auth_members m join pg_roles k on k.oid = m.roleid join pg_roles r on r.oid = m.member
		where k.rolname = $1 and r.rolname not in (current_user, session_user)
		group by 1, 2 having not bool_or(m.admin_option) order by 1`, MarkerRole)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var foreign []string
	for rows.Next() {
		var name string
		var super bool
		if err := rows.Scan(&name, &super); err != nil {
			return nil, err
		}
		if _, ok := ParseRoleName(name); super || !ok {
			foreign = append(foreign, name)
		}
	}
	return foreign, rows.Err()
}

// ErrForeign is why a member of the marker is left alone.
var ErrForeign = errors.New("it is a member of " + MarkerRole + " without being a session role; it is left alone: " +
	"REVOKE " + MarkerRole + " from it")

// errNoUser is why a role's objects cannot be handed over: its user does not exist.
var errNoUser = errors.New("the user of the session role does not exist, as it was dropped or renamed: " +
	"`daypass user drop` of the earlier name, with --reassign-to, gives what is left to another user")

// UserOf finds the user of a session role by the role's name, and applies the rules for what may
// be lent. It ignores the role's memberships: a strip has revoked them by now, and a holder may
// have added others.
func (a *Admin) UserOf(ctx context.Context, c *adminconn.Conn, role string) (string, error) {
	name, ok := ParseRoleName(role)
	if !ok {
		return "", ErrForeign
	}
	var users []string
	which, value := "u.rolname = $1::text::name", name.user // by index
	if name.user == "" {
		which, value = userHashed+" = $1", name.userHash
	}
	err := c.QueryRow(ctx, `select coalesce(array_agg(u.rolname::text), '{}') from pg_roles u where `+which, value).Scan(&users)
	switch {
	case err != nil:
		return "", err
	case len(users) == 0:
		return "", errNoUser
	case len(users) > 1:
		return "", fmt.Errorf("the users %s fit the name of the session role", pgsql.Names(users))
	}
	st, err := readState(ctx, c, Need{User: users[0]}, sessionNames{})
	if err != nil {
		return "", err
	}
	_, _, err = st.checkUser(Need{User: users[0]}, &a.cfg)
	if errors.Is(err, ErrUserCannotLogin) {
		// It may be a user that was locked out (NOLOGIN); a group has members.
		var members bool
		err = c.QueryRow(ctx, `select exists (select from pg_auth_members m join pg_roles r on r.oid = m.roleid
			where r.rolname = $1 and pg_get_userbyid(m.member) not in (current_user, session_user) and `+MemberThere+` and m.member not in (`+SessionRoles+`))`, users[0]).Scan(&members)
		if err == nil && members {
			err = fmt.Errorf("%q is a group by now", users[0])
		}
	}
	if err != nil {
		return "", err
	}
	return users[0], nil
}
