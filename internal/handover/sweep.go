package handover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/dbuser"
)

// SweepOptions configure a sweep.
type SweepOptions struct {
	Unused time.Duration // drop session roles without a logon for this long; 0 drops none
	// Each bounds how long the objects of one role are handed over, so that one holder's locks
	// do not use up the time of others. Zero means no limit.
	Each   time.Duration
	DryRun bool // only report what would be done
	// Progress is called with each step that was done, or would be. Optional.
	Progress func(SweepStep)
}

// SweepStep is one step that a sweep did, would do, or could not do. Exactly one of the four
// fields is set.
type SweepStep struct {
	Stripped   string
	HandedOver *Ownership
	Dropped    string
	Kept       *KeptRole
}

func (r *SweepReport) add(o *SweepOptions, s SweepStep) {
	switch {
	case s.Stripped != "":
		r.Stripped = append(r.Stripped, s.Stripped)
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

// SweepReport is what a sweep did, or would do.
type SweepReport struct {
	// Stripped are the session roles whose user and groups were revoked because no session needs
	// them any more.
	Stripped   []string    `json:"stripped,omitempty"`
	HandedOver []Ownership `json:"handed_over,omitempty"`
	Dropped    []string    `json:"dropped,omitempty"`
	Kept       []KeptRole  `json:"kept,omitempty"` // should go or be handed over, but cannot
	// Roles is the number of session roles, and InUse the number of those that had sessions and
	// were left alone.
	Roles int `json:"roles"`
	InUse int `json:"in_use"`
	// Standby is set if the server is in recovery, so that nothing was done.
	Standby bool `json:"standby,omitempty"`
}

// sweeping is one sweep.
type sweeping struct {
	a       *Admin
	options SweepOptions
	report  *SweepReport
}

func (s *sweeping) keep(role string, err error) {
	s.report.add(&s.options, SweepStep{Kept: &KeptRole{Role: role, Reason: err.Error()}})
}

// Sweep cleans up after sessions that have ended. One query finds the session roles that need it,
// and only these are looked at one by one. Sweep removes all members of session roles, and
// attributes that their users have lost; revokes user and groups from session roles that have no
// session and would lend them to others; then hands over what session roles without a session own,
// revokes what was granted to them, and drops those without a recent logon. Each small transaction
// reads the current state first and takes "already gone" for success. An error means that the
// cluster could not be read; the report lists the steps that failed.
//
// Objects do not change hands under a session: a role that has one is left alone.
func (a *Admin) Sweep(ctx context.Context, o SweepOptions) (SweepReport, error) {
	var report SweepReport
	c, err := a.Pool.Acquire(ctx)
	if err != nil {
		return report, err
	}
	view, err := a.Overview(ctx, c, o.Unused, a.revokedRoles())
	var all []dbuser.ExistingRole
	if err == nil && !view.Standby {
		_, err = a.ForgetGone(ctx, c)
	}
	if err == nil && len(view.Due) > 0 {
		all, err = a.Existing(ctx, c, view.Due)
	}
	a.Pool.Release(c)
	if err != nil {
		return report, a.Pool.Unreachable(err)
	}
	if view.Standby {
		report.Standby = true
		return report, nil // the primary is swept
	}
	report.Roles, report.InUse = view.Roles, view.InUse
	s := sweeping{a: a, options: o, report: &report}
	for _, role := range view.Foreign {
		s.keep(role, dbuser.ErrForeign)
	}
	if view.Members && !o.DryRun {
		if err := a.TakeOut(ctx); err != nil {
			a.Pool.Log.Warn("members of session roles not taken out", "cluster", a.Pool.Cluster, "err", err)
		}
	}
	if !o.DryRun {
		if err := a.CorrectAttributes(ctx); err != nil {
			a.Pool.Log.Warn("attributes of session roles not corrected", "cluster", a.Pool.Cluster, "err", err)
		}
	}
	all = s.leaveOthers(all)
	a.markElsewhere(ctx, all, o.Unused)
	failed, left := s.strip(ctx, all)
	for _, owner := range all {
		if err := ctx.Err(); err != nil {
			return report, err
		}
		switch {
		case owner.Live:
			report.InUse++
		case !slices.Contains(failed, owner.Role):
			s.role(ctx, owner)
		}
		// A role that was dropped has lost the grants that could not be revoked.
		if err := left[owner.Role]; err != nil && !slices.Contains(report.Dropped, owner.Role) {
			s.keep(owner.Role, fmt.Errorf("taking its rights away: %w", err))
		}
	}
	return report, nil
}

// leaveOthers returns the list without the session roles that another login created. It reports
// those once, together.
func (s *sweeping) leaveOthers(all []dbuser.ExistingRole) []dbuser.ExistingRole {
	var others []string
	all = slices.DeleteFunc(all, func(o dbuser.ExistingRole) bool {
		if !o.Alterable {
			others = append(others, o.Role)
		}
		return !o.Alterable
	})
	if len(others) > 0 {
		s.keep(others[0], fmt.Errorf("the administrative login may not change it, as another login made it (of such session roles there are %d): "+
			"`daypass cluster check %s` prints what hands them over", len(others), s.a.Pool.Cluster))
	}
	return all
}

// strip strips all roles that must be stripped, before any step that could take long. It returns
// the roles that it could not strip, and the memberships that it could not revoke.
func (s *sweeping) strip(ctx context.Context, all []dbuser.ExistingRole) (failed []string, left map[string]error) {
	var strip []string
	for _, o := range all {
		if mustStrip(o, s.a.wasRevoked(o.Role)) {
			strip = append(strip, o.Role)
		}
	}
	if s.options.DryRun {
		for _, role := range strip {
			s.report.add(&s.options, SweepStep{Stripped: role})
		}
		return nil, nil
	}
	left = map[string]error{}
	result := s.a.strip(ctx, strip, s.a.wasRevoked)
	for _, role := range strip {
		switch r := result[role]; {
		case r.left != nil:
			left[role] = r.left
		case r.done:
			s.report.add(&s.options, SweepStep{Stripped: role})
		}
		if !result[role].done {
			failed = append(failed, role)
		}
	}
	return failed, left
}

// role hands over what a role owns, revokes what was granted to it, and drops it if it is
// unused.
func (s *sweeping) role(ctx context.Context, o dbuser.ExistingRole) {
	a := s.a
	for _, database := range o.Databases {
		hand := a.handOver
		if s.options.DryRun {
			hand = a.wouldHandOver
		}
		user, err := hand(ctx, o.Role, database, s.options.Each)
		if errors.Is(err, errMore) || errors.Is(err, errInUse) {
			return // at the next sweep
		}
		var closed *adminconn.EntryError
		switch {
		case errors.As(err, &closed):
			s.report.add(&s.options, SweepStep{Kept: &KeptRole{Role: o.Role, Reason: closed.Error(), Database: database}})
			return
		case err != nil:
			s.keep(o.Role, fmt.Errorf("handing over in database %q: %w", database, err))
			return
		}
		s.report.add(&s.options, SweepStep{HandedOver: &Ownership{Role: o.Role, User: user, Database: database}})
	}
	drop := s.options.Unused > 0 && o.UnusedFor(s.options.Unused)
	switch {
	case !drop && !o.Mentioned:
		return
	case s.options.DryRun:
	case !a.dueAgain(o.Role):
		s.keep(o.Role, fmt.Errorf("clearing: %w", a.whyKept(o.Role)))
		return
	default:
		dropped, err := a.clearAndDrop(ctx, o.Role, drop, s.options.Unused)
		a.triedAgain(o.Role, err)
		if err != nil && !errors.Is(err, errInUse) {
			s.keep(o.Role, fmt.Errorf("clearing: %w", err))
		}
		drop = dropped
	}
	if drop {
		s.report.add(&s.options, SweepStep{Dropped: o.Role})
	}
}

// wouldHandOver only finds the user that would own the role's objects.
func (a *Admin) wouldHandOver(ctx context.Context, role, _ string, _ time.Duration) (user string, err error) {
	c, err := a.Pool.Acquire(ctx)
	if err != nil {
		return "", err
	}
	defer a.Pool.Release(c)
	return a.UserOf(ctx, c, role)
}
