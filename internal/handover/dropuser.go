package handover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgerrcode"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/pgsql"
)

// DropOptions say how a database user is dropped.
type DropOptions struct {
	ReassignTo string       // who gets what the user owns; needed when there is anything
	Force      bool         // end the user's sessions
	Progress   func(string) // gets each action that was done. Optional.
}

// DropPlan is what it takes to drop a user, as the database has it now.
type DropPlan struct {
	Cluster      string         `json:"cluster"`
	User         string         `json:"user"`
	Exists       bool           `json:"exists"`
	ReassignTo   string         `json:"reassign_to,omitempty"`
	SessionRoles []string       `json:"session_roles,omitempty"`
	Sessions     []LiveSessions `json:"sessions,omitempty"`
	Databases    []RoleUse      `json:"databases,omitempty"`
	// Orphans are the roles that only superusers can administer once the user is dropped, from
	// PostgreSQL 16 on.
	Orphans  []string  `json:"orphans,omitempty"`
	Problems []Problem `json:"problems,omitempty"` // what has to be settled first
}

// LiveSessions are the sessions of one role in one database.
type LiveSessions struct {
	Role     string `json:"role"`
	Database string `json:"database"`
	Count    int    `json:"count"`
}

// RoleUse is what depends on a role in one database. An empty Database means
// what belongs to the whole cluster, such as a database.
type RoleUse struct {
	Role     string   `json:"role"`
	Database string   `json:"database,omitempty"`
	Owned    int      `json:"owned"`
	Examples []string `json:"examples,omitempty"` // some of what is owned
	// Named counts grants, policies, default privileges and user mappings,
	// which are removed.
	Named int `json:"named"`
}

// Problem keeps a user from being dropped.
type Problem struct {
	Message string   `json:"message"`
	SQL     []string `json:"sql,omitempty"` // mends it when a superuser runs it; without semicolons
}

// Nothing reports whether there is nothing to drop.
func (p DropPlan) Nothing() bool { return !p.Exists && len(p.SessionRoles) == 0 }

// Owns reports whether there are objects that need a new owner.
func (p DropPlan) Owns() bool {
	return slices.ContainsFunc(p.Databases, func(u RoleUse) bool { return u.Owned > 0 })
}

// ErrBlocked is why DropUser did nothing: the plan has problems.
var ErrBlocked = errors.New("the user cannot be dropped yet")

// PlanDrop returns what DropUser would do, and changes nothing. For a user that does not
// exist, the plan has Exists false and the session roles that were left behind.
// Errors are *adminconn.Error; for a role that may never be dropped, they wrap
// dbuser.ErrUserRefused.
func (a *Admin) PlanDrop(ctx context.Context, user string, o DropOptions) (DropPlan, error) {
	p := DropPlan{Cluster: a.Pool.Cluster, User: user, ReassignTo: o.ReassignTo}
	if err := dbuser.CheckName("user", user); err != nil {
		return p, err
	}
	c, err := a.Pool.Acquire(ctx)
	if err != nil {
		return p, err
	}
	d := dropper{a: a, c: c, plan: &p, options: o}
	err = d.look(ctx)
	a.Pool.Release(c)
	if err == nil {
		d.lookInside(ctx)
	}
	var ours *adminconn.Error
	if err != nil && !errors.As(err, &ours) {
		err = a.Pool.Unreachable(err)
	}
	return p, err
}

// DropUser drops a database user and its session roles. It forbids logons, ends sessions if
// Force is set, reassigns the roles' objects, removes grants to the roles in every database,
// and drops them. Each of its small transactions can be repeated, so the next run finishes
// an interrupted one. It succeeds if the user does not exist.
//
// It returns the plan that it followed. If the plan has problems, DropUser changes nothing and
// the error is ErrBlocked.
func (a *Admin) DropUser(ctx context.Context, user string, o DropOptions) (DropPlan, error) {
	p, err := a.PlanDrop(ctx, user, o)
	switch {
	case err != nil:
		return p, err
	case len(p.Problems) > 0:
		return p, ErrBlocked
	case p.Nothing():
		return p, nil
	}
	roles := slices.Clone(p.SessionRoles)
	if p.Exists {
		roles = append(roles, user)
	}
	say := func(format string, args ...any) {
		if o.Progress != nil {
			o.Progress(fmt.Sprintf(format, args...))
		}
	}
	if err := a.forbidLogon(ctx, roles); err != nil {
		return p, fmt.Errorf("forbidding logons: %w", err)
	}
	say("no more logons as %s", pgsql.Names(roles))
	if len(p.Sessions) > 0 {
		if err := a.endSessions(ctx, roles); err != nil {
			return p, fmt.Errorf("ending sessions: %w", err)
		}
		say("sessions ended")
	}
	for _, role := range roles {
		if err := a.dropRole(ctx, role, o.ReassignTo, say); err != nil {
			return p, fmt.Errorf("dropping %q: %w", role, err)
		}
		say("dropped %q", role)
	}
	return p, nil
}

// forbidLogon sets NOLOGIN, before anything else, so that no new session interferes. The gateways
// do not lend a user with NOLOGIN, so they create no more session roles for the user either.
func (a *Admin) forbidLogon(ctx context.Context, roles []string) error {
	return a.Pool.Retried(ctx, func(ctx context.Context, c *adminconn.Conn) ([]adminconn.Step, error) {
		var there []string
		err := c.QueryRow(ctx, `select coalesce(array_agg(rolname::text), '{}') from pg_roles
			where rolcanlogin and rolname = any ($1::text[]::name[])`, roles).Scan(&there)
		if err != nil {
			return nil, err
		}
		var steps []adminconn.Step
		for _, r := range there {
			steps = append(steps, adminconn.Step{SQL: "alter role " + pgsql.Ident(r) + " nologin"})
		}
		return steps, nil
	})
}

const (
	endSessionsFor   = 10 * time.Second
	endSessionsAgain = 50 * time.Millisecond
)

// endSessions ends the sessions of the roles and waits until they are gone. A plain login may
// end the sessions of roles that it is a member of.
func (a *Admin) endSessions(ctx context.Context, roles []string) error {
	ctx, cancel := context.WithTimeout(ctx, endSessionsFor)
	defer cancel()
	for {
		var left []string
		err := a.Pool.Retried(ctx, func(ctx context.Context, c *adminconn.Conn) ([]adminconn.Step, error) {
			err := c.QueryRow(ctx, `select coalesce(array_agg(distinct usename::text), '{}') from pg_stat_activity
				where usename = any ($1::text[]::name[])`, roles).Scan(&left)
			if err != nil {
				return nil, err
			}
			var steps []adminconn.Step
			for _, r := range left {
				temp, err := tempGrantsToAct(ctx, c, r, "")
				if err != nil {
					return nil, err
				}
				steps = append(steps, temp.around(adminconn.Step{SQL: "select pg_terminate_backend(pid) from pg_stat_activity where usename = " + pgsql.Literal(r)})...)
			}
			return steps, nil
		})
		if err != nil || len(left) == 0 {
			return err
		}
		select {
		case <-time.After(endSessionsAgain):
		case <-ctx.Done():
			return fmt.Errorf("sessions of %s do not end: %w", pgsql.Names(left), ctx.Err())
		}
	}
}

// dropRole clears a role out of every database and drops it.
func (a *Admin) dropRole(ctx context.Context, role, to string, say func(string, ...any)) error {
	for attempt := 0; ; attempt++ {
		var databases []string
		err := a.Pool.Retried(ctx, func(ctx context.Context, c *adminconn.Conn) ([]adminconn.Step, error) {
			var err error
			if databases, err = readMentions(ctx, c, role); err != nil || len(databases) > 0 {
				return nil, err
			}
			return []adminconn.Step{{SQL: "drop role if exists " + pgsql.Ident(role)}}, nil
		})
		switch {
		case adminconn.IsCode(err, pgerrcode.DependentObjectsStillExist) && attempt < 3: // something new names it
			continue
		case err != nil || len(databases) == 0:
			return err
		case attempt == 3:
			return errors.New("an object or a grant still refers to it")
		}
		if databases[0] == "" && len(databases) > 1 {
			databases = databases[1:] // what belongs to the whole cluster is handled from any database
		}
		for _, database := range databases {
			if err := a.clear(ctx, role, to, database); err != nil {
				return fmt.Errorf("in database %q: %w", database, err)
			}
			say("cleared %q out of database %q", role, cmp.Or(database, a.Pool.Config().Database))
		}
	}
}

// clear reassigns what a role owns in one database, revokes its grants, and removes everything
// else that refers to it there. If that is too much for one transaction, some objects are
// reassigned before. DROP OWNED would also drop owned objects, so the same transaction checks
// that there are none; the role has no session that could create one.
func (a *Admin) clear(ctx context.Context, role, to, database string) error {
	return a.Pool.OnDatabase(ctx, database, func(do adminconn.Transaction) error {
		if to != "" {
			h := handingOver{a: a, role: role, do: do, grants: func(ctx context.Context, lane, _ *adminconn.Conn) (tempGrants, error) {
				return tempGrantsToAct(ctx, lane, role, to)
			}}
			if err := h.surplus(); err != nil {
				return err
			}
		}
		return do(func(ctx context.Context, lane, c *adminconn.Conn) error {
			temp, err := tempGrantsToAct(ctx, lane, role, to)
			if err != nil {
				return err
			}
			var inner []adminconn.Step
			if to != "" {
				inner = append(inner, adminconn.Step{SQL: fmt.Sprintf("reassign owned by %s to %s", pgsql.Ident(role), pgsql.Ident(to))})
			}
			grants, err := readGrants(ctx, c, role)
			if err != nil {
				return err
			}
			inner = append(inner, adminconn.Step{SQL: ownsNothing(role)}, adminconn.Step{SQL: "drop owned by " + pgsql.Ident(role)})
			return a.Pool.Run(ctx, c, append(takeBack(grants, role, c.Version), temp.around(inner...)...))
		})
	})
}
