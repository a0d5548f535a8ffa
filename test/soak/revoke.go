//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/client"
)

// A revocation must be in force everywhere within revokedWithin, and its sessions must have ended
// within endedWithin.
const (
	revokedWithin = time.Second
	endedWithin   = 5 * time.Second
)

// operator returns the client that revokes, lists and ends sessions. If it is not available,
// operator records that and returns nil.
func (h *hostile) operator() *client.Client {
	operator, err := client.New(client.Config{
		Endpoint: "http://" + h.stack.API, Region: region, UserAgent: "soak",
		Credentials: credentials.NewStaticCredentialsProvider(accessKeyID, secretKey, ""),
		HTTP:        &http.Client{Transport: h.issuer.transport, Timeout: 20 * time.Second},
	})
	if err != nil {
		h.ledger.violate("soak", "making a client: %v", err)
		return nil
	}
	return operator
}

// revocations revokes credentials and ends sessions. A revoked credential stays revoked,
// whatever happens to daypass in the meantime.
func (h *hostile) revocations(ctx context.Context, r *mathrand.Rand) {
	operator := h.operator()
	if operator == nil {
		return
	}
	var revoked []*pass
	for pause(ctx, between(r, 3*time.Second, 12*time.Second)) {
		// These users are separate, because a revocation may be for all sessions of a user.
		p := h.issuer.issue(ctx, wish{user: fmt.Sprintf("undone%d", r.IntN(3)), create: true})
		if p == nil {
			continue
		}
		s := h.gate.logon(ctx, p, r.IntN(2) == 0, pgx.QueryExecModeExec)
		if s == nil {
			continue
		}
		if r.IntN(3) == 0 {
			h.terminate(ctx, operator, s)
		} else if h.revoke(ctx, r, operator, s) {
			revoked = append(revoked, p)
		}
		s.leave(true)
		if len(revoked) > 0 {
			h.stayOut(ctx, revoked[r.IntN(len(revoked))])
		}
	}
}

// find returns the session as the operator sees it.
func (h *hostile) find(ctx context.Context, operator *client.Client, s *session) *client.Session {
	seen, answered := h.ask(ctx, operator, s.pass, s.Config().RuntimeParams["application_name"])
	// The operator does not see the session, so it must have ended.
	if seen == nil && answered && s.identity(ctx) && ctx.Err() == nil {
		h.ledger.violate("sessions are not told right", "%s works and is not listed", s.pass.logon)
	}
	return seen
}

// findNamed returns the session with an application_name, or nil if the operator sees none.
func (h *hostile) findNamed(ctx context.Context, operator *client.Client, p *pass, name string) *client.Session {
	seen, _ := h.ask(ctx, operator, p, name)
	return seen
}

// ask does what findNamed does. answered is false if the call failed: while daypass drains, it
// refuses calls, and sessions continue.
func (h *hostile) ask(ctx context.Context, operator *client.Client, p *pass, name string) (seen *client.Session, answered bool) {
	begin := time.Now()
	list, _, err := operator.Sessions(ctx, cluster, p.user)
	if err != nil {
		if ctx.Err() == nil {
			h.ledger.failed(classCall, "ListSessions", begin, err)
		}
		return nil, false
	}
	for i := range list {
		if list[i].ApplicationName == name {
			h.ledger.done(classCall, "sessions listed", begin)
			return &list[i], true
		}
	}
	return nil, true
}

// terminate ends one session. Its credential stays valid.
func (h *hostile) terminate(ctx context.Context, operator *client.Client, s *session) {
	seen := h.find(ctx, operator, s)
	if seen == nil {
		return
	}
	begin := time.Now()
	if err := operator.Terminate(ctx, seen.ID); err != nil {
		if ctx.Err() == nil {
			h.ledger.failed(everything, "TerminateSession", s.well, err)
		}
		return
	}
	h.mustEnd(ctx, s, begin, "sessions terminated")
	if again := h.gate.logon(ctx, s.pass, true, pgx.QueryExecModeExec); again != nil {
		again.leave(false)
	}
}

// revoke revokes the credential of a session. It reports whether the revocation is in force.
func (h *hostile) revoke(ctx context.Context, r *mathrand.Rand, operator *client.Client, s *session) bool {
	which := client.Selector{DBUser: s.pass.user, Cluster: cluster}
	if r.IntN(2) == 0 {
		seen := h.find(ctx, operator, s)
		if seen == nil {
			return false
		}
		which = client.Selector{CredentialID: seen.CredentialID}
	}
	begin := time.Now()
	if _, err := operator.Revoke(ctx, which); err != nil {
		if ctx.Err() == nil {
			h.ledger.failed(classCall, "RevokeCredentials", begin, err)
		}
		return false
	}
	answered := time.Now()
	h.ledger.done(classCall, "credentials revoked", begin)
	h.mustEnd(ctx, s, begin, "sessions ended by revocation")
	if pause(ctx, time.Until(answered.Add(revokedWithin))) {
		h.stayOut(ctx, s.pass)
	}
	// A credential issued in a later second is not affected.
	if p := h.issuer.issue(ctx, s.pass.wish); p != nil {
		if again := h.gate.logon(ctx, p, false, pgx.QueryExecModeExec); again != nil {
			h.ledger.count("logons with a new credential after a revocation", 1)
			again.leave(false)
		}
	}
	return true
}

// mustEnd waits for the end of a session, which must come in time.
func (h *hostile) mustEnd(ctx context.Context, s *session, begin time.Time, name string) {
	for ctx.Err() == nil {
		_, err := s.Exec(ctx, "select 1")
		var said *pgconn.PgError
		switch {
		case errors.As(err, &said) && said.Code == "57P01" || err != nil && s.IsClosed():
			h.ledger.done(classCall, name, begin)
			return
		case time.Since(begin) > endedWithin:
			h.ledger.violate("a session went on", "%s: %v after it was to end", s.pass.logon, time.Since(begin).Round(time.Millisecond))
			return
		}
		pause(ctx, 50*time.Millisecond)
	}
}

// stayOut tries a credential that was revoked and may have expired since. It must not work.
func (h *hostile) stayOut(ctx context.Context, p *pass) {
	begin := time.Now()
	conn, _, err := h.gate.connect(ctx, p, false, pgx.QueryExecModeExec)
	var said *pgconn.PgError
	switch {
	case err == nil:
		conn.Close(ctx)
		h.ledger.violate("a revoked credential let somebody in", "%s", p.logon)
	case ctx.Err() != nil:
	case errors.As(err, &said) && said.Code == "28000":
		h.ledger.done(classCall, "revoked credentials refused", begin)
	default:
		h.ledger.failed(classLogon, "the refusal of a revoked credential", begin, err)
	}
}
