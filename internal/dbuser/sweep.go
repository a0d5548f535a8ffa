package dbuser

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// SweepOptions say what a sweep does.
type SweepOptions struct {
	Unused time.Duration // drop session roles without a logon for this long; 0 drops none
	DryRun bool          // only say what would be done
	// Progress is told of each thing that is done, or would be. Optional.
	Progress func(SweepStep)
}

// SweepStep is one thing that a sweep did, would do, or could not do: of the
// three exactly one is set.
type SweepStep struct {
	HandedOver *Ownership
	Dropped    string
	Kept       *KeptRole
}

func (r *SweepReport) add(o *SweepOptions, s SweepStep) {
	switch {
	case s.HandedOver != nil:
		r.HandedOver = append(r.HandedOver, *s.HandedOver)
	case s.Kept != nil:
		r.Kept = append(r.Kept, *s.Kept)
	default:
		r.Dropped = append(r.Dropped, s.Dropped)
	}
	if o.Progress != nil {
		o.Progress(s)
	}
}

// SweepReport says what a sweep did, or would do.
type SweepReport struct {
	HandedOver []Ownership `json:"handed_over,omitempty"`
	Dropped    []string    `json:"dropped,omitempty"`
	Kept       []KeptRole  `json:"kept,omitempty"` // should go or be handed over, but cannot
	// Roles is how many session roles there were, and InUse how many of them
	// had sessions and were left alone.
	Roles int `json:"roles"`
	InUse int `json:"in_use"`
	// Standby says that the server is in recovery: nothing was looked at.
	Standby bool `json:"standby,omitempty"`
}

// Sweep puts right what no session looks after any more: it takes everybody
// out of session roles, hands over what session roles without a session own,
// and drops those that nobody has logged on with for a while. It goes one role
// at a time in small transactions, asks the database what is true just before
// each, and takes "already gone" for success. The error says that the cluster
// could not be asked; what could not be done is in the report.
//
// A role that owns something and has a session is left to SessionEnded: a
// change of owner waits for statements that use the object.
func (a *Admin) Sweep(ctx context.Context, o SweepOptions) (SweepReport, error) {
	var report SweepReport
	c, err := a.pool.acquire(ctx)
	if err != nil {
		return report, err
	}
	var recovery, edges bool
	err = c.QueryRow(ctx, sweepQuery).Scan(&recovery, &edges)
	var all []owner
	if err == nil && !recovery {
		all, err = readOwners(ctx, c, nil)
	}
	a.pool.release(c)
	if err != nil {
		return report, a.pool.unreachable(err)
	}
	if recovery {
		report.Standby = true
		return report, nil // the primary is swept
	}
	report.Roles = len(all)
	if edges && !o.DryRun {
		err := a.inLane(ctx, func(context.Context, *conn) ([]step, error) { return []step{{sql: cutEdges}}, nil })
		if err != nil {
			a.cfg.Log.Warn("members of session roles not taken out", "cluster", a.cfg.Cluster, "err", err)
		}
	}
	first := !o.DryRun && !a.swept.Swap(true)
	for _, owner := range all {
		if err := ctx.Err(); err != nil {
			return report, err
		}
		if owner.Live {
			report.InUse++
			if first && len(owner.Databases) > 0 {
				// What a session left behind whose gateway crashed is not to wait for
				// the end of those that others have begun since.
				a.SessionEnded(owner.Role, "", nil)
			}
			continue
		}
		a.sweepRole(ctx, owner, o, &report)
	}
	return report, nil
}

const sweepQuery = `select pg_is_in_recovery(), exists (
  select from pg_auth_members m
  where m.roleid in (` + sessionRoles + `)
    and pg_get_userbyid(m.member) not in (current_user, session_user))`

func (a *Admin) sweepRole(ctx context.Context, owner owner, o SweepOptions, report *SweepReport) {
	keep := func(err error) { report.add(&o, SweepStep{Kept: &KeptRole{Role: owner.Role, Reason: err.Error()}}) }
	for _, database := range owner.Databases {
		hand := a.handOver
		if o.DryRun {
			hand = a.wouldHandOver
		}
		user, err := hand(ctx, owner.Role, database)
		if err != nil {
			keep(fmt.Errorf("handing over in database %q: %w", database, err))
			return
		}
		report.add(&o, SweepStep{HandedOver: &Ownership{Role: owner.Role, User: user, Database: database}})
	}
	if o.Unused <= 0 || !owner.unusedFor(o.Unused) {
		return
	}
	if !o.DryRun {
		dropped, err := a.drop(ctx, owner.Role, o.Unused)
		if err != nil {
			keep(err)
		}
		if !dropped {
			return
		}
	}
	report.add(&o, SweepStep{Dropped: owner.Role})
}

// wouldHandOver only finds out who would get what the role owns.
func (a *Admin) wouldHandOver(ctx context.Context, role, _ string) (user string, err error) {
	c, err := a.pool.acquire(ctx)
	if err != nil {
		return "", err
	}
	defer a.pool.release(c)
	l, err := readLent(ctx, c, role)
	return l.user, err
}

// unusedFor reports whether the last logon is longer ago than d. Every logon
// keeps VALID UNTIL ahead, so it tells, through restarts and for all gateways
// alike. A role without it is not one of ours to drop. One that was retired is
// not waited for: a holder can have that done at every logon.
func (o owner) unusedFor(d time.Duration) bool {
	return !o.Live && o.ValidUntil.Unix() > 0 && (o.Retired || o.Now.Sub(o.ValidUntil.Add(-validFor)) > d)
}

// errInUse says that a role was logged on with since the sweep looked.
var errInUse = errors.New("in use again")

// drop removes one session role. A logon for it waits for the lane, finds it
// gone and makes it anew.
func (a *Admin) drop(ctx context.Context, role string, unused time.Duration) (bool, error) {
	for range 2 {
		var databases []string
		err := a.inLane(ctx, func(ctx context.Context, c *conn) ([]step, error) {
			now, err := readOwners(ctx, c, []string{role})
			if err != nil || len(now) == 0 {
				return nil, err // gone already: as it should be
			}
			o := now[0]
			if !o.unusedFor(unused) {
				return nil, errInUse
			}
			if len(o.Databases) > 0 || o.Mentioned {
				if databases, err = readMentions(ctx, c, role); err != nil {
					return nil, err
				}
			}
			administered, err := passOn(ctx, c, role)
			if err != nil {
				return nil, err
			}
			if len(databases) > 0 {
				// It must not log in while what names it is looked through.
				return []step{{sql: "alter role " + ident(role) + " nologin"}}, nil
			}
			return append(administered, step{sql: "drop role if exists " + ident(role)}), nil
		})
		switch {
		case errors.Is(err, errInUse):
			return false, nil
		case err != nil:
			return false, fmt.Errorf("dropping: %w", err)
		case len(databases) == 0:
			return true, nil
		}
		for _, database := range databases {
			if err := a.forget(ctx, role, database, unused); err != nil {
				return false, fmt.Errorf("removing what names it in database %q: %w", database, err)
			}
		}
	}
	return false, errors.New("dropping: something still names it")
}

// passOn has the user administer the roles that the session role made: from 16 on
// they would be left with nobody but superusers, who alone can do this.
func passOn(ctx context.Context, c *conn, role string) ([]step, error) {
	if c.version < 160000 {
		return nil, nil
	}
	var made []string
	var super bool
	err := c.QueryRow(ctx, `select coalesce(array_agg(distinct g.rolname::text order by g.rolname::text), '{}'), (select rolsuper from pg_roles where rolname = current_user)
		from pg_auth_members m join pg_roles r on r.oid = m.member join pg_roles g on g.oid = m.roleid
		where r.rolname = $1 and m.admin_option and not m.inherit_option and not m.set_option`, role).Scan(&made, &super)
	if err != nil || len(made) == 0 {
		return nil, err
	}
	l, err := readLent(ctx, c, role)
	if err != nil {
		return nil, err
	}
	var steps []step
	for _, m := range made {
		steps = append(steps, step{sql: lendStatement(m, l.user), name: m})
	}
	if !super {
		return nil, fmt.Errorf("it made the role %s, which it alone administers; as a superuser: %s", list(made), steps[0].sql)
	}
	return steps, nil
}

// readMentions lists the databases in which anything depends on the role.
func readMentions(ctx context.Context, c *conn, role string) ([]string, error) {
	var databases []string
	err := c.QueryRow(ctx, `
		select coalesce(array_agg(distinct coalesce(d.datname::text, '')), '{}')
		from pg_shdepend s join pg_roles r on r.oid = s.refobjid left join pg_database d on d.oid = s.dbid
		where s.refclassid = 'pg_authid'::regclass and r.rolname = $1`, role).Scan(&databases)
	return databases, err
}

// forget removes what names a session role in one database: grants that
// somebody made to it, policies, its default privileges. DROP OWNED also drops
// what the role owns, so everything is handed over first, in the same
// transaction, and looked for once more in between; the role cannot log in and
// has no session that could add to it.
func (a *Admin) forget(ctx context.Context, role, database string, unused time.Duration) error {
	return a.inDatabase(ctx, database, func(ctx context.Context, lane, c *conn) error {
		now, err := readOwners(ctx, lane, []string{role})
		if err != nil || len(now) == 0 {
			return err
		}
		if now[0].Live {
			return errInUse
		}
		l, err := readLent(ctx, lane, role)
		if err != nil {
			return err
		}
		statements := l.around(
			step{sql: fmt.Sprintf("reassign owned by %s to %s", ident(role), ident(l.user))},
			step{sql: ownsNothing(role)},
			step{sql: "drop owned by " + ident(role)})
		return a.runSteps(ctx, c, statements)
	})
}

// ownsNothing is a statement that fails while the role owns an object.
func ownsNothing(role string) string {
	return `do $$ begin
  if exists (select from pg_shdepend s join pg_roles r on r.oid = s.refobjid
    where s.refclassid = 'pg_authid'::regclass and s.deptype = 'o' and r.rolname = ` + dollarSafe(role) + `
      and s.classid not in ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass)
      and s.dbid in (0, (select oid from pg_database where datname = current_database())))
  then raise exception 'the role owns objects'; end if; end $$`
}

// dollarSafe is a literal that cannot end a dollar-quoted body.
func dollarSafe(s string) string {
	return "convert_from(decode('" + fmt.Sprintf("%x", s) + "', 'hex'), 'UTF8')"
}
