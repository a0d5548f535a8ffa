package dbuser

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/pgsql"
)

// "$user" in search_path is the schema named as current_user. In a session with groups
// that is the session role, and alice would not find her own schema. So the session
// role of such a session has the search_path that a session of the user would have,
// with the user's name in the place of "$user".

const (
	userSchema = "$user"
	// pathAgain is how long the server's own search_path is cached.
	pathAgain = 10 * time.Minute
	pathRetry = 10 * time.Second // when the question was not answered
)

// serverPath is the search_path that the server's configuration gives to sessions.
// Guarded by Admin.mu.
type serverPath struct {
	value string // empty: not known
	until time.Time
}

// searchPaths adds the search_path of the session role to the wanted settings, by database. A
// setting of the role for all databases overrides a database's own setting. So if the role gets
// one, each database with its own search_path needs a setting of the role for that database too.
func (p *planner) searchPaths(want map[string]map[string]string) {
	set := func(db, value string) {
		if want[db] == nil {
			want[db] = map[string]string{}
		}
		want[db]["search_path"] = pathOf(value, p.need.User)
	}
	for db, values := range want {
		if value, ok := values["search_path"]; ok {
			set(db, value)
		}
	}
	if _, ok := want[""]["search_path"]; ok {
		return
	}
	base := p.path
	for _, each := range p.Paths {
		if each.Database == "" {
			base = each.Value
		}
	}
	forAll := slices.Contains(pgsql.SplitList(base), userSchema)
	if forAll {
		set("", base)
	}
	for _, each := range p.Paths {
		if _, ok := want[each.Database]["search_path"]; !ok && each.Database != "" && (forAll || slices.Contains(pgsql.SplitList(each.Value), userSchema)) {
			set(each.Database, each.Value)
		}
	}
}

// pathOf returns the search_path with the user's name in place of "$user".
func pathOf(value, user string) string {
	elements := pgsql.SplitList(value)
	for i, e := range elements {
		if e == userSchema {
			e = user
		}
		elements[i] = pgsql.Ident(e)
	}
	return strings.Join(elements, ", ")
}

// sameValue reports whether two stored values of a setting mean the same: PostgreSQL
// quotes the elements of a list only where it has to.
func sameValue(name, a, b string) bool {
	if pgsql.IsList(name) {
		return slices.Equal(pgsql.SplitList(a), pgsql.SplitList(b))
	}
	return a == b
}

func (a *Admin) serverPath() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.path.value
}

// pathQuery reads the server's own search_path. It runs under the search_path of the database,
// whose owner may have operators that hide PostgreSQL's, so every name in it is qualified.
const pathQuery = `select case when source operator(pg_catalog.=) any ('{default,configuration file,command line,environment variable}'::pg_catalog.text[])
    then setting else '' end
  from pg_catalog.pg_settings where name operator(pg_catalog.=) 'search_path'::pg_catalog.text`

// learnPath reads the server's own search_path from time to time, on a connection whose
// search_path is not pinned. It stays unknown where the administrative login or its database
// has a search_path of its own.
func (a *Admin) learnPath(ctx context.Context) {
	select {
	case a.asking <- struct{}{}:
		defer func() { <-a.asking }()
	case <-ctx.Done():
		return
	}
	a.mu.Lock()
	known := a.path.until.After(a.Pool.Now())
	a.mu.Unlock()
	if known {
		return
	}
	var value string
	err := a.Pool.WithServersPath(ctx, func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, pathQuery).Scan(&value)
	})
	again := pathAgain
	switch {
	case err != nil:
		again = pathRetry
		a.Pool.Log.Debug("search_path of the server not asked for", "cluster", a.Pool.Cluster, "err", err)
	case value == "":
		a.once("search_path", "\"$user\" in the server's search_path is left out of sessions with groups: the administrative login has a search_path of its own, or its database")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.path.until = a.Pool.Now().Add(again)
	if err == nil {
		a.path.value = value
	}
}
