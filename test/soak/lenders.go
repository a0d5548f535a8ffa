//go:build linux

package main

import (
	"context"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/client"
)

// lentWithin is how long, after the last session of a session role has ended, its objects may
// still lend its group to others.
const lentWithin = 20 * time.Second

const lenderUsers = 3

func lenderName(i int) string { return fmt.Sprintf("lender%d", i) }

// lenders use a session with a group to leave objects behind that lend the group to everyone,
// and keep those objects from being handed over. Each has its own users, so that it knows when
// the last session of a session role ends.
func (h *hostile) lenders(ctx context.Context, r *mathrand.Rand) {
	operator := h.operator()
	if operator == nil {
		return
	}
	for i := 0; pause(ctx, between(r, 2*time.Second, 6*time.Second)); i++ {
		h.lend(ctx, r, operator, lenderName(r.IntN(lenderUsers)), groupName(r.IntN(groups)), fmt.Sprintf("lent_%d", i))
	}
}

func (h *hostile) lend(ctx context.Context, r *mathrand.Rand, operator *client.Client, user, group, schema string) {
	p, own := h.issuer.issue(ctx, wish{user: user, groups: []string{group}}), h.issuer.issue(ctx, wish{user: user})
	if p == nil || own == nil {
		return
	}
	s := h.gate.logon(ctx, p, r.IntN(2) == 0, pgx.QueryExecModeExec)
	if s == nil {
		return
	}
	o := h.gate.logon(ctx, own, r.IntN(2) == 0, pgx.QueryExecModeExec)
	if o == nil {
		s.leave(false)
		return
	}
	role := pgx.Identifier{p.sessionRole()}.Sanitize()
	made := o.do(ctx, "schemas that a hand-over finds closed", func(ctx context.Context) error {
		return run(ctx, o.Conn, "create schema "+schema, "grant usage on schema "+schema+" to public",
			"grant usage, create on schema "+schema+" to "+role, "revoke create on schema "+schema+" from "+user)
	}) && s.do(ctx, "functions and views that lend a group", func(ctx context.Context) error {
		return run(ctx, s.Conn,
			"create function "+schema+".f() returns bigint language sql security definer as $$ select count(*) from public."+group+"_rows $$",
			"create view "+schema+".v as select * from public."+group+"_rows", "grant select on "+schema+".v to public")
	})
	o.leave(r.IntN(2) == 0)
	if !made {
		s.leave(true)
		return
	}
	unlock := h.reader(ctx, r, schema)
	defer unlock()
	h.ledger.count("groups lent while their session lasts", h.lentTo(ctx, schema, "u11"))
	if r.IntN(3) > 0 { // the session may be busy, and ignore its cancellation
		go func() { _, _ = s.Exec(ctx, "do $$ "+rebelBody+" $$") }()
		if !h.atWork(ctx, s.Config().RuntimeParams["application_name"], true) {
			s.leave(true)
			return
		}
	}
	seen := h.findNamed(ctx, operator, p, s.Config().RuntimeParams["application_name"])
	ended, how := time.Now(), "left"
	switch {
	case seen != nil && r.IntN(3) == 0:
		how = "terminated"
		_ = operator.Terminate(ctx, seen.ID)
	case seen != nil && r.IntN(2) == 0:
		how = "revoked"
		_, _ = operator.Revoke(ctx, client.Selector{CredentialID: seen.CredentialID})
	}
	s.PgConn().Conn().Close()
	h.endLending(ctx, schema, fmt.Sprintf("%s of %s, %s", group, user, how), ended)
}

// reader holds a lock on an object that is to be handed over, for as long as it can.
func (h *hostile) reader(ctx context.Context, r *mathrand.Rand, schema string) (unlock func()) {
	if r.IntN(2) == 0 {
		return func() {}
	}
	conn, err := h.stack.superuser(ctx, database)
	if err != nil {
		return func() {}
	}
	if err := run(ctx, conn, "set session authorization u11", "begin", "select * from "+schema+".v limit 1"); err != nil {
		conn.Close(ctx)
		return func() {}
	}
	return func() { conn.Close(context.Background()) }
}

// lentTo counts the ways in which a user who is not in the group can read the group's rows; -1 if
// PostgreSQL is not available.
func (h *hostile) lentTo(ctx context.Context, schema, user string) int {
	lent := 0
	for _, sql := range []string{"select " + schema + ".f()", "select count(*) from " + schema + ".v"} {
		conn, err := h.stack.superuser(ctx, database)
		if err != nil {
			return -1
		}
		var n int
		if _, err = conn.Exec(ctx, "set session authorization "+user); err == nil {
			err = conn.QueryRow(ctx, sql).Scan(&n)
		}
		conn.Close(context.Background())
		switch {
		case err == nil:
			lent++
		case !refusedBy(err, "42501"):
			return -1
		}
	}
	return lent
}

// endLending waits until no user can use the group's rights through objects that a session left
// behind.
func (h *hostile) endLending(ctx context.Context, schema, how string, ended time.Time) {
	judged := false
	for pause(ctx, 200*time.Millisecond) {
		lent, took := h.lentTo(ctx, schema, "u11"), time.Since(ended)
		switch {
		case lent == 0:
			if !judged {
				h.ledger.done(classSession, "groups not lent any more", ended)
				h.ledger.slowest("groups lent after the last session, at most", took)
			}
			h.drop(ctx, schema)
			return
		case lent < 0: // PostgreSQL is not available
		case took > lentWithin && !judged:
			judged = true
			h.ledger.failed(everything, "a group is lent after its last session: "+how, ended, fmt.Errorf("in %d ways, %v after the end", lent, took.Round(time.Millisecond)))
		case judged && took > 2*time.Minute:
			h.ledger.violate("a group is lent for good", "%s: %v after the end", how, took.Round(time.Second))
			h.drop(ctx, schema)
			return
		}
	}
}

func (h *hostile) drop(ctx context.Context, schema string) {
	conn, err := h.stack.superuser(ctx, database)
	if err != nil {
		return
	}
	defer conn.Close(context.Background())
	_, _ = conn.Exec(ctx, "set lock_timeout = '5s'; drop schema if exists "+schema+" cascade")
}
