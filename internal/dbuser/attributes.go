package dbuser

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/pgsql"
)

// A session role has copies of some attributes of its user. PostgreSQL looks at the copies, so a
// session with groups, which works as its session role, keeps an attribute that was taken from the user
// meanwhile. A logon corrects the copies, but no other logon may come while the session lasts.

// attributes are those that a session role may have a copy of.
type attributes struct{ createDB, createRole, bypassRLS bool }

func (a attributes) any() bool { return a.createDB || a.createRole || a.bypassRLS }

func (a attributes) without(b attributes) attributes {
	return attributes{a.createDB && !b.createDB, a.createRole && !b.createRole, a.bypassRLS && !b.bypassRLS}
}

// takeAway returns the statement that takes the attributes away from a role.
func (a attributes) takeAway(role string) string {
	sql := "alter role " + pgsql.Ident(role)
	for _, one := range []struct {
		set  bool
		word string
	}{{a.createDB, " nocreatedb"}, {a.createRole, " nocreaterole"}, {a.bypassRLS, " nobypassrls"}} {
		if one.set {
			sql += one.word
		}
	}
	return sql
}

// attributesQuery lists the session roles with attributes that the administrative login may take away.
func attributesQuery(version int) string {
	createDB, bypassRLS := "(me.rolsuper or me.rolcreaterole)", "me.rolsuper"
	if version >= 160000 {
		createDB, bypassRLS = "(me.rolsuper or me.rolcreatedb)", "(me.rolsuper or me.rolbypassrls)"
	}
	return `select r.rolname::text, r.rolcreatedb and ` + createDB + `, r.rolcreaterole, r.rolbypassrls and ` + bypassRLS + `
		from pg_roles r cross join (select * from pg_roles where rolname = current_user) me
		where (r.rolcreatedb or r.rolcreaterole or r.rolbypassrls) and ` + isSessionRole
}

// usersQuery reads the attributes of users by name ($1), and by the hash in the name of a session role ($2).
const usersQuery = `select u.rolname::text, u.rolcreatedb, u.rolcreaterole, u.rolbypassrls from pg_roles u
	where u.rolname = any ($1::text[]::name[]) or $2::text[] <> '{}' and ` + userHashed + ` = any ($2)`

// surplusAttributes returns, by session role, the attributes that its user does not have, or that
// session roles do not get. The administrative login may take them away.
func surplusAttributes(ctx context.Context, c *adminconn.Conn) (map[string]attributes, error) {
	have, err := readAttributes(ctx, c, attributesQuery(c.Version))
	if err != nil || len(have) == 0 {
		return nil, err
	}
	names, hashes := []string{}, []string{}
	maps.DeleteFunc(have, func(role string, a attributes) bool {
		name, ok := ParseRoleName(role)
		switch {
		case !ok || !a.any() || !utf8.ValidString(role):
			return true
		case name.user == "":
			hashes = append(hashes, name.userHash)
		default:
			names = append(names, name.user)
		}
		return false
	})
	users, err := readAttributes(ctx, c, usersQuery, names, hashes)
	if err != nil {
		return nil, err
	}
	byHash := map[string]attributes{} // without those that do not exist
	for user, a := range users {
		if c.Version >= 160000 {
			a.createRole = false // never copied
		}
		byHash[userHash(user)] = a
	}
	for role, a := range have {
		name, _ := ParseRoleName(role)
		have[role] = a.without(byHash[name.userHash])
	}
	maps.DeleteFunc(have, func(_ string, a attributes) bool { return !a.any() })
	return have, nil
}

func readAttributes(ctx context.Context, c *adminconn.Conn, query string, args ...any) (map[string]attributes, error) {
	rows, err := c.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := map[string]attributes{}
	for rows.Next() {
		var role string
		var a attributes
		if err := rows.Scan(&role, &a.createDB, &a.createRole, &a.bypassRLS); err != nil {
			return nil, err
		}
		all[role] = a
	}
	return all, rows.Err()
}

// CorrectAttributes takes from session roles the attributes that their users have lost. Otherwise a
// session with groups would keep them until it ends.
func (a *Admin) CorrectAttributes(ctx context.Context) error {
	c, err := a.Pool.Acquire(ctx)
	if err != nil {
		return err
	}
	surplus, err := surplusAttributes(ctx, c)
	a.Pool.Release(c)
	if err != nil {
		return fmt.Errorf("reading the attributes of session roles: %w", err)
	}
	taken := 0
	for _, role := range slices.Sorted(maps.Keys(surplus)) {
		err = a.Pool.InLane(ctx, func(ctx context.Context, c *adminconn.Conn) ([]adminconn.Step, error) {
			now, err := surplusAttributes(ctx, c)
			if err != nil || !now[role].any() {
				return nil, err
			}
			return []adminconn.Step{{SQL: now[role].takeAway(role)}}, nil
		})
		switch {
		case err == nil:
			taken++
		case ctx.Err() != nil:
			return err
		default:
			a.once("attributes\x00"+role, "a session role keeps attributes that its user has lost", "role", role, "err", err)
		}
	}
	if taken > 0 {
		a.Pool.Log.Info("attributes taken from session roles whose users have lost them", "cluster", a.Pool.Cluster, "roles", taken)
	}
	return nil
}
