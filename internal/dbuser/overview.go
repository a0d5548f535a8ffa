package dbuser

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/adminconn"
)

// Overview is what a sweep needs to know about all session roles together.
type Overview struct {
	Standby bool     // the server is in recovery; nothing else is set then
	Roles   int      // how many session roles there are
	InUse   int      // how many of them have sessions and are not in Due
	Members bool     // some have members
	Due     []string // those that the clean-up may have to do something about
	Foreign []string // members of the marker that are left alone, as ReadForeign returns them
}

// namePattern matches the names for which ParseRoleName returns ok.
const namePattern = `^(IAM:[^:~]+(:[^:~]+)*|IAMA:IAMR?(:[^:~]+)+|IAMA?:.*~[hkr][0-9a-f]{20}[a-z2-7]{26})$`

// What overviewQuery learns about a role, from one row or another.
const (
	isSuper = 1 << iota
	mayLogin
	inMarker
	administersMarker
	isHeld         // it is a member of more than the marker
	isGranted      // it has members other than the administrative login
	hasMembers     // these are more than its administrators
	isAdministered // by the administrative login
	isMentioned    // it owns something, or something names it
	isLive         // it has sessions
)

// overviewQuery puts the rows of all catalogs that matter on one pile and groups it by role. So its
// cost grows with their size and no faster, whatever plan the server chooses. $1 and $2 are the
// backends that do not count as sessions, $3 is how many seconds after VALID UNTIL an unused role is
// due (null: never), and $4 names the roles with a revoked credential.
//
// A role that nothing refers to, that lends nothing and that is not old enough to be dropped is not
// due: that is the usual state of nearly all of them. A role that is due without a reason costs a look.
func overviewQuery(version int) string {
	held, members, administered, alterable := "true", "true", "false", "true"
	if version >= 160000 {
		held = "m.inherit_option or m.set_option or m.grantor <> 10"
		members = "m.inherit_option or m.set_option"
		administered = "m.member = (select oid from me) and m.admin_option"
		alterable = fmt.Sprintf("(select rolsuper from me) or known & %d <> 0", isAdministered)
	}
	replaced := []string{"{held}", held, "{members}", members, "{administered}", administered, "{alterable}", alterable,
		"{marker}", "(select oid from marker)", "{pattern}", namePattern}
	for name, bit := range map[string]int{"super": isSuper, "login": mayLogin, "member": inMarker, "admin": administersMarker, "held": isHeld, "granted": isGranted,
		"members": hasMembers, "administered": isAdministered, "mentioned": isMentioned, "live": isLive} {
		replaced = append(replaced, "["+name+"]", fmt.Sprint(bit), "["+name+"?]", fmt.Sprintf("known & %d <> 0", bit))
	}
	return strings.NewReplacer(replaced...).Replace(`
with marker as materialized (select oid from pg_roles where rolname = '` + MarkerRole + `'),
me as materialized (select oid, rolsuper from pg_roles where rolname = current_user),
login as materialized (select oid from pg_roles where rolname = session_user),
pile (oid, name, until, known) as (
  select r.oid, r.rolname, r.rolvaliduntil, case when r.rolsuper then [super] else 0 end | case when r.rolcanlogin then [login] else 0 end from pg_roles r
  union all
  select m.member, null, null, case when m.roleid = {marker} then case when m.admin_option then [member] | [admin] else [member] end
    when {held} then [held] else 0 end from pg_auth_members m
  union all
  select m.roleid, null, null, case when m.member = (select oid from me) or m.member = (select oid from login) then case when {administered} then [administered] else 0 end
    when {members} then [granted] | [members] else [granted] end from pg_auth_members m where m.roleid <> {marker}
  union all
  select s.refobjid, null, null, [mentioned] from pg_shdepend s where s.refclassid = 'pg_authid'::regclass
  union all
  select a.usesysid, null, null, [live] from pg_stat_activity a where a.usesysid is not null and ` + isSession + `
    and not exists (select from unnest($1::int[], $2::int8[]) o (pid, role) where o.pid = a.pid and o.role = a.usesysid::int8)),
grouped as (
  select max(name::text) as name, extract(epoch from clock_timestamp() - nullif(nullif(max(until), 'infinity'), '-infinity'))::float8 as since, bit_or(known) as known
  from pile group by oid
  having bit_or(known) & ([member] | [admin]) = [member] and max(name::text) not in (current_user, session_user)),
role as materialized (
  select name, since, known, not [super?] and name ~ '{pattern}' as ours from grouped),
looked as materialized (
  select name, known, [members?] or [mentioned?] or not ({alterable})
      or [held?] and since > 0 or since > $3::float8
      or ([held?] or since is not null) and strpos(name, '~r') > 0
      or known & ([held] | [login]) <> 0 and name = any ($4::text[]) as due
  from role where ours)
select pg_is_in_recovery(), count(*)::int, count(*) filter (where [live?] and not coalesce(due, false))::int, coalesce(bool_or([granted?]), false),
  coalesce(array_agg(name) filter (where due), '{}'), (select coalesce(array_agg(name order by name), '{}') from role where not ours)
from looked`)
}

// Overview reads an overview of all session roles. unused is how long after its last logon a role
// is due to be dropped; zero means never. revoked names roles whose credentials were revoked.
func (a *Admin) Overview(ctx context.Context, c *adminconn.Conn, unused time.Duration, revoked []string) (Overview, error) {
	pids, oids := a.outlasting(c)
	var after *float64
	if unused > 0 {
		after = new((unused - validFor).Seconds())
	}
	if revoked == nil {
		revoked = []string{}
	}
	var o Overview
	err := c.QueryRow(ctx, overviewQuery(c.Version), pids, oids, after, revoked).Scan(&o.Standby, &o.Roles, &o.InUse, &o.Members, &o.Due, &o.Foreign)
	if err != nil {
		return o, fmt.Errorf("reading the session roles: %w", err)
	}
	if o.Standby {
		o = Overview{Standby: true}
	}
	return o, nil
}
