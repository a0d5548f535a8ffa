package dbuser

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgerrcode"

	"github.com/daypass/daypass/internal/adminconn"
)

// errLeft is returned if all statements succeeded and the role is still wrong: REVOKE, for
// instance, silently skips grants of other roles.
var errLeft = errors.New("the session role cannot be put right")

// change corrects the session role, in one transaction in the lane. When another
// gateway or an operator changes the same rows, it starts again from the new state.
// looked is set to the time just before it last read the state.
func (a *Admin) change(ctx context.Context, n Need, s sessionNames, why purpose, looked *time.Time) (SessionRole, error) {
	retire := false
	var last error
	for attempt := 0; ; attempt++ {
		role, err := a.changeOnce(ctx, request{need: n, names: s, rewrite: why != toCorrect, retire: retire}, looked)
		bad, failed := failedStep(err)
		switch {
		case err == nil:
			return role, nil
		case failed && bad.setting != "" && adminconn.Refused(err):
			a.skip(bad, err)
		case errors.Is(err, errLeft) && !retire, failed && bad.reset && adminconn.Refused(err) && !retire:
			retire = true
		case errors.Is(err, errLeft):
			return SessionRole{}, a.lacksRights("", n.User, err)
		case errors.Is(err, adminconn.ErrRecovery) && attempt == 0:
			a.Pool.Flush() // perhaps another host is the primary by now
		case adminconn.Transient(err) || adminconn.ConnectionLost(err) && attempt < 3:
			last = err
		default:
			return SessionRole{}, a.changeError(err, n)
		}
		if over := adminconn.Pause(ctx, attempt, err); over != nil {
			return SessionRole{}, a.Pool.Unreachable(errors.Join(over, last))
		}
	}
}

func (a *Admin) changeOnce(ctx context.Context, r request, looked *time.Time) (SessionRole, error) {
	leave, err := a.turns.take(ctx, r.need.User)
	if err != nil {
		return SessionRole{}, a.Pool.Unreachable(err)
	}
	defer leave()
	var role SessionRole
	err = a.Pool.InLane(ctx, func(ctx context.Context, c *adminconn.Conn) ([]adminconn.Step, error) {
		*looked = time.Now()
		st, err := readState(ctx, c, r.need, r.names)
		if err != nil {
			return nil, err
		}
		p, err := a.planFor(st, &r)
		if err != nil {
			return nil, err
		}
		if st.Recovery && (len(p.steps) > 0 || p.foreign) {
			return nil, adminconn.ErrRecovery
		}
		if p.another {
			if err := a.allowAnother(ctx, c, r.need); err != nil {
				return nil, err
			}
		}
		if p.foreign && !r.retire {
			r.retire = true
			if p, err = a.planFor(st, &r); err != nil {
				return nil, err
			}
		}
		role = a.sessionRole(p.role, r.need, st)
		if !p.verify {
			return statements(p.steps), nil
		}
		if err := a.Pool.Run(ctx, c, statements(p.steps)); err != nil {
			return nil, err
		}
		return nil, a.verify(ctx, c, r)
	})
	return role, err
}

// planFor applies the rules and returns the plan. If nothing has to change, the plan has no
// steps and is not foreign.
func (a *Admin) planFor(st *state, r *request) (plan, error) {
	user, healEdges, err := st.checkLent(r.need, &a.cfg)
	if err != nil {
		return plan{}, err
	}
	r.user = user
	p := planner{state: st, request: *r, config: &a.cfg, path: a.serverPath(), skipped: a.isSkipped}
	result, err := p.build()
	if len(result.taken) > 0 && err == nil {
		a.once("taken\x00"+result.role, "the session role has another name: roles that the administrative login may not change have its own; run `daypass cluster check`",
			"role", result.role, "taken", result.taken)
	}
	for _, database := range result.tooLarge {
		a.skip(step{name: "all", setting: settingKey(database, r.need.User)}, fmt.Errorf("user %q has more than %d bytes of settings", r.need.User, maxSettings))
	}
	if healEdges {
		// A session role was granted to other roles. Revoke that first: those roles must not
		// have its rights.
		result.steps = append([]step{{sql: cutEdges, about: aboutSessionRole, name: MarkerRole}}, result.steps...)
		result.canWait, result.verify = false, true
	}
	return result, err
}

// cutEdges revokes every session role from all its members. Up to version 14 a role that is
// logged on may grant itself to others, so a holder can do that with a session role. A member
// that cannot be removed now does not keep the others from being removed.
var cutEdges = `do $$
declare e record;
begin
  for e in
    select r.rolname as role, pg_get_userbyid(m.member) as member
    from pg_auth_members m join pg_roles r on r.oid = m.roleid
    where m.roleid in (` + SessionRoles + `)
      and pg_get_userbyid(m.member) not in (current_user, session_user) and ` + MemberThere + `
  loop
    begin
      execute format('revoke %I from %I cascade', e.role, e.member);
    exception when lock_not_available or insufficient_privilege or deadlock_detected or undefined_object then null;
    end;
  end loop;
end $$`

// verify reads the state again inside the transaction, and looks for anything that the
// statements silently left in place.
func (a *Admin) verify(ctx context.Context, c *adminconn.Conn, r request) error {
	st, err := readState(ctx, c, r.need, r.names)
	if err != nil {
		return err
	}
	r.rewrite, r.retire = false, false
	user, healEdges, err := st.checkLent(r.need, &a.cfg)
	if err != nil {
		return err
	}
	if healEdges {
		return &adminconn.Error{Kind: ErrUserRefused, Name: r.need.User,
			Message: fmt.Sprintf("user %q or one of its groups is a member of another user's session role", r.need.User)}
	}
	r.user = user
	p := planner{state: st, request: r, config: &a.cfg, path: a.serverPath(), skipped: a.isSkipped}
	left, err := p.build()
	if err != nil {
		return err
	}
	if left.foreign {
		return errLeft
	}
	for _, s := range left.steps {
		if s.setting == "" {
			return fmt.Errorf("%w: %s", errLeft, s.sql)
		}
		a.skip(s, errors.New("it does not take effect"))
	}
	return nil
}

// changeError translates the reason why a change failed into the gateway's errors.
func (a *Admin) changeError(err error, n Need) error {
	if ours, ok := errors.AsType[*adminconn.Error](err); ok {
		return ours
	}
	if bad, failed := failedStep(err); failed && adminconn.IsCode(err, pgerrcode.InsufficientPrivilege, pgerrcode.InvalidGrantOperation, pgerrcode.ReservedName) {
		switch bad.about {
		case aboutUser:
			return a.lacksRights("lend user ", n.User, err)
		case aboutGroup:
			return a.lacksRights("lend group ", bad.name, err)
		}
		return a.lacksRights("change role ", bad.name, err)
	}
	if adminconn.IsCode(err, pgerrcode.ReadOnlySQLTransaction) {
		err = errors.Join(adminconn.ErrRecovery, err)
	}
	return a.Pool.Unreachable(err)
}

func (a *Admin) lacksRights(what, name string, cause error) *adminconn.Error {
	return &adminconn.Error{Kind: adminconn.ErrRights, Name: name, Cause: cause,
		Message: fmt.Sprintf("the administrative login of cluster %q may not %s%q; run `daypass cluster check %s`", a.Pool.Cluster, what, name, a.Pool.Cluster)}
}

// TakeOut revokes all session roles from their members.
func (a *Admin) TakeOut(ctx context.Context) error {
	return a.Pool.InLane(ctx, func(context.Context, *adminconn.Conn) ([]adminconn.Step, error) {
		return []adminconn.Step{{SQL: cutEdges}}, nil
	})
}
