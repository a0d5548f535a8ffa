package dbuser

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/pgsql"
)

const (
	// validFor is how far ahead of the server's clock VALID UNTIL is set: the shortest lifetime
	// of a credential. It limits how long a password that the holder set works, and tells the
	// sweep when the role last logged on.
	validFor = 15 * time.Minute
	// If VALID UNTIL is closer than refreshBelow, a logon moves it forward in the background; if
	// it is closer than validAtLeast, the logon waits for that.
	refreshBelow = 10 * time.Minute
	validAtLeast = time.Minute
)

// step is one statement of a change, and what it is about.
type step struct {
	sql     string
	about   about
	name    string // the role or setting
	setting string // key under which a setting that cannot be copied is remembered
	reset   bool   // takes away a setting that is not the user's
}

// statements returns the steps as a connection runs them.
func statements(steps []step) []adminconn.Step {
	all := make([]adminconn.Step, len(steps))
	for i, s := range steps {
		all[i] = adminconn.Step{SQL: s.sql, Parameter: s.setting != "", About: s}
	}
	return all
}

// failedStep returns the step that an error is about.
func failedStep(err error) (step, bool) {
	failed, ok := errors.AsType[*adminconn.StepError](err)
	if !ok {
		return step{}, false
	}
	s, ok := failed.About.(step)
	return s, ok
}

type about int

const (
	aboutSessionRole about = iota
	aboutUser
	aboutGroup
	aboutMarker
	aboutSetting
)

// plan is what has to be done for a Need.
type plan struct {
	role    string // the session role's name
	steps   []step
	canWait bool // nothing is wrong yet; the steps may run after the logon
	verify  bool // something may remain that raised no error
	another bool // the user gets a session role for one more set of groups
	foreign bool // there is a membership that only another role can revoke, or no statement can name
	// taken are names for the role that other roles already have.
	taken []string
	// tooLarge names the databases for which the user has too many settings to copy.
	tooLarge []string
}

// request is what a plan is made for.
type request struct {
	need    Need
	names   sessionNames
	user    *role // nil: to be made
	rewrite bool  // set password and VALID UNTIL even if nothing differs
	retire  bool  // do not mend the session role that is there: put a new one in its place
}

// neverCopied are the settings that decide which role a session works as. Only the
// session role's own `role` may decide that.
var neverCopied = []string{"role", "session_authorization"}

// NeverCopied reports whether a setting is never copied from a user to its session roles.
func NeverCopied(name string) bool { return slices.Contains(neverCopied, strings.ToLower(name)) }

// planner builds a plan from a state. It is a pure function of its fields.
type planner struct {
	*state
	request
	config  *Config
	path    string                // the server's own search_path; empty: not known
	skipped func(key string) bool // settings that the admin may not copy
	plan    plan
}

func (p *planner) add(about about, name, format string, args ...any) {
	p.plan.steps = append(p.plan.steps, step{sql: fmt.Sprintf(format, args...), about: about, name: name})
}

func (p *planner) build() (plan, error) {
	if p.Marker == nil {
		p.add(aboutMarker, MarkerRole, "create role %s nologin noinherit", pgsql.Ident(MarkerRole))
	}
	user := p.user
	switch {
	case user == nil:
		p.makeWay()
		user = &role{Name: p.need.User, ConnLimit: -1}
	case p.config.RemovePasswords == RemoveAllPasswords && !user.Closed && !user.Super:
		p.add(aboutUser, user.Name, "alter role %s %s", pgsql.Ident(user.Name), NoPassword)
	}
	existing, err := p.choose()
	if err != nil {
		return plan{}, err
	}
	p.plan.another = existing == nil && len(p.need.Groups) > 0
	for _, e := range p.Into {
		if existing == nil || e.Role != existing.Name {
			continue // not ours
		}
		if unnamed(e.Member) {
			p.plan.foreign = true
			continue
		}
		p.add(aboutSessionRole, e.Role, "revoke %s from %s cascade", pgsql.Ident(e.Role), pgsql.Ident(e.Member))
		p.plan.verify = true
	}
	// Default privileges that a holder set for the session role would open the objects of the
	// next session to others, and a user mapping reveals its password. Both are stored inside a
	// database, which a logon does not look into, so the whole role is retired.
	if existing != nil && (p.retire || existing.Arranged) {
		p.retireRole(existing, p.need.User)
		existing = nil
	}
	broken := len(p.plan.steps) > 0 || p.user == nil
	canWait := p.attributes(user, existing)
	before := len(p.plan.steps)
	if p.user == nil {
		p.makeUser()
	}
	// From 16 on the server reads all the memberships of a plain login before each of these statements.
	// That takes longest after a change of a membership, so these come last.
	p.settings(user, existing)
	p.memberships(existing)
	p.plan.canWait = canWait && !broken && !p.plan.foreign && len(p.plan.steps) == before
	return p.plan, nil
}

// choose settles the session role's name, and returns the role if it exists. It skips a name that
// is taken by a role that is not ours: one that is not a session role or that, from 16 on,
// another administrative login created and ours may not change.
func (p *planner) choose() (*role, error) {
	for _, name := range p.names.all() {
		r := p.role(name)
		if r == nil || r.ours() {
			p.plan.role = name
			return r, nil
		}
		if !slices.Contains(p.plan.taken, name) {
			p.plan.taken = append(p.plan.taken, name)
		}
	}
	return nil, &adminconn.Error{Kind: adminconn.ErrRights, Name: p.names.preferred,
		Message: fmt.Sprintf("the roles %s exist and are not session roles that the administrative login may change; run `daypass cluster check %s`",
			pgsql.Names(p.plan.taken), p.config.Cluster)}
}

// makeWay retires a session role that holds the name of a user who is to be created: "IAM:ana" is
// the session role of ana.
func (p *planner) makeWay() {
	if held := p.role(p.need.User); held != nil && held.ours() {
		name, _ := ParseRoleName(held.Name)
		p.retireRole(held, name.user)
	}
}

// makeUser creates the user, who can log in and has no password. The session role becomes a member
// with the same statement.
func (p *planner) makeUser() {
	closed := ""
	if p.config.RemovePasswords != RemoveNoPasswords {
		closed = " " + NoPassword
	}
	p.add(aboutUser, p.need.User, "create role %s login%s role %s", pgsql.Ident(p.need.User), closed, pgsql.Ident(p.plan.role))
}

// retireRole renames a session role of user, so that another role can take its name. Its
// sessions go on.
func (p *planner) retireRole(held *role, user string) {
	retired := retiredName(held.Name, user, held.OID)
	p.add(aboutSessionRole, held.Name, "alter role %s rename to %s", pgsql.Ident(held.Name), pgsql.Ident(retired))
	p.add(aboutSessionRole, retired, "alter role %s nologin", pgsql.Ident(retired))
}

// attributes creates the session role or corrects its attributes. canWait reports that VALID
// UNTIL only has to be moved forward, and that there is still time.
//
// Attributes that differ are named one by one: PostgreSQL refuses even NOSUPERUSER and
// NOREPLICATION from a login that could not grant them.
func (p *planner) attributes(user, existing *role) (canWait bool) {
	have := existing
	if have == nil {
		have = &role{Inherit: true, ConnLimit: -1}
	}
	var words []string
	want := func(have, want bool, yes, no string) {
		if want && !have {
			words = append(words, yes)
		}
		if have && !want {
			words = append(words, no)
		}
	}
	want(have.Login, true, "login", "")
	want(have.Inherit, true, "inherit", "")
	want(have.Super, false, "", "nosuperuser")
	want(have.Repl, false, "", "noreplication")
	want(have.CreateDB, p.copied(user.CreateDB, have.CreateDB, p.mayCreateDB()), "createdb", "nocreatedb")
	// CREATEROLE is not copied from 16 on. There a role administers the roles that it creates. If
	// a session role created one, only superusers could administer it after the session role is
	// dropped. Users can create roles in sessions without groups, or after SET ROLE.
	want(have.CreateRole, p.version < 160000 && p.copied(user.CreateRole, have.CreateRole, p.Admin.CreateRole || p.Admin.Super), "createrole", "nocreaterole")
	want(have.BypassRLS, p.copied(user.BypassRLS, have.BypassRLS, p.mayBypassRLS()), "bypassrls", "nobypassrls")
	if have.ConnLimit != user.ConnLimit {
		words = append(words, fmt.Sprintf("connection limit %d", user.ConnLimit))
	}

	canWait = existing != nil && len(words) == 0 && !p.rewrite
	if canWait {
		left := time.Duration(0)
		if have.ValidUntil != nil {
			left = time.Duration((*have.ValidUntil - p.Now) * float64(time.Second))
		}
		if left >= refreshBelow && left <= validFor+time.Minute {
			return true
		}
		canWait = left >= validAtLeast && left < refreshBelow
	}
	until := time.Unix(int64(p.Now), 0).UTC().Add(validFor).Format("2006-01-02 15:04:05+00")
	words = append(words, "valid until "+pgsql.Literal(until), "password "+pgsql.Literal(verifier(p.config.Key, p.config.Cluster, p.plan.role)))
	verb := "alter"
	if existing == nil {
		verb = "create"
	}
	p.add(aboutSessionRole, p.plan.role, "%s role %s %s", verb, pgsql.Ident(p.plan.role), strings.Join(words, " "))
	return canWait
}

// copied returns the wanted value of an attribute: the user's value if the administrative login
// may set it. Otherwise the role keeps its value, but never has an attribute that the user
// lacks.
func (p *planner) copied(user, have, may bool) bool {
	if may {
		return user
	}
	return user && have
}

// mayCreateDB reports whether the administrative login may give CREATEDB. From 16 on a role can give
// only attributes that it has itself.
func (p *planner) mayCreateDB() bool {
	if p.version < 160000 {
		return p.Admin.Super || p.Admin.CreateRole
	}
	return p.Admin.Super || p.Admin.CreateDB
}

// mayBypassRLS reports whether the administrative login may give BYPASSRLS.
func (p *planner) mayBypassRLS() bool {
	return p.Admin.Super || p.version >= 160000 && p.Admin.BypassRLS
}

// memberships makes the session role a member of exactly the user, the groups and the marker,
// without the right to grant them on.
func (p *planner) memberships(existing *role) {
	wanted := append([]string{MarkerRole, p.need.User}, p.need.Groups...)
	held := map[string]bool{}
	if existing != nil {
		for _, m := range p.Of {
			if m.Member == existing.OID && p.keep(m, wanted) {
				held[m.Role] = held[m.Role] || m.Role == MarkerRole || m.Inherit && m.Set
			}
		}
	}
	if p.user == nil {
		held[p.need.User] = true // makeUser grants it
	}
	for _, w := range wanted {
		if held[w] {
			continue
		}
		about, options := aboutGroup, ""
		switch w {
		case MarkerRole:
			about = aboutMarker
		case p.need.User:
			about = aboutUser
		}
		if p.version >= 160000 {
			options = " with inherit true, set true"
			if w == MarkerRole {
				options = " with inherit false, set false" // the marker gives no rights
			}
		}
		p.add(about, w, "grant %s to %s%s", pgsql.Ident(w), pgsql.Ident(p.plan.role), options)
	}
}

// keep reports whether a membership row may stay. If not, it plans the revocation.
func (p *planner) keep(m member, wanted []string) bool {
	switch {
	case m.Role == MarkerRole && p.version >= 160000:
		if !m.Admin && !m.Inherit && !m.Set {
			return true
		}
	case slices.Contains(wanted, m.Role) && !m.Admin && (p.version < 160000 || p.Admin.Super || m.Grantor == p.Admin.Name):
		return true // and it can be taken away when the last session ends
	case p.version >= 160000 && m.Creator && m.Admin && !m.Inherit && !m.Set && p.user != nil && p.user.CreateRole:
		// This is a role that the holder created, with the user's own CREATEROLE. The row only
		// lets the creator administer it.
		return true
	}
	p.plan.verify = true
	if unnamed(m.Role) {
		p.plan.foreign = true
		return false
	}
	sql := fmt.Sprintf("revoke %s from %s", pgsql.Ident(m.Role), pgsql.Ident(p.plan.role))
	if p.version >= 160000 {
		if m.Grantor != p.Admin.Name && !p.Admin.Super {
			p.plan.foreign = true
			return false
		}
		sql += " granted by " + pgsql.Ident(m.Grantor)
	}
	p.add(aboutSessionRole, m.Role, "%s cascade", sql)
	return false
}

// unnamed reports whether no statement can contain a name, because it is not valid UTF-8. The state
// has a replacement character in its place.
func unnamed(name string) bool { return strings.ContainsRune(name, utf8.RuneError) }

// settings copies the user's settings, those for all databases and those for the database of the
// logon, and removes all others that the role has. A role with a setting that cannot be removed is
// retired.
func (p *planner) settings(user, existing *role) {
	want := map[string]map[string]string{}
	if user.OID != 0 {
		want, p.plan.tooLarge = p.configOf(user.OID)
	}
	for db, values := range want {
		maps.DeleteFunc(values, func(name, value string) bool {
			return NeverCopied(name) || p.skipped(settingKey(db, name, value))
		})
	}
	if want[""] == nil {
		want[""] = map[string]string{}
	}
	want[""]["role"] = p.need.User
	if len(p.need.Groups) > 0 {
		// Without this a database's owner could choose the role of sessions in it, with ALTER
		// DATABASE … SET role.
		want[""]["role"] = "none"
		p.searchPaths(want)
	}
	have := map[string]map[string]string{}
	if existing != nil {
		var large []string
		have, large = p.configOf(existing.OID)
		for _, db := range large {
			p.reset("all", "alter role %s reset all", p.roleIn(db))
		}
	}
	databases := slices.Sorted(maps.Keys(want))
	for _, db := range slices.Sorted(maps.Keys(have)) {
		if want[db] == nil {
			databases = append(databases, db)
		}
	}
	for _, db := range databases {
		target := p.roleIn(db)
		for _, name := range slices.Sorted(maps.Keys(have[db])) {
			if _, ok := want[db][name]; !ok {
				p.reset(name, "alter role %s reset %s", target, pgsql.SettingName(name))
			}
		}
		for _, name := range slices.Sorted(maps.Keys(want[db])) {
			value := want[db][name]
			if now, ok := have[db][name]; !ok || !sameValue(name, now, value) {
				p.setting(settingKey(db, name, value), name, fmt.Sprintf("alter role %s set %s", target, pgsql.Assignment(name, value)))
			}
		}
	}
}

// roleIn returns the session role in the form in which ALTER ROLE names it for the settings of
// one database.
func (p *planner) roleIn(database string) string {
	if database == "" {
		return pgsql.Ident(p.plan.role)
	}
	return pgsql.Ident(p.plan.role) + " in database " + pgsql.Ident(database)
}

// reset plans the removal of a setting. "reset all" silently skips settings that the login may
// not reset; verify finds them.
func (p *planner) reset(name, format string, args ...any) {
	p.plan.verify = true
	p.plan.steps = append(p.plan.steps, step{sql: fmt.Sprintf(format, args...), about: aboutSetting, name: name, reset: true})
}

// settingKey returns the key under which a setting that may not be copied is remembered.
func settingKey(parts ...string) string { return strings.Join(parts, "\x00") }

func (p *planner) setting(key, name, sql string) {
	s := step{sql: sql, about: aboutSetting, name: name, setting: key}
	if name == "role" {
		s.about, s.setting = aboutSessionRole, "" // decides who the session is: never left out
	}
	if s.setting != "" {
		if p.skipped(s.setting) {
			return
		}
		p.plan.verify = true
	}
	p.plan.steps = append(p.plan.steps, s)
}
