//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"time"
)

// faults causes one fault after another, with pauses in between. The seed alone decides which
// faults, how and in what order.
type faults struct {
	*load
	watch     *watch
	calmAfter time.Time // after this time daypass is neither killed nor stopped
}

// fault is one kind of fault. weight is how often it comes in each round of all kinds.
type fault struct {
	name   string
	weight int
	ends   bool // the fault ends the daypass process
	do     func(*faults, context.Context, *rand.Rand) error
}

const (
	everything = classCall | classLogon | classSession
	onTheWire  = classLogon | classSession
)

// Work that begins within the recovery time after the end of a fault may still fail. The report
// has the measured times.
const (
	recoveryConnections = time.Second     // after connections were cut
	recoveryPostgres    = 5 * time.Second // after PostgreSQL is back
	recoveryDaypass     = time.Second     // after daypass listens again
	recoveryAudit       = 3 * time.Second // the writer tries every second by itself
)

var faultKinds = []fault{
	{"clients' connections cut", 4, false, func(f *faults, ctx context.Context, r *rand.Rand) error {
		return f.cut(r, f.stack.front, "clients' connections cut")
	}},
	{"upstream connections cut", 4, false, func(f *faults, ctx context.Context, r *rand.Rand) error {
		return f.cut(r, f.stack.upstream, "upstream connections cut")
	}},
	{"clients' connections half-closed", 3, false, func(f *faults, ctx context.Context, r *rand.Rand) error {
		return f.halfClose(ctx, r, f.stack.front, "clients' connections half-closed")
	}},
	{"upstream connections half-closed", 3, false, func(f *faults, ctx context.Context, r *rand.Rand) error {
		return f.halfClose(ctx, r, f.stack.upstream, "upstream connections half-closed")
	}},
	{"slow network", 4, false, (*faults).slow},
	{"short stall", 4, false, (*faults).shortStall},
	{"long stall, upstream", 2, false, (*faults).longStall},
	{"new connections refused, clients", 2, false, func(f *faults, ctx context.Context, r *rand.Rand) error {
		return f.refuse(ctx, r, f.stack.front, "new connections refused, clients")
	}},
	{"new connections refused, upstream", 2, false, func(f *faults, ctx context.Context, r *rand.Rand) error {
		return f.refuse(ctx, r, f.stack.upstream, "new connections refused, upstream")
	}},
	{"PostgreSQL stopped", 2, false, (*faults).stopPostgres},
	{"PostgreSQL crashed", 2, false, (*faults).crashPostgres},
	{"PostgreSQL frozen", 2, false, (*faults).freezePostgres},
	{"a backend killed", 2, false, (*faults).killBackend},
	{"daypass killed", 3, true, (*faults).killDaypass},
	{"daypass drained", 3, true, (*faults).drainDaypass},
	{"audit directory away", 3, false, (*faults).auditAway},
}

// run causes faults until ctx ends. In each round every kind comes as often as its weight, in
// random order.
func (f *faults) run(ctx context.Context, r *rand.Rand) {
	var bag []fault
	for pause(ctx, between(r, 2*time.Second, 8*time.Second)) {
		if len(bag) == 0 {
			for _, kind := range faultKinds {
				for range kind.weight {
					bag = append(bag, kind)
				}
			}
			r.Shuffle(len(bag), func(i, j int) { bag[i], bag[j] = bag[j], bag[i] })
		}
		next := bag[0]
		bag = bag[1:]
		// Each fault has its own random numbers, so that skipping one does not change the later
		// ones.
		own := rand.New(rand.NewPCG(r.Uint64(), r.Uint64()))
		if next.ends && time.Now().After(f.calmAfter) {
			continue
		}
		f.ledger.count("faults: "+next.name, 1)
		f.ledger.say("fault: %s", next.name)
		if err := next.do(f, ctx, own); err != nil && ctx.Err() == nil {
			f.ledger.violate("a fault did not go as it should", "%s: %v", next.name, err)
		}
	}
}

// during opens an excuse, causes the fault, and closes the excuse.
func (f *faults) during(kind string, classes class, grace time.Duration, do func() error) error {
	e := f.ledger.open(kind, classes, grace, time.Time{})
	defer f.ledger.close(e)
	return do()
}

func (f *faults) cut(r *rand.Rand, p *proxy, kind string) error {
	probability := []float64{0.1, 0.5, 2}[r.IntN(3)]
	return f.during(kind, onTheWire, recoveryConnections, func() error {
		for _, l := range p.some(r, probability) {
			f.ledger.count("connections cut", 1)
			l.cut()
		}
		return nil
	})
}

func (f *faults) halfClose(ctx context.Context, r *rand.Rand, p *proxy, kind string) error {
	return f.during(kind, onTheWire, recoveryConnections, func() error {
		for _, l := range p.some(r, 0.3) {
			f.ledger.count("connections half-closed", 1)
			if r.IntN(2) == 0 {
				l.near.CloseWrite()
			} else {
				l.far.CloseWrite()
			}
		}
		// The peer of a half-closed connection may need some seconds to notice.
		pause(ctx, 4*time.Second)
		return nil
	})
}

// slow delays and splits the traffic. No client may fail because of that, so it excuses no error.
// It is recorded so that the statistics leave out the logons during it.
func (f *faults) slow(ctx context.Context, r *rand.Rand) error {
	return f.during("slow network", 0, 0, func() error {
		p := f.either(r)
		p.change(func(w *weather) {
			w.delay = between(r, 5*time.Millisecond, 150*time.Millisecond)
			if r.IntN(2) == 0 {
				w.chop = 50 + r.IntN(2000)
				w.delay /= 20
			}
		})
		pause(ctx, between(r, 3*time.Second, 12*time.Second))
		p.calm()
		return nil
	})
}

// shortStall holds all traffic up for a moment. No client may fail because of that.
func (f *faults) shortStall(ctx context.Context, r *rand.Rand) error {
	return f.during("short stall", 0, 0, func() error {
		p := f.either(r)
		p.change(func(w *weather) { w.stall = make(chan struct{}) })
		pause(ctx, between(r, 100*time.Millisecond, 1800*time.Millisecond))
		p.calm()
		return nil
	})
}

// longStall holds all traffic up for longer than a logon may take. Sessions must survive it.
func (f *faults) longStall(ctx context.Context, r *rand.Rand) error {
	return f.during("long stall, upstream", classLogon, recoveryPostgres, func() error {
		f.stack.upstream.change(func(w *weather) { w.stall = make(chan struct{}) })
		pause(ctx, between(r, 4*time.Second, 14*time.Second))
		f.stack.upstream.calm()
		return nil
	})
}

func (f *faults) refuse(ctx context.Context, r *rand.Rand, p *proxy, kind string) error {
	return f.during(kind, classLogon, recoveryConnections, func() error {
		p.change(func(w *weather) { w.refuse = true })
		pause(ctx, between(r, 500*time.Millisecond, 5*time.Second))
		p.calm()
		return nil
	})
}

func (f *faults) either(r *rand.Rand) *proxy {
	if r.IntN(2) == 0 {
		return f.stack.front
	}
	return f.stack.upstream
}

// stopPostgres stops PostgreSQL for seconds. Issuing credentials needs no database and must
// continue.
func (f *faults) stopPostgres(ctx context.Context, r *rand.Rand) error {
	return f.during("PostgreSQL stopped", onTheWire, recoveryPostgres, func() error {
		if err := f.stack.postgres().Stop(); err != nil {
			return err
		}
		pause(ctx, between(r, 0, 8*time.Second))
		return f.stack.startPostgres(context.WithoutCancel(ctx))
	})
}

// crashPostgres makes PostgreSQL end without a checkpoint, and recover.
func (f *faults) crashPostgres(ctx context.Context, r *rand.Rand) error {
	return f.during("PostgreSQL crashed", onTheWire, recoveryPostgres, func() error {
		pid, err := f.stack.postmaster()
		if err != nil {
			return err
		}
		pg := f.stack.postgres()
		if err := syscall.Kill(pid, syscall.SIGQUIT); err != nil {
			return err
		}
		<-pg.Done()
		pause(ctx, between(r, 0, 3*time.Second))
		return f.stack.startPostgres(context.WithoutCancel(ctx))
	})
}

// freezePostgres keeps the server from starting sessions for a moment. Logons wait, and none may
// fail because of it.
func (f *faults) freezePostgres(ctx context.Context, r *rand.Rand) error {
	pid, err := f.stack.postmaster()
	if err != nil {
		return err
	}
	return f.during("PostgreSQL frozen", 0, 0, func() error {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			return err
		}
		pause(ctx, between(r, 200*time.Millisecond, 1800*time.Millisecond))
		return syscall.Kill(pid, syscall.SIGCONT)
	})
}

// killBackend kills one server process, after which PostgreSQL ends all sessions
// and recovers.
func (f *faults) killBackend(ctx context.Context, r *rand.Rand) error {
	return f.during("a backend killed", onTheWire, recoveryPostgres, func() error {
		conn, err := f.stack.superuser(ctx, "postgres")
		if err != nil {
			return err
		}
		var pid int
		err = conn.QueryRow(ctx, "select pg_backend_pid()").Scan(&pid)
		if err == nil {
			err = syscall.Kill(pid, syscall.SIGKILL)
		}
		conn.Close(ctx)
		if err != nil {
			return err
		}
		for range 200 {
			if !pause(ctx, 50*time.Millisecond) {
				return nil
			}
			if conn, err = f.stack.superuser(ctx, "postgres"); err == nil {
				return conn.Close(ctx)
			}
		}
		return fmt.Errorf("PostgreSQL did not recover: %w", err)
	})
}

func (f *faults) killDaypass(ctx context.Context, r *rand.Rand) error {
	return f.during("daypass killed", everything, recoveryDaypass, func() error {
		f.watch.look()
		if err := f.stack.endDaypass(syscall.SIGKILL, 5*time.Second, "killed"); err != nil {
			return err
		}
		pause(ctx, between(r, 0, 3*time.Second))
		return f.stack.startDaypass(context.WithoutCancel(ctx))
	})
}

// drainDaypass ends daypass as an operator does. Sessions continue until the drain limit.
func (f *faults) drainDaypass(ctx context.Context, r *rand.Rand) error {
	limit := f.ledger.open("daypass drained", classSession, recoveryDaypass, time.Now().Add(drain-200*time.Millisecond))
	defer f.ledger.close(limit)
	return f.during("daypass drained", classCall|classLogon, recoveryDaypass, func() error {
		f.watch.look()
		if err := f.stack.endDaypass(syscall.SIGTERM, drain+15*time.Second, "drained"); err != nil {
			return err
		}
		pause(ctx, between(r, 0, time.Second))
		return f.stack.startDaypass(context.WithoutCancel(ctx))
	})
}

// auditAway moves the audit log's directory away and puts a file in its place, which stops even
// root from writing. A logon or call that cannot be recorded must not succeed.
func (f *faults) auditAway(ctx context.Context, r *rand.Rand) error {
	dir, away := f.stack.auditDir(), f.stack.Path("audit-away")
	return f.during("audit directory away", classCall|classLogon, recoveryAudit, func() error {
		if err := os.Rename(dir, away); err != nil {
			return err
		}
		if err := os.WriteFile(dir, nil, 0o600); err != nil {
			return err
		}
		pause(ctx, between(r, 300*time.Millisecond, 4*time.Second))
		if err := os.Remove(dir); err != nil {
			return err
		}
		return os.Rename(away, dir)
	})
}
