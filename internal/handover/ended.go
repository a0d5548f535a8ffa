package handover

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/pgsql"
)

const (
	// endedDelay collects sessions that end together, so that a thousand of them cost one query.
	// endedAgain is the pause before another look at a role that still has sessions, or whose
	// objects were in use.
	endedDelay = 300 * time.Millisecond
	endedAgain = 2 * time.Second
	// endedFor is how long an ended session is followed; the sweep does the rest.
	endedFor = 20 * time.Second
	// leftFor is how much longer its backend is followed while it still runs.
	leftFor = 100 * time.Second
	// eachFor bounds the hand-over of one role's objects, and allFor that of all roles in one
	// round. Roles whose sessions end during a round wait for the next one, so a holder's
	// locks delay them by no more than allFor.
	eachFor = 1 * time.Second
	allFor  = 4 * time.Second
	// maxLeft bounds the queued backends of a role. The sweep takes care of the others.
	maxLeft = 1000
	// revokedFor is how long a revocation is remembered: longer than any credential
	// lives.
	revokedFor = 2 * time.Hour
)

// endedQueue holds the session roles whose sessions have ended. For each role it has the
// time until which the role is checked, and the backends that may still be running. Guarded
// by Admin.mu.
type endedQueue struct {
	until   map[string]time.Time
	left    map[string][]leftBackend
	revoked map[string]*revocation
	running bool // followEnded
	ending  bool // followLeft
}

// revocation is what the queue remembers about a session role with a revoked credential.
type revocation struct {
	until time.Time
	shut  bool // the role was kept from logging on
}

// leftBackend is a backend that may still be running.
type leftBackend struct {
	dbuser.Backend
	until time.Time // it is followed until then
	role  string    // the present name of its session role, which may have been retired
	oid   uint32
	asked bool // to terminate
}

// SessionEnded reports that a session of role has ended. If it was the role's last
// session and the role owns anything, the role is stripped and its objects are handed over, in
// every database. SessionEnded never blocks.
//
// left is the session's backend, or nil if it is unknown. It should have exited. If it is still
// running a moment later, because the session catches its cancellation for instance, it is
// terminated, repeatedly if necessary.
func (a *Admin) SessionEnded(role string, left *dbuser.Backend) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || len(a.ended.until) >= maxEnded {
		return
	}
	a.ended.until[role] = a.Pool.Now().Add(endedFor)
	if left != nil && len(a.ended.left[role]) < maxLeft {
		a.ended.left[role] = append(a.ended.left[role], leftBackend{Backend: *left, until: a.Pool.Now().Add(endedFor + leftFor)})
		if !a.ended.ending {
			a.ended.ending = true
			a.work.Go(a.followLeft)
		}
	}
	if !a.ended.running {
		a.ended.running = true
		a.work.Go(a.followEnded)
	}
}

// SessionRevoked is SessionEnded for a session whose credential was revoked. From now on the
// role may not log in, and it is stripped at the end of its last session even if it owns
// nothing. A logon with another valid credential restores it.
func (a *Admin) SessionRevoked(role string, left *dbuser.Backend) {
	a.mu.Lock()
	if now := a.Pool.Now(); len(a.ended.revoked) < maxEnded {
		for other, r := range a.ended.revoked {
			if !r.until.After(now) {
				delete(a.ended.revoked, other)
			}
		}
		a.ended.revoked[role] = &revocation{until: now.Add(revokedFor)}
	}
	a.mu.Unlock()
	a.SessionEnded(role, left)
}

// Tend does the part of a sweep that only this process can do. Call it when another process sweeps.
// Only this process knows for which session roles it has seen a revoked credential, and which
// backends it has terminated that still run. The other process treats such a backend as a session,
// and leaves its session role alone.
func (a *Admin) Tend(ctx context.Context) {
	again, err := a.tendOutlasting(ctx)
	if err != nil && ctx.Err() == nil {
		a.Pool.Log.Warn("terminated backends not checked", "cluster", a.Pool.Cluster, "err", err)
	}
	for _, role := range append(again, a.revokedRoles()...) {
		a.SessionEnded(role, nil)
	}
}

// revokedRoles returns the session roles for which wasRevoked is true.
func (a *Admin) revokedRoles() (roles []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for role, r := range a.ended.revoked {
		if r.until.After(a.Pool.Now()) {
			roles = append(roles, role)
		}
	}
	return roles
}

// tendOutlasting returns the session roles whose terminated backends still run.
func (a *Admin) tendOutlasting(ctx context.Context) (roles []string, err error) {
	if !a.AnyOutlasts() {
		return nil, nil
	}
	limited, cancel := context.WithTimeout(ctx, endedFor)
	defer cancel()
	c, err := a.Pool.Acquire(limited)
	if err != nil {
		return nil, err
	}
	defer a.Pool.Release(c)
	return a.ForgetGone(limited, c)
}

// wasRevoked reports whether a credential of a session of role was revoked since
// the role was last stripped.
func (a *Admin) wasRevoked(role string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.ended.revoked[role]
	return r != nil && r.until.After(a.Pool.Now())
}

// followEnded looks after ended sessions until none is left. A backend may
// still be finishing a statement, whose objects appear when it commits; so a
// role is looked at again as long as it has sessions.
func (a *Admin) followEnded() {
	delay := endedDelay
	for {
		pause(a.base, delay)
		a.mu.Lock()
		before := maps.Clone(a.ended.until)
		if len(before) == 0 || a.base.Err() != nil {
			a.ended.running = false
			a.mu.Unlock()
			return
		}
		a.mu.Unlock()
		again := a.lookAfter(slices.Collect(maps.Keys(before)))
		delay = endedAgain
		a.mu.Lock()
		now := a.Pool.Now()
		for r, until := range before {
			if a.ended.until[r] != until {
				delay = endedDelay // another session has ended meanwhile
			} else if len(a.ended.left[r]) == 0 && (!again[r] || now.After(until)) {
				delete(a.ended.until, r)
				delay = endedDelay
			}
		}
		a.mu.Unlock()
	}
}

// followLeft ends the backends of ended sessions until none is left. It does not wait for
// followEnded, which may take seconds because of the objects of other roles or a slow network.
func (a *Admin) followLeft() {
	for delay := endedDelay; ; delay = endedAgain {
		pause(a.base, delay)
		a.mu.Lock()
		left := map[string][]leftBackend{}
		for role, list := range a.ended.left {
			left[role] = slices.Clone(list)
		}
		if len(left) == 0 || a.base.Err() != nil {
			a.ended.ending = false
			a.mu.Unlock()
			return
		}
		a.mu.Unlock()
		there := a.endBackends(a.base, left)
		a.mu.Lock()
		now := a.Pool.Now()
		for role, list := range left {
			if len(a.ended.left[role]) < len(list) {
				continue // Close has taken them
			}
			still := slices.DeleteFunc(slices.Clone(there[role]), func(b leftBackend) bool { return !now.Before(b.until) })
			if still = append(still, a.ended.left[role][len(list):]...); len(still) > 0 {
				a.ended.left[role] = still
			} else {
				delete(a.ended.left, role)
			}
		}
		a.mu.Unlock()
	}
}

// endBackends terminates the backends that are still running on the server that the
// administrative login is connected to, and returns them, so that the next call can check
// whether they have exited. One that still runs after that no longer counts as a session:
// PostgreSQL checks for signals between steps, and a holder can make one step, such as an XPath
// expression, last as long as they like.
func (a *Admin) endBackends(ctx context.Context, left map[string][]leftBackend) map[string][]leftBackend {
	if len(left) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, endedAgain)
	defer cancel()
	there, err := a.present(ctx, left)
	if err != nil {
		a.Pool.Log.Warn("backends of ended sessions not checked", "cluster", a.Pool.Cluster, "roles", len(left), "err", err)
		return left
	}
	for role, list := range there {
		for i := range list {
			if list[i].asked && a.Outlasts(list[i].Backend, list[i].oid) {
				a.Pool.Log.Warn("a terminated backend still runs; its session role loses its rights anyway",
					"cluster", a.Pool.Cluster, "role", list[i].role, "pid", list[i].PID)
			}
			list[i].asked = true
		}
		a.Pool.Log.Info("terminating backends of ended sessions", "cluster", a.Pool.Cluster, "role", role, "backends", len(list))
		err := a.Pool.InLane(ctx, func(ctx context.Context, c *adminconn.Conn) ([]adminconn.Step, error) {
			var steps []adminconn.Step
			for _, b := range list {
				if b.Address != dbuser.Address(c) {
					continue
				}
				temp, err := tempGrantsToAct(ctx, c, b.role, "")
				if err != nil {
					return nil, err
				}
				steps = append(steps, temp.around(adminconn.Step{SQL: fmt.Sprintf("select pg_terminate_backend(pid) from pg_stat_activity where pid = %d and usesysid = %d", b.PID, b.oid)})...)
			}
			return steps, nil
		})
		if err != nil {
			a.Pool.Log.Warn("backends of ended sessions not terminated", "cluster", a.Pool.Cluster, "role", role, "err", err)
		}
	}
	return there
}

// present returns the backends that still run on the server that the administrative login
// is connected to, with one query for all.
func (a *Admin) present(ctx context.Context, left map[string][]leftBackend) (map[string][]leftBackend, error) {
	c, err := a.Pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer a.Pool.Release(c)
	here := dbuser.Address(c)
	var pids []int32
	for _, list := range left {
		for _, b := range list {
			if b.Address == here {
				pids = append(pids, int32(b.PID))
			}
		}
	}
	if len(pids) == 0 {
		return nil, nil
	}
	rows, err := c.Query(ctx, `select pid, usename::text, usesysid from pg_stat_activity where pid = any ($1::int[]) and usename is not null`, pids)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found := map[dbuser.Backend]leftBackend{}
	for rows.Next() {
		b := leftBackend{Backend: dbuser.Backend{Address: here}}
		if err := rows.Scan(&b.PID, &b.role, &b.oid); err != nil {
			return nil, err
		}
		found[b.Backend] = b
	}
	there := map[string][]leftBackend{}
	for role, list := range left {
		for _, b := range list {
			if f, ok := found[b.Backend]; ok && (f.role == role || dbuser.IsRetired(f.role, role, f.oid)) {
				f.asked, f.until = b.asked, b.until
				there[role] = append(there[role], f)
			}
		}
	}
	return there, rows.Err()
}

// lookAfter first strips all roles that no longer have a session, and then hands over their
// objects, with a short time limit for each role. It returns the roles that need another call.
func (a *Admin) lookAfter(roles []string) map[string]bool {
	again := map[string]bool{}
	ctx, cancel := context.WithTimeout(a.base, endedFor)
	defer cancel()
	found, err := a.existing(ctx, roles)
	if err != nil {
		a.Pool.Log.Warn("ended sessions not checked", "cluster", a.Pool.Cluster, "roles", len(roles), "err", err)
		for _, r := range roles {
			again[r] = true
		}
		return again
	}
	a.markElsewhere(ctx, found, 0)
	var strip []string
	for _, o := range found {
		switch {
		case o.Live:
			again[o.Role] = true
			a.shut(ctx, o)
		case mustStrip(o, a.wasRevoked(o.Role)):
			strip = append(strip, o.Role)
		}
	}
	result := a.strip(ctx, strip, a.wasRevoked)
	for _, role := range strip {
		r := result[role]
		again[role] = !r.done || r.left != nil
		if r.left != nil {
			a.Pool.Log.Warn("rights not taken away from a session role yet", "cluster", a.Pool.Cluster, "role", role, "err", r.left)
		}
	}
	found = slices.DeleteFunc(found, func(o dbuser.ExistingRole) bool {
		return o.Live || slices.Contains(strip, o.Role) && !result[o.Role].done
	})
	for _, role := range a.handOverAll(ctx, found) {
		again[role] = true
	}
	return again
}

// handOverAll hands over the objects of roles, in turns that change, for allFor at most. It returns
// the roles of which some are left, except where a database does not let the administrative login
// in: the sweep reports that, and tries again.
func (a *Admin) handOverAll(ctx context.Context, roles []dbuser.ExistingRole) (again []string) {
	until := time.Now().Add(allFor)
	rand.Shuffle(len(roles), func(i, j int) { roles[i], roles[j] = roles[j], roles[i] })
	for _, o := range roles {
		for _, database := range o.Databases {
			if time.Now().After(until) {
				again = append(again, o.Role)
				break
			}
			_, err := a.handOver(ctx, o.Role, database, eachFor)
			if _, closed := errors.AsType[*adminconn.EntryError](err); err == nil || closed {
				continue
			}
			again = append(again, o.Role)
			if !errors.Is(err, errMore) && !errors.Is(err, errInUse) {
				a.Pool.Log.Warn("objects not handed over yet", "cluster", a.Pool.Cluster, "role", o.Role, "database", database, "err", err)
			}
		}
	}
	return again
}

func (a *Admin) existing(ctx context.Context, roles []string) ([]dbuser.ExistingRole, error) {
	c, err := a.Pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer a.Pool.Release(c)
	return a.Existing(ctx, c, roles)
}

// shut sets NOLOGIN, once, on a role whose credential was revoked and that still has
// sessions: the holder may have given it a password of their own. A logon with another
// valid credential undoes it.
func (a *Admin) shut(ctx context.Context, o dbuser.ExistingRole) {
	a.mu.Lock()
	r := a.ended.revoked[o.Role]
	done := r == nil || r.shut
	a.mu.Unlock()
	if done || !o.Alterable {
		return
	}
	err := a.Pool.Retried(ctx, func(context.Context, *adminconn.Conn) ([]adminconn.Step, error) {
		return []adminconn.Step{{SQL: "alter role " + pgsql.Ident(o.Role) + " nologin"}}, nil
	})
	if err != nil {
		a.Pool.Log.Warn("session role of a revoked credential may still log in", "cluster", a.Pool.Cluster, "role", o.Role, "err", err)
		return
	}
	a.mu.Lock()
	r.shut = true
	a.mu.Unlock()
}
