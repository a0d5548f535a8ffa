package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/pgwire"
)

// connectError means that a host was not reached, or that its connection broke.
type connectError struct {
	reached  bool
	answered bool // a process of the server had, in the TLS handshake or in the authentication
	address  string
	err      error
}

func (e *connectError) Error() string { return e.address + ": " + e.err.Error() }
func (e *connectError) Unwrap() error { return e.err }

// wanted is the session that a logon needs.
type wanted struct {
	cluster   *Cluster
	role      dbuser.SessionRole
	database  string
	principal string // who asked for the credential
	params    []pgwire.Param
}

// connect logs on upstream, at the first of the cluster's hosts that accepts the session. The hosts
// share the time until the deadline of ctx. An error is a *serverError if a server refused,
// errNoPlace if it is starting too many sessions, else a *connectError. left are the connections to servers that
// may still be starting a session.
func (s *Server) connect(ctx context.Context, w *wanted) (up *upstream, left []abandoned, err error) {
	list, attrs := targets(w.cluster.Upstream), w.cluster.TargetSessionAttrs
	up, left, err = s.connectAny(ctx, w, list, attrs)
	if err != nil && attrs == "prefer-standby" {
		var more []abandoned
		up, more, err = s.connectAny(ctx, w, list, "any")
		left = append(left, more...)
	}
	return up, left, err
}

func (s *Server) connectAny(ctx context.Context, w *wanted, list []*target, attrs string) (_ *upstream, left []abandoned, _ error) {
	var first, refused error
	over := "" // the address of a server that has refused, or has not answered
	list = s.silent.order(list, w.database)
	last := list[len(list)-1].address
	for i, t := range list {
		if t.address == over {
			continue // its other entry differs in TLS only
		}
		deadline, _ := ctx.Deadline()
		share := time.Until(deadline) / time.Duration(servers(list[i:]))
		if limit := w.cluster.Upstream.ConnectTimeout; limit > 0 && limit < share {
			share = limit
		}
		if t.address != last {
			share = min(share, silenceLimit)
		}
		up, still, err := s.connectTo(t, time.Now().Add(share), w, attrs)
		if err == nil {
			return up, left, nil
		}
		left = append(left, still...)
		if first == nil {
			first = err
		}
		if ctx.Err() != nil {
			break
		}
		if wrong := (*identityError)(nil); errors.As(err, &wrong) || errors.Is(err, pgwire.ErrForeignVerifier) {
			refused, over = cmp.Or(refused, err), t.address
			continue
		}
		said, ok := errors.AsType[*serverError](err)
		if !ok {
			if timedOut(err) || errors.Is(err, errNoPlace) {
				over = t.address
			}
			continue
		}
		switch {
		case said.state == pgwire.StateInvalidAuthorization && t.tls == nil:
			// pg_hba.conf may demand TLS, which the next target uses.
			continue
		case refused == nil && slices.Contains([]string{pgwire.StateInvalidAuthorization, pgwire.RefusedPassword, pgwire.StateUndefinedDatabase, pgwire.StateInsufficientRights}, said.state):
			// The error is about the session role, so every host should report the same. But
			// another host may accept the role: a standby learns of a new role a little later.
			refused = said
		}
		over = t.address
	}
	return nil, left, cmp.Or(refused, first)
}

// servers returns how many servers the targets lead to.
func servers(list []*target) int {
	n := 0
	for i, t := range list {
		if !slices.ContainsFunc(list[:i], func(other *target) bool { return other.address == t.address }) {
			n++
		}
	}
	return n
}

// connectTo logs on to one server, if it is of the kind that attrs demands. left is the connection, if
// the server may still be starting a session.
func (s *Server) connectTo(t *target, deadline time.Time, w *wanted, attrs string) (_ *upstream, left []abandoned, err error) {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	place, err := s.starting.take(ctx, t.address, w.database, w.principal)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", t.address, err)
	}
	given := false
	defer func() {
		if !given {
			place.leave()
		}
	}()
	up, err := s.logOnTo(ctx, t, w)
	if err == nil {
		if err = up.accept(attrs); err == nil {
			err = s.identify(w.cluster, up, w.role)
		}
		s.silent.note(t, w.database, err)
		if err != nil {
			up.Close()
			return nil, nil, err
		}
		return up, nil, nil
	}
	s.silent.note(t, w.database, err)
	if answeredOnce(err) && timedOut(err) {
		given = true
		place.give()
		return nil, []abandoned{{up.Conn, place}}, err
	}
	if up != nil {
		if refusedWith(err, pgwire.StateTooManyConnections) {
			// The process counts towards the limits of its database and role until it has exited, so the
			// next attempt could be refused because of it.
			_ = up.SetDeadline(time.Now().Add(closeTime))
			up.Drain()
		}
		up.Abort()
	}
	return nil, nil, err
}

// answeredOnce reports whether a process of the server had answered before the error.
func answeredOnce(err error) bool {
	failed, ok := errors.AsType[*connectError](err)
	return ok && failed.answered
}

// logOnTo connects to one server and logs on. It returns the connection with the error, if there is one.
func (s *Server) logOnTo(ctx context.Context, t *target, w *wanted) (*upstream, error) {
	conn, err := s.reach(ctx, t)
	if err != nil {
		return nil, &connectError{address: t.address, err: err}
	}
	up := &upstream{Conn: conn, target: t.at(conn.RemoteAddr()), status: map[string]string{}, answered: conn.TLS() != nil}
	if err := up.logon(w.role, w.database, w.params); err != nil {
		if said, ok := errors.AsType[*serverError](err); ok {
			return up, said
		}
		return up, &connectError{reached: true, answered: up.answered, address: t.address, err: err}
	}
	return up, nil
}
