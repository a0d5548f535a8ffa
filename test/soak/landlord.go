//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	leasedUser  = "leased" // the user whose rights and settings the landlord changes
	leasedShelf = "shelf"  // a role that it is a member of at times
)

// lease is the state that the next logon of the leased user must find.
type lease struct {
	timeout int // lock_timeout in milliseconds
	member  bool
}

// landlord changes the rights and settings of a user while the user's sessions are parked. The next
// logon must see the change, and sessions that were parked before it must end.
func (h *hostile) landlord(ctx context.Context, r *rand.Rand) {
	state, built := lease{}, false
	for n := 1; pause(ctx, between(r, 500*time.Millisecond, 3*time.Second)); n++ {
		if !built {
			built = h.change(ctx, "create role "+leasedShelf+" nologin", "create table if not exists shelf_rows (n int)", "grant select on shelf_rows to "+leasedShelf)
			continue
		}
		w := wish{user: leasedUser, create: true}
		if r.IntN(3) == 0 {
			w.groups = []string{groupName(1)}
		}
		who := r.IntN(len(principals))
		p := h.issuer.issueTo(ctx, h.issuer.of[who], w)
		if p == nil || !h.stay(ctx, who, p, state) || !h.stay(ctx, who, p, state) {
			continue
		}
		before := state
		switch r.IntN(4) {
		case 0:
			state.timeout = 100000 + n // each value is used once
			if !h.change(ctx, fmt.Sprintf("alter role %s set lock_timeout = %d", leasedUser, state.timeout)) {
				state = before
				continue
			}
			h.tenancies.change(leasedUser, time.Now())
		case 1:
			state.member = !state.member
			sql := "revoke " + leasedShelf + " from " + leasedUser
			if state.member {
				sql = "grant " + leasedShelf + " to " + leasedUser
			}
			if !h.change(ctx, sql) {
				state = before
				continue
			}
		case 2:
			h.suspend(ctx, who, p)
		case 3:
			role := pgx.Identifier{p.sessionRole()}.Sanitize()
			if !h.change(ctx, "drop role "+role, "drop role "+leasedUser) {
				continue // a session role with other groups, or one that does not exist
			}
			h.tenancies.change(leasedUser, time.Now())
			state = lease{}
		}
		h.stay(ctx, who, p, state)
	}
}

// change runs statements as a superuser, and waits until they are on the disk, because faults crash
// PostgreSQL.
func (h *hostile) change(ctx context.Context, sql ...string) bool {
	conn, err := h.stack.superuser(ctx, database)
	if err != nil {
		return false
	}
	defer conn.Close(context.Background())
	tx, err := conn.Begin(ctx)
	if err != nil {
		return false
	}
	defer tx.Rollback(context.Background())
	for _, one := range append([]string{"set local synchronous_commit = on"}, sql...) {
		if _, err := tx.Exec(ctx, one); err != nil {
			return false
		}
	}
	return tx.Commit(ctx) == nil
}

// stay logs the leased user on, checks its rights and settings, and leaves in good order.
func (h *hostile) stay(ctx context.Context, who int, p *pass, want lease) bool {
	s := h.move(ctx, who, p, true)
	if s == nil {
		return false
	}
	s.do(ctx, "leases checked", func(ctx context.Context) error {
		var timeout int
		if err := s.QueryRow(ctx, "select setting::int from pg_settings where name = 'lock_timeout'", pgx.QueryExecModeSimpleProtocol).Scan(&timeout); err != nil {
			return err
		}
		if timeout != want.timeout {
			return wrong("lock_timeout is %d ms, want %d ms", timeout, want.timeout)
		}
		_, err := s.Exec(ctx, "select count(*) from shelf_rows", pgx.QueryExecModeSimpleProtocol)
		switch {
		case err == nil && !want.member:
			return wrong("it reads what it has lost the right to")
		case refusedBy(err, "42501") && want.member:
			return wrong("it may not read what it has been granted")
		case refusedBy(err, "42501"):
			return nil
		}
		return err
	})
	ok := !s.dead
	h.end(s, true, false)
	return ok
}

// suspend takes away the right to log on, until parked sessions must have ended because of that.
func (h *hostile) suspend(ctx context.Context, who int, p *pass) {
	if !h.change(ctx, "alter role "+leasedUser+" nologin") {
		return
	}
	h.tenancies.change(leasedUser, time.Now())
	begin := time.Now()
	conn, a, err := h.gate.connectAs(ctx, p, tenantName, true, pgx.QueryExecModeExec)
	h.tenancies.triedWith(p, a)
	var said *pgconn.PgError
	switch {
	case err == nil:
		conn.Close(ctx)
		h.ledger.violate("a user without the right to log on was let in", "%s as %s", p.logon, principals[who].name)
	case ctx.Err() != nil:
	case errors.As(err, &said) && said.Code == "28000":
		h.ledger.done(classCall, "logons of a suspended user refused", begin)
	default:
		h.ledger.failed(classLogon, "the refusal of a suspended user", begin, err)
	}
	pause(ctx, parkedGone+time.Second)
	for !h.change(context.WithoutCancel(ctx), "alter role "+leasedUser+" login") {
		if !pause(ctx, 200*time.Millisecond) {
			return
		}
	}
}
