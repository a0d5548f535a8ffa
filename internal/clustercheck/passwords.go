package clustercheck

import (
	"context"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/pgsql"
)

// passwords finds the users that could bypass the gateway with a password of their own:
// any session can set one. It checks only users that are lent.
func (k *checker) passwords(ctx context.Context) error {
	var open, sql []string
	users := 0
	for _, l := range k.lent {
		if !l.login || l.super {
			continue
		}
		users++
		if !l.closed {
			open = append(open, l.name)
		}
	}
	switch {
	case users == 0:
		k.add(OK, "passwords", "there is no database user yet that could have a password and bypass the gateway")
		return nil
	case len(open) == 0:
		k.add(OK, "passwords", "no password is valid for any user that is lent")
		return nil
	}
	if err := k.c.QueryRow(ctx, "select has_table_privilege('pg_catalog.pg_authid', 'select')").Scan(&k.openSeen); err != nil {
		return err
	}
	if k.openSeen {
		err := k.c.QueryRow(ctx, `select coalesce(array_agg(rolname::text order by rolname), '{}') from pg_authid
			where rolname = any ($1::text[]::name[]) and rolpassword is not null`, open).Scan(&open)
		if err != nil {
			return err
		}
	}
	k.open = open
	for _, user := range open {
		sql = append(sql, "alter role "+pgsql.Ident(user)+" "+dbuser.NoPassword)
	}
	switch {
	case len(open) == 0:
		k.add(OK, "passwords", "no user that is lent has a password")
		return nil
	case k.openSeen:
		f := k.add(Notice, "passwords", "users with a password, who can log on past the gateway wherever the server lets them in: %s. "+
			"Set remove_passwords: all, or remove those that are not wanted", pgsql.Names(open))
		f.SQL, f.Choose = sql, true
	default:
		f := k.add(Notice, "passwords", "only superusers can see which users have a password; these may have one and could then bypass the gateway "+
			"wherever the server lets them in: %s. Set remove_passwords: all, or remove those that are not wanted", pgsql.Names(open))
		f.SQL, f.Choose = sql, true
	}
	return nil
}
