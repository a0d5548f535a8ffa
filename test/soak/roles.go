//go:build linux

package main

import (
	"context"
	"fmt"
	mathrand "math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// victims are users whose roles are damaged by hand, with a superuser's rights. The next logon
// must still work, and repair the role.
func (h *hostile) victims(ctx context.Context, r *mathrand.Rand) {
	for pause(ctx, between(r, 3*time.Second, 10*time.Second)) {
		w := wish{user: fmt.Sprintf("victim%d", r.IntN(3))}
		if r.IntN(2) == 0 {
			w.groups = []string{groupName(r.IntN(groups))}
		}
		newcomer := r.IntN(4) == 0
		if newcomer {
			w = wish{user: fmt.Sprintf("gone%d", r.IntN(3)), create: true}
		}
		p := h.issuer.issue(ctx, w)
		if p == nil {
			continue
		}
		// Log on once, so that there is a role to damage.
		s := h.gate.logon(ctx, p, true, pgx.QueryExecModeExec)
		if s == nil {
			continue
		}
		stays := r.IntN(2) == 0 // its role is damaged during the session, which runs no more queries
		if !stays {
			s.leave(false)
		}
		h.spoil(ctx, r, p, newcomer)
		if stays {
			s.leave(false)
		}
	}
}

// spoil damages a session role in one way, and logs on with it.
func (h *hostile) spoil(ctx context.Context, r *mathrand.Rand, p *pass, newcomer bool) {
	role := pgx.Identifier{p.sessionRole()}.Sanitize()
	user := pgx.Identifier{p.user}.Sanitize()
	spoil := []string{
		"drop role " + role,
		"drop role " + role + "; drop role " + user + "; create role " + user + " login",
		"revoke " + user + " from " + role,
		fmt.Sprintf("grant %s to %s", groupName(r.IntN(groups)), role),
		"alter role " + role + " nologin",
		"alter role " + role + " valid until 'yesterday'",
		"alter role " + role + " password 'known to somebody'",
		"alter role " + role + " password null",
		"alter role " + role + " set role = 'none'; alter role " + role + " set work_mem = '1MB'",
		"alter role " + role + " noinherit connection limit 0",
	}
	sql := spoil[r.IntN(len(spoil))]
	if newcomer {
		sql = "drop role " + role + "; drop role " + user
	}
	if strings.Contains(sql, "create role") && h.stack.installation.Major >= 16 {
		sql += "; grant " + user + " to daypass with admin option, inherit false, set false"
	}
	su, err := h.stack.superuser(ctx, "postgres")
	if err != nil {
		return // PostgreSQL is down, which other checks report
	}
	_, err = su.Exec(ctx, sql)
	su.Close(ctx)
	if err != nil {
		if _, ok := err.(*pgconn.PgError); ok && ctx.Err() == nil {
			h.ledger.count("roles not spoilt", 1)
		}
		return
	}
	h.ledger.count("roles spoilt by hand", 1)
	if s := h.gate.logon(ctx, p, true, pgx.QueryExecModeExec); s != nil {
		for i := range groups {
			s.rows(ctx, i)
		}
		s.leave(false)
	}
}

// holders change what a role may change about itself. Their next session must not see the changes,
// and a password that they set must not keep the gateway out.
func (h *hostile) holders(ctx context.Context, r *mathrand.Rand) {
	for pause(ctx, between(r, 3*time.Second, 10*time.Second)) {
		w := wish{user: fmt.Sprintf("holder%d", r.IntN(3))}
		if r.IntN(2) == 0 {
			w.groups = []string{groupName(r.IntN(groups))}
		}
		p := h.issuer.issue(ctx, w)
		if p == nil {
			continue
		}
		s := h.gate.logon(ctx, p, r.IntN(2) == 0, pgx.QueryExecModeSimpleProtocol)
		if s == nil {
			continue
		}
		changes := []string{
			"password 'my own now'", "password null", "set statement_timeout = '1ms'", "set role = 'none'",
			"set search_path = 'pg_catalog'", "set default_transaction_read_only = on", "reset all", "set session_authorization = default",
		}
		change := changes[r.IntN(len(changes))]
		s.do(ctx, "holders changing their own role", func(ctx context.Context) error {
			_, err := s.Exec(ctx, "set role none; alter role session_user "+change)
			if said, ok := err.(*pgconn.PgError); ok && said.Code[:2] != "57" && said.Code[:2] != "08" {
				return nil // PostgreSQL may refuse the statement
			}
			return err
		})
		s.leave(r.IntN(2) == 0)
		if s := h.gate.logon(ctx, p, true, pgx.QueryExecModeExec); s != nil {
			for i := range groups {
				s.rows(ctx, i)
			}
			h.ledger.count("logons after a holder's change", 1)
			s.leave(false)
		}
	}
}
