package handover

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/pgsql"
)

// tempGrants are the grants that a plain administrative login and the database user get for one
// transaction, so that the login can act for a session role and the user can become the owner of
// its objects.
type tempGrants struct {
	role, user string
	version    int
	super      bool
	hasRole    bool     // the admin is a permanent member of the session role
	hasUser    bool     // and of its user
	missing    []string // roles that the user joins for the new owner's rights
	rights     []right  // what the user is granted for them
}

// right is a right that the new owner of objects needs on their schema or database.
type right struct{ privilege, on string }

// roomsQuery finds the schemas, databases and foreign-data wrappers of the objects that
// the session role $1 owns, where the user $2 lacks a right that PostgreSQL requires of a
// new owner: CREATE, or USAGE on the wrapper. For each schema, database or wrapper it
// reports whether the user owns it, and names another role that owns it or has the right,
// if the administrative login may lend that role. So objects in a schema where only a
// group may create are handed over too.
func roomsQuery(version int) string {
	lendable := "me.rolcreaterole"
	if version >= 160000 {
		lendable = "pg_has_role(me.oid, g.oid, 'member with admin option')"
	}
	return strings.ReplaceAll(`
with r as (select oid from pg_roles where rolname = $1), t as (select oid, rolname from pg_roles where rolname = $2),
me as (select oid, rolsuper, rolcreaterole from pg_roles where rolname = current_user),
room (what, privilege, owner, acl, has) as (
  select 'schema ' || quote_ident(nspname), 'CREATE', nspowner, coalesce(nspacl, acldefault('n', nspowner)), has_schema_privilege(t.oid, n.oid, 'create')
    from pg_namespace n, t where n.oid in (
      select relnamespace from pg_class where relowner = (select oid from r)
      union select pronamespace from pg_proc where proowner = (select oid from r)
      union select typnamespace from pg_type where typowner = (select oid from r)
      union select oprnamespace from pg_operator where oprowner = (select oid from r)
      union select opcnamespace from pg_opclass where opcowner = (select oid from r)
      union select opfnamespace from pg_opfamily where opfowner = (select oid from r)
      union select collnamespace from pg_collation where collowner = (select oid from r)
      union select connamespace from pg_conversion where conowner = (select oid from r)
      union select stxnamespace from pg_statistic_ext where stxowner = (select oid from r)
      union select dictnamespace from pg_ts_dict where dictowner = (select oid from r)
      union select cfgnamespace from pg_ts_config where cfgowner = (select oid from r))
  union all select 'database ' || quote_ident(datname), 'CREATE', datdba, coalesce(datacl, acldefault('d', datdba)), has_database_privilege(t.oid, d.oid, 'create')
    from pg_database d, t where datname = current_database() and (
      exists (select from pg_namespace where nspowner = (select oid from r)) or exists (select from pg_publication where pubowner = (select oid from r))
      or exists (select from pg_shdepend where refclassid = 'pg_authid'::regclass and refobjid = (select oid from r) and classid = 'pg_subscription'::regclass))
  union all select 'foreign data wrapper ' || quote_ident(fdwname), 'USAGE', fdwowner, coalesce(fdwacl, acldefault('F', fdwowner)),
      has_foreign_data_wrapper_privilege(t.oid, f.oid, 'usage')
    from pg_foreign_data_wrapper f, t where f.oid in (select srvfdw from pg_foreign_server where srvowner = (select oid from r)))
select what, privilege, owner = t.oid, (
  select g.rolname::text from (
      select a.grantee as oid from aclexplode(room.acl) a where a.privilege_type = room.privilege and a.grantee <> 0
      union select room.owner) c
    join pg_roles g on g.oid = c.oid, me
  where g.oid not in (t.oid, me.oid) and not g.rolsuper and g.rolname !~ '^pg_'
    and (g.oid = (select oid from r) or {lendable})
    and not pg_has_role(g.oid, t.oid, 'member')
    and not exists (select from pg_auth_members m where m.roleid = g.oid and m.member = t.oid)
  order by g.oid <> (select oid from r), g.rolcanlogin, g.rolname limit 1)
from room, t where not has
order by 1`, "{lendable}", lendable)
}

// tempGrantsToGive returns the temporary grants for making user the owner of what role owns, in
// the database of c.
func (a *Admin) tempGrantsToGive(ctx context.Context, lane, c *adminconn.Conn, role, user string) (tempGrants, error) {
	t, err := tempGrantsToAct(ctx, lane, role, user)
	t.missing = nil
	if err != nil || t.super {
		return t, err
	}
	rows, err := c.Query(ctx, roomsQuery(c.Version), role, user)
	if err != nil {
		return t, err
	}
	defer rows.Close()
	for rows.Next() {
		var r right
		var own bool
		var lender *string
		if err := rows.Scan(&r.on, &r.privilege, &own, &lender); err != nil {
			return t, err
		}
		switch {
		case own:
			t.rights = append(t.rights, r)
		case lender != nil && !slices.Contains(t.missing, *lender):
			t.missing = append(t.missing, *lender)
		}
	}
	return t, rows.Err()
}

// tempGrantsToAct returns the temporary grants for acting as role and giving its objects to
// the role named by to. The new owner of a function or a type needs CREATE on its schema, so
// to also becomes a member of role, unless role is already a member of to.
func tempGrantsToAct(ctx context.Context, c *adminconn.Conn, role, to string) (tempGrants, error) {
	t := tempGrants{role: role, user: to, version: c.Version, hasUser: to == ""}
	usable := ""
	if c.Version >= 160000 {
		usable = "and x.inherit_option and x.set_option"
	}
	var circle bool
	err := c.QueryRow(ctx, strings.ReplaceAll(`
		select me.rolsuper,
		  r.oid = me.oid or exists (select from pg_auth_members x where x.roleid = r.oid and x.member = me.oid {usable}),
		  $2 = '' or t.oid = me.oid or exists (select from pg_auth_members x where x.roleid = t.oid and x.member = me.oid {usable}),
		  coalesce(t.rolsuper or pg_has_role(r.oid, t.oid, 'member') or pg_has_role(t.oid, r.oid, 'usage'), true)
		from pg_roles r join pg_roles me on me.rolname = current_user left join pg_roles t on t.rolname = $2
		where r.rolname = $1`, "{usable}", usable), role, to).Scan(&t.super, &t.hasRole, &t.hasUser, &circle)
	if err == nil && !circle {
		t.missing = []string{role}
	}
	return t, err
}

// around puts the grants before the statements that need them, and their revocation after. No
// other transaction sees them, and a crash leaves none behind.
func (t tempGrants) around(inner ...adminconn.Step) []adminconn.Step {
	if t.super {
		return inner
	}
	options := ""
	if t.version >= 160000 {
		options = " with inherit true, set true"
	}
	var before, after []adminconn.Step
	grant := func(roles []string, to string) {
		if len(roles) == 0 {
			return
		}
		names := pgsql.Idents(roles)
		before = append(before, adminconn.Step{SQL: fmt.Sprintf("grant %s to %s%s", names, to, options)})
		after = append([]adminconn.Step{{SQL: fmt.Sprintf("revoke %s from %s", names, to)}}, after...)
	}
	// In one statement: from 16 on, each one after a change of a membership makes the server read all
	// memberships of a plain login again.
	var mine []string
	if !t.hasRole {
		mine = append(mine, t.role)
	}
	if !t.hasUser {
		mine = append(mine, t.user)
	}
	grant(mine, "current_user")
	grant(t.missing, pgsql.Ident(t.user))
	for _, r := range t.rights {
		before = append(before, adminconn.Step{SQL: fmt.Sprintf("grant %s on %s to %s", r.privilege, r.on, pgsql.Ident(t.user))})
		after = append([]adminconn.Step{{SQL: fmt.Sprintf("revoke %s on %s from %s", r.privilege, r.on, pgsql.Ident(t.user))}}, after...)
	}
	return append(append(before, inner...), after...)
}
