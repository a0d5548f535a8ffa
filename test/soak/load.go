//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// load is the honest use of Daypass.
type load struct {
	stack  *stack
	ledger *ledger
	issuer *issuer
	gate   *gate
	seed   uint64
	tables atomic.Int64

	tenancies *tenancies
}

// random gives each actor its own random numbers, so that its actions depend on the seed alone.
func random(seed uint64, actor string) *rand.Rand {
	var hash uint64 = 14695981039346656037 // FNV-1a
	for _, b := range []byte(actor) {
		hash = (hash ^ uint64(b)) * 1099511628211
	}
	return rand.New(rand.NewPCG(seed, hash))
}

// pause waits, and reports whether the run continues.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

func between(r *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(r.Int64N(int64(most-least)))
}

// run runs the load until ctx ends. Sessions end with it.
func (l *load) run(ctx context.Context) {
	var all sync.WaitGroup
	for i := range 6 {
		all.Go(func() { l.worker(ctx, random(l.seed, fmt.Sprint("worker", i))) })
	}
	for i := range 20 {
		all.Go(func() { l.idler(ctx, random(l.seed, fmt.Sprint("idler", i))) })
	}
	all.Go(func() { l.raw(ctx, random(l.seed, "raw")) })
	all.Go(func() { l.canceller(ctx, random(l.seed, "canceller")) })
	all.Go(func() { l.copier(ctx, random(l.seed, "copier")) })
	all.Go(func() { l.crowd(ctx, random(l.seed, "crowd")) })
	for i := range 4 {
		all.Go(func() { l.tenants(ctx, random(l.seed, fmt.Sprint("tenant", i))) })
	}
	all.Go(func() { l.watchTenancies(ctx) })
	all.Wait()
}

// someone returns a random wish.
func someone(r *rand.Rand) wish {
	w := wish{user: userName(r.IntN(users)), any: r.IntN(5) == 0, create: r.IntN(4) == 0}
	if r.IntN(6) == 0 {
		w.user, w.create = newcomerName(r.IntN(newcomers)), true
	}
	if r.IntN(2) == 0 {
		for i := range groups {
			if r.IntN(4) == 0 {
				w.groups = append(w.groups, groupName(i))
			}
		}
	}
	return w
}

var modes = []pgx.QueryExecMode{pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeDescribeExec}

// worker takes a credential, uses it for a few sessions, and starts over.
func (l *load) worker(ctx context.Context, r *rand.Rand) {
	for pause(ctx, between(r, 200*time.Millisecond, 1200*time.Millisecond)) {
		p := l.issuer.issue(ctx, someone(r))
		if p == nil {
			continue
		}
		for range 1 + r.IntN(3) {
			s := l.gate.logon(ctx, p, r.IntN(3) > 0, modes[r.IntN(len(modes))])
			if s == nil {
				break
			}
			for range r.IntN(8) {
				if !l.work(ctx, s, r) || !pause(ctx, between(r, 0, 200*time.Millisecond)) {
					break
				}
			}
			s.leave(r.IntN(10) == 0)
		}
	}
}

// work does one of the things that people do in sessions.
func (l *load) work(ctx context.Context, s *session, r *rand.Rand) bool {
	switch n := r.IntN(20); {
	case n < 4:
		return s.identity(ctx)
	case n < 9:
		return s.rows(ctx, r.IntN(groups))
	case n < 11:
		return s.diary(ctx)
	case n < 13:
		return l.transaction(ctx, s, r)
	case n < 15:
		return l.mistake(ctx, s)
	case n < 17:
		return l.large(ctx, s, r)
	case n < 18:
		return l.create(ctx, s, r)
	default:
		return s.do(ctx, "session settings changed and reset", func(ctx context.Context) error {
			if _, err := s.Exec(ctx, "set statement_timeout = '1h'"); err != nil {
				return err
			}
			_, err := s.Exec(ctx, "reset all")
			return err
		})
	}
}

func (l *load) transaction(ctx context.Context, s *session, r *rand.Rand) bool {
	return s.do(ctx, "transactions", func(ctx context.Context) error {
		tx, err := s.Begin(ctx)
		if err != nil {
			return err
		}
		defer tx.Rollback(ctx)
		if _, err := tx.Exec(ctx, "create temp table if not exists work (n int)"); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "truncate work"); err != nil {
			return err
		}
		n, total := r.IntN(500), 0
		if _, err := tx.Exec(ctx, "insert into work select generate_series(1, $1::int)", n); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, "select coalesce(sum(n), 0) from work").Scan(&total); err != nil {
			return err
		}
		if total != n*(n+1)/2 {
			return wrong("the sum to %d is %d", n, total)
		}
		return tx.Commit(ctx)
	})
}

// mistake causes an error, which must arrive unchanged and leave the session alive.
func (l *load) mistake(ctx context.Context, s *session) bool {
	return s.do(ctx, "errors passed on", func(ctx context.Context) error {
		_, err := s.Exec(ctx, "select 1/0")
		var said *pgconn.PgError
		switch {
		case err == nil:
			return wrong("1/0 has an answer")
		case errors.As(err, &said) && said.Code == "22012":
			return nil
		}
		return err
	})
}

func (l *load) large(ctx context.Context, s *session, r *rand.Rand) bool {
	return s.do(ctx, "large results", func(ctx context.Context) error {
		n := 1000 + r.IntN(10000)
		rows, err := s.Query(ctx, "select i, md5(i::text) from generate_series(1, $1::int) i", n)
		if err != nil {
			return err
		}
		defer rows.Close()
		var i, count int
		var hash string
		for rows.Next() {
			if err := rows.Scan(&i, &hash); err != nil {
				return err
			}
			if count++; i != count || len(hash) != 32 {
				return wrong("row %d of a large result is %d", count, i)
			}
		}
		if err := rows.Err(); err != nil {
			return err
		}
		if count != n {
			return wrong("%d rows of %d", count, n)
		}
		return nil
	})
}

// create leaves a table behind, which must belong to the user in the end.
func (l *load) create(ctx context.Context, s *session, r *rand.Rand) bool {
	return s.do(ctx, "tables created", func(ctx context.Context) error {
		name := fmt.Sprintf("own_%s_%d", s.pass.user, l.tables.Add(1))
		if r.IntN(3) == 0 { // as the session role itself
			if _, err := s.Exec(ctx, "set role none"); err != nil {
				return err
			}
			defer s.Exec(ctx, "reset role")
		}
		_, err := s.Exec(ctx, "create table "+name+" (n int)")
		return err
	})
}

// idler keeps a session for minutes and runs a query now and then.
func (l *load) idler(ctx context.Context, r *rand.Rand) {
	for pause(ctx, between(r, 0, 5*time.Second)) {
		p := l.issuer.issue(ctx, someone(r))
		if p == nil {
			continue
		}
		s := l.gate.logon(ctx, p, r.IntN(2) == 0, pgx.QueryExecModeExec)
		if s == nil {
			continue
		}
		for range 3 {
			if !pause(ctx, between(r, 10*time.Second, 3*time.Minute)) || !s.identity(ctx) {
				break
			}
			l.ledger.count("long idle times survived", 1)
		}
		s.leave(r.IntN(4) == 0)
	}
}

// cancelledWithin bounds the time from the start of a query to the end of its cancellation.
const cancelledWithin = 10 * time.Second

// canceller cancels its own queries.
func (l *load) canceller(ctx context.Context, r *rand.Rand) {
	for pause(ctx, between(r, time.Second, 6*time.Second)) {
		p := l.issuer.issue(ctx, someone(r))
		if p == nil {
			continue
		}
		s := l.gate.logon(ctx, p, r.IntN(2) == 0, pgx.QueryExecModeExec)
		if s == nil {
			continue
		}
		begin := time.Now()
		var lost error // the cancel request needs a connection of its own, as a logon does
		s.do(ctx, "queries cancelled", func(ctx context.Context) error {
			asked := make(chan error, 1)
			go func() {
				time.Sleep(between(r, 100*time.Millisecond, 400*time.Millisecond))
				asked <- s.PgConn().CancelRequest(ctx)
			}()
			_, err := s.Exec(ctx, "select pg_sleep(25)")
			cancelled := <-asked
			var said *pgconn.PgError
			switch took := time.Since(begin); {
			case errors.As(err, &said) && said.Code == "57014":
				if took > cancelledWithin {
					lost = fmt.Errorf("cancelled after %v", took)
				}
				return nil
			case err == nil:
				lost = fmt.Errorf("not cancelled; the request: %v", cancelled)
			}
			return err
		})
		if lost != nil && ctx.Err() == nil {
			l.ledger.failed(classLogon, "a request to cancel", begin, lost)
		}
		s.identity(ctx)
		s.leave(false)
	}
}

// copier copies rows in and out, and compares them.
func (l *load) copier(ctx context.Context, r *rand.Rand) {
	for pause(ctx, between(r, 2*time.Second, 8*time.Second)) {
		p := l.issuer.issue(ctx, someone(r))
		if p == nil {
			continue
		}
		s := l.gate.logon(ctx, p, r.IntN(2) == 0, pgx.QueryExecModeExec)
		if s == nil {
			continue
		}
		s.do(ctx, "COPY in and out", func(ctx context.Context) error {
			var in, out bytes.Buffer
			n := 1000 + r.IntN(30000)
			for i := range n {
				fmt.Fprintf(&in, "%d\t%s\n", i, strings.Repeat(string(rune('a'+i%26)), i%60))
			}
			sent := slices.Clone(in.Bytes())
			if _, err := s.Exec(ctx, "create temp table copied (n int, word text)"); err != nil {
				return err
			}
			if _, err := s.PgConn().CopyFrom(ctx, &in, "copy copied from stdin"); err != nil {
				return err
			}
			if _, err := s.PgConn().CopyTo(ctx, &out, "copy (select * from copied order by n) to stdout"); err != nil {
				return err
			}
			if !bytes.Equal(sent, out.Bytes()) {
				return wrong("%d bytes went in by COPY, %d came out, not the same", len(sent), out.Len())
			}
			return nil
		})
		s.leave(false)
	}
}

// crowd logs on many times at once with one credential, sometimes a newcomer's.
func (l *load) crowd(ctx context.Context, r *rand.Rand) {
	for pause(ctx, between(r, 15*time.Second, 40*time.Second)) {
		p := l.issuer.issue(ctx, someone(r))
		if p == nil {
			continue
		}
		var all sync.WaitGroup
		for range 12 {
			secure := r.IntN(2) == 0
			all.Go(func() {
				if s := l.gate.logon(ctx, p, secure, pgx.QueryExecModeExec); s != nil {
					s.rows(ctx, 0)
					s.leave(false)
				}
			})
		}
		all.Wait()
	}
}

// raw speaks the protocol by hand: in small pieces, all at once, or without a Terminate message.
func (l *load) raw(ctx context.Context, r *rand.Rand) {
	for pause(ctx, between(r, 500*time.Millisecond, 2*time.Second)) {
		w := someone(r)
		p := l.issuer.issue(ctx, w)
		if p == nil {
			continue
		}
		begin := time.Now()
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "tcp", l.stack.front.address())
		if err == nil {
			a := l.gate.try(p)
			err = rawSession(conn, p, a.name, r)
			conn.Close()
			var said *rawError
			switch {
			case err == nil:
				l.gate.settle(a, "in")
			case errors.As(err, &said):
				l.gate.settle(a, said.code)
			}
		}
		var bad *wrongAnswer
		switch {
		case ctx.Err() != nil:
		case errors.As(err, &bad):
			l.ledger.violate("wrong answer in a session", "by hand, of %s %v: %s", p.logon, p.groups, bad.text)
		case err != nil:
			l.ledger.failed(classLogon, "raw session of "+p.logon, begin, err)
		default:
			l.ledger.done(classLogon, "logons, by hand", begin)
		}
	}
}
