//go:build linux

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// result holds everything that the report of a run needs.
type result struct {
	options     options
	load        *load
	watch       *watch
	began       time.Time
	ran         time.Duration
	lastLife    time.Duration
	interrupted bool

	before, after *still
	ending        *ending
	records       *records
}

func (r *result) print(w io.Writer) { io.WriteString(w, r.markdown()) }

func ms(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d >= time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}

// The report goes between these marks in docs/reliability.md.
const (
	markBegin = "<!-- begin: written by make soak -->\n"
	markEnd   = "<!-- end: written by make soak -->\n"
)

// replaceReport replaces the text between the marks of a document with the report.
func replaceReport(document, begin, end, report string) (string, error) {
	before, rest, ok := strings.Cut(document, begin)
	_, after, also := strings.Cut(rest, end)
	if !ok || !also {
		return "", fmt.Errorf("the file has not both of the marks %q and %q", strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	return before + begin + "\n" + strings.TrimSpace(report) + "\n\n" + end + after, nil
}

// writeReport puts a report between its marks in a file. It creates the file if it does not exist.
func writeReport(file, begin, end, report string) error {
	document, err := os.ReadFile(file)
	text := "# Reliability\n\n" + begin + end
	if err == nil {
		text = string(document)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if text, err = replaceReport(text, begin, end, report); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, []byte(text), 0o644)
}

// markdown returns the report.
func (r *result) markdown() string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	l := r.load.ledger
	l.mu.Lock()
	defer l.mu.Unlock()

	if r.options.note != "" {
		p("%s\n", r.options.note)
	}
	p("| | |\n| --- | --- |")
	version, _ := exec.Command(r.load.stack.binary, "version").Output()
	p("| run | %s to %s UTC, %s of load%s |", r.began.UTC().Format("2006-01-02 15:04"), time.Now().UTC().Format("15:04"),
		r.ran.Round(time.Second), map[bool]string{true: ", then interrupted"}[r.interrupted])
	p("| repeat the faults | `make soak SEED=%d DURATION=%s` |", r.options.seed, r.options.duration)
	p("| versions | %s, PostgreSQL %s, %s |", strings.TrimSpace(string(version)), r.load.stack.installation.Version, runtime.Version())
	p("| machine | %s |", machine())
	p("| verdict | %s |", map[bool]string{true: "**everything held**", false: fmt.Sprintf("**%d violations**, below", l.total)}[l.total == 0])
	p("")

	p("### What was done\n")
	p("| | times |\n| --- | ---: |")
	for _, name := range slices.Sorted(maps.Keys(l.counts)) {
		if !strings.HasPrefix(name, "faults: ") {
			p("| %s | %d |", name, l.counts[name])
		}
	}
	p("")
	p("Logons away from faults took %s at the median, %s at the 99th percentile, %s at most, on the machine that also ran",
		ms(percentile(l.latencies, 50)), ms(percentile(l.latencies, 99)), ms(percentile(l.latencies, 100)))
	p("clients, proxies, PostgreSQL, and whatever else it had to do.\n")
	for _, name := range slices.Sorted(maps.Keys(l.longest)) {
		p("%s: %s.\n", strings.ToUpper(name[:1])+name[1:], ms(l.longest[name]))
	}

	r.faults(p)
	r.left(p)

	p("### Violations\n")
	if l.total == 0 {
		p("None.")
	} else {
		p("%d:\n", l.total)
		kinds := map[string]int{}
		for _, v := range l.violations {
			kinds[v.what]++
			if kinds[v.what] <= 10 {
				p("- %s, %s: %s", v.at.Sub(r.began).Round(time.Millisecond), v.what, v.text)
			}
		}
	}
	return b.String()
}

// faults prints the table of faults. The caller has locked the ledger.
func (r *result) faults(p func(string, ...any)) {
	l := r.load.ledger
	type row struct {
		kind            string
		times           int
		excused         map[string]int
		late, recovered []time.Duration
	}
	rows := map[string]*row{}
	for _, kind := range faultKinds {
		rows[kind.name] = &row{kind: kind.name, times: l.counts["faults: "+kind.name], excused: map[string]int{}}
	}
	for _, e := range l.excuses {
		if e.failures > 0 {
			rows[e.kind].late = append(rows[e.kind].late, e.late)
		}
		if e.recovered > 0 && e.classes&classLogon != 0 {
			rows[e.kind].recovered = append(rows[e.kind].recovered, e.recovered)
		}
	}
	for key, n := range l.excused {
		kind, class, _ := strings.Cut(key, "\x00")
		rows[kind].excused[class] += n
	}
	p("### Faults\n")
	p("Failures are honest work that failed with this fault as the explanation. \"Last to fail\" is how long after the")
	p("end of the fault the last work began that still failed because of it (0: none began after it); \"first logon\" how")
	p("long after the end the first logon was through that had begun after it.\n")
	p("| fault | times | calls failed | logons failed | sessions lost | last to fail, p99 / max | first logon, p50 / p99 / max |")
	p("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
	list := slices.SortedFunc(maps.Values(rows), func(a, b *row) int { return cmp.Compare(a.kind, b.kind) })
	for _, row := range list {
		recovered := "—"
		if len(row.recovered) > 0 {
			recovered = ms(percentile(row.recovered, 50)) + " / " + ms(percentile(row.recovered, 99)) + " / " + ms(percentile(row.recovered, 100))
		}
		p("| %s | %d | %d | %d | %d | %s / %s | %s |", row.kind, row.times, row.excused["call"], row.excused["logon"], row.excused["session"],
			ms(percentile(row.late, 99)), ms(percentile(row.late, 100)), recovered)
	}
	p("")
	p("Slow networks, short stalls and a frozen PostgreSQL explain nothing: every failure during those is a violation. While")
	p("PostgreSQL is away, calls of the API must succeed. The time to the first logon includes the pause until a client")
	p("happens to try.\n")
}

// left prints what the run left behind.
func (r *result) left(p func(string, ...any)) {
	rec := r.records
	p("### What was left\n")
	p("| | |\n| --- | --- |")
	p("| descriptors of the last process, unused | %d and %d administrative connections; a fresh one %d and %d |", r.after.held(), r.after.standing, r.before.held(), r.before.standing)
	p("| its goroutines, from its dump on SIGQUIT | %d; a fresh one %d |", sum(r.after.goroutines), sum(r.before.goroutines))
	p("| its life | %s |", r.lastLife.Round(time.Second))
	p("| resident memory | %d MiB at the end, %d MiB at most, with floods; a fresh one %d MiB |", r.after.resident>>20, r.watch.resident>>20, r.before.resident>>20)
	p("| its resident memory under load, median of each quarter of its life | %s |", r.watch.quarters())
	p("| descriptors at most | %d |", r.watch.descriptors)
	p("| sessions in PostgreSQL after the load | 0 after %s |", ms(r.ending.sessionsGone))
	p("| objects owned by session roles | 0 after %s |", ms(r.ending.handedOver))
	p("| tables made by sessions, each its user's | %d |", r.ending.tables)
	p("| session roles, before and after a sweep | %d, 0 |", r.ending.roles)
	p("| audit log | %d lines, %d MiB: %d calls, %d logons, %d refusals, %d ends, %d gaps declared, %d torn, %d written twice |",
		rec.lines, rec.auditBytes>>20, rec.calls, rec.logons, rec.refused, rec.ends, rec.gaps, rec.torn, rec.twice)
	p("| sessions without an end in it | %d whose process was killed, %d while it could not be written (the server's log names them) |", rec.endsLost, rec.endsRefused)
	p("| refusals without a line in it | %d while it could not be written (the server's log names them) |", rec.refusedUnwritten)
	p("| logons that got a parked session | %d, of which the clients saw %d: the same server process as before |", rec.parked, r.load.tenancies.reused)
	p("| logons recorded whose client never knew | %d |", rec.unseen)
	p("| secrets in the audit log, the server's log and PostgreSQL's | %d, of %d looked for |", rec.secrets, len(r.load.issuer.secrets)+6)
	var own syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &own)
	spent := time.Duration(own.Utime.Nano() + own.Stime.Nano())
	p("| CPU | daypass %.1f %%, clients and proxies %.1f %% of one core |",
		100*r.load.stack.spentCPU.Seconds()/r.ran.Seconds(), 100*spent.Seconds()/r.ran.Seconds())
	p("")
}

func machine() string {
	model := runtime.GOARCH
	if data, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(data)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%s, %d CPUs", model, runtime.NumCPU())
}
