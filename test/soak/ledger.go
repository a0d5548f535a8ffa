//go:build linux

package main

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// class is what a piece of honest work needs, and what a fault takes away.
type class uint8

const (
	classCall    class = 1 << iota // a call of the API
	classLogon                     // opening a session
	classSession                   // work in a session that is logged on
)

func (c class) String() string {
	switch c {
	case classCall:
		return "call"
	case classLogon:
		return "logon"
	case classSession:
		return "session"
	}
	return fmt.Sprintf("class %d", uint8(c))
}

// excuse is a time in which a fault explains why honest work of some classes
// fails. Guarded by ledger.mu.
type excuse struct {
	kind       string
	classes    class
	grace      time.Duration // for work that begins after the end
	begin, end time.Time     // no end: it lasts

	failures  int
	late      time.Duration // how long after the end the last work began that failed
	recovered time.Duration // how long after the end the first logon succeeded that began after it; 0: none yet
}

// covers says whether the fault explains that work between begin and end failed.
func (e *excuse) covers(c class, begin, end time.Time) bool {
	return e.classes&c != 0 && end.After(e.begin) && (e.end.IsZero() || begin.Before(e.end.Add(e.grace)))
}

// violation is something that must not happen.
type violation struct {
	at   time.Time
	what string
	text string
}

// ledger judges what happens. Safe for concurrent use.
type ledger struct {
	now func() time.Time
	say func(format string, args ...any)

	mu         sync.Mutex // guards what follows
	excuses    []*excuse
	violations []violation
	total      int                      // violations, also those not kept
	counts     map[string]int           // what was done, by name
	excused    map[string]int           // what failed with an excuse, by fault and class
	longest    map[string]time.Duration // what is bounded in time, by name
	latencies  []time.Duration
}

// keptViolations bounds what is kept in full of one run.
const keptViolations = 200

func newLedger(now func() time.Time, say func(string, ...any)) *ledger {
	return &ledger{now: now, say: say, counts: map[string]int{}, excused: map[string]int{}, longest: map[string]time.Duration{}}
}

// open begins an excuse, before the fault does; from then on, or now when zero.
func (l *ledger) open(kind string, classes class, grace time.Duration, from time.Time) *excuse {
	l.mu.Lock()
	defer l.mu.Unlock()
	if from.IsZero() {
		from = l.now()
	}
	e := &excuse{kind: kind, classes: classes, grace: grace, begin: from}
	l.excuses = append(l.excuses, e)
	return e
}

// close ends an excuse, after the fault has.
func (l *ledger) close(e *excuse) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.end = l.now()
}

// count adds to the figures of the report.
func (l *ledger) count(name string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[name] += n
}

// slowest keeps the longest time of a kind, for the report.
func (l *ledger) slowest(name string, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.longest[name] = max(l.longest[name], took)
}

// violate records what must not happen, whatever else is going on.
func (l *ledger) violate(what, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.violateLocked(what, fmt.Sprintf(format, args...))
}

func (l *ledger) violateLocked(what, text string) {
	l.total++
	if len(l.violations) < keptViolations {
		l.violations = append(l.violations, violation{l.now(), what, text})
		l.say("VIOLATION: %s: %s", what, text)
	}
}

// done records honest work that succeeded.
func (l *ledger) done(c class, name string, begin time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	l.counts[name]++
	if c != classLogon {
		return
	}
	for _, e := range l.recentLocked() {
		if e.recovered == 0 && !e.end.IsZero() && !begin.Before(e.end) {
			e.recovered = max(now.Sub(e.end), 1)
		}
	}
	if !l.disturbedLocked(begin, now) {
		l.latencies = append(l.latencies, now.Sub(begin))
	}
}

// failed records honest work that failed. begin is when it was last known to be
// well: for work in a session, the answer before. It reports whether a fault
// explains it.
func (l *ledger) failed(c class, name string, begin time.Time, err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for i := len(l.excuses) - 1; i >= 0; i-- {
		e := l.excuses[i]
		if !e.covers(c, begin, now) {
			continue
		}
		e.failures++
		if !e.end.IsZero() {
			e.late = max(e.late, begin.Sub(e.end))
		}
		l.excused[e.kind+"\x00"+c.String()]++
		return true
	}
	last := "no fault so far"
	if n := len(l.excuses); n > 0 {
		last = fmt.Sprintf("last fault %s, %v before", l.excuses[n-1].kind, now.Sub(l.excuses[n-1].begin).Round(time.Millisecond))
	}
	l.violateLocked("honest work failed without a fault that explains it",
		fmt.Sprintf("%s (%s) after %v: %v (%s)", name, c, now.Sub(begin).Round(time.Millisecond), err, last))
	return false
}

// recentLocked are the excuses that matter to work of these minutes.
func (l *ledger) recentLocked() []*excuse {
	return l.excuses[max(0, len(l.excuses)-8):]
}

// disturbedLocked says whether any fault was active in a time.
func (l *ledger) disturbedLocked(begin, end time.Time) bool {
	return slices.ContainsFunc(l.recentLocked(), func(e *excuse) bool {
		return end.After(e.begin) && (e.end.IsZero() || begin.Before(e.end.Add(time.Second)))
	})
}

// active says whether a fault of a kind overlaps a time.
func (l *ledger) active(kind string, begin, end time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.excuses, func(e *excuse) bool {
		return e.kind == kind && end.After(e.begin) && (e.end.IsZero() || begin.Before(e.end))
	})
}

// percentile of a list, which it sorts.
func percentile(list []time.Duration, p int) time.Duration {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[min(len(list)-1, len(list)*p/100)]
}
