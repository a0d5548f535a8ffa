package handover

import (
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

// The rights of a session role end with its last session. Otherwise a function or a view
// that it owns would keep lending the rights of the user and the groups to others. So the
// role is stripped first: its memberships are revoked and it may not log in. Its objects
// are handed over afterwards. A strip touches only the catalogs of roles, in the database
// of the administrative login, so a holder cannot delay it with locks, settings or objects
// of their own. The next logon grants the memberships again.

// maxStripped is how many roles are stripped in one transaction.
const maxStripped = 32

// mustStrip reports whether a role that is not in use has rights that it must not keep.
// A role that owns nothing, has no members and was not revoked lends its rights to no
// one. It keeps them until VALID UNTIL passes, so that the next logon has nothing to do.
func mustStrip(o dbuser.ExistingRole, revoked bool) bool {
	return !o.Live && (o.Held || o.Members || revoked && o.Login) &&
		(len(o.Databases) > 0 || o.Mentioned || o.Members || o.Retired() || o.Expired() || revoked)
}

// stripped is the result for one role. If both fields are empty, the role is in use.
type stripped struct {
	done bool
	left error // what could not be taken away
}

// strip strips those of the roles that must be stripped, a few per transaction. It skips roles
// that have a session, or that a logon of this process is opening a session with.
func (a *Admin) strip(ctx context.Context, roles []string, revoked func(role string) bool) map[string]stripped {
	result := map[string]stripped{}
	for some := range slices.Chunk(roles, maxStripped) {
		if ctx.Err() != nil {
			break
		}
		together := stripping{Admin: a, revoked: revoked}
		err := together.run(ctx, some, result)
		if err == nil {
			continue
		}
		// A row is locked, or a membership may not be revoked. Run the statements one by one, so
		// that a failure does not stop the others.
		for _, role := range some {
			alone := stripping{Admin: a, revoked: revoked, careful: true}
			if err := alone.run(ctx, []string{role}, result); err != nil {
				result[role] = stripped{left: err}
			}
		}
	}
	return result
}

// errSlipped is why a strip is undone: a session began in the meantime.
var errSlipped = errors.New("a session began in the meantime")

// stripping is one transaction of strip.
//
// A logon of this process cannot interfere: it waits for the strip, or the strip leaves
// its role out. A logon through another gateway can. If its session shows before the
// commit, everything is rolled back. If it comes after the commit, it fails because of
// NOLOGIN, and the other gateway restores the role (Ensure). In between, the server may
// admit a session before the commit and show it only afterwards: giveBack looks for it
// and gives the memberships back. A session that shows even later is found by its own
// gateway, which checks the role again after each logon (Opened).
type stripping struct {
	*Admin
	revoked func(role string) bool
	careful bool // go on after a statement that fails

	version int
	touched []string         // the roles that had to be stripped
	nologin []string         // those of them that could log in until now
	taken   []membership     // what was revoked
	left    map[string]error // what could not be taken away, by role
}

// run strips those of the roles that must be stripped, and adds them to result. If the transaction
// fails, it returns the error and adds none.
func (s *stripping) run(ctx context.Context, roles []string, result map[string]stripped) error {
	s.left = map[string]error{}
	over := func() {}
	err := s.Pool.InLane(ctx, func(ctx context.Context, c *adminconn.Conn) ([]adminconn.Step, error) {
		var free []string
		free, over = s.BeginStrip(roles)
		if len(free) == 0 {
			return nil, nil
		}
		return nil, s.take(ctx, c, free)
	})
	over()
	if errors.Is(err, errSlipped) && len(roles) == 1 {
		return nil // in use again; it is looked at when that ends
	}
	if err != nil {
		return err
	}
	wasRevoked := map[string]bool{}
	for _, role := range s.touched {
		wasRevoked[role] = s.revoked(role)
		result[role] = stripped{done: true, left: s.left[role]}
		if s.left[role] == nil {
			s.mu.Lock()
			delete(s.ended.revoked, role)
			s.mu.Unlock()
		}
	}
	if len(s.taken)+len(s.nologin) > 0 {
		if err := s.giveBack(ctx, wasRevoked); err != nil {
			s.Pool.Log.Warn("sessions that began during a clean-up not looked for", "cluster", s.Pool.Cluster, "err", err)
		}
	}
	return nil
}

// take takes the rights from the roles in the transaction of c. It returns errSlipped if one of them
// has a session then.
func (s *stripping) take(ctx context.Context, c *adminconn.Conn, roles []string) error {
	s.version = c.Version
	now, err := s.Existing(ctx, c, roles)
	if err != nil {
		return err
	}
	var login []string
	for _, o := range now {
		if !mustStrip(o, s.revoked(o.Role)) {
			continue
		}
		s.touched = append(s.touched, o.Role)
		switch {
		case !o.Alterable:
			s.left[o.Role] = errOtherLogin(o.Role, s.Pool.Config().User)
		case o.Login:
			login = append(login, o.Role)
		}
	}
	if len(s.touched) == 0 {
		return nil
	}
	all, err := readMemberships(ctx, c, s.touched)
	if err != nil {
		return err
	}
	// From 16 on, each statement after a change of a membership makes the server read all
	// memberships of a plain login again. So NOLOGIN comes first, and one statement revokes
	// several memberships.
	for _, role := range login {
		ok, err := s.attempt(ctx, c, role, "alter role "+pgsql.Ident(role)+" nologin")
		if err != nil {
			return err
		}
		if ok {
			s.nologin = append(s.nologin, role)
		}
	}
	if err := s.revoke(ctx, c, all); err != nil {
		return err
	}
	if live, err := s.LiveAmong(ctx, c, s.touched); err != nil || len(live) > 0 {
		return errors.Join(err, errSlipped)
	}
	return nil
}

// revoke revokes memberships, those of one member from one grantor together.
func (s *stripping) revoke(ctx context.Context, c *adminconn.Conn, all []membership) error {
	for len(all) > 0 {
		m := all[0]
		role := m.Member
		if !slices.Contains(s.touched, role) {
			role = m.Role
		}
		if !m.mine {
			s.left[role] = fmt.Errorf("%q granted it %q, which the administrative login may not take back: %s", m.Grantor, m.Role, revokeAll(all[:1], c.Version))
			all = all[1:]
			continue
		}
		n := 1
		for !s.careful && n < len(all) && m.revokedWith(all[n]) {
			n++
		}
		ok, err := s.attempt(ctx, c, role, revokeAll(all[:n], c.Version))
		if err != nil {
			return err
		}
		if ok {
			s.taken = append(s.taken, all[:n]...)
		}
		all = all[n:]
	}
	return nil
}

// attempt runs a statement that takes something from a role, and reports whether it succeeded. A
// careful attempt notes in left what the server refuses, and returns no error for it.
func (s *stripping) attempt(ctx context.Context, c *adminconn.Conn, role, sql string) (ok bool, err error) {
	steps := []adminconn.Step{{SQL: sql}}
	if s.careful {
		// In a message of its own: the server may refuse the next one as a whole.
		if err := s.Pool.Run(ctx, c, []adminconn.Step{{SQL: "savepoint one"}}); err != nil {
			return false, err
		}
		steps = append(steps, adminconn.Step{SQL: "release one"})
	}
	err = s.Pool.Run(ctx, c, steps)
	refused := adminconn.Refused(err) || adminconn.IsCode(err, pgerrcode.LockNotAvailable, pgerrcode.DeadlockDetected, pgerrcode.UndefinedObject)
	if err == nil || !s.careful || !refused {
		return err == nil, err
	}
	s.left[role] = fmt.Errorf("%s: %w", sql, err)
	return false, s.Pool.Run(ctx, c, []adminconn.Step{{SQL: "rollback to one"}, {SQL: "release one"}})
}

// giveBack undoes the strip of roles that turn out to have a session, unless a credential
// was revoked: then the next logon with another credential grants the role again.
func (s *stripping) giveBack(ctx context.Context, wasRevoked map[string]bool) error {
	c, err := s.Pool.Acquire(ctx)
	if err != nil {
		return err
	}
	live, err := s.LiveAmong(ctx, c, s.touched)
	s.Pool.Release(c)
	live = slices.DeleteFunc(live, func(role string) bool { return wasRevoked[role] })
	if err != nil || len(live) == 0 {
		return err
	}
	s.Pool.Log.Info("session roles granted again: sessions began while they were stripped", "cluster", s.Pool.Cluster, "roles", live)
	return s.Pool.Retried(ctx, func(context.Context, *adminconn.Conn) ([]adminconn.Step, error) {
		var steps []adminconn.Step
		for _, m := range s.taken {
			if slices.Contains(live, m.Member) && m.named() {
				steps = append(steps, adminconn.Step{SQL: m.grant(s.version)})
			}
		}
		for _, role := range s.nologin {
			if slices.Contains(live, role) {
				steps = append(steps, adminconn.Step{SQL: "alter role " + pgsql.Ident(role) + " login"})
			}
		}
		return steps, nil
	})
}

// errOtherLogin returns the error for a session role that cannot be changed from 16 on, because
// it was created by another login, or by one that was a superuser then.
func errOtherLogin(role, login string) error {
	return fmt.Errorf("another login made it; a superuser hands it over with: %s", dbuser.LendStatement(role, login))
}

// markElsewhere marks the roles as live that have a session at another host of the
// cluster: pg_stat_activity of the primary does not show the sessions of standbys.
// It asks only about roles that would otherwise be changed, and only where there are
// several hosts. A host that does not answer is ignored: rights must not last because a
// host is down.
func (a *Admin) markElsewhere(ctx context.Context, all []dbuser.ExistingRole, unused time.Duration) {
	if !a.Pool.SeveralHosts() {
		return
	}
	var roles []string
	for _, o := range all {
		if !o.Live && (mustStrip(o, a.wasRevoked(o.Role)) || len(o.Databases) > 0 || o.Mentioned || unused > 0 && o.UnusedFor(unused)) {
			roles = append(roles, o.Role)
		}
	}
	live := a.LiveElsewhere(ctx, roles)
	for i := range all {
		all[i].Live = all[i].Live || slices.Contains(live, all[i].Role)
	}
}
