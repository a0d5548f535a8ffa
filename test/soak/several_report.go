//go:build linux

package main

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/etcd/api/v3/version"
)

// outcomeOfSeveral is what the report of a run of several servers needs.
type outcomeOfSeveral struct {
	*several
	options     options
	began       time.Time
	ran         time.Duration
	interrupted bool
	ending      *ending
	records     *records
}

// soakSeveral does one run with three servers.
func soakSeveral(ctx context.Context, o options, began time.Time, say func(string, ...any)) (bool, error) {
	v, err := startSeveral(ctx, o, say)
	if err != nil {
		return false, err
	}
	defer v.stop()
	if o.keep != "" {
		defer v.keep(o.keep)
	}
	say("seed %d, %v, %d servers, PostgreSQL %s, etcd %s, files in %s", o.seed, o.duration, serverCount, v.stack.installation.Version, version.Version, v.stack.Dir)
	r := &outcomeOfSeveral{several: v, options: o, began: began}
	r.ran = v.everything(ctx, o, say)
	r.interrupted = ctx.Err() != nil
	ctx = context.WithoutCancel(ctx)
	if err := r.finish(ctx, say); err != nil {
		return false, err
	}
	text := r.markdown()
	fmt.Print(text)
	if o.write != "" {
		if err := writeReport(o.write, severalBegin, severalEnd, text); err != nil {
			return false, err
		}
	}
	return v.ledger.total == 0, nil
}

func (v *several) everything(ctx context.Context, o options, say func(string, ...any)) time.Duration {
	begin := time.Now()
	loading, endLoad := context.WithTimeout(ctx, o.duration)
	defer endLoad()
	harming, endHarm := context.WithTimeout(ctx, o.duration-min(30*time.Second, o.duration/4))
	defer endHarm()
	watching, endWatch := context.WithCancel(ctx)
	defer endWatch()
	var all, watchers sync.WaitGroup
	for _, s := range v.servers {
		watchers.Go(func() { s.check(watching) })
	}
	watchers.Go(func() { v.control.run(watching, v.stack) })
	watchers.Go(func() { v.control.watch(watching) })
	watchers.Go(func() {
		for pause(watching, time.Minute) {
			v.ledger.mu.Lock()
			say("%d credentials, %d attempts to log on, %d sessions lost, %d violations", v.ledger.counts["credentials issued"], v.gate.number.Load(), sum(v.ledger.excused), v.ledger.total)
			v.ledger.mu.Unlock()
		}
	})
	all.Go(func() { v.work(loading) })
	all.Go(func() {
		pause(harming, 3*time.Second)
		v.trouble(harming)
	})
	all.Wait()
	ran := time.Since(begin)
	say("the load is over; restoring etcd from a snapshot that lacks a revocation")
	if err := v.lastRestore(context.WithoutCancel(ctx)); err != nil {
		v.ledger.violate("a fault did not go as it should", "the last restore: %v", err)
	}
	endWatch()
	watchers.Wait()
	return ran
}

// finish stops the servers in order and compares their audit logs with what clients saw.
func (r *outcomeOfSeveral) finish(ctx context.Context, say func(string, ...any)) error {
	r.issuer.transport.CloseIdleConnections()
	var all sync.WaitGroup
	for _, s := range r.servers {
		all.Go(func() {
			if err := r.endServer(s, syscall.SIGTERM, shutdownDelay+drain+30*time.Second, "stopped"); err != nil {
				r.ledger.violate("a fault did not go as it should", "stopping at the end: %v", err)
			}
		})
	}
	all.Wait()
	var err error
	if r.ending, err = r.aftermath(ctx); err != nil {
		return fmt.Errorf("looking at PostgreSQL after the load: %w", err)
	}
	say("comparing the audit logs with what the clients saw")
	var sources []source
	for _, s := range r.servers {
		sources = append(sources, source{s.dir + "/data/audit", s.log(), s.lives})
	}
	r.records, err = r.compare(sources...)
	return err
}

// violationTook is the longest that most work takes before it turns out to be a violation.
const violationTook = 30 * time.Second

const (
	severalBegin = "<!-- begin: written by make soak-servers -->\n"
	severalEnd   = "<!-- end: written by make soak-servers -->\n"
)

// markdown returns the report.
func (r *outcomeOfSeveral) markdown() string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	l := r.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.options.note != "" {
		p("%s\n", r.options.note)
	}
	p("| | |\n| --- | --- |")
	p("| run | %s to %s UTC, %s of load%s |", r.began.UTC().Format("2006-01-02 15:04"), time.Now().UTC().Format("15:04"),
		r.ran.Round(time.Second), map[bool]string{true: ", then interrupted"}[r.interrupted])
	p("| repeat the faults | `make soak-servers SEED=%d DURATION=%s` |", r.options.seed, r.options.duration)
	p("| versions | %s, and upgrades between that and %s; etcd %s, PostgreSQL %s, %s |", r.releases[r.binaries[1]], r.releases[r.binaries[0]], version.Version, r.stack.installation.Version, runtime.Version())
	p("| machine | %s; a logon at PostgreSQL alone took %s at the median, %s at the 99th percentile, %s at most |", machine(),
		ms(r.control.percentile(50)), ms(r.control.percentile(99)), ms(r.control.percentile(100)))
	total, longest := r.control.stalled(r.began, time.Now())
	p("| stalls of the machine | %d of more than %v, %s in all, %s at most |", len(r.control.stalls), stall, ms(total), ms(longest))
	p("| verdict | %s |", map[bool]string{true: "**everything held**", false: fmt.Sprintf("**%d violations**, below", l.total)}[l.total == 0])
	p("")
	p("#### What was done\n\n| | times |\n| --- | ---: |")
	for _, name := range slices.Sorted(maps.Keys(l.counts)) {
		if !strings.HasPrefix(name, "faults: ") {
			p("| %s | %d |", name, l.counts[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.longest)) {
		p("| %s | %s |", name, ms(l.longest[name]))
	}
	p("")
	r.troubles(p)
	rec := r.records
	p("#### What was left\n\n| | |\n| --- | --- |")
	p("| sessions in PostgreSQL after the servers | 0 after %s |", ms(r.ending.sessionsGone))
	p("| objects owned by session roles | 0 after %s |", ms(r.ending.handedOver))
	p("| session roles, before and after a sweep | %d, 0 |", r.ending.roles)
	p("| audit logs of all servers | %d lines: %d calls, %d logons, %d refusals, %d ends, %d torn, %d written twice |", rec.lines, rec.calls, rec.logons, rec.refused, rec.ends, rec.torn, rec.twice)
	p("| sessions without an end in them | %d whose server was killed |", rec.endsLost)
	p("| logons recorded whose client never knew | %d |", rec.unseen)
	p("| secrets in the logs | %d, of %d looked for |", rec.secrets, len(r.issuer.secrets)+4)
	var own syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &own)
	p("| CPU | the servers %.1f %%, clients and proxies %.1f %% of one core |", 100*r.stack.spentCPU.Seconds()/r.ran.Seconds(),
		100*time.Duration(own.Utime.Nano()+own.Stime.Nano()).Seconds()/r.ran.Seconds())
	p("\n#### Violations\n")
	if l.total == 0 {
		p("None.")
		return b.String()
	}
	kinds := map[string]int{}
	for _, one := range l.violations {
		if kinds[one.what]++; kinds[one.what] <= 10 {
			note := ""
			if total, _ := r.control.stalled(one.at.Add(-violationTook), one.at); total > 0 {
				note = fmt.Sprintf(" (the machine stood still for %s in the %v before)", ms(total), violationTook)
			}
			p("- %s, %s: %s%s", one.at.Sub(r.began).Round(time.Millisecond), one.what, one.text, note)
		}
	}
	return b.String()
}

// troubles prints the table of faults. The caller has locked the ledger.
func (r *outcomeOfSeveral) troubles(p func(string, ...any)) {
	l := r.ledger
	p("#### Faults\n")
	p("\"Logon\" is how long clients took to get in that tried during the fault or in the second after it, with all their attempts.\n")
	p("| fault | times | sessions lost | logon, p50 / p99 / max |\n| --- | ---: | ---: | ---: |")
	during := func(kind string) (list []time.Duration) {
		for _, s := range r.logons {
			if slices.ContainsFunc(l.excuses, func(e *excuse) bool {
				return e.kind == kind && s.end.After(e.begin) && s.begin.Before(e.end.Add(time.Second))
			}) {
				list = append(list, s.end.Sub(s.begin))
			}
		}
		return list
	}
	row := func(list []time.Duration) string {
		if len(list) == 0 {
			return "—"
		}
		return ms(percentile(list, 50)) + " / " + ms(percentile(list, 99)) + " / " + ms(percentile(list, 100))
	}
	for _, kind := range slices.Concat(serverTroubles, sharedTroubles) {
		p("| %s | %d | %d | %s |", kind.name, l.counts["faults: "+kind.name], l.excused[kind.name+"\x00session"], row(during(kind.name)))
	}
	p("| none | | | %s |", row(l.latencies))
	var tries []string
	for _, how := range slices.Sorted(maps.Keys(r.tries)) {
		tries = append(tries, fmt.Sprintf("%s %d", how, r.tries[how]))
	}
	p("\nAttempts that failed and were repeated: %s.\n", strings.Join(tries, ", "))
}

// keep leaves the logs in a directory.
func (v *several) keep(dir string) {
	files := map[string]string{"etcd.log": v.stack.Path("etcd/etcd.log")}
	for _, s := range v.servers {
		files[fmt.Sprintf("server%d.log", s.slot)] = s.log()
		files[fmt.Sprintf("audit%d", s.slot)] = s.dir + "/data/audit"
	}
	copyAll(dir, files)
}
