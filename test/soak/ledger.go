//go:build linux

package main

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// class is a set of kinds of honest work. A fault excuses failures in its classes.
type class uint8

const (
	classCall    class = 1 << iota // a call of the API
	classLogon                     // opening a session
	classSession                   // work in a session that is logged on; with several servers: at the first one
)

func (c class) String() string {
	switch c {
	case classCall:
		return "call"
	case classLogon:
		return "logon"
	case classSession, classSession << 1, classSession << 2:
		return "session"
	}
	return fmt.Sprintf("class %d", uint8(c))
}

// excuse is a time in which a fault explains failures of honest work in some classes. ledger.mu
// guards it.
type excuse struct {
	kind       string
	classes    class
	grace      time.Duration // for work that begins after the end
	begin, end time.Time     // zero end: not over
	concerns   class         // with several servers: the sessions of the servers that the fault affects

	failures  int
	late      time.Duration // how long after the end the last failed work began
	recovered time.Duration // how long after the end the first logon that began after it succeeded; 0: none yet
}

// covers reports whether the fault explains that work between begin and end failed.
func (e *excuse) covers(c class, begin, end time.Time) bool {
	return e.classes&c != 0 && end.After(e.begin) && (e.end.IsZero() || begin.Before(e.end.Add(e.grace)))
}

// violation is an event that must not happen.
type violation struct {
	at   time.Time
	what string
	text string
}

// ledger judges the results of all work. It is safe for concurrent use.
type ledger struct {
	now func() time.Time
	say func(format string, args ...any)

	mu         sync.Mutex // guards the fields below
	excuses    []*excuse
	violations []violation
	total      int                      // all violations, including those that are not kept
	counts     map[string]int           // how often things were done, by name
	excused    map[string]int           // excused failures, by fault and class
	longest    map[string]time.Duration // longest durations of work with a time limit, by name
	latencies  []time.Duration
}

// keptViolations bounds the number of violations that a run keeps in full.
const keptViolations = 200

func newLedger(now func() time.Time, say func(string, ...any)) *ledger {
	return &ledger{now: now, say: say, counts: map[string]int{}, excused: map[string]int{}, longest: map[string]time.Duration{}}
}

// open begins an excuse, before the fault begins. It applies from the given time, or from now if
// that is zero.
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

// close ends an excuse, after the fault has ended.
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

// slowest keeps the longest duration of a kind of work, for the report.
func (l *ledger) slowest(name string, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.longest[name] = max(l.longest[name], took)
}

// violate records an event that must not happen, whatever faults are active.
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

// failed records honest work that failed. begin is the last time at which it was known to work: for
// work in a session, the previous answer. It reports whether a fault explains the failure.
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

// recentLocked returns the excuses that can matter to work of the last minutes.
func (l *ledger) recentLocked() []*excuse {
	return l.excuses[max(0, len(l.excuses)-8):]
}

// disturbedLocked reports whether any fault was active between begin and end.
func (l *ledger) disturbedLocked(begin, end time.Time) bool {
	return slices.ContainsFunc(l.recentLocked(), func(e *excuse) bool {
		return end.After(e.begin) && (e.end.IsZero() || begin.Before(e.end.Add(time.Second)))
	})
}

// active reports whether a fault of the kind was active between begin and end.
func (l *ledger) active(kind string, begin, end time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.excuses, func(e *excuse) bool {
		return e.kind == kind && end.After(e.begin) && (e.end.IsZero() || begin.Before(e.end))
	})
}

// percentile returns a percentile of a list, which it sorts.
func percentile(list []time.Duration, p int) time.Duration {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[min(len(list)-1, len(list)*p/100)]
}
