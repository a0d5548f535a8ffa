//go:build linux

package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/smithy-go"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// control measures how slow the machine is: how long a direct logon at PostgreSQL takes, without
// Daypass. It is safe for concurrent use.
type control struct {
	mu      sync.Mutex
	samples []sample
	stalls  []sample // times in which this process did not run
}

// stall is the least time without running that counts as a stall.
const stall = time.Second

// watch records stalls until ctx ends: the machine stood still, or ran others. No bound here allows
// for that, so the report names the stalls beside the violations.
func (c *control) watch(ctx context.Context) {
	for last := time.Now(); pause(ctx, stall/20); last = time.Now() {
		if now := time.Now(); now.Sub(last) > stall {
			c.mu.Lock()
			c.stalls = append(c.stalls, sample{last, now})
			c.mu.Unlock()
		}
	}
}

// stalled returns how long this process did not run between two times.
func (c *control) stalled(begin, end time.Time) (total, longest time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.stalls {
		if s.end.After(begin) && s.begin.Before(end) {
			took := s.end.Sub(s.begin)
			total, longest = total+took, max(longest, took)
		}
	}
	return total, longest
}

// slackFactor is how many times slower a logon through the balancer may be than a direct one. It
// also needs the gateway, etcd and the administrative connection.
const slackFactor = 10

func (c *control) run(ctx context.Context, s *stack) {
	for pause(ctx, 250*time.Millisecond) {
		begin := time.Now()
		conn, err := s.superuser(ctx, "postgres")
		if err != nil {
			continue
		}
		_, _ = conn.Exec(ctx, "select 1")
		conn.Close(ctx)
		c.mu.Lock()
		c.samples = append(c.samples, sample{begin, time.Now()})
		c.mu.Unlock()
	}
}

// slack returns how much longer a bound is for something that began at the given time and has not
// ended.
func (c *control) slack(since time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	var longest time.Duration
	for _, s := range slices.Backward(c.samples) {
		if s.end.Before(since.Add(-time.Second)) {
			break
		}
		longest = max(longest, s.end.Sub(s.begin))
	}
	return slackFactor * longest
}

func (c *control) percentile(p int) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []time.Duration
	for _, s := range c.samples {
		list = append(list, s.end.Sub(s.begin))
	}
	return percentile(list, p)
}

// Faults during which logons are refused by design, because etcd has no majority.
var blocking = []string{"etcd without a majority", "etcd restored from a snapshot"}

func (v *several) blocked(begin, end time.Time) bool {
	return slices.ContainsFunc(blocking, func(kind string) bool { return v.ledger.active(kind, begin, end) })
}

// again repeats an attempt as a client does, until it succeeds, its answer is final, or its time is
// up. The time does not run during an outage of etcd.
func (v *several) again(ctx context.Context, c class, once func(context.Context) error) error {
	begin := time.Now()
	base := begin
	for {
		at := time.Now()
		limited, cancel := context.WithTimeout(ctx, tryPatience+v.control.slack(at))
		err := once(limited)
		cancel()
		if ctx.Err() != nil {
			return err
		}
		if err == nil {
			if c == classLogon {
				v.mu.Lock()
				v.logons = append(v.logons, sample{begin, time.Now()})
				v.mu.Unlock()
			}
			return nil
		}
		how, final := outcome(err)
		v.mu.Lock()
		v.tries[c.String()+": "+how]++
		v.mu.Unlock()
		if final {
			return err
		}
		if v.blocked(at, time.Now()) {
			base = time.Now()
		}
		if time.Since(base) > within+v.control.slack(base) {
			return fmt.Errorf("after %v of trying: %w", time.Since(base).Round(time.Millisecond), err)
		}
		pause(ctx, 200*time.Millisecond)
	}
}

// outcome names how an attempt failed, and reports whether a client would take that as the final
// answer.
func outcome(err error) (how string, final bool) {
	var said *pgconn.PgError
	var failed smithy.APIError
	var status interface{ HTTPStatusCode() int }
	switch {
	case errors.As(err, &said):
		again := strings.HasPrefix(said.Code, "57P") || said.Code == "53300"
		return said.Code, !again
	case errors.As(err, &status) && status.HTTPStatusCode() >= 400 && errors.As(err, &failed):
		return failed.ErrorCode(), status.HTTPStatusCode() < 500
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time", false
	}
	return "no connection", false
}

// signerOf returns the identifier of the key that signed a credential.
func signerOf(p *pass) string {
	token, err := base64.RawURLEncoding.DecodeString(p.password)
	if err != nil {
		return ""
	}
	_, after, found := strings.Cut(string(token), "\x04\x48") // 4: an identifier of 8 bytes
	if !found || len(after) < 8 {
		return ""
	}
	return fmt.Sprintf("%x", after[:8])
}

// isVoid reports whether the key of a credential was revoked.
func (v *several) isVoid(p *pass) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, void := v.voided[signerOf(p)]
	return void
}

// work runs the load until ctx ends.
func (v *several) work(ctx context.Context) {
	var all sync.WaitGroup
	start := func(name string, n int, actor func(context.Context, *mathrand.Rand)) {
		for i := range n {
			all.Go(func() { actor(ctx, random(v.seed, fmt.Sprint(name, i))) })
		}
	}
	start("worker", 6, v.worker)
	start("sitter", 20, v.sitter)
	start("stayer", 3, v.stayer)
	start("interrupter", 3, v.interrupter)
	start("copier", 1, v.copier)
	start("crowd", 1, v.crowd)
	for i := range 2 { // each has users of its own, whose credentials only it revokes
		all.Go(func() { v.revoker(ctx, random(v.seed, fmt.Sprint("revoker", i)), 3*i) })
	}
	start("lister", 1, v.lister)
	start("counter", 1, v.counter)
	all.Wait()
}

// sitter keeps a session for up to 36 s and runs a query now and then.
func (v *several) sitter(ctx context.Context, r *mathrand.Rand) {
	for pause(ctx, between(r, 0, 5*time.Second)) {
		p := v.issuer.issue(ctx, someone(r))
		if p == nil {
			continue
		}
		s := v.gate.logon(ctx, p, r.IntN(2) == 0, pgx.QueryExecModeExec)
		if s == nil {
			continue
		}
		for range 3 {
			if !pause(ctx, between(r, 2*time.Second, 12*time.Second)) || !s.identity(ctx) {
				break
			}
			v.ledger.count("long idle times survived", 1)
		}
		s.leave(r.IntN(4) == 0)
	}
}

// stayer waits for the end that session_limits.total sets.
func (v *several) stayer(ctx context.Context, r *mathrand.Rand) {
	for pause(ctx, between(r, 0, 5*time.Second)) {
		p := v.issuer.issue(ctx, someone(r))
		if p == nil {
			continue
		}
		begin := time.Now()
		s := v.gate.logon(ctx, p, r.IntN(2) == 0, pgx.QueryExecModeExec)
		if s == nil {
			continue
		}
		in := time.Now() // a logon can have waited for etcd
		limited, cancel := context.WithTimeout(ctx, sessionTotal+time.Minute)
		_, err := s.PgConn().ReceiveMessage(limited)
		for err == nil {
			_, err = s.PgConn().ReceiveMessage(limited)
		}
		over := limited.Err() != nil
		cancel()
		s.gate.gone(s)
		took, stayed := time.Since(begin), time.Since(in)
		var said *pgconn.PgError
		switch {
		case ctx.Err() != nil:
		case over || stayed > sessionTotal+endedWithin+v.control.slack(begin) && !v.troubled(s.class, begin.Add(sessionTotal).Add(-time.Second), time.Now()):
			v.ledger.violate("a session went on", "%s was there after %v, the limit is %v", p.logon, stayed.Round(time.Second), sessionTotal)
		case took < sessionTotal-time.Second:
			v.ledger.failed(s.class, "staying in a session of "+p.logon, begin, err)
		case errors.As(err, &said) && said.Code == "57P01":
			v.ledger.count("sessions ended at their time", 1)
		default:
			v.ledger.failed(s.class, "being told of the end of a session of "+p.logon, begin, err)
		}
		s.PgConn().Conn().Close()
	}
}

// Kinds of trouble in which the processes of a server cannot answer.
var dead = []string{"a server killed", "a server frozen"}

// absent reports whether a server was dead or frozen between two times.
func (v *several) absent(begin, end time.Time) bool {
	return slices.ContainsFunc(dead, func(kind string) bool { return v.ledger.active(kind, begin, end) })
}

// unheard reports whether a request to cancel may have been lost since a time: a server was dead,
// or none was ready because of an outage of etcd, so that the balancer could not forward the
// request. It allows for the time that the balancer needs to notice that an outage began or ended.
func (v *several) unheard(since time.Time) bool {
	const notice = 2 * (checkInterval + checkTimeout)
	return v.absent(since.Add(-notice), time.Now()) || v.blocked(since.Add(-notice), time.Now())
}

// interrupter cancels queries through the balancer, which sends most of these requests to a server
// that does not have the session. Like a person it tries again when nothing happens, but the first
// request has to work unless some server is dead.
func (v *several) interrupter(ctx context.Context, r *mathrand.Rand) {
	const again = 2 * time.Second
	for pause(ctx, between(r, 500*time.Millisecond, 3*time.Second)) {
		p := v.issuer.issue(ctx, someone(r))
		if p == nil {
			continue
		}
		s := v.gate.logon(ctx, p, r.IntN(2) == 0, pgx.QueryExecModeExec)
		if s == nil {
			continue
		}
		for range 1 + r.IntN(3) {
			begin := time.Now()
			var pressed []time.Time
			ok := s.do(ctx, "queries cancelled", func(ctx context.Context) error {
				over, stop := make(chan struct{}), make(chan struct{})
				go func() {
					defer close(stop)
					v.runs(ctx, s, over)
					wait := between(r, 0, 300*time.Millisecond)
					for {
						select {
						case <-over:
							return
						case <-time.After(wait):
						}
						at := time.Now()
						limited, cancel := context.WithTimeout(ctx, again)
						_ = s.PgConn().CancelRequest(limited)
						late := limited.Err() != nil
						cancel()
						if late {
							pause(ctx, stall/4) // until the stall has been recorded
						}
						if _, longest := v.control.stalled(at, time.Now()); late && longest > 0 {
							v.ledger.count("requests to cancel not sent because the machine stood still", 1)
							wait = 0
							continue
						}
						pressed = append(pressed, at)
						wait = again + v.control.slack(begin)
					}
				}()
				_, err := s.Exec(ctx, "select pg_sleep(29)")
				close(over)
				<-stop
				if said, ok := errors.AsType[*pgconn.PgError](err); ok && said.Code == "57014" {
					return nil
				}
				if err == nil && !v.unheard(begin) {
					return wrong("a query was not cancelled, although asked to %d times", len(pressed))
				}
				return err
			})
			if !ok || ctx.Err() != nil || len(pressed) == 0 {
				break
			}
			took := time.Since(pressed[0])
			v.ledger.slowest("the longest time from the first Ctrl-C to the end of the query", took)
			if len(pressed) > 1 {
				v.ledger.count("queries cancelled at the second Ctrl-C or later", 1)
			}
			if allowed := cancelledWithin + v.control.slack(begin); (len(pressed) > 1 || took > allowed) && !v.unheard(begin) {
				v.ledger.violate("a Ctrl-C did not arrive", "%s, server %d: %d requests, cancelled after %v", p.logon, s.slot(), len(pressed), took.Round(time.Millisecond))
			}
			if !s.identity(ctx) {
				break
			}
		}
		s.leave(false)
	}
}

// runs waits until the query of a session runs, since a request to cancel has no effect before.
func (v *several) runs(ctx context.Context, s *session, over <-chan struct{}) {
	su, err := v.stack.superuser(ctx, "postgres")
	if err != nil {
		return
	}
	defer su.Close(context.WithoutCancel(ctx))
	for pause(ctx, 20*time.Millisecond) {
		select {
		case <-over:
			return
		default:
		}
		var running bool
		err := su.QueryRow(ctx, "select count(*) > 0 from pg_stat_activity where pid = $1 and state = 'active' and query like '%pg_sleep%'", s.PgConn().PID()).Scan(&running)
		if running || err != nil {
			return
		}
	}
}

// slot returns which of several servers has the session.
func (s *session) slot() int {
	for i := range serverCount {
		if s.class == classSession<<i {
			return i
		}
	}
	return -1
}

// troubled reports whether a fault that concerns the server of a class was active.
func (v *several) troubled(c class, begin, end time.Time) bool {
	v.ledger.mu.Lock()
	defer v.ledger.mu.Unlock()
	return slices.ContainsFunc(v.ledger.excuses, func(e *excuse) bool {
		return e.concerns&c != 0 && end.After(e.begin) && (e.end.IsZero() || begin.Before(e.end))
	})
}
