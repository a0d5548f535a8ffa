package dbuser

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// errRecovery is the cause when a change is needed and the server only reads.
var errRecovery = errors.New("the server is in recovery and cannot change roles")

// errLeft reports that statements succeeded and the role is still not right,
// as REVOKE does for what another role granted.
var errLeft = errors.New("the session role cannot be put right")

// change brings the session role in line, in one transaction in the lane. What
// another gateway or an operator does at the same moment makes it start again
// from the state that is then there. looked is set to just before it last asked
// what is there.
func (a *Admin) change(ctx context.Context, n Need, s sessionNames, heal bool, looked *time.Time) (SessionRole, error) {
	retire := false
	var last error
	for attempt := 0; ; attempt++ {
		role, err := a.changeOnce(ctx, request{need: n, names: s, heal: heal, retire: retire}, looked)
		var bad *stepError
		switch {
		case err == nil:
			return role, nil
		case errors.As(err, &bad) && bad.setting != "" && refused(err):
			a.skip(bad.step, err)
		case errors.Is(err, errLeft) && !retire, errors.As(err, &bad) && bad.reset && refused(err) && !retire:
			retire = true
		case errors.Is(err, errLeft):
			return SessionRole{}, a.lacksRights("", n.User, err)
		case errors.Is(err, errRecovery) && attempt == 0:
			a.pool.flush() // perhaps another host is the primary by now
		case transient(err) || connectionLost(err) && attempt < 3:
			last = err
		default:
			return SessionRole{}, a.changeError(err, n)
		}
		if over := pause(ctx, attempt, err); over != nil {
			return SessionRole{}, a.pool.unreachable(errors.Join(over, last))
		}
	}
}

// pause waits a little longer after each attempt, at random so that gateways
// do not meet again. What failed for a row that somebody keeps locked waits longer
// than it has had the lane, so that most of the lane is the others'.
func pause(ctx context.Context, attempt int, cause error) error {
	unit := 2 * time.Millisecond
	switch {
	case isCode(cause, "55P03"):
		unit = 200 * time.Millisecond
		attempt++
	case attempt == 0:
		return ctx.Err()
	}
	t := time.NewTimer(time.Duration((1 + rand.Float64()*float64(min(attempt, 5))) * float64(unit)))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (a *Admin) changeOnce(ctx context.Context, r request, looked *time.Time) (SessionRole, error) {
	var role SessionRole
	err := a.inLane(ctx, func(ctx context.Context, c *conn) ([]step, error) {
		*looked = time.Now()
		st, err := readState(ctx, c, r.need, r.names)
		if err != nil {
			return nil, err
		}
		p, err := a.planFor(st, &r)
		if err != nil {
			return nil, err
		}
		if st.Recovery && (len(p.steps) > 0 || p.stuck) {
			return nil, errRecovery
		}
		if p.stuck && !r.retire {
			r.retire = true
			if p, err = a.planFor(st, &r); err != nil {
				return nil, err
			}
		}
		role = a.sessionRole(p.role, r.need, st)
		if !p.verify {
			return p.steps, nil
		}
		if err := a.runSteps(ctx, c, p.steps); err != nil {
			return nil, err
		}
		return nil, a.verify(ctx, c, r)
	})
	return role, err
}

// planFor applies the rules and plans. A state that nothing has to be changed
// in gives a plan without steps that is not stuck.
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
		// Somebody made a session role a group of others. Its members are found
		// and taken out first: what they have through it is not theirs.
		result.steps = append([]step{{sql: cutEdges, about: aboutSessionRole, name: MarkerRole}}, result.steps...)
		result.late, result.verify = false, true
	}
	return result, err
}

// cutEdges takes everybody out of every session role. Until version 14 a role
// that is logged on may grant itself to others, and so could its holder. One that
// cannot be taken out now keeps none of the others in.
var cutEdges = `do $$
declare e record;
begin
  for e in
    select r.rolname as role, pg_get_userbyid(m.member) as member
    from pg_auth_members m join pg_roles r on r.oid = m.roleid
    where m.roleid in (` + sessionRoles + `)
      and pg_get_userbyid(m.member) not in (current_user, session_user)
  loop
    begin
      execute format('revoke %I from %I cascade', e.role, e.member);
    exception when lock_not_available or insufficient_privilege or deadlock_detected or undefined_object then null;
    end;
  end loop;
end $$`

// verify looks again, inside the transaction, for what raised no error and is
// there all the same.
func (a *Admin) verify(ctx context.Context, c *conn, r request) error {
	st, err := readState(ctx, c, r.need, r.names)
	if err != nil {
		return err
	}
	r.heal, r.retire = false, false
	user, healEdges, err := st.checkLent(r.need, &a.cfg)
	if err != nil {
		return err
	}
	if healEdges {
		return &Error{Kind: ErrUserRefused, Name: r.need.User,
			Message: fmt.Sprintf("user %q or one of its groups is a member of another user's session role", r.need.User)}
	}
	r.user = user
	p := planner{state: st, request: r, config: &a.cfg, path: a.serverPath(), skipped: a.isSkipped}
	left, err := p.build()
	if err != nil {
		return err
	}
	if left.stuck {
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

// acquireAlive is acquire for what may take long, where silence could mean
// either that it does or that the server is gone.
func (a *Admin) acquireAlive(ctx context.Context) (*conn, error) {
	for {
		c, err := a.pool.acquire(ctx)
		if err != nil || !c.reused || time.Since(c.used) < reusedAnswers {
			return c, err
		}
		asking, cancel := context.WithTimeout(ctx, reusedAnswers)
		err = c.PgConn().Exec(asking, "").Close()
		cancel()
		if err == nil {
			return c, nil
		}
		a.pool.discard(c)
		if ctx.Err() != nil {
			return nil, a.pool.unreachable(ctx.Err())
		}
		a.pool.flush()
	}
}

// stepError says which statement failed.
type stepError struct {
	step
	err error
}

func (e *stepError) Error() string { return e.err.Error() }
func (e *stepError) Unwrap() error { return e.err }

// runSteps sends the statements in one message. A test that wants to fall
// between two of them has them sent one by one.
func (a *Admin) runSteps(ctx context.Context, c *conn, steps []step) error {
	if a.testOnlyBefore != nil {
		for _, s := range steps {
			a.testOnlyBefore(s.sql, c.PgConn())
			if err := runMessage(ctx, c, []step{s}); err != nil {
				return err
			}
		}
		return nil
	}
	return runMessage(ctx, c, steps)
}

func runMessage(ctx context.Context, c *conn, steps []step) error {
	if len(steps) == 0 {
		return nil
	}
	var sql strings.Builder
	for _, s := range steps {
		sql.WriteString(s.sql)
		sql.WriteString(";\n")
	}
	reader := c.PgConn().Exec(ctx, sql.String())
	done := 0
	for reader.NextResult() {
		if _, err := reader.ResultReader().Close(); err == nil {
			done++
		}
	}
	if err := reader.Close(); err != nil {
		return &stepError{step: steps[min(done, len(steps)-1)], err: err}
	}
	return nil
}

// transient reports whether the same change may succeed when it is tried again
// on what is there now: somebody else changed the same rows, made what was
// missing or removed what was there.
func transient(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return false
	}
	switch pg.Code {
	case "40001", "40P01", // serialization failure, deadlock
		"42710", "23505", // already exists, and its race
		"55P03": // lock not available
		return true
	case "42704": // the role is gone; of a setting it says that there is none
		var bad *stepError
		return !(errors.As(err, &bad) && bad.setting != "")
	case "XX000":
		return strings.Contains(pg.Message, "tuple concurrently") || strings.Contains(pg.Message, "cache lookup failed")
	}
	return false
}

// refused reports whether PostgreSQL has judged the statement, and will say the
// same again. That it did not come to that, because of a lock or the time, says
// nothing about a setting.
func refused(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || transient(err) || len(pg.Code) != 5 {
		return false
	}
	switch pg.Code[:2] {
	case "22", "42", "0A", "0L", "F0":
		return true
	}
	return pg.Code == "55P02"
}

// connectionLost reports whether the connection broke, rather than the
// statement. Every change may be tried again: done twice it is the same.
func connectionLost(err error) bool {
	var pg *pgconn.PgError
	var ours *Error
	if errors.As(err, &ours) || errors.Is(err, errLeft) || errors.Is(err, errRecovery) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return false
	}
	if errors.As(err, &pg) {
		return strings.HasPrefix(pg.Code, "57P") || strings.HasPrefix(pg.Code, "08")
	}
	return true
}

// changeError says in the gateway's terms why a change cannot be made.
func (a *Admin) changeError(err error, n Need) error {
	var ours *Error
	if errors.As(err, &ours) {
		return ours
	}
	var bad *stepError
	if errors.As(err, &bad) && isCode(err, "42501", "0LP01", "42939") {
		switch bad.about {
		case aboutUser:
			return a.lacksRights("lend user ", n.User, err)
		case aboutGroup:
			return a.lacksRights("lend group ", bad.name, err)
		}
		return a.lacksRights("change role ", bad.name, err)
	}
	if isCode(err, "25006") {
		err = errors.Join(errRecovery, err)
	}
	return a.pool.unreachable(err)
}

func (a *Admin) lacksRights(what, name string, cause error) *Error {
	return &Error{Kind: ErrRights, Name: name, Cause: cause,
		Message: fmt.Sprintf("the administrative login of cluster %q may not %s%q; run `daypass cluster check %s`", a.cfg.Cluster, what, name, a.cfg.Cluster)}
}
