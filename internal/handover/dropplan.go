package handover

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/pgsql"
)

// dropper makes the plan for dropping a user.
type dropper struct {
	a       *Admin
	c       *adminconn.Conn
	plan    *DropPlan
	options DropOptions
	roles   []string        // the session roles, and the user when there is one
	closed  map[string]bool // databases that cannot be connected to
}

func (d *dropper) problem(format string, args ...any) *Problem {
	d.plan.Problems = append(d.plan.Problems, Problem{Message: fmt.Sprintf(format, args...)})
	return &d.plan.Problems[len(d.plan.Problems)-1]
}

// look reads what is visible from any database.
func (d *dropper) look(ctx context.Context) error {
	for _, step := range []func(context.Context) error{d.user, d.sessionRoles, d.orphans, d.target, d.sessions, d.uses} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// user applies the rules for what may be dropped.
func (d *dropper) user(ctx context.Context) error {
	name := d.plan.User
	refuse := func(reason string) error {
		return &adminconn.Error{Kind: dbuser.ErrUserRefused, Name: name, Message: fmt.Sprintf("%q is not dropped: %s", name, reason)}
	}
	var recovery, exists, login, super, session, admin, lendable, adminSuper bool
	var me string
	option := "me.rolcreaterole"
	if d.c.Version >= 160000 {
		option = "me.rolcreaterole and pg_has_role(me.oid, r.oid, 'member with admin option')"
	}
	err := d.c.QueryRow(ctx, `
		select pg_is_in_recovery(), me.rolname::text, me.rolsuper, r.oid is not null, coalesce(r.rolcanlogin, false), coalesce(r.rolsuper, false),
		  coalesce(r.oid in (`+dbuser.SessionRoles+`), false),
		  coalesce(r.rolname in (current_user, session_user), false), coalesce(me.rolsuper or `+option+`, false)
		from pg_roles me left join pg_roles r on r.rolname = $1 where me.rolname = current_user`, name).
		Scan(&recovery, &me, &adminSuper, &exists, &login, &super, &session, &admin, &lendable)
	if err != nil {
		return err
	}
	switch {
	case recovery:
		return d.a.Pool.Unreachable(adminconn.ErrRecovery)
	case dbuser.IsPredefined(name):
		return refuse("PostgreSQL reserves names that begin with pg_")
	case name == dbuser.MarkerRole:
		return refuse("it marks session roles")
	case admin:
		return refuse("it is the administrative login")
	case session:
		return refuse("it is a session role; `daypass cluster clean` drops those")
	case super && !adminSuper:
		return refuse("it is a superuser, and the administrative login is not one")
	}
	d.plan.Exists = exists
	if !exists {
		return nil
	}
	if !login {
		// It is a group, or a user that an earlier run made NOLOGIN.
		var members bool
		if err := d.c.QueryRow(ctx, `select exists (select from pg_auth_members m join pg_roles r on r.oid = m.roleid
			where r.rolname = $1 and pg_get_userbyid(m.member) not in (current_user, session_user) and `+dbuser.MemberThere+`
			  and m.member not in (`+dbuser.SessionRoles+`))`, name).Scan(&members); err != nil {
			return err
		}
		if members {
			return refuse("it is a group with members")
		}
	}
	if !lendable {
		p := d.problem("the administrative login may not drop %q", name)
		if d.c.Version >= 160000 {
			p.SQL = []string{dbuser.LendStatement(name, me)}
		} else {
			p.SQL = []string{"alter role " + pgsql.Ident(me) + " createrole"}
		}
	}
	return nil
}

// sessionRoles finds the session roles of the user by their names, even if the user
// itself was dropped by other means.
func (d *dropper) sessionRoles(ctx context.Context) error {
	all, err := d.a.Existing(ctx, d.c, nil)
	if err != nil {
		return err
	}
	for _, o := range all {
		if !o.Name.IsOf(d.plan.User) {
			continue
		}
		d.plan.SessionRoles = append(d.plan.SessionRoles, o.Role)
		if !o.Alterable {
			p := d.problem("another login made the session role %q", o.Role)
			p.SQL = []string{dbuser.LendStatement(o.Role, d.a.Pool.Config().User)}
		}
	}
	d.roles = slices.Clone(d.plan.SessionRoles)
	if d.plan.Exists {
		d.roles = append(d.roles, d.plan.User)
	}
	return nil
}

// orphans finds the roles that no other role administers.
func (d *dropper) orphans(ctx context.Context) error {
	if d.c.Version < 160000 {
		return nil
	}
	return d.c.QueryRow(ctx, `select coalesce(array_agg(distinct g.rolname::text order by g.rolname::text), '{}')
		from pg_auth_members m join pg_roles g on g.oid = m.roleid
		where m.admin_option and pg_get_userbyid(m.member) = any ($1::text[]::name[]) and g.rolname <> all ($1::text[]::name[])
		  and not exists (select from pg_auth_members o where o.roleid = m.roleid and o.admin_option and pg_get_userbyid(o.member) <> all ($1::text[]::name[]))`,
		d.roles).Scan(&d.plan.Orphans)
}

// target checks the role that will own the user's objects.
func (d *dropper) target(ctx context.Context) error {
	to := d.options.ReassignTo
	if to == "" || len(d.roles) == 0 {
		return nil
	}
	if err := dbuser.CheckName("user", to); err != nil {
		return err
	}
	var me string
	var exists, super, session, lendable, adminSuper bool
	option := "me.rolcreaterole"
	if d.c.Version >= 160000 {
		option = "pg_has_role(me.oid, t.oid, 'member with admin option') or pg_has_role(me.oid, t.oid, 'set')"
	}
	err := d.c.QueryRow(ctx, `
		select me.rolname::text, me.rolsuper, t.oid is not null, coalesce(t.rolsuper, false), coalesce(me.rolsuper or t.oid = me.oid or `+option+`, false),
		  coalesce(t.oid in (`+dbuser.SessionRoles+`), false)
		from pg_roles me left join pg_roles t on t.rolname = $1 where me.rolname = current_user`, to).
		Scan(&me, &adminSuper, &exists, &super, &lendable, &session)
	switch {
	case err != nil:
		return err
	case to == d.plan.User:
		d.problem("%q is the user to be dropped: name another one with --reassign-to", to)
	case !exists:
		d.problem("%q does not exist, so it cannot become the owner of what %q owns", to, d.plan.User)
	case session, dbuser.IsPredefined(to), to == dbuser.MarkerRole:
		d.problem("%q may not own anything", to)
	case super && !adminSuper:
		d.problem("%q is a superuser and the administrative login is not one: name another user with --reassign-to", to)
	case !lendable:
		p := d.problem("the administrative login may not make %q the owner of anything", to)
		if d.c.Version >= 160000 {
			p.SQL = []string{dbuser.LendStatement(to, me)}
		}
	}
	return nil
}

// sessions finds live sessions and prepared transactions.
func (d *dropper) sessions(ctx context.Context) error {
	rows, err := d.c.Query(ctx, `select usename::text, coalesce(datname::text, ''), count(*)::int from pg_stat_activity
		where usename = any ($1::text[]::name[]) group by 1, 2 order by 1, 2`, d.roles)
	if err != nil {
		return err
	}
	d.plan.Sessions, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (s LiveSessions, err error) {
		return s, row.Scan(&s.Role, &s.Database, &s.Count)
	})
	if err != nil {
		return err
	}
	if len(d.plan.Sessions) > 0 && !d.options.Force {
		n := 0
		for _, s := range d.plan.Sessions {
			n += s.Count
		}
		d.problem("%s; --force ends them", countOf(n, "session is open", "sessions are open"))
	}
	rows, err = d.c.Query(ctx, "select gid, database::text from pg_prepared_xacts where owner = any ($1::text[]::name[]) order by 2, 1", d.roles)
	if err != nil {
		return err
	}
	var gid, database string
	_, err = pgx.ForEachRow(rows, []any{&gid, &database}, func() error {
		d.problem("the prepared transaction %q in database %q is neither committed nor rolled back", gid, database).SQL =
			[]string{"rollback prepared " + pgsql.Literal(gid)}
		return nil
	})
	return err
}

func countOf(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// uses counts what depends on the roles, by database.
func (d *dropper) uses(ctx context.Context) error {
	rows, err := d.c.Query(ctx, `
		select r.rolname::text, coalesce(b.datname::text, ''), coalesce(b.datallowconn and has_database_privilege(b.oid, 'connect'), true),
		  count(*) filter (where owned)::int, count(*) filter (where not owned)::int
		from (select refobjid, dbid, deptype = 'o' and classid not in ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass) as owned
		  from pg_shdepend where refclassid = 'pg_authid'::regclass) s
		join pg_roles r on r.oid = s.refobjid left join pg_database b on b.oid = s.dbid
		where r.rolname = any ($1::text[]::name[])
		group by 1, 2, 3 order by 1, 2`, d.roles)
	if err != nil {
		return err
	}
	d.closed = map[string]bool{}
	var u RoleUse
	var open bool
	_, err = pgx.ForEachRow(rows, []any{&u.Role, &u.Database, &open, &u.Owned, &u.Named}, func() error {
		d.plan.Databases = append(d.plan.Databases, u)
		if !open {
			d.closed[u.Database] = true
			d.problem("%q is used in database %q, which the administrative login may not connect to", u.Role, u.Database).SQL = d.opening(u.Database)
		}
		return nil
	})
	if err == nil && d.plan.Owns() && d.options.ReassignTo == "" {
		d.problem("it owns objects: name their new owner with --reassign-to")
	}
	return err
}

func (d *dropper) opening(database string) []string {
	return []string{"alter database " + pgsql.Ident(database) + " allow_connections true",
		"grant connect on database " + pgsql.Ident(database) + " to " + pgsql.Ident(d.a.Pool.Config().User)}
}

// maxExamples is how many objects of a role are named for each database.
const maxExamples = 5

// lookInside connects to each database in which the roles own objects, because the objects'
// names are visible only there. A database that it cannot connect to cannot be cleared either.
func (d *dropper) lookInside(ctx context.Context) {
	for i := range d.plan.Databases {
		u := &d.plan.Databases[i]
		if d.closed[u.Database] {
			continue
		}
		if err := d.lookInto(ctx, u); err != nil {
			d.problem("database %q cannot be looked at: %v", u.Database, adminconn.PlainError(err))
		}
	}
}

const ownedQuery = `select coalesce(array_agg(d order by d), '{}') from (
	select pg_describe_object(s.classid, s.objid, s.objsubid) as d
	from pg_shdepend s join pg_roles r on r.oid = s.refobjid
	where s.refclassid = 'pg_authid'::regclass and r.rolname = $1 and s.deptype = 'o'
	  and s.classid not in ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass)
	  and s.dbid = case when $2 then 0 else (select oid from pg_database where datname = current_database()) end
	order by s.classid, s.objid limit $3) x`

// blockedQuery finds the schemas in which neither $1 nor $2 may create a function or a type, so
// that none can be handed over there either.
const blockedQuery = `select coalesce(array_agg(distinct n.nspname::text), '{}')
	from (select pronamespace as ns from pg_proc p join pg_roles r on r.oid = p.proowner and r.rolname = $1
	  union select typnamespace from pg_type t join pg_roles r on r.oid = t.typowner and r.rolname = $1
	    where t.typtype in ('d', 'e', 'r', 'b') and t.typelem = 0) o
	join pg_namespace n on n.oid = o.ns, pg_roles r, pg_roles t, pg_roles me
	where r.rolname = $1 and t.rolname = $2 and me.rolname = current_user and not me.rolsuper
	  and not has_schema_privilege(t.oid, n.oid, 'create')
	  and (not has_schema_privilege(r.oid, n.oid, 'create') or pg_has_role(r.oid, t.oid, 'member'))`

func (d *dropper) lookInto(ctx context.Context, u *RoleUse) error {
	c, err := d.a.Pool.OpenDatabase(ctx, u.Database)
	if err != nil {
		return err
	}
	defer d.a.Pool.Discard(c)
	if err := d.grants(ctx, c, u.Role); err != nil || u.Owned == 0 {
		return err
	}
	to := d.options.ReassignTo
	if err := c.QueryRow(ctx, ownedQuery, u.Role, u.Database == "", maxExamples).Scan(&u.Examples); err != nil || u.Database == "" || to == "" {
		return err
	}
	var blocked []string
	if err := c.QueryRow(ctx, blockedQuery, u.Role, to).Scan(&blocked); err != nil {
		return err
	}
	for _, schema := range blocked {
		d.problem("%q may not create anything in schema %q of database %q, so functions and types there cannot be given to it", to, schema, u.Database).SQL =
			[]string{"grant create on schema " + pgsql.Ident(schema) + " to " + pgsql.Ident(to)}
	}
	return nil
}

// grants finds grants that the administrative login cannot revoke.
func (d *dropper) grants(ctx context.Context, c *adminconn.Conn, role string) error {
	grants, err := readGrants(ctx, c, role)
	if err != nil {
		return err
	}
	for _, g := range grants {
		if g.lendable || g.held {
			continue
		}
		sql := revokeStatement(g.object, role)
		if !g.super {
			sql = dbuser.LendStatement(g.grantor, d.a.Pool.Config().User)
		}
		message := fmt.Sprintf("in database %q %q was granted rights by %q, which the administrative login may not take back",
			c.Config().Database, role, g.grantor)
		at := slices.IndexFunc(d.plan.Problems, func(p Problem) bool { return p.Message == message })
		if at < 0 {
			d.problem("%s", message)
			at = len(d.plan.Problems) - 1
		}
		p := &d.plan.Problems[at]
		if !slices.Contains(p.SQL, sql) {
			p.SQL = append(p.SQL, sql)
		}
	}
	return nil
}
