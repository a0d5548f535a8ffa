package compat

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/pgsql"
)

// Schema holds what Install makes.
const Schema = "daypass"

// dbUserBody is daypass.db_user(): current_user, unless that is a session role,
// and then the user it stands for. It is what row security policies compare with
// where sessions have groups.
//
// It runs with the rights of the caller, so that current_user is the caller's:
// after SET ROLE, and in a SECURITY DEFINER function, it is what current_user
// would be. It decides by the membership in the marker role, which only the
// administrative login can grant, and by the session role's one membership
// in a role that can log in; never by a name. From PostgreSQL 16 on, the creator of
// a role is a member of it in order to administer it, without its rights. Such a
// membership (set_option is false) does not count. The catalogue of 15 has no
// set_option column, hence to_jsonb. If the session role has memberships in several
// such roles, because a holder had an ADMIN OPTION and granted one, db_user raises
// an error. It does not return null, because null would satisfy a policy that says
// IS DISTINCT FROM.
//
// Every name is qualified and every operator comes from pg_catalog, since the
// function's own search_path has nothing else; pg_temp is last, where it is
// not searched before pg_catalog for relations and types.
const dbUserBody = `
declare
  me oid;
  users bigint;
  who name;
begin
  -- Every session role's name begins like this; the marker is the proof.
  if pg_catalog.left(current_user::pg_catalog.text, 3) <> 'IAM' then
    return current_user;
  end if;
  select r.oid into me from pg_catalog.pg_roles r
  where r.rolname = current_user and exists (
    select from pg_catalog.pg_auth_members m join pg_catalog.pg_roles k on k.oid = m.roleid
    where m.member = r.oid and k.rolname = '` + dbuser.MarkerRole + `');
  if me is null then
    return current_user;
  end if;
  select pg_catalog.count(distinct u.oid), pg_catalog.min(u.rolname::pg_catalog.text)
  into users, who
  from pg_catalog.pg_auth_members m join pg_catalog.pg_roles u on u.oid = m.roleid
  where m.member = me and u.rolcanlogin
    and (pg_catalog.to_jsonb(m) ->> 'set_option') is distinct from 'false';
  if users <> 1 then
    raise exception 'session role "%" stands for % users', current_user, users
      using errcode = 'insufficient_privilege',
        hint = 'The gateway puts it right at the next logon.';
  end if;
  return who;
end`

// views are the views that the metadata calls of Redshift's drivers read. They have
// those columns of the Redshift documentation for which PostgreSQL has a value. The
// functions in a view run with the rights of the role that reads it, and
// pg_stat_activity and the information schema show what that role may see.
var views = []struct{ name, sql string }{
	{"stv_sessions", `
select a.backend_start as starttime, a.pid as process, a.usename::varchar(128) as user_name,
  a.datname::varchar(128) as db_name, 0 as timeout_sec
from pg_catalog.pg_stat_activity a where a.backend_type = 'client backend'`},

	{"my_sessions", `
select * from ` + Schema + `.my_sessions()`},

	{"svv_tables", `
select current_database()::varchar(128) as table_catalog, n.nspname::varchar(128) as table_schema,
  c.relname::varchar(128) as table_name,
  case c.relkind when 'v' then 'VIEW' when 'm' then 'VIEW' when 'f' then 'EXTERNAL TABLE' else 'BASE TABLE' end::varchar(128) as table_type,
  obj_description(c.oid, 'pg_class')::varchar(256) as remarks
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'v', 'm', 'f') and not pg_is_other_temp_schema(n.oid)
  and (pg_has_role(c.relowner, 'USAGE')
    or has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
    or has_any_column_privilege(c.oid, 'SELECT, INSERT, UPDATE, REFERENCES'))`},

	// is_autoincrement is not Redshift's. The drivers refer to a column of their
	// own select list by that name, which Redshift allows and PostgreSQL does not.
	{"svv_columns", `
select i.table_catalog::varchar(128), i.table_schema::varchar(128), i.table_name::varchar(128), i.column_name::varchar(128),
  i.ordinal_position::int, i.column_default::varchar(4000), i.is_nullable::varchar(3), i.data_type::varchar(128),
  i.character_maximum_length::int, i.numeric_precision::int, i.numeric_precision_radix::int, i.numeric_scale::int,
  i.datetime_precision::int, i.interval_type::varchar(128), i.interval_precision::varchar(128),
  i.character_set_catalog::varchar(128), i.character_set_schema::varchar(128), i.character_set_name::varchar(128),
  i.collation_catalog::varchar(128), i.collation_schema::varchar(128), i.collation_name::varchar(128),
  i.domain_name::varchar(128), col_description(c.oid, i.ordinal_position::int)::varchar(256) as remarks,
  i.is_identity::varchar(3) as is_autoincrement
from information_schema.columns i
join pg_catalog.pg_namespace n on n.nspname = i.table_schema
join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = i.table_name`},

	{"svv_external_schemas", `
select null::oid as esoid, null::int as eskind, null::varchar(128) as schemaname, null::int as esowner,
  null::varchar(128) as databasename, null::varchar(256) as esoptions where false`},

	{"svv_external_tables", `
select null::varchar(128) as schemaname, null::varchar(128) as tablename, null::varchar(128) as tabletype, null::varchar(256) as location,
  null::varchar(256) as input_format, null::varchar(256) as output_format, null::varchar(256) as serialization_lib,
  null::varchar(256) as serde_parameters, null::int as compressed, null::varchar(256) as parameters where false`},

	{"svv_external_columns", `
select null::varchar(128) as schemaname, null::varchar(128) as tablename, null::varchar(128) as columnname, null::varchar(128) as external_type,
  null::int as columnnum, null::int as part_key, null::varchar(5) as is_nullable where false`},

	{"pg_user_info", `
select u.usename, u.usesysid, u.usecreatedb, u.usesuper, u.usesuper as usecatupd, u.passwd, u.valuntil, u.useconfig,
  case r.rolconnlimit when -1 then 'UNLIMITED' else r.rolconnlimit::text end as useconnlimit,
  case when u.usesuper then 'UNRESTRICTED' else 'RESTRICTED' end as syslogaccess,
  null::timestamp as last_ddl_ts, 0 as sessiontimeout
from pg_catalog.pg_user u join pg_catalog.pg_roles r on r.oid = u.usesysid`},
}

// functions has the name and arguments of each function, and the rest of its CREATE
// FUNCTION. pg_get_late_binding_view_cols returns no rows, whatever columns the caller
// names, because PostgreSQL has no late-binding views.
var functions = []struct{ name, sql string }{
	{"db_user()", "returns name language plpgsql stable parallel safe security invoker" +
		" set search_path = pg_catalog, pg_temp as $daypass$" + dbUserBody + "$daypass$"},
	{"pg_get_late_binding_view_cols()", "returns setof record language plpgsql stable parallel safe security invoker" +
		" set search_path = pg_catalog, pg_temp as $daypass$begin return; end$daypass$"},
	{"session_roles()", "returns setof oid language plpgsql stable security invoker" +
		" set search_path = pg_catalog, pg_temp as $daypass$" + sessionRolesBody + "$daypass$"},
	{"pg_cancel_backend(pid int)", "returns boolean language plpgsql volatile strict security definer" +
		" set search_path = pg_catalog, pg_temp as $daypass$" + signalBody("pg_cancel_backend") + "$daypass$"},
	{"pg_terminate_backend(pid int)", "returns boolean language plpgsql volatile strict security definer" +
		" set search_path = pg_catalog, pg_temp as $daypass$" + signalBody("pg_terminate_backend") + "$daypass$"},
	{"my_sessions()", "returns table (" + mySessionsColumns + ") language plpgsql stable security definer" +
		" set search_path = pg_catalog, pg_temp as $daypass$" + mySessionsBody + "$daypass$"},
}

// installation returns the statements that install all functions and views in an
// existing schema that is known to be ours. They can be repeated.
func installation() []string {
	sql := []string{
		"revoke all on schema " + Schema + " from public",
		"grant usage on schema " + Schema + " to public",
	}
	for _, f := range functions {
		sql = append(sql, "create or replace function "+Schema+"."+f.name+" "+f.sql,
			"grant execute on function "+Schema+"."+f.name+" to public")
	}
	for _, v := range views {
		sql = append(sql, "create or replace view "+Schema+"."+v.name+" as"+v.sql,
			"grant select on "+Schema+"."+v.name+" to public")
	}
	return append(sql, "comment on schema "+Schema+" is "+pgsql.Literal(version()))
}

// removal returns the statements that remove the installation. They never cascade,
// because a row security policy may depend on it, and a table without the policy may
// show more rows.
func removal() []string {
	var sql []string
	for _, v := range views {
		sql = append(sql, "drop view if exists "+Schema+"."+v.name)
	}
	for _, f := range functions {
		sql = append(sql, "drop function if exists "+Schema+"."+f.name)
	}
	return append(sql, "drop schema if exists "+Schema)
}

// version returns a text with a hash of all functions and views. The schema's comment has it, so
// that another version is recognized.
func version() string {
	var text strings.Builder
	for _, f := range functions {
		text.WriteString(f.name + f.sql)
	}
	for _, v := range views {
		text.WriteString(v.name + v.sql)
	}
	sum := sha256.Sum256([]byte(text.String()))
	return "made by daypass cluster compat, version " + hex.EncodeToString(sum[:6])
}
