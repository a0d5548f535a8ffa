package dbuser

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/pgsql"
)

// state is what the database knows about one Need: everything that decides whether it
// may be served and whether something has to change.
type state struct {
	Recovery bool    `json:"recovery"`
	Now      float64 `json:"-"` // the server's clock, seconds since 1970
	Marker   *uint32 `json:"marker"`
	Admin    struct {
		Name       string `json:"name"`
		Login      string `json:"login"`
		Super      bool   `json:"super"`
		CreateDB   bool   `json:"createdb"`
		CreateRole bool   `json:"createrole"`
		BypassRLS  bool   `json:"bypassrls"`
	} `json:"admin"`
	Roles    []role    `json:"roles"`    // user, groups and session role candidates, where they exist
	Carries  []carried `json:"carries"`  // roles that user and groups must not reach through membership
	Of       []member  `json:"of"`       // memberships of the candidates
	Into     []edge    `json:"into"`     // members of the candidates; there must be none
	Settings []setting `json:"settings"` // of the user and of the candidates, for all databases and for the one named
	Paths    []path    `json:"paths"`    // where there are groups: search_path as all databases and the one named have it
	Database *struct {
		LoginTrigger bool `json:"logintrigger"` // it has, or had, a login event trigger
		// Defaults are the rows of settings for all roles.
		Defaults []struct {
			All bool `json:"all"` // for all databases
		} `json:"defaults"`
	} `json:"database"` // nil: it does not exist, or is not named
	version int
	seen    [sha256.Size]byte // the hash of all but the time
}

type role struct {
	OID        uint32   `json:"oid"`
	Name       string   `json:"name"`
	Super      bool     `json:"super"`
	Inherit    bool     `json:"inherit"`
	CreateRole bool     `json:"createrole"`
	CreateDB   bool     `json:"createdb"`
	Login      bool     `json:"login"`
	Repl       bool     `json:"repl"`
	BypassRLS  bool     `json:"bypassrls"`
	ConnLimit  int      `json:"connlimit"`
	ValidUntil *float64 `json:"validuntil"` // nil: none, or infinity
	Closed     bool     `json:"closed"`     // no password is valid: see NoPassword
	Session    bool     `json:"session"`    // a direct member of the marker role
	Alterable  bool     `json:"alterable"`  // the administrative login may change it; from 16 on that takes ADMIN OPTION
	Arranged   bool     `json:"arranged"`   // a candidate with default privileges or user mappings, in any database
}

// carried is a role that Root is a member of, through any number of memberships.
type carried struct {
	Root       uint32 `json:"root"`
	Name       string `json:"name"`
	Super      bool   `json:"super"`
	CreateRole bool   `json:"createrole"`
	Session    bool   `json:"session"`
}

// member is one row of pg_auth_members: Member belongs to Role.
type member struct {
	Member  uint32 `json:"member"`
	Role    string `json:"role"`
	OID     uint32 `json:"oid"`
	Admin   bool   `json:"admin"`
	Inherit bool   `json:"inherit"`
	Set     bool   `json:"set"`
	Grantor string `json:"grantor"`
	Creator bool   `json:"creator"` // the grantor is the bootstrap superuser, as for a role's creator from 16 on
}

// edge is a member of a session role.
type edge struct {
	Role   string `json:"role"`
	Member string `json:"member"`
}

// setting is one row of pg_db_role_setting.
type setting struct {
	Role     uint32   `json:"role"`
	Database string   `json:"db"` // empty: all databases
	Config   []string `json:"config"`
	Large    bool     `json:"large"` // Config is left out: it has more than maxSettings bytes
}

// path is the search_path that a database sets for its sessions or, if Database is empty, that
// all sessions have.
type path struct {
	Database string `json:"db"`
	Value    string `json:"value"`
}

// maxSettings is how many bytes of settings a role may have, for all databases together and for
// each single one. PostgreSQL would accept a gigabyte from the role's holder.
const maxSettings = 64 << 10

// serverRoles reach the server's files or run its programs, which PostgreSQL's
// manual equates with a superuser.
var serverRoles = []string{"pg_execute_server_program", "pg_read_server_files", "pg_write_server_files"}

// stateQuery is the one query of a logon. $1 is the user and the groups, $2 the
// names the session role may have, $3 the database. It reads pg_auth_members itself, not a
// view of it, so that no grantor hides a membership. It takes the same time with
// ten roles as with ten thousand, which is why settings are looked up by
// database and role, the key of their index. From 16 on there can be
// several rows for one membership, with options of their own.
//
// All rows are in order: state.seen would differ without it when the server takes another plan.
//
// Settings for other databases than $3 are not read. They matter to no session in this one, and
// the owner of a database can give it a name that no statement can write, or keep it locked.
func stateQuery(version int) string {
	inherit, set, alterable := "true", "true", "true"
	if version >= 160000 {
		inherit, set = "m.inherit_option", "m.set_option"
		// The direct membership comes first: pg_has_role collects all the roles that
		// the login has made.
		alterable = `case when not {session} then true when me.rolsuper or coalesce((select bool_or(m.admin_option) from pg_auth_members m
             where m.roleid = r.oid and m.member = me.oid), false) then true
           else pg_has_role(me.oid, r.oid, 'member with admin option') end`
	}
	loginTrigger := "false"
	if version >= 170000 {
		loginTrigger = "d.dathasloginevt"
	}
	// A scalar subquery: PostgreSQL would hash EXISTS, over all session roles.
	const session = `coalesce((select true from pg_auth_members m
           where m.member = r.oid and m.roleid = (select oid from marker) limit 1), false)`
	return strings.NewReplacer("{most}", strconv.Itoa(maxSettings), "{session}", session, "{alterable}", strings.ReplaceAll(alterable, "{session}", session), "{inherit}", inherit, "{set}", set,
		"{loginTrigger}", loginTrigger, "{marker}", pgsql.Literal(MarkerRole), "{server}", "'"+strings.Join(serverRoles, "','")+"'").Replace(`
with recursive
marker as (select oid from pg_roles where rolname = {marker}),
named as materialized (
  select r.oid, r.rolname, r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb, r.rolcanlogin,
         r.rolreplication, r.rolbypassrls, r.rolconnlimit, r.rolvaliduntil,
         {session} as session, {alterable} as alterable,
         r.rolname = any ($2::text[]::name[]) and exists (select from pg_shdepend d
           where d.refclassid = 'pg_authid'::regclass and d.refobjid = r.oid
             and d.classid in ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass) and d.deptype = 'o') as arranged
  from pg_roles r cross join (select oid, rolsuper from pg_roles where rolname = current_user) me
  where r.rolname = any ($1::text[]::name[]) or r.rolname = any ($2::text[]::name[])),
candidate as (select oid, rolname from named where rolname = any ($2::text[]::name[])),
place as (select 0::oid as oid, null::name as datname union all select oid, datname from pg_database where datname = $3::text::name),
reach (root, oid) as (
  select m.member, m.roleid from pg_auth_members m
  where m.member in (select oid from named where rolname = any ($1::text[]::name[]))
  union
  select c.root, m.roleid from reach c join pg_auth_members m on m.member = c.oid)
select json_build_object(
  'recovery', pg_is_in_recovery(),
  'marker', (select oid::int8 from marker),
  'loaded', pg_conf_load_time(), -- pg_hba.conf, too
  'database', (select json_build_object('oid', d.oid::int8, 'row', d.xmin::text, 'logintrigger', {loginTrigger},
      'connect', (select json_agg(has_database_privilege(c.oid, d.oid, 'connect') order by c.oid) from candidate c),
      'defaults', (select json_agg(json_build_object('all', s.setdatabase = 0, 'row', s.xmin::text) order by s.setdatabase) from pg_db_role_setting s
        where s.setdatabase in (0, d.oid) and s.setrole = 0))
    from pg_database d where d.datname = $3::text::name),
  'admin', (select json_build_object('name', current_user, 'login', session_user, 'super', rolsuper,
      'createdb', rolcreatedb, 'createrole', rolcreaterole, 'bypassrls', rolbypassrls)
    from pg_roles where rolname = current_user),
  'roles', (select json_agg(json_build_object('oid', oid::int8, 'name', rolname, 'super', rolsuper,
      'inherit', rolinherit, 'createrole', rolcreaterole, 'createdb', rolcreatedb, 'login', rolcanlogin,
      'repl', rolreplication, 'bypassrls', rolbypassrls, 'connlimit', rolconnlimit,
      'closed', rolvaliduntil = '-infinity', 'validuntil', case when isfinite(rolvaliduntil) then extract(epoch from rolvaliduntil)::float8 end,
      'session', session, 'alterable', alterable, 'arranged', arranged) order by oid) from named),
  'carries', (select json_agg(json_build_object('root', c.root::int8, 'name', r.rolname, 'super', r.rolsuper,
      'createrole', r.rolcreaterole, 'session', s.session) order by c.root, r.oid)
    from reach c join pg_roles r on r.oid = c.oid
    cross join lateral (select {session} as session) s
    where r.rolsuper or r.rolcreaterole or s.session
       or r.rolname in (current_user, session_user, {marker}, {server})),
  'of', (select json_agg(json_build_object('member', m.member::int8, 'role', r.rolname, 'oid', m.roleid::int8,
      'admin', m.admin_option, 'inherit', {inherit}, 'set', {set},
      'grantor', coalesce(pg_get_userbyid(m.grantor), ''), 'creator', m.grantor = 10) order by m.member, m.roleid, m.grantor)
    from pg_auth_members m join pg_roles r on r.oid = m.roleid
    where m.member in (select oid from candidate)),
  'into', (select json_agg(json_build_object('role', c.rolname, 'member', m.name) order by c.oid, m.name) -- by index: most rows are the marker's
    from candidate c cross join lateral (select pg_get_userbyid(m.member) as name from pg_auth_members m where m.roleid = c.oid and ` + MemberThere + ` offset 0) m
    where m.name not in (current_user, session_user)),
  'settings', (select json_agg(json_build_object('role', s.setrole::int8, 'db', coalesce(d.datname, ''), 'row', s.xmin::text,
      'config', case when f.fits then s.setconfig end, 'large', not f.fits) order by s.setrole, s.setdatabase)
    from place d
    cross join (select oid from named where rolname = $1[1]::name or rolname = any ($2::text[]::name[])) r
    join pg_db_role_setting s on s.setdatabase = d.oid and s.setrole = r.oid
    cross join lateral (select case when pg_column_size(s.setconfig) > {most} / 4 then false
      else octet_length(s.setconfig::text) <= {most} end as fits) f), -- the first is of the compressed
  'paths', (select json_agg(json_build_object('db', coalesce(d.datname, ''), 'value', substr(e, length('search_path=') + 1)) order by s.setdatabase)
    from place d
    join pg_db_role_setting s on s.setdatabase = d.oid and s.setrole = 0
    cross join unnest(case when pg_column_size(s.setconfig) <= {most} / 4 then s.setconfig end) e
    where array_length($1, 1) > 1 and e like 'search\_path=%' and octet_length(e) <= {most})
)::text, extract(epoch from clock_timestamp())::float8`)
}

// readState runs the query.
func readState(ctx context.Context, c *adminconn.Conn, n Need, s sessionNames) (*state, error) {
	var text []byte
	var now float64
	if err := c.QueryRow(ctx, adminconn.StateStatement, append([]string{n.User}, n.Groups...), s.all(), n.Database).Scan(&text, &now); err != nil {
		return nil, err
	}
	st := &state{Now: now, version: c.Version, seen: sha256.Sum256(text)}
	if err := json.Unmarshal(text, st); err != nil {
		return nil, fmt.Errorf("internal error: reading the state of a session role: %w", err)
	}
	return st, nil
}

// role returns the role of that name, or nil.
func (s *state) role(name string) *role {
	i := slices.IndexFunc(s.Roles, func(r role) bool { return r.Name == name })
	if i < 0 {
		return nil
	}
	return &s.Roles[i]
}

// anySuperuser reports whether a session that has the user's and the groups' rights can become a
// superuser, or has rights that amount to one's.
func (s *state) anySuperuser() bool {
	return slices.ContainsFunc(s.Roles, func(r role) bool { return r.Super || r.CreateRole && s.makesAnything() }) ||
		slices.ContainsFunc(s.Carries, func(c carried) bool {
			return c.Super || c.CreateRole && s.makesAnything() || slices.Contains(serverRoles, c.Name)
		})
}

// ours reports whether a role is a session role that may be changed. Membership in the marker
// alone does not prove it: before 16 a user with CREATEROLE can add any role.
func (r *role) ours() bool {
	_, named := ParseRoleName(r.Name)
	return named && r.Session && !r.Super && r.Alterable
}

// isAdmin reports whether name is the administrative login, or the role that it has
// switched to (SET ROLE).
func (s *state) isAdmin(name string) bool { return name == s.Admin.Name || name == s.Admin.Login }

// sourcesOf returns from where a new session of a role in the database gets settings.
func (s *state) sourcesOf(role *role, database string) (sources SettingSources) {
	if role == nil || s.Database == nil {
		return 0
	}
	for _, row := range s.Database.Defaults {
		if row.All {
			sources |= fromAll
		} else {
			sources |= fromDatabase
		}
	}
	for _, row := range s.Settings {
		switch {
		case row.Role != role.OID:
		case row.Database == "":
			sources |= fromRole
		case row.Database == database:
			sources |= fromRoleInDatabase
		}
	}
	return sources
}

// configOf returns the settings of a role: database name to setting name to
// value, as PostgreSQL stores them. large names the databases whose settings are
// too large to be read.
func (s *state) configOf(oid uint32) (all map[string]map[string]string, large []string) {
	all = map[string]map[string]string{}
	for _, row := range s.Settings {
		if row.Role != oid {
			continue
		}
		if row.Large {
			large = append(large, row.Database)
			continue
		}
		values := map[string]string{}
		for _, entry := range row.Config {
			name, value, _ := strings.Cut(entry, "=")
			values[name] = value
		}
		all[row.Database] = values
	}
	return all, large
}
