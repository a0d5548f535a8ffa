package dbuser

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

const (
	// endedDelay gathers the sessions that end together, so that a thousand of
	// them cost one query; endedAgain is the pause before looking again at a role
	// that still has sessions, or whose objects were in use.
	endedDelay = 300 * time.Millisecond
	endedAgain = 2 * time.Second
	// endedFor is how long an ended session is followed; the sweep does the rest.
	endedFor = 20 * time.Second
	// maxEnded bounds the queue, and maxLeft the backends of a role in it. What
	// does not fit is the sweep's.
	maxEnded = 10000
	maxLeft  = 1000
	// handOverLock bounds how long a change of owner waits for a table that is
	// in use, and with it how long it keeps others waiting behind it.
	handOverLock = "300ms"
)

// endedQueue holds the session roles whose sessions ended, each with the time
// until which it is followed and the backends that may be left. Guarded by
// Admin.mu.
type endedQueue struct {
	until   map[string]time.Time
	left    map[string][]Backend
	running bool
}

// Backend is a server process, and the address at which the gateway had it: a
// cluster has several servers, each with process ids of its own.
type Backend struct {
	PID     uint32
	Address string
}

// Ownership is what a session role owns in one database. An empty Database
// means what belongs to the whole cluster, such as a database.
type Ownership struct {
	Role     string `json:"role"`
	User     string `json:"user"`
	Database string `json:"database,omitempty"`
}

// KeptRole is a session role that could not be handed over or dropped, and why.
type KeptRole struct {
	Role   string `json:"role"`
	Reason string `json:"reason"`
}

// SessionEnded says that a session of role in database is over, so that what
// it created is handed to its user, in every database where the role owns
// something. It never blocks and does nothing for roles that own nothing.
//
// left is the session's backend, if it was told to stop what it did and need not
// have obeyed: when it is there a moment later it is terminated. nil: there is
// nothing to see to.
func (a *Admin) SessionEnded(role, database string, left *Backend) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || len(a.ended.until) >= maxEnded {
		return
	}
	if a.ended.until == nil {
		a.ended.until, a.ended.left = map[string]time.Time{}, map[string][]Backend{}
	}
	a.ended.until[role] = a.cfg.Now().Add(endedFor)
	if left != nil && len(a.ended.left[role]) < maxLeft {
		a.ended.left[role] = append(a.ended.left[role], *left)
	}
	if !a.ended.running {
		a.ended.running = true
		a.work.Add(1)
		go a.followEnded()
	}
}

// followEnded looks after ended sessions until none is left. A backend may
// still be finishing a statement, whose objects appear when it commits; so a
// role is looked at again as long as it has sessions.
func (a *Admin) followEnded() {
	defer a.work.Done()
	delay := endedDelay
	for {
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
		case <-a.base.Done():
			timer.Stop()
		}
		a.mu.Lock()
		var roles []string
		for r := range a.ended.until {
			roles = append(roles, r)
		}
		left := a.ended.left
		a.ended.left = map[string][]Backend{}
		if len(roles) == 0 || a.base.Err() != nil {
			a.ended.running = false
			a.mu.Unlock()
			return
		}
		a.mu.Unlock()
		for role, list := range left {
			if err := a.endBackends(role, list); err != nil {
				a.cfg.Log.Warn("backends that were told to stop not terminated", "cluster", a.cfg.Cluster, "role", role, "err", err)
				a.mu.Lock()
				a.ended.left[role] = append(a.ended.left[role], list...)
				a.mu.Unlock()
			}
		}
		again := a.lookAfter(roles)
		delay = endedAgain
		a.mu.Lock()
		for _, r := range roles {
			if !again[r] || a.cfg.Now().After(a.ended.until[r]) {
				delete(a.ended.until, r)
				delete(a.ended.left, r)
				delay = endedDelay
			}
		}
		a.mu.Unlock()
	}
}

// endBackends terminates those of a role's backends that are still there, on the
// server that the administrative login is connected to.
func (a *Admin) endBackends(role string, list []Backend) error {
	ctx, cancel := context.WithTimeout(a.base, endedAgain)
	defer cancel()
	return a.inLane(ctx, func(ctx context.Context, c *conn) ([]step, error) {
		here := c.PgConn().Conn().RemoteAddr().String()
		var pids, there []int32
		for _, b := range list {
			if b.Address == here {
				pids = append(pids, int32(b.PID))
			}
		}
		err := c.QueryRow(ctx, "select coalesce(array_agg(pid), '{}') from pg_stat_activity where pid = any ($1::int[]) and usename = $2", pids, role).Scan(&there)
		if err != nil || len(there) == 0 {
			return nil, err
		}
		l, err := readLoan(ctx, c, role, "")
		if err != nil {
			return nil, err
		}
		a.cfg.Log.Info("terminating backends that were told to stop and go on", "cluster", a.cfg.Cluster, "role", role, "pids", there)
		var steps []step
		for _, pid := range there {
			steps = append(steps, step{sql: fmt.Sprintf("select pg_terminate_backend(pid) from pg_stat_activity where pid = %d and usename = %s", pid, literal(role))})
		}
		return l.around(steps...), nil
	})
}

// lookAfter hands over what the roles own and says which to look at again.
func (a *Admin) lookAfter(roles []string) map[string]bool {
	again := map[string]bool{}
	ctx, cancel := context.WithTimeout(a.base, endedFor)
	defer cancel()
	found, err := a.owners(ctx, roles)
	if err != nil {
		a.cfg.Log.Warn("ended sessions not looked at", "cluster", a.cfg.Cluster, "roles", len(roles), "err", err)
		for _, r := range roles {
			again[r] = true
		}
		return again
	}
	for _, o := range found {
		if o.Live {
			again[o.Role] = true
		}
		for _, database := range o.Databases {
			if _, err := a.handOver(ctx, o.Role, database); err != nil {
				again[o.Role] = true
				a.cfg.Log.Warn("objects not handed over yet", "cluster", a.cfg.Cluster, "role", o.Role, "database", database, "err", err)
			}
		}
	}
	return again
}

// owner is a session role and the databases in which it owns something.
type owner struct {
	Role       string
	Live       bool // has backends
	Retired    bool // another took its place: nobody will log on with it again
	ValidUntil time.Time
	Databases  []string // "" for what belongs to the whole cluster
	Mentioned  bool     // an ACL, a policy or default privileges name it
	Now        time.Time
}

// ownersQuery reads pg_shdepend, which covers all databases, for all session
// roles ($1 null) or the named ones. Default privileges and user mappings
// of a session role concern nobody else and are not handed over.
const ownersQuery = `
with session_role as (
  select r.oid, r.rolname, r.rolvaliduntil, r.rolcanlogin
  from pg_roles r
  where r.oid in (` + sessionRoles + `) and ($1::text[] is null or r.rolname = any ($1::text[]::name[])))
select r.rolname::text, clock_timestamp(),
  case when isfinite(r.rolvaliduntil) then r.rolvaliduntil else 'epoch' end,
  exists (select from pg_stat_activity a where a.usesysid = r.oid)
    or exists (select from pg_prepared_xacts x where x.owner = r.rolname),
  not r.rolcanlogin,
  coalesce((select array_agg(distinct coalesce(d.datname::text, '') order by coalesce(d.datname::text, ''))
    from pg_shdepend s left join pg_database d on d.oid = s.dbid
    where s.refclassid = 'pg_authid'::regclass and s.refobjid = r.oid and s.deptype = 'o'
      and s.classid not in ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass)), '{}'),
  exists (select from pg_shdepend s where s.refclassid = 'pg_authid'::regclass and s.refobjid = r.oid
    and (s.deptype <> 'o' or s.classid in ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass)))
from session_role r order by 1`

func (a *Admin) owners(ctx context.Context, roles []string) ([]owner, error) {
	c, err := a.pool.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer a.pool.release(c)
	return readOwners(ctx, c, roles)
}

func readOwners(ctx context.Context, c *conn, roles []string) ([]owner, error) {
	rows, err := c.Query(ctx, ownersQuery, roles)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []owner
	for rows.Next() {
		var o owner
		if err := rows.Scan(&o.Role, &o.Now, &o.ValidUntil, &o.Live, &o.Retired, &o.Databases, &o.Mentioned); err != nil {
			return nil, err
		}
		all = append(all, o)
	}
	return all, rows.Err()
}

// errNoUser is why something cannot be handed over: its user is gone, or
// somebody made the session role a member of several.
var errNoUser = errors.New("cannot tell the user of the session role")

// handOver gives what a session role owns in one database to its user: at one
// stroke, and object by object where that does not work or would be too much.
func (a *Admin) handOver(ctx context.Context, role, database string) (user string, err error) {
	err = a.onDatabase(ctx, database, func(do transaction) error {
		lend := func(ctx context.Context, lane *conn) (l lent, err error) {
			l, err = readLent(ctx, lane, role)
			user = l.user
			return l, err
		}
		if database != "" {
			if err := a.handOverSurplus(do, role, lend); err != nil {
				return err
			}
		}
		whole := do(func(ctx context.Context, lane, c *conn) error {
			lent, err := lend(ctx, lane)
			if err != nil {
				return err
			}
			return a.runSteps(ctx, c, lent.around(step{sql: fmt.Sprintf("reassign owned by %s to %s", ident(role), ident(lent.user))}))
		})
		if database == "" || !isCode(whole, "53200", "55P03") && !refused(whole) {
			return whole
		}
		_, err := a.handOverPieces(do, role, lend, whole)
		return err
	})
	return user, err
}

// transaction runs f in one transaction of a database, in the lane. The lane's own
// connection is to the database of the administrative login; c is it, or one to
// another database.
type transaction func(f func(ctx context.Context, lane, c *conn) error) error

// onDatabase connects to a database, and runs use with what runs a transaction
// there. Of other databases than the login's, one at a time is connected to.
func (a *Admin) onDatabase(ctx context.Context, database string, use func(transaction) error) error {
	begin := step{sql: "set local lock_timeout = '" + handOverLock + "'"}
	if database == "" || database == a.pool.config.Database {
		return use(func(f func(ctx context.Context, lane, c *conn) error) error {
			return a.inLane(ctx, func(ctx context.Context, lane *conn) ([]step, error) {
				if err := a.runSteps(ctx, lane, []step{begin}); err != nil {
					return nil, err
				}
				return nil, f(ctx, lane, lane)
			})
		})
	}
	select {
	case a.errand <- struct{}{}:
		defer func() { <-a.errand }()
	case <-ctx.Done():
		return ctx.Err()
	}
	c, err := a.pool.openDatabase(ctx, database)
	if err != nil {
		return err
	}
	defer a.pool.discard(c)
	return use(func(f func(ctx context.Context, lane, c *conn) error) error {
		return a.inLane(ctx, func(ctx context.Context, lane *conn) ([]step, error) {
			err := a.runSteps(ctx, c, []step{{sql: "begin"}, begin})
			if err == nil {
				err = f(ctx, lane, c)
			}
			if err == nil {
				err = a.runSteps(ctx, c, []step{{sql: "commit"}})
			}
			if err != nil && !c.IsClosed() {
				rollback(ctx, c)
			}
			return nil, err
		})
	})
}

// inDatabase runs f in one transaction of a database, in the lane.
func (a *Admin) inDatabase(ctx context.Context, database string, f func(ctx context.Context, lane, c *conn) error) error {
	return a.onDatabase(ctx, database, func(do transaction) error { return do(f) })
}

// lent says what a plain administrative login has to be lent, for one
// transaction, to change the owner of a session role's objects.
type lent struct {
	role, user string
	version    int
	super      bool
	hasRole    bool     // the admin is a member of the session role for good
	hasUser    bool     // and of its user
	missing    []string // groups of the session role that the user is not in
}

const lentQuery = `
select g.rolname::text, g.rolcanlogin,
  exists (select from pg_auth_members x where x.roleid = g.oid and x.member = me.oid {usable}),
  exists (select from pg_auth_members x where x.roleid = r.oid and x.member = me.oid {usable}),
  me.rolsuper
from pg_roles r join pg_auth_members m on m.member = r.oid join pg_roles g on g.oid = m.roleid
join pg_roles me on me.rolname = current_user
where r.rolname = $1 {given} and g.rolname <> '` + MarkerRole + `'
  and r.oid in (` + sessionRoles + `)
group by g.rolname, g.rolcanlogin, g.oid, r.oid, me.oid, me.rolsuper
order by 1`

// missingQuery names the groups in $2 that the user $1 is not directly in, and
// may be put in: not those that are in turn a member of the user.
const missingQuery = `
select coalesce(array_agg(g.rolname::text order by g.rolname), '{}') from pg_roles g, pg_roles u
where u.rolname = $1 and g.rolname = any ($2::text[]::name[])
  and not exists (select from pg_auth_members m where m.roleid = g.oid and m.member = u.oid)
  and not pg_has_role(g.oid, u.oid, 'member')`

func readLent(ctx context.Context, c *conn, role string) (lent, error) {
	usable, given := "", ""
	if c.version >= 160000 {
		usable = "and x.inherit_option and x.set_option"
		given = "and (m.inherit_option or m.set_option)" // not what it may only administer
	}
	l := lent{role: role, version: c.version}
	type parent struct {
		name       string
		login, has bool
	}
	rows, err := c.Query(ctx, strings.NewReplacer("{usable}", usable, "{given}", given).Replace(lentQuery), role)
	if err != nil {
		return l, err
	}
	var parents []parent
	for rows.Next() {
		var p parent
		if err := rows.Scan(&p.name, &p.login, &p.has, &l.hasRole, &l.super); err != nil {
			rows.Close()
			return l, err
		}
		parents = append(parents, p)
	}
	if err := rows.Err(); err != nil {
		return l, err
	}
	var groups, logins []string
	for _, p := range parents {
		if p.login {
			logins = append(logins, p.name)
		}
		if isSessionRoleOf(role, p.name) {
			l.user = p.name
		}
	}
	if l.user == "" && len(logins) == 1 {
		l.user = logins[0] // a name with a hash does not say it; groups cannot log in
	}
	if l.user == "" {
		return l, errNoUser
	}
	for _, p := range parents {
		if p.name == l.user {
			l.hasUser = p.has
		} else {
			groups = append(groups, p.name)
		}
	}
	if l.super || len(groups) == 0 {
		return l, nil
	}
	return l, c.QueryRow(ctx, missingQuery, l.user, groups).Scan(&l.missing)
}

// isSessionRoleOf reports whether a readable session role name is the user's.
func isSessionRoleOf(role, user string) bool {
	prefix := "IAM:" + user
	if strings.Contains(user, ":") {
		prefix = "IAMA:" + user
	}
	rest, ok := strings.CutPrefix(role, prefix)
	return ok && (rest == "" || rest[0] == ':')
}

// around puts the memberships around statements that the admin may run only as
// a member of both roles. PostgreSQL also wants the new owner of a function,
// a type or an operator to have CREATE on its schema; the user may have that in
// this session's groups only, so it joins them for the transaction. Nobody
// else sees any of it, and a crash leaves nothing.
func (l lent) around(inner ...step) []step {
	if l.super {
		return inner
	}
	options := ""
	if l.version >= 160000 {
		options = " with inherit true, set true"
	}
	var before, after []step
	grant := func(role, to, options string) {
		before = append(before, step{sql: fmt.Sprintf("grant %s to %s%s", ident(role), to, options), name: role})
		after = append([]step{{sql: fmt.Sprintf("revoke %s from %s", ident(role), to), name: role}}, after...)
	}
	if !l.hasRole {
		grant(l.role, "current_user", options)
	}
	if !l.hasUser {
		grant(l.user, "current_user", options)
	}
	for _, g := range l.missing {
		grant(g, ident(l.user), options)
	}
	return append(append(before, inner...), after...)
}
