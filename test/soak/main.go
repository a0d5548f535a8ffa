//go:build linux

// Command soak runs Daypass for a long time under honest load, with faults all around it, and
// reports failures that the faults do not explain.
//
// It starts PostgreSQL, `daypass serve` and a TCP proxy on either side of the gateway. Honest
// clients ask for credentials with the AWS SDK, log on with pgx and by hand, and check every
// answer. Faults come one after another: connections are cut, stalled and half-closed, PostgreSQL
// is stopped, crashed and frozen, daypass is killed and drained, the audit log's directory is moved
// away. At the same time there are floods, garbage, forged passwords, valid and invalid reloads,
// key rotations, and roles damaged by hand and by their holders. These do not excuse any failure.
//
// An honest client may fail only during a fault that explains the failure, and for a bounded time
// after it. At the end nothing may be left behind: no goroutine, no descriptor, no session role, no
// membership, no object of a session role. The audit log must agree with what the clients saw, line
// by line.
//
//	make soak                        an hour
//	make soak DURATION=5m SEED=42    shorter, and the faults of an earlier run
//	make soak-servers                three servers behind a balancer, which share an etcd (several.go)
//
// The seed decides what every actor does and in which order. Which actions coincide depends on the
// machine. Linux only: descriptors are read from /proc.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

type options struct {
	daypass, postgres string
	duration          time.Duration
	seed              uint64
	write, note, keep string
	servers           int
	oldBinary         string
}

func main() {
	var o options
	flag.StringVar(&o.daypass, "daypass", "bin/daypass", "the binary to run")
	flag.StringVar(&o.postgres, "postgres", "", "directory of PostgreSQL's programs; left out, the newest installed")
	flag.DurationVar(&o.duration, "duration", time.Hour, "how long the load lasts")
	flag.Uint64Var(&o.seed, "seed", 0, "seed of an earlier run; 0 is a new one")
	flag.StringVar(&o.write, "write", "", "file to write the report to, between its marks")
	flag.StringVar(&o.note, "note", "", "a sentence about the run for the report")
	flag.StringVar(&o.keep, "keep", "", "directory to leave the logs in")
	flag.IntVar(&o.servers, "servers", 1, "1, or 3 behind a balancer, with an etcd of three members")
	flag.StringVar(&o.oldBinary, "old-binary", "", "the binary that the servers start with, and are upgraded from; left out, the same one")
	member := flag.String("etcd-member", "", "used by soak itself: run the member of etcd that this file describes")
	flag.Parse()
	if *member != "" {
		if err := serveMember(*member); err != nil {
			fmt.Fprintln(os.Stderr, "etcd:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := soak(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
	}
	if err != nil || !ok {
		stop()
		os.Exit(1)
	}
}

// soak does one run. It reports whether Daypass passed; the error says why that could not be
// decided.
func soak(ctx context.Context, o options) (bool, error) {
	if o.seed == 0 {
		o.seed = rand.Uint64N(1_000_000)
	}
	began := time.Now()
	say := func(format string, args ...any) {
		fmt.Printf("%8.1f  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	switch o.servers {
	case 1:
	case serverCount:
		return soakSeveral(ctx, o, began, say)
	default:
		return false, fmt.Errorf("%d servers: 1 or %d", o.servers, serverCount)
	}
	s, err := startStack(ctx, o.daypass, o.postgres)
	if err != nil {
		return false, err
	}
	defer s.stop()
	if o.keep != "" {
		defer keep(s, o.keep)
	}
	say("seed %d, %v, PostgreSQL %s, files in %s", o.seed, o.duration, s.installation.Version, s.Dir)

	ledger := newLedger(time.Now, say)
	gate, err := newGate(s, ledger, s.CACert())
	if err != nil {
		return false, err
	}
	l := &load{stack: s, ledger: ledger, issuer: newIssuer(ledger, s.API), gate: gate, seed: o.seed, tenancies: newTenancies()}
	result := &result{options: o, load: l, began: began}
	if result.before, err = l.baseline(ctx); err != nil {
		return false, fmt.Errorf("measuring a fresh process: %w", err)
	}
	say("a fresh process: %d descriptors without %d administrative connections, %d goroutines, %d MiB",
		result.before.held(), result.before.standing, sum(result.before.goroutines), result.before.resident>>20)
	if err := s.startDaypass(ctx); err != nil {
		return false, err
	}

	result.watch = &watch{stack: s}
	result.ran = l.everything(ctx, o, result.watch, say)
	result.interrupted = ctx.Err() != nil
	ctx = context.WithoutCancel(ctx) // even an interrupted run ends with its report
	if err := result.finish(ctx, say); err != nil {
		return false, err
	}
	result.print(os.Stdout)
	if o.write != "" {
		if err := writeReport(o.write, markBegin, markEnd, result.markdown()); err != nil {
			return false, err
		}
	}
	return ledger.total == 0, nil
}

// everything runs load and faults, and returns how long that took. Faults begin after the load and
// end before it. In the last third of the time one daypass process runs without interruption; that
// process is examined at the end.
func (l *load) everything(ctx context.Context, o options, w *watch, say func(string, ...any)) time.Duration {
	begin := time.Now()
	quiet := min(20*time.Second, o.duration/6)
	loading, endLoad := context.WithTimeout(ctx, o.duration)
	defer endLoad()
	harming, endHarm := context.WithTimeout(ctx, o.duration-quiet)
	defer endHarm()
	watching, endWatch := context.WithCancel(ctx)
	defer endWatch()
	var all, watchers sync.WaitGroup
	watchers.Go(func() { w.run(watching) })
	watchers.Go(func() {
		for pause(watching, time.Minute) {
			l.ledger.mu.Lock()
			say("%d credentials, %d logons, %d excused failures, %d violations; %d MiB",
				l.ledger.counts["credentials issued"], l.gate.number.Load(), sum(l.ledger.excused), l.ledger.total, l.stack.process().Resident()>>20)
			l.ledger.mu.Unlock()
		}
	})
	all.Go(func() { l.run(loading) })
	f := &faults{load: l, watch: w, calmAfter: begin.Add(o.duration * 2 / 3)}
	all.Go(func() {
		pause(harming, 3*time.Second)
		f.run(harming, random(l.seed, "faults"))
	})
	h := &hostile{load: l, binary: l.stack.binary}
	all.Go(func() { h.run(harming) })
	all.Wait()
	ran := time.Since(begin)
	endWatch()
	watchers.Wait()
	return ran
}

// finish measures what the run has left behind.
func (r *result) finish(ctx context.Context, say func(string, ...any)) error {
	say("the load is over; waiting until all is still")
	l := r.load
	l.issuer.transport.CloseIdleConnections()
	var err error
	if r.ending, err = l.aftermath(ctx); err != nil {
		return fmt.Errorf("looking at PostgreSQL after the load: %w", err)
	}
	pause(ctx, stillFor)
	r.lastLife = time.Since(l.stack.process().Started)
	if r.after, err = l.standstill(ctx); err != nil {
		return fmt.Errorf("measuring the last process: %w", err)
	}
	if grown := more(r.after.goroutines, r.before.goroutines); len(grown) > 0 {
		l.ledger.violate("left behind", "goroutines: %s", strings.Join(grown, ", "))
	}
	if r.after.held() > r.before.held() {
		l.ledger.violate("left behind", "descriptors: %d, and %d in a fresh process: %v, %v", r.after.held(), r.before.held(), r.after.descriptors, r.before.descriptors)
	}
	if r.watch.resident > residentLimit {
		l.ledger.violate("too much memory", "%d MiB", r.watch.resident>>20)
	}
	say("comparing the audit log with what the clients saw")
	r.records, err = l.compare(source{l.stack.auditDir(), l.stack.logFile(), l.stack.lives})
	return err
}

// residentLimit bounds daypass's memory, even during floods of 1700 connections.
const residentLimit = 256 << 20

func keep(s *stack, dir string) {
	copyAll(dir, map[string]string{"daypass.log": s.logFile(), "postgres.log": s.Path("postgres/postgres.log"), "audit": s.auditDir()})
}

// copyAll copies the files and directories that exist into a directory.
func copyAll(dir string, files map[string]string) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return
	}
	for name, path := range files {
		_ = exec.Command("cp", "-r", path, filepath.Join(dir, name)).Run()
	}
}
