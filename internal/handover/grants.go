package handover

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/pgsql"
)

// grant is a right on an object that a role holds.
type grant struct {
	object   string // as REVOKE names it: table "public"."sales"
	grantor  string
	super    bool // the grantor is a superuser
	lendable bool // the administrative login may act as the grantor
	held     bool // it is a permanent member of the grantor
}

// grantsQuery lists the grants that others made to $1, in one database and on databases and
// tablespaces. DROP OWNED revokes only grants that its caller, or an owner that its caller is a
// member of, has made, and silently skips the rest.
func grantsQuery(version int) string {
	parameters, lendable, usable := "", "me.rolcreaterole", ""
	if version >= 150000 {
		parameters = "union all select 'parameter ' || parname, paracl from pg_parameter_acl"
	}
	if version >= 160000 {
		lendable, usable = "pg_has_role(me.oid, g.oid, 'member with admin option')", "and x.set_option"
	}
	return strings.NewReplacer("{parameters}", parameters, "{lendable}", lendable, "{usable}", usable).Replace(`
select distinct o.object, g.rolname::text, g.rolsuper or g.rolname = 'pg_database_owner', -- which has no members of our making
  me.rolsuper or not g.rolsuper and g.rolname <> 'pg_database_owner' and ({lendable}),
  me.rolsuper or g.oid = me.oid or exists (select from pg_auth_members x where x.roleid = g.oid and x.member = me.oid {usable})
from (
  select format('%s %I.%I', case relkind when 'S' then 'sequence' else 'table' end, n.nspname, c.relname), relacl
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
  union all select format('table %I.%I', n.nspname, c.relname), attacl
    from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace where attacl is not null
  union all select 'routine ' || oid::regprocedure, proacl from pg_proc where proacl is not null
  union all select format('schema %I', nspname), nspacl from pg_namespace
  union all select 'type ' || oid::regtype, typacl from pg_type where typacl is not null
  union all select format('language %I', lanname), lanacl from pg_language
  union all select format('foreign data wrapper %I', fdwname), fdwacl from pg_foreign_data_wrapper
  union all select format('foreign server %I', srvname), srvacl from pg_foreign_server
  union all select 'large object ' || oid, lomacl from pg_largeobject_metadata
  union all select format('database %I', datname), datacl from pg_database
  union all select format('tablespace %I', spcname), spcacl from pg_tablespace
  {parameters}) o (object, acl)
cross join lateral aclexplode(o.acl) a
join pg_roles r on r.rolname = $1 and r.oid = a.grantee and r.oid <> a.grantor
join pg_roles g on g.oid = a.grantor
join pg_roles me on me.rolname = current_user
order by 2, 1`)
}

func readGrants(ctx context.Context, c *adminconn.Conn, role string) ([]grant, error) {
	rows, err := c.Query(ctx, grantsQuery(c.Version), role)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []grant
	for rows.Next() {
		var g grant
		if err := rows.Scan(&g.object, &g.grantor, &g.super, &g.lendable, &g.held); err != nil {
			return nil, err
		}
		all = append(all, g)
	}
	return all, rows.Err()
}

// takeBack returns the statements that revoke the grants, each as its grantor.
func takeBack(grants []grant, role string, version int) []adminconn.Step {
	options := ""
	if version >= 160000 {
		options = " with inherit true, set true"
	}
	var steps []adminconn.Step
	for len(grants) > 0 {
		g := grants[0]
		n := slices.IndexFunc(grants, func(other grant) bool { return other.grantor != g.grantor })
		if n < 0 {
			n = len(grants)
		}
		if !g.held {
			steps = append(steps, adminconn.Step{SQL: fmt.Sprintf("grant %s to current_user%s", pgsql.Ident(g.grantor), options)})
		}
		steps = append(steps, adminconn.Step{SQL: "set local role " + pgsql.Ident(g.grantor)})
		for _, each := range grants[:n] {
			steps = append(steps, adminconn.Step{SQL: revokeStatement(each.object, role)})
		}
		steps = append(steps, adminconn.Step{SQL: "reset role"})
		if !g.held {
			steps = append(steps, adminconn.Step{SQL: fmt.Sprintf("revoke %s from current_user", pgsql.Ident(g.grantor))})
		}
		grants = grants[n:]
	}
	return steps
}

// revokeStatement also revokes grants on columns.
func revokeStatement(object, role string) string {
	return fmt.Sprintf("revoke all on %s from %s cascade", object, pgsql.Ident(role))
}
