package compat

import "github.com/daypass/daypass/internal/dbuser"

// PostgreSQL lets a session see, cancel and terminate only sessions of roles that its
// current role is a member of. A database user has one session role for each set of
// groups, and these roles are not members of one another. So there are functions that
// act on all session roles of the caller's user. They run with the rights of the
// schema's owner, who is in pg_signal_backend and pg_read_all_stats, or is a superuser.
//
// The caller is session_user, which no SET ROLE and no SECURITY DEFINER function
// changes. If that is a session role, its user is the one role with LOGIN that it is a
// member of. If there are several such roles, the functions raise an error. Every name
// is qualified and the functions have a search_path of their own. The only input from
// the caller is a number.

// sessionRolesBody is daypass.session_roles(): the oids of the session roles of the
// caller's user.
const sessionRolesBody = `
declare
  me oid;
  users bigint;
  who oid;
begin
  select r.oid into strict me from pg_catalog.pg_roles r where r.rolname = session_user;
  if not exists (
    select from pg_catalog.pg_auth_members m join pg_catalog.pg_roles k on k.oid = m.roleid
    where m.member = me and k.rolname = '` + dbuser.MarkerRole + `' and not m.admin_option) then
    who := me;
  else
    select pg_catalog.count(distinct u.oid), pg_catalog.min(u.oid) into users, who
    from pg_catalog.pg_auth_members m join pg_catalog.pg_roles u on u.oid = m.roleid
    where m.member = me and u.rolcanlogin
      and (pg_catalog.to_jsonb(m) ->> 'set_option') is distinct from 'false';
    if users <> 1 then
      raise exception 'session role "%" stands for % users', session_user, users
        using errcode = 'insufficient_privilege', hint = 'The gateway puts it right at the next logon.';
    end if;
  end if;
  return query
    select r.oid
    from pg_catalog.pg_auth_members m join pg_catalog.pg_roles r on r.oid = m.member
    where m.roleid = who and not r.rolsuper and pg_catalog.left(r.rolname::pg_catalog.text, 3) = 'IAM'
      and (pg_catalog.to_jsonb(m) ->> 'set_option') is distinct from 'false'
      and exists (
        select from pg_catalog.pg_auth_members x join pg_catalog.pg_roles k on k.oid = x.roleid
        where x.member = r.oid and k.rolname = '` + dbuser.MarkerRole + `' and not x.admin_option)
      and not exists ( -- that stands for somebody else as well
        select from pg_catalog.pg_auth_members x join pg_catalog.pg_roles u on u.oid = x.roleid
        where x.member = r.oid and u.rolcanlogin and u.oid <> who
          and (pg_catalog.to_jsonb(x) ->> 'set_option') is distinct from 'false');
end`

// signalBody returns the body of the function that replaces one of PostgreSQL's.
func signalBody(function string) string {
	return `
declare
  target oid;
begin
  select a.usesysid into target from pg_catalog.pg_stat_activity a where a.pid = $1 and a.backend_type = 'client backend';
  if target is null then
    raise warning 'PID % is not a PostgreSQL backend process', $1;
    return false;
  end if;
  if not exists (select from ` + Schema + `.session_roles() s (oid) where s.oid = target) then
    raise exception 'permission denied to signal backend %: it is no session of the user of "%"', $1, session_user
      using errcode = 'insufficient_privilege';
  end if;
  return pg_catalog.` + function + `($1);
end`
}

// mySessionsBody is daypass.my_sessions().
const mySessionsBody = `
begin
  return query
    select a.pid, a.usename, a.datname, a.application_name, a.client_addr, a.client_port, a.backend_start, a.xact_start,
      a.query_start, a.state_change, a.wait_event_type, a.wait_event, a.state, a.query
    from pg_catalog.pg_stat_activity a
    where a.backend_type = 'client backend' and a.usesysid in (select s.oid from ` + Schema + `.session_roles() s (oid));
end`

const mySessionsColumns = `pid int, usename name, datname name, application_name text, client_addr inet, client_port int,
  backend_start timestamptz, xact_start timestamptz, query_start timestamptz, state_change timestamptz,
  wait_event_type text, wait_event text, state text, query text`

// signalRights are the roles that the owner of the functions has to be in.
var signalRights = []string{"pg_signal_backend", "pg_read_all_stats"}
