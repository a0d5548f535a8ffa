package clustercheck

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/compat"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/pgsql"
)

// target is a database that sessions may go to.
type target struct {
	name     string
	here     bool // the administrative connection leads to it
	open     bool // it accepts connections
	mayEnter bool // the login has CONNECT
	used     bool // a role that can be lent, or PUBLIC, has CONNECT
	owned    bool // session roles own something there
}

// databases checks every database that sessions could have used, and looks into those that let
// the administrative login in. Objects of session roles in the others are never handed over.
func (k *checker) databases(ctx context.Context) error {
	rows, err := k.c.Query(ctx, `
		select d.datname::text, d.datname = current_database(), d.datallowconn, has_database_privilege(d.oid, 'connect'),
		  exists (select from aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a left join pg_roles r on r.oid = a.grantee
		    where a.privilege_type = 'CONNECT' and (a.grantee = 0 or not r.rolsuper and r.rolname <> current_user)),
		  exists (select from pg_shdepend s where s.dbid = d.oid and s.refclassid = 'pg_authid'::regclass and s.deptype = 'o'
		    and s.refobjid in (`+dbuser.SessionRoles+`))
		from pg_database d where not d.datistemplate or d.datname = current_database() order by 1`)
	if err != nil {
		return err
	}
	defer rows.Close()
	var all []target
	for rows.Next() {
		var d target
		if err := rows.Scan(&d.name, &d.here, &d.open, &d.mayEnter, &d.used, &d.owned); err != nil {
			return err
		}
		all = append(all, d)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	const most = 50
	looked, left := 0, 0
	for _, d := range all {
		switch {
		case !d.open && d.owned:
			k.add(Warning, "database", "database %q accepts no connections (ALLOW_CONNECTIONS): what session roles own there is not handed over", d.name)
		case !d.open, !d.used && !d.owned:
		case !d.mayEnter:
			k.add(Broken, "connect", "database %q: the administrative login may not connect, so what sessions create there is not handed over", d.name).SQL =
				[]string{"grant connect on database " + pgsql.Ident(d.name) + " to " + pgsql.Ident(k.admin)}
		case looked == most:
			left++
		default:
			looked++
			if err := k.inside(ctx, d); err != nil {
				return fmt.Errorf("in database %q: %w", d.name, err)
			}
		}
	}
	if left > 0 {
		k.add(Notice, "database", "%d more databases were not looked into", left)
	}
	return k.givenSettings(ctx)
}

// inside looks into one database.
func (k *checker) inside(ctx context.Context, d target) error {
	c, database := k.c, d.name
	if !d.here {
		connecting, cancel := context.WithTimeout(ctx, adminconn.ConnectTimeout)
		defer cancel()
		var err error
		if c, err = k.a.Pool.Connect(connecting, database); err != nil {
			k.cannotEnter(database, err)
			return nil
		}
		defer c.CloseNow()
	}
	if err := k.trigger(ctx, c, database); err != nil {
		return err
	}
	if err := k.groupsOwn(ctx, c, database); err != nil {
		return err
	}
	return k.compat(ctx, c, database)
}

// lendingQuery lists and counts the objects of the groups $1 that run with their owner's
// rights.
const lendingQuery = `
select g.rolname::text, count(*)::int, (array_agg(o.what order by o.what))[1:3]
from (
  select relowner, format(case relkind when 'v' then 'view' when 'm' then 'materialized view' else 'the rules of table' end || ' %I.%I', nspname, relname)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where relkind in ('v', 'm') and coalesce(reloptions, '{}') && array['security_invoker=true', 'security_invoker=on', 'security_invoker=yes', 'security_invoker=1'] is false
      or relkind in ('r', 'p') and relhasrules
  union all select proowner, 'function ' || p.oid::regprocedure from pg_proc p where prosecdef) o (owner, what)
join pg_roles g on g.oid = o.owner
where g.rolname = any ($1::text[]::name[])
group by 1 order by 1`

// groupsOwn finds objects of groups that lend the group's rights. A holder can make them:
// REASSIGN OWNED BY CURRENT_USER TO a group gives it views even where it may not create
// any, and SET ROLE works as the group. They look like an operator's objects and remain
// after the session.
func (k *checker) groupsOwn(ctx context.Context, c *adminconn.Conn, database string) error {
	var groups []string
	for _, l := range k.lent {
		if !l.login {
			groups = append(groups, l.name)
		}
	}
	if len(groups) == 0 {
		return nil
	}
	rows, err := c.Query(ctx, lendingQuery, groups)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var group string
		var n int
		var some []string
		if err := rows.Scan(&group, &n, &some); err != nil {
			return err
		}
		more := ""
		if n > len(some) {
			more = fmt.Sprintf(" and %d more", n-len(some))
		}
		k.add(Warning, "group-owns", "database %q: the group %q owns %s%s: that lends the group's rights to everybody who may use it, without a session. "+
			"Any holder with this group can make such objects and keep the group's rights. Drop those that should not exist; if the group is never lent, name it in never_lend",
			database, group, strings.Join(some, ", "), more).Database = database
	}
	return rows.Err()
}

// cannotEnter reports why a database does not let the login in, and the fix.
func (k *checker) cannotEnter(database string, err error) {
	var pg *pgconn.PgError
	switch {
	case adminconn.IsCode(err, pgerrcode.InvalidCatalogName): // it was dropped since
	case adminconn.IsCode(err, pgerrcode.InvalidAuthorizationSpecification):
		k.add(Broken, "connect", "database %q: pg_hba.conf does not let the administrative login in (%s): what sessions create there is not handed over",
			database, adminconn.PlainError(err))
	case adminconn.IsCode(err, pgerrcode.TooManyConnections) && strings.Contains(adminconn.PlainError(err), "role"): // reported as login-limit
		k.add(Notice, "database", "database %q was not looked into: %s", database, adminconn.PlainError(err))
	case adminconn.IsCode(err, pgerrcode.TooManyConnections):
		k.add(Broken, "connect", "database %q: it has no connection left (%s)", database, adminconn.PlainError(err)).SQL =
			[]string{"alter database " + pgsql.Ident(database) + " connection limit -1"}
	case errors.As(err, &pg):
		k.add(Broken, "connect", "database %q: the administrative login is refused (%s %s), perhaps by a login event trigger: what sessions create there is not handed over",
			database, pg.Code, pg.Message)
	default:
		k.add(Broken, "connect", "database %q: cannot connect: %v", database, err)
	}
}

// trigger looks for the event trigger of earlier builds. Its function runs with the
// rights of the session that executes DDL, even a superuser's: one that a superuser does
// not own is an attack.
func (k *checker) trigger(ctx context.Context, c *adminconn.Conn, database string) error {
	var there, forged bool
	if err := c.QueryRow(ctx, triggerQuery).Scan(&there, &forged); err != nil || !there {
		return err
	}
	f := k.add(Warning, "event-trigger", "database %q has the event trigger %s, which is no longer used: it changes the owner of objects "+
		"under the session that makes them", database, eventTrigger)
	if forged {
		f.Severity, f.Message = Broken, fmt.Sprintf("database %q has an event trigger %s whose function does not belong to a superuser: its owner can act as "+
			"any superuser who changes something there", database, eventTrigger)
	}
	f.Database, f.SQL = database, removeTrigger()
	return nil
}

// compat checks the schema that compat.Install makes, if the database has one of that name.
func (k *checker) compat(ctx context.Context, c *adminconn.Conn, database string) error {
	found, err := compat.Look(ctx, c)
	if err != nil || !found.Present {
		return err
	}
	switch {
	case found.Foreign != "":
		k.add(Broken, "compat", "database %q: %s. Its functions cannot be trusted: drop it, or the foreign objects in it, and run `daypass cluster compat %s --database %s`",
			database, found.Foreign, k.a.Pool.Cluster, database)
	case !found.UpToDate:
		k.add(Notice, "compat", "database %q: the schema %s is of another version: run `daypass cluster compat %s --database %s`",
			database, compat.Schema, k.a.Pool.Cluster, database)
	default:
		k.add(OK, "compat", "database %q: the schema %s is up to date", database, compat.Schema)
	}
	return nil
}

// givenSettings finds settings that ALTER DATABASE or ALTER ROLE gives to administrative
// connections, and that their start-up message cannot override because only superusers, and
// roles that were granted SET, may change them.
func (k *checker) givenSettings(ctx context.Context) error {
	rows, err := k.c.Query(ctx, `
		select coalesce(d.datname::text, ''), coalesce(r.rolname::text, ''), n.name
		from pg_db_role_setting s left join pg_database d on d.oid = s.setdatabase left join pg_roles r on r.oid = s.setrole
		cross join lateral unnest(s.setconfig) e
		cross join lateral lower(split_part(e, '=', 1)) n (name)
		left join pg_settings p on lower(p.name) = n.name
		where (s.setrole = 0 or r.rolname = session_user) and (s.setdatabase = 0 or d.oid is not null)
		  and n.name !~ '^(log_|track_)'
		  -- What is hidden from other users is for superusers to set; with a dot it is an extension's.
		  and (p.context in ('superuser', 'superuser-backend') or p.name is null and n.name !~ '[.]')
		order by 1, 2, 3 limit 1000`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var database, role, name string
		if err := rows.Scan(&database, &role, &name); err != nil {
			return err
		}
		target := "alter role all"
		switch {
		case role != "" && database != "":
			target = "alter role " + pgsql.Ident(role) + " in database " + pgsql.Ident(database)
		case role != "":
			target = "alter role " + pgsql.Ident(role)
		case database != "":
			target = "alter database " + pgsql.Ident(database)
		}
		k.add(Notice, "given-setting", "%s sets %s for the administrative connections too; it cannot be pinned", target, name).SQL =
			[]string{target + " reset " + pgsql.SettingName(name)}
	}
	return rows.Err()
}
