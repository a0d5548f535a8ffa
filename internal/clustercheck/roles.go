package clustercheck

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/pgsql"
)

// lendable is a role that logons could name: every one that is not the
// administrative login, a session role, the marker or PostgreSQL's own.
type lendable struct {
	name                        string
	login, super                bool
	closed                      bool // no password of its own is valid
	createDB, bypass            bool
	admin                       bool // the login may grant it
	finite                      bool // it has a VALID UNTIL that is a time
	member                      bool // before 16: the login is a member of it, and has its rights
	grantedInherit, grantedFull []string
}

// roles applies the rules of a logon to every role of the cluster, and asks
// whether the login may lend those that pass.
func (k *checker) roles(ctx context.Context) error {
	if err := k.marker(ctx); err != nil {
		return err
	}
	all, err := k.lendables(ctx)
	if err != nil {
		return err
	}
	var logins, roles []string
	for _, l := range all {
		if l.login {
			logins = append(logins, l.name)
		} else {
			roles = append(roles, l.name)
		}
	}
	refused, err := k.a.NotLent(ctx, k.c, logins, roles)
	if err != nil {
		return err
	}
	var users, groups int
	var missing []lendable
	var lost []string
	for _, l := range all {
		if k.a.NeverLends(l.name) {
			continue
		}
		if l.wasSession() {
			lost = append(lost, l.name)
			continue
		}
		if refusal := refused[l.name]; refusal != nil {
			k.add(Notice, "not-lent", "%s", refusal.Message)
			continue
		}
		switch {
		case !l.admin:
			missing = append(missing, l)
			continue
		case l.login:
			users++
		default:
			groups++
		}
		k.lent = append(k.lent, l)
		if err := k.attributes(ctx, l); err != nil {
			return err
		}
		k.standing(l)
	}
	k.add(OK, "lending", "can be lent: users %d, groups %d; others are made with AutoCreate", users, groups)
	k.notLent(missing)
	k.lostSessions(lost)
	return nil
}

// wasSession reports whether a role was once a session role. A user for an IAM identity can have
// such a name too, but has no time in its VALID UNTIL.
func (l *lendable) wasSession() bool {
	name, ok := dbuser.ParseRoleName(l.name)
	return ok && l.login && !l.super && (l.finite || !name.IsIdentity())
}

// lostSessions tells of roles that were session roles before a restore. There is no SQL
// for them here: anyone who may make roles can give one such a name, and what it owns
// would be handed over.
func (k *checker) lostSessions(lost []string) {
	if len(lost) == 0 {
		return
	}
	k.add(Warning, "session-role-lost", "the roles %s are named as session roles and are not in %q: what they own is not handed over, and logons use other names. "+
		"A dump made by pg_dumpall of PostgreSQL 15 or before loses all memberships in a restore on 16 or later: grant them again from the dump, as docs/upgrade-postgresql.md says; "+
		"drop the roles if nothing of the kind was restored", pgsql.Names(lost), dbuser.MarkerRole)
}

// notLent reports the roles that the login may not lend. The operator decides which of
// them should be lent, and names the others in never_lend.
func (k *checker) notLent(missing []lendable) {
	var names, supers, sql []string
	for _, l := range missing {
		if l.super {
			supers = append(supers, l.name)
			continue
		}
		names = append(names, l.name)
		sql = append(sql, dbuser.LendStatement(l.name, k.admin))
	}
	if len(supers) > 0 {
		k.add(Notice, "admin-option", "superusers can be lent by an administrative login that is a superuser only: %s", pgsql.Names(supers))
	}
	if len(names) == 0 || k.c.Version < 160000 {
		return // before 16 it takes CREATEROLE, and that is missing already
	}
	f := k.add(Warning, "admin-option", "the administrative login has no ADMIN OPTION on %s: logons that name them fail. Grant it on those "+
		"that are to be lent, and name the others in never_lend", pgsql.Names(names))
	f.SQL, f.Choose = sql, true
}

func (k *checker) lendables(ctx context.Context) ([]lendable, error) {
	// Before 16 a login with CREATEROLE can lend every role except superusers. From 16 on it
	// needs ADMIN OPTION on the role, directly or through roles that it inherits from.
	admin := "not r.rolsuper and me.rolcreaterole"
	member := "exists (select from pg_auth_members m where m.roleid = r.oid and m.member = me.oid)"
	inherits, sets := "'{}'::text[]", "'{}'::text[]"
	if k.c.Version >= 160000 {
		admin = "not r.rolsuper and pg_has_role(me.oid, r.oid, 'member with admin option')"
		const rows = "coalesce((select array_agg(pg_get_userbyid(m.grantor)::text) from pg_auth_members m where m.roleid = r.oid and m.member = me.oid and %s), '{}')"
		member = "false"
		inherits, sets = fmt.Sprintf(rows, "m.inherit_option"), fmt.Sprintf(rows, "m.set_option")
	}
	rows, err := k.c.Query(ctx, `
		select r.rolname::text, r.rolcanlogin, r.rolsuper, coalesce(r.rolvaliduntil <= now(), false), coalesce(isfinite(r.rolvaliduntil), false), r.rolcreatedb, r.rolbypassrls, me.rolsuper or `+admin+`, `+member+`, `+inherits+`, `+sets+`
		from pg_roles r join pg_roles me on me.rolname = current_user
		where r.rolname not in (current_user, session_user, $1) and r.rolname !~ '^pg_'
		  and not exists (select from pg_auth_members m join pg_roles k on k.oid = m.roleid where m.member = r.oid and k.rolname = $1)
		order by not r.rolcanlogin, 1`, dbuser.MarkerRole)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []lendable
	for rows.Next() {
		var l lendable
		if err := rows.Scan(&l.name, &l.login, &l.super, &l.closed, &l.finite, &l.createDB, &l.bypass, &l.admin, &l.member, &l.grantedInherit, &l.grantedFull); err != nil {
			return nil, err
		}
		if utf8.ValidString(l.name) { // no credential, and no statement in UTF-8, can have another name
			all = append(all, l)
		}
	}
	return all, rows.Err()
}

// attributes reports attributes of a user that its session roles cannot have.
func (k *checker) attributes(ctx context.Context, l lendable) error {
	if !l.login || k.super || !l.createDB && !l.bypass {
		return nil
	}
	var createDB, bypass bool
	err := k.c.QueryRow(ctx, "select rolcreatedb, rolbypassrls from pg_roles where rolname = current_user").Scan(&createDB, &bypass)
	if err != nil {
		return err
	}
	for _, a := range []struct {
		word     string
		has, may bool
	}{
		{"createdb", l.createDB, createDB || k.c.Version < 160000},
		{"bypassrls", l.bypass, bypass && k.c.Version >= 160000},
	} {
		if !a.has || a.may {
			continue
		}
		f := k.add(Notice, "attribute", "user %q has %s, and its sessions with groups do not: the administrative login may not grant it", l.name, strings.ToUpper(a.word))
		if k.c.Version >= 160000 {
			f.SQL = []string{"alter role " + pgsql.Ident(k.admin) + " " + a.word}
		}
	}
	return nil
}

// standing finds permanent memberships of the login in roles that it lends. It needs
// none, and each one gives the login that role's rights.
func (k *checker) standing(l lendable) {
	if k.super {
		return
	}
	var sql []string
	if l.member {
		sql = append(sql, fmt.Sprintf("revoke %s from %s", pgsql.Ident(l.name), pgsql.Ident(k.admin)))
	}
	for _, grantor := range l.grantedInherit {
		sql = append(sql, fmt.Sprintf("revoke inherit option for %s from %s granted by %s", pgsql.Ident(l.name), pgsql.Ident(k.admin), pgsql.Ident(grantor)))
	}
	for _, grantor := range l.grantedFull {
		sql = append(sql, fmt.Sprintf("revoke set option for %s from %s granted by %s", pgsql.Ident(l.name), pgsql.Ident(k.admin), pgsql.Ident(grantor)))
	}
	if sql != nil {
		k.add(Warning, "standing-membership", "the administrative login is a permanent member of %q", l.name).SQL = sql
	}
}

// marker checks the marker role, its members, and the members of session roles.
func (k *checker) marker(ctx context.Context) error {
	var (
		exists, login, super, admin bool
		of                          []string
		members                     int
	)
	mayGrant := "me.rolcreaterole"
	if k.c.Version >= 160000 {
		mayGrant = "pg_has_role(me.oid, r.oid, 'member with admin option')"
	}
	err := k.c.QueryRow(ctx, `
		select true, r.rolcanlogin, r.rolsuper, me.rolsuper or `+mayGrant+`,
		  (select coalesce(array_agg(distinct g.rolname::text), '{}') from pg_auth_members m join pg_roles g on g.oid = m.roleid where m.member = r.oid),
		  (select count(distinct m.member)::int from pg_auth_members m where m.roleid = r.oid and m.member <> me.oid)
		from pg_roles r join pg_roles me on me.rolname = current_user where r.rolname = $1`, dbuser.MarkerRole).
		Scan(&exists, &login, &super, &admin, &of, &members)
	if errors.Is(err, pgx.ErrNoRows) {
		k.add(OK, "marker", "the role %q is made at the first logon", dbuser.MarkerRole)
		return nil
	}
	if err != nil {
		return err
	}
	marker := pgsql.Ident(dbuser.MarkerRole)
	if login {
		k.add(Broken, "marker", "the role %q can log in; it only marks session roles", dbuser.MarkerRole).SQL = []string{"alter role " + marker + " nologin"}
	}
	if super {
		k.add(Broken, "marker", "the role %q is a superuser: every session could become one", dbuser.MarkerRole).SQL = []string{"alter role " + marker + " nosuperuser"}
	}
	if !admin {
		f := k.add(Broken, "marker", "the administrative login may not grant the role %q", dbuser.MarkerRole)
		f.SQL = []string{dbuser.LendStatement(dbuser.MarkerRole, k.admin)}
		if k.c.Version < 160000 {
			f.SQL = []string{"alter role " + pgsql.Ident(k.admin) + " createrole"}
		}
	}
	for _, g := range of {
		k.add(Broken, "marker", "the role %q is a member of %q: so is every session", dbuser.MarkerRole, g).SQL =
			[]string{fmt.Sprintf("revoke %s from %s cascade", pgsql.Ident(g), marker)}
	}
	odd, err := dbuser.ReadForeign(ctx, k.c)
	if err != nil {
		return err
	}
	for _, x := range odd {
		k.add(Warning, "marker", "the role %q is a member of %q, which is for session roles only; it cannot be lent, and is left alone", x, dbuser.MarkerRole).SQL =
			[]string{fmt.Sprintf("revoke %s from %s", marker, pgsql.Ident(x))}
	}
	k.add(OK, "marker", "session roles: %d", members-len(odd))
	if err := k.otherLogins(ctx); err != nil {
		return err
	}
	return k.edges(ctx)
}

// otherLogins finds session roles that the login may not change. This happens from 16 on, if
// another login made them, or they were made before an upgrade, a restore or the loss of
// superuser. Logons still work, with session roles of other names. The old ones keep their
// rights until they are handed over or dropped.
func (k *checker) otherLogins(ctx context.Context) error {
	all, err := k.a.Existing(ctx, k.c, nil)
	if err != nil {
		return err
	}
	var names, sql []string
	for _, o := range all {
		if !o.Alterable {
			names = append(names, o.Role)
			sql = append(sql, dbuser.LendStatement(o.Role, k.admin))
		}
	}
	if names != nil {
		k.add(Warning, "session-role-login", "the administrative login may not change the session roles %s: another login made them, or an upgrade or a restore did. "+
			"Logons use session roles of its own; these keep their rights until it may clean them up", pgsql.Names(names)).SQL = sql
	}
	return nil
}

// edges finds members of session roles, which have the rights of another user's session.
func (k *checker) edges(ctx context.Context) error {
	grantor := "''"
	if k.c.Version >= 160000 {
		grantor = "' granted by ' || quote_ident(pg_get_userbyid(m.grantor))"
	}
	rows, err := k.c.Query(ctx, `
		select r.rolname::text, x.rolname::text,
		  'revoke ' || quote_ident(r.rolname) || ' from ' || quote_ident(x.rolname) || `+grantor+` || ' cascade'
		from pg_auth_members m join pg_roles r on r.oid = m.roleid join pg_roles x on x.oid = m.member
		where m.roleid in (select y.member from pg_auth_members y join pg_roles k on k.oid = y.roleid where k.rolname = $1)
		  and x.rolname not in (current_user, session_user) and not `+k.makers(), dbuser.MarkerRole)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var role, member, sql string
		if err := rows.Scan(&role, &member, &sql); err != nil {
			return err
		}
		k.add(Broken, "session-role-member", "%q is a member of the session role %q and has its rights", member, role).SQL = []string{sql}
	}
	return rows.Err()
}

// makers returns the condition that x has the membership m only because it created the role.
// From 16 on, PostgreSQL makes a CREATEROLE login a member of each role that it creates, with the
// right to administer the role but without the role's own rights. Such an x is another or an
// earlier administrative login.
func (k *checker) makers() string {
	if k.c.Version < 160000 {
		return "false"
	}
	return "(m.grantor = 10 and m.admin_option and not m.inherit_option and not m.set_option and x.rolcreaterole)"
}
