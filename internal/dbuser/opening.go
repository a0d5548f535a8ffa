package dbuser

import (
	"context"
	"maps"
	"slices"
	"time"
)

const (
	// openingFor bounds how long a logon whose end is not reported keeps its session role from
	// being stripped. A logon may take 10 s.
	openingFor = 15 * time.Second
	// openedDelay collects logons, so that their roles are checked again together.
	openedDelay = 250 * time.Millisecond
	// maxOpened bounds the logons whose roles are checked again.
	maxOpened = 10000
	// passedOnEvery is how often the package looks for session roles that their holders have
	// granted to others, while there are sessions.
	passedOnEvery = time.Second
)

// opening is a logon between Ensure, which checked its session role, and Opened, which reports
// that the server has a backend for it.
type opening struct {
	need    Need
	names   []string
	until   time.Time
	version int // of the server
}

// openings holds the logons of this process that are in progress, by the possible names of their
// session roles, and the roles that are being stripped. No role is both. Guarded by Admin.mu.
type openings struct {
	logons    map[string][]*opening
	stripping map[string]chan struct{} // closed when it is over
	opened    map[string]Need          // logons to be looked at again, by session role
	looking   bool                     // lookAgain runs
	watching  bool                     // watchPassedOn runs
	began     bool                     // a session has begun since watchPassedOn last looked for sessions
}

// beginOpening waits until none of the logon's session roles is being stripped,
// and keeps them from being stripped.
func (a *Admin) beginOpening(ctx context.Context, n Need, s sessionNames) (*opening, error) {
	o := &opening{need: n, names: slices.Compact(s.all())}
	for {
		var wait chan struct{}
		a.mu.Lock()
		for _, name := range o.names {
			if strip := a.openings.stripping[name]; strip != nil {
				wait = strip
			}
		}
		if wait == nil {
			now := a.Pool.Now()
			o.until = now.Add(openingFor)
			for _, name := range o.names {
				list := a.openings.logons[name]
				for len(list) > 0 && !list[0].until.After(now) {
					list = list[1:] // its end was never reported
				}
				a.openings.logons[name] = append(list, o)
			}
			a.mu.Unlock()
			return o, nil
		}
		a.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, a.Pool.Unreachable(ctx.Err())
		}
	}
}

func (a *Admin) endOpeningLocked(o *opening) {
	for _, name := range o.names {
		list := slices.DeleteFunc(a.openings.logons[name], func(other *opening) bool { return other == o })
		if len(list) == 0 {
			delete(a.openings.logons, name)
		} else {
			a.openings.logons[name] = list
		}
	}
}

func (a *Admin) endOpening(o *opening) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.endOpeningLocked(o)
}

// Opened ends a logon for which Ensure returned role, whether it got its session or failed. Call
// it once after each successful Ensure; otherwise the logon counts as in progress for some
// seconds.
//
// Another gateway may have stripped the role in the meantime. Then the logon failed, or its
// session has no rights. So Opened checks the role once more, in the background.
func (a *Admin) Opened(role string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := a.openings.logons[role]
	if len(list) == 0 || a.closed {
		return
	}
	o := list[0]
	a.endOpeningLocked(o)
	if o.version < 150000 {
		a.openings.began = true
		if !a.openings.watching {
			a.openings.watching = true
			a.work.Go(a.watchPassedOn)
		}
	}
	if len(a.openings.opened) >= maxOpened {
		return
	}
	a.openings.opened[role] = o.need
	if !a.openings.looking {
		a.openings.looking = true
		a.work.Go(a.lookAgain)
	}
}

// lookAgain restores roles that another gateway stripped during one of our logons.
func (a *Admin) lookAgain() {
	for {
		select {
		case <-time.After(openedDelay):
		case <-a.base.Done():
		}
		a.mu.Lock()
		opened := a.openings.opened
		if len(opened) == 0 || a.base.Err() != nil {
			a.openings.looking = false
			a.mu.Unlock()
			return
		}
		a.openings.opened = map[string]Need{}
		a.mu.Unlock()
		if err := a.restore(opened); err != nil {
			a.Pool.Log.Debug("session roles not looked at again after logons", "cluster", a.Pool.Cluster, "err", err)
		}
	}
}

// shutQuery names the roles that may not log in. A connection prepares it once.
const (
	shutStatement = "daypass_shut"
	shutQuery     = `select coalesce(array_agg(r.rolname::text), '{}') from pg_roles r
		where r.rolname = any ($1::text[]::name[]) and not r.rolcanlogin`
)

func (a *Admin) restore(opened map[string]Need) error {
	ctx, cancel := context.WithTimeout(a.base, a.cfg.Timeout)
	defer cancel()
	roles := slices.Collect(maps.Keys(opened))
	c, err := a.Pool.Acquire(ctx)
	if err != nil {
		return err
	}
	var shut, live []string
	_, err = c.Prepare(ctx, shutStatement, shutQuery)
	if err == nil {
		err = c.QueryRow(ctx, shutStatement, roles).Scan(&shut)
	}
	if err == nil && len(shut) > 0 {
		live, err = a.LiveAmong(ctx, c, shut)
	}
	a.Pool.Release(c)
	if err != nil || len(shut) == 0 {
		return err
	}
	live = append(live, a.LiveElsewhere(ctx, shut)...)
	shut = slices.DeleteFunc(shut, func(role string) bool { return !slices.Contains(live, role) })
	for _, role := range shut {
		n := opened[role]
		if _, err := a.join(ctx, n, a.cfg.names(n), toCorrect); err != nil {
			a.Pool.Log.Warn("session role not granted again; its new session has no rights", "cluster", a.Pool.Cluster, "role", role, "err", err)
		}
	}
	return nil
}

// BeginStrip returns the roles that no logon of this process is opening a session with.
// New logons with these wait until release.
func (a *Admin) BeginStrip(roles []string) (free []string, release func()) {
	over := make(chan struct{})
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.Pool.Now()
	for _, role := range roles {
		busy := slices.ContainsFunc(a.openings.logons[role], func(o *opening) bool { return o.until.After(now) })
		if !busy && a.openings.stripping[role] == nil {
			a.openings.stripping[role] = over
			free = append(free, role)
		}
	}
	return free, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, role := range free {
			delete(a.openings.stripping, role)
		}
		close(over)
	}
}

// watchPassedOn revokes session roles from their members, repeatedly while there are sessions.
// Up to version 14 a role that is logged on administers itself, so its holder can grant it to
// others. PostgreSQL neither prevents nor reports that. Roles without a session are not looked at:
// what their holders have done is undone when the last session ends, and by the sweep.
func (a *Admin) watchPassedOn() {
	for {
		select {
		case <-time.After(passedOnEvery):
		case <-a.base.Done():
		}
		a.mu.Lock()
		a.openings.began = false
		a.mu.Unlock()
		live, err := a.passedOn()
		if err != nil {
			a.Pool.Log.Debug("session roles that were passed on not looked for", "cluster", a.Pool.Cluster, "err", err)
		}
		a.mu.Lock()
		if !live && !a.openings.began || a.base.Err() != nil {
			a.openings.watching = false
			a.mu.Unlock()
			return
		}
		a.mu.Unlock()
	}
}

// passedOn checks once, and reports whether there are sessions.
func (a *Admin) passedOn() (live bool, err error) {
	ctx, cancel := context.WithTimeout(a.base, a.cfg.Timeout)
	defer cancel()
	c, err := a.Pool.Acquire(ctx)
	if err != nil {
		return true, err
	}
	var edges bool
	err = c.QueryRow(ctx, `with live as materialized (
		  select r.oid from (select distinct usesysid from pg_stat_activity) a
		  cross join lateral (select * from pg_roles where oid = a.usesysid offset 0) r where `+isSessionRole+`)
		select exists (select from live cross join lateral (select member from pg_auth_members m where m.roleid = live.oid and `+MemberThere+` offset 0) m
		    where pg_get_userbyid(m.member) not in (current_user, session_user)),
		  exists (select from live)`).Scan(&edges, &live)
	a.Pool.Release(c)
	if err == nil && edges {
		a.Pool.Log.Warn("members taken out of session roles that were passed on by their holders", "cluster", a.Pool.Cluster)
		err = a.TakeOut(ctx)
	}
	return live || err != nil, err
}
