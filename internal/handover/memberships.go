package handover

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/pgsql"
)

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

// revokedWith reports whether the statement that revokes m can revoke other as well.
func (m membership) revokedWith(other membership) bool {
	return m.named() && other.mine && other.named() && other.Member == m.Member && other.Grantor == m.Grantor
}

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
