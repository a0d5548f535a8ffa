package compat

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/pgsql"
)

// Any role with CREATE on a database can make a schema of any name there. The schema's owner
// can replace functions that others install into it, and those run with the rights of their
// callers. So Install never uses another role's schema. It makes one with a plain CREATE
// SCHEMA, which fails if the schema exists, or uses one that belongs to the administrative
// login or a superuser. At the end of the same transaction it checks the owner of every
// object once more. By then this transaction has written all rows that matter, so no
// other transaction can change them before the commit.
//
// A superuser runs the same statements from a script (Report.Script).

// trustedOwner returns the condition that the role o is a superuser or the administrative login.
func trustedOwner(admin string) string {
	return "(o.rolsuper or o.rolname = " + pgsql.BodyLiteral(admin) + ")"
}

// refusedInScript is the SQLSTATE of the blocks below. Class P0 is PL/pgSQL's.
const refusedInScript = "P0D01"

// guard returns a statement that fails in any database except st.database, and if the
// schema belongs to another role. It makes the schema if it does not exist.
func (st *state) guard(remove bool) string {
	create := "\n    create schema " + Schema + ";"
	if remove {
		create = "\n    null;"
	}
	return `do $daypass$
declare
  owner pg_catalog.text;
  trusted pg_catalog.bool;
begin
  if pg_catalog.current_database() <> ` + pgsql.BodyLiteral(st.database) + ` then
    raise exception 'database "%": this script is for database "%"', pg_catalog.current_database(), ` + pgsql.BodyLiteral(st.database) + `
      using errcode = '` + refusedInScript + `', hint = 'Connect to that database and run the script again.';
  end if;
  if not exists (select from pg_catalog.pg_roles o where o.rolname = current_user and ` + trustedOwner(st.admin) + `) then
    raise exception 'user "%": only a superuser may run this script', current_user
      using errcode = '` + refusedInScript + `', hint = 'Run it as a superuser.';
  end if;
  select o.rolname, ` + trustedOwner(st.admin) + ` into owner, trusted
  from pg_catalog.pg_namespace n join pg_catalog.pg_roles o on o.oid = n.nspowner where n.nspname = '` + Schema + `';
  if not found then` + create + `
  elsif not trusted then
    raise exception 'schema ` + Schema + `: it belongs to "%", who could make its functions say anything', owner
      using errcode = '` + refusedInScript + `', hint = 'Find out what it is for, then drop it or rename it (alter schema ` + Schema + ` rename to other), and run this again.';
  end if;
end $daypass$`
}

// foreignInSchema returns a query for objects in the schema that belong to neither the
// administrative login nor a superuser, and for other roles that may create some.
func (st *state) foreignInSchema() string {
	var owned strings.Builder
	for _, c := range []struct{ catalog, prefix string }{
		{"pg_class", "rel"}, {"pg_proc", "pro"}, {"pg_type", "typ"}, {"pg_operator", "opr"}, {"pg_collation", "coll"},
		{"pg_conversion", "con"}, {"pg_opclass", "opc"}, {"pg_opfamily", "opf"}, {"pg_ts_dict", "dict"}, {"pg_ts_config", "cfg"},
		{"pg_statistic_ext", "stx"},
	} {
		fmt.Fprintf(&owned, "\n    union all select x.%[2]sname::pg_catalog.text, x.%[2]sowner, false from pg_catalog.%[1]s x, s where x.%[2]snamespace = s.oid", c.catalog, c.prefix)
	}
	return `
  with s as (select n.oid, n.nspowner, n.nspacl from pg_catalog.pg_namespace n where n.nspname = '` + Schema + `'),
  held (thing, who, creates) as (
    select '` + Schema + `', s.nspowner, false from s
    union all select '` + Schema + `', a.grantee, true from s, pg_catalog.aclexplode(s.nspacl) a where a.privilege_type = 'CREATE'` + owned.String() + `)
  select h.thing, coalesce(o.rolname, 'public')::pg_catalog.text as who, h.creates
  from held h left join pg_catalog.pg_roles o on o.oid = h.who
  where ` + trustedOwner(st.admin) + ` is not true
  order by h.creates, h.thing collate "C" desc limit 1 -- not the array type, whose name begins with an underscore
`
}

// foreignIn returns why the schema cannot be trusted. It is empty if it can.
func (st *state) foreignIn(ctx context.Context, c *adminconn.Conn) (problem string, err error) {
	var thing, who string
	var creates bool
	switch err := c.QueryRow(ctx, st.foreignInSchema()).Scan(&thing, &who, &creates); {
	case errors.Is(err, pgx.ErrNoRows):
		return "", nil
	case err != nil:
		return "", err
	case creates:
		return fmt.Sprintf("schema %s: %q may create objects in it (revoke create on schema %[1]s from %[3]s)", Schema, who, pgsql.Ident(who)), nil
	case thing == Schema:
		return fmt.Sprintf("schema %s: it belongs to %q", Schema, who), nil
	}
	return fmt.Sprintf("schema %s: %q in it belongs to %q", Schema, thing, who), nil
}

// verify returns a statement that fails if foreignInSchema finds anything.
func (st *state) verify() string {
	return `do $daypass$
declare
  bad record;
begin
  for bad in` + st.foreignInSchema() + `  loop
    if bad.creates then
      raise exception 'schema ` + Schema + `: "%" may create objects in it; nothing was changed', bad.who
        using errcode = '` + refusedInScript + `', hint = pg_catalog.format('Run: revoke create on schema ` + Schema + ` from %I', bad.who);
    end if;
    raise exception 'schema ` + Schema + `: "%" in it belongs to "%"; nothing was changed', bad.thing, bad.who
      using errcode = '` + refusedInScript + `', hint = 'Find out what it is for, then drop it, and run this again.';
  end loop;
end $daypass$`
}

// Script returns a script that a superuser runs in psql, in one transaction. The script
// checks again that no other role's objects are in its way, since things may have changed
// after it was printed.
func (r Report) Script() string {
	var b strings.Builder
	fmt.Fprintf(&b, "-- database %q of cluster %s: for psql, as a superuser\n", r.Database, r.Cluster)
	statements := slices.Concat(r.SQL, r.ForOwner, r.ForSuperuser)
	if len(statements) == 0 {
		return b.String() + "-- nothing to do\n"
	}
	// The database's owner may have changed the defaults of these two settings.
	b.WriteString("\\set ON_ERROR_STOP on\nbegin;\nset local search_path = pg_catalog, pg_temp;\nset local standard_conforming_strings = on;\n")
	for _, sql := range statements {
		b.WriteString(sql + ";\n")
	}
	b.WriteString("commit;\n")
	return b.String()
}
