//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/client"
)

// operator returns a client that revokes and lists through the balancer.
func (v *several) operator() (*client.Client, error) {
	return client.New(client.Config{
		Endpoint: "http://" + v.stack.API, Region: region, UserAgent: "soak",
		Credentials: credentials.NewStaticCredentialsProvider(accessKeyID, secretKey, ""),
		HTTP:        &http.Client{Transport: v.issuer.transport, Timeout: 30 * time.Second},
	})
}

// revocationSeen is how soon after its confirmation a revocation has to be in force everywhere.
const revocationSeen = 2 * time.Second

// revoker revokes credentials, and tries them at each server.
func (v *several) revoker(ctx context.Context, r *mathrand.Rand, first int) {
	operator, err := v.operator()
	if err != nil {
		v.ledger.violate("soak", "making a client: %v", err)
		return
	}
	for pause(ctx, between(r, time.Second, 6*time.Second)) {
		p := v.issuer.issue(ctx, wish{user: fmt.Sprintf("undone%d", first+r.IntN(3)), create: true})
		if p == nil {
			continue
		}
		s := v.gate.logon(ctx, p, r.IntN(2) == 0, pgx.QueryExecModeExec)
		if s == nil {
			continue
		}
		v.gate.forget(s)
		v.revoke(ctx, operator, s, p)
		s.leave(true)
		v.mu.Lock()
		var old *pass
		if len(v.revoked) > 0 {
			old = v.revoked[r.IntN(len(v.revoked))]
		}
		v.mu.Unlock()
		if old != nil {
			v.stayOut(ctx, old)
		}
	}
}

func (v *several) revoke(ctx context.Context, operator *client.Client, s *session, p *pass) {
	v.restoring.RLock()
	begin := time.Now()
	err := v.again(ctx, classCall, func(ctx context.Context) error {
		_, err := operator.Revoke(ctx, client.Selector{DBUser: p.user, Cluster: cluster})
		return err
	})
	answered := time.Now()
	v.restoring.RUnlock()
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		v.ledger.failed(classCall, "RevokeCredentials", begin, err)
		return
	}
	v.ledger.done(classCall, "credentials revoked", begin)
	if pause(ctx, time.Until(answered.Add(revocationSeen))) {
		v.stayOut(ctx, p)
		v.mu.Lock()
		v.revoked = append(v.revoked, p)
		v.mu.Unlock()
	}
	v.mustEndSoon(ctx, s, answered)
	if next := v.issuer.issue(ctx, p.wish); next != nil && next.expires.After(p.expires.Add(time.Second)) {
		if again := v.gate.logon(ctx, next, false, pgx.QueryExecModeExec); again != nil {
			v.ledger.count("logons with a new credential after a revocation", 1)
			again.leave(false)
		}
	}
}

// mustEndSoon waits for the end of a session whose credential was revoked. A server that is cut off
// from etcd, or frozen, ends it when it is back.
func (v *several) mustEndSoon(ctx context.Context, s *session, since time.Time) {
	base := since
	for ctx.Err() == nil {
		limited, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, err := s.Exec(limited, "select 1")
		over := limited.Err() != nil
		cancel()
		if err != nil && (s.IsClosed() && !over) {
			v.ledger.done(s.class, "sessions ended by revocation", since)
			return
		}
		if over {
			return // it hangs because its server does, and pgx has given up
		}
		if v.troubled(s.class, base, time.Now()) || v.blocked(base, time.Now()) {
			base = time.Now()
		}
		if time.Since(base) > endedWithin+v.control.slack(base) {
			v.ledger.violate("a session went on", "%s, server %d: %v after it was to end", s.pass.logon, s.slot(), time.Since(since).Round(time.Millisecond))
			return
		}
		pause(ctx, 50*time.Millisecond)
	}
}

// stayOut tries a credential that must not work, at the balancer and at each server.
func (v *several) stayOut(ctx context.Context, p *pass) {
	ports := []int{v.stack.front.port()}
	for _, s := range v.servers {
		ports = append(ports, portOf(s.gateway))
	}
	var all sync.WaitGroup
	for _, port := range ports {
		all.Go(func() {
			limited, cancel := context.WithTimeout(ctx, tryPatience)
			defer cancel()
			begin := time.Now()
			conn, a, err := v.gate.connectTo(limited, port, p, false, pgx.QueryExecModeExec)
			var said *pgconn.PgError
			switch {
			case err == nil:
				conn.Close(limited)
				v.ledger.violate("a revoked credential let somebody in", "%s as %s at port %d, tried %v", p.logon, a.name, port, begin.Format(time.TimeOnly))
			case errors.As(err, &said) && said.Code == "28000":
				v.ledger.done(classCall, "revoked credentials refused", begin)
			default:
				v.ledger.count("revoked credentials tried where no one answered", 1)
			}
		})
	}
	all.Wait()
}

// lister asks for the sessions of all servers, and compares the answer with what clients have.
func (v *several) lister(ctx context.Context, r *mathrand.Rand) {
	operator, err := v.operator()
	if err != nil {
		v.ledger.violate("soak", "making a client: %v", err)
		return
	}
	for pause(ctx, between(r, 500*time.Millisecond, 4*time.Second)) {
		v.list(ctx, operator)
	}
}

func (v *several) opened() map[*session]bool {
	v.gate.mu.Lock()
	defer v.gate.mu.Unlock()
	open := map[*session]bool{}
	for s := range v.gate.open {
		open[s] = true
	}
	return open
}

func (v *several) list(ctx context.Context, operator *client.Client) {
	var before, after map[*session]bool
	var begin time.Time
	var list []client.Session
	var unanswered []string
	err := v.again(ctx, classCall, func(ctx context.Context) (err error) {
		before, begin = v.opened(), time.Now()
		list, unanswered, err = operator.Sessions(ctx, cluster, "")
		return err
	})
	end := time.Now()
	after = v.opened()
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		v.ledger.failed(classCall, "ListSessions", begin, err)
		return
	}
	v.ledger.done(classCall, "lists of sessions", begin)
	times, ids := map[string]int{}, map[string]bool{}
	for _, one := range list {
		if ids[one.ID] {
			v.ledger.violate("sessions are not told right", "session %s is listed twice", one.ID)
		}
		ids[one.ID] = true
		times[one.ApplicationName]++
		v.gate.mu.Lock()
		a := v.gate.attempts[one.ApplicationName]
		long := a != nil && !a.left.IsZero() && begin.Sub(a.left) > endedWithin+v.control.slack(a.left)
		v.gate.mu.Unlock()
		if long && !v.absent(a.left, end) {
			v.ledger.violate("sessions are not told right", "%s is listed %v after its client left", one.ApplicationName, begin.Sub(a.left).Round(time.Millisecond))
		}
	}
	var missing []*session
	for s := range before {
		if !after[s] || v.ledger.lost(s.class, s.attempt.began, end) {
			continue
		}
		switch n := times[s.attempt.name]; {
		case n == 1:
			v.ledger.count("sessions found in a list", 1)
		case n > 1:
			v.ledger.violate("sessions are not told right", "%s is listed %d times", s.attempt.name, n)
		case len(unanswered) > 0 && v.troubled(s.class, begin.Add(-time.Second), end):
			v.ledger.count("sessions of a server that was named as not answering", 1)
		default:
			missing = append(missing, s)
		}
	}
	// A session that is missing may have ended just now, which its client learns in a moment.
	if len(missing) > 0 && pause(ctx, time.Second+v.control.slack(begin)) {
		after = v.opened()
		for _, s := range missing {
			if after[s] && !v.ledger.lost(s.class, s.attempt.began, time.Now()) {
				v.ledger.violate("sessions are not told right", "%s, server %d, is not listed; not answering: %v", s.attempt.name, s.slot(), unanswered)
			}
		}
	}
	if len(unanswered) > 0 {
		v.ledger.count("lists that named a server", 1)
		// A server that stops while etcd is away cannot take its announcement back.
		if !v.absent(begin.Add(-announced), end) && !v.blocked(begin.Add(-announced), end) {
			v.ledger.violate("sessions are not told right", "%v did not answer, and no server was dead", unanswered)
		}
	}
}

// announced bounds how long a dead server may count as alive. Its announcement ends with its lease
// after 10 s, and counts for at most 15 s without an update. The rest is a margin.
const announced = 20 * time.Second

// lost reports whether the sessions of a class that existed at a time were lost to a fault.
func (l *ledger) lost(c class, begin, end time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.excuses, func(e *excuse) bool { return e.covers(c, begin, end) })
}
