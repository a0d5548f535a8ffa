// Package doctor checks an installation as a whole, and reports each problem with its remedy.
// Operator checks a server from its configuration, Person what someone needs in order to log on.
// Neither changes anything.
//
// A report can be pasted into a public issue. Mask removes everything that is or looks like a
// secret and, unless the caller asks for them, account numbers, access key IDs, host names and
// addresses. Errors of other programs, such as the resolver or PostgreSQL, are masked like
// everything else. Names of users, roles and policies are never reported: the report counts such
// findings, and names the command that lists them.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Severity tells how bad a finding is.
type Severity string

// The severities, from good to bad.
const (
	OK      Severity = "ok"
	Warning Severity = "warning"
	Error   Severity = "error"
)

// Finding is the result of one check.
type Finding struct {
	About    string   `json:"about"` // the subject of the check, such as "clock"
	Severity Severity `json:"severity"`
	Message  string   `json:"message"`
	Do       string   `json:"do,omitempty"` // the remedy
}

// Report collects findings, masked.
type Report struct {
	Findings []Finding
	mask     *Mask
	see      func(Finding)
}

// NewReport returns a report. If see is not nil, it is called with each finding.
func NewReport(mask *Mask, see func(Finding)) *Report {
	return &Report{Findings: []Finding{}, mask: mask, see: see}
}

// Failed reports whether something has to be repaired.
func (r *Report) Failed() bool {
	for _, f := range r.Findings {
		if f.Severity == Error {
			return true
		}
	}
	return false
}

func (r *Report) add(about string, severity Severity, do, format string, args ...any) {
	f := Finding{about, severity, r.mask.Text(fmt.Sprintf(format, args...)), r.mask.Text(do)}
	r.Findings = append(r.Findings, f)
	if r.see != nil {
		r.see(f)
	}
}

func (r *Report) ok(about, format string, args ...any) { r.add(about, OK, "", format, args...) }
func (r *Report) warn(about, do, format string, args ...any) {
	r.add(about, Warning, do, format, args...)
}
func (r *Report) fail(about, do, format string, args ...any) {
	r.add(about, Error, do, format, args...)
}

// patience bounds each check that uses the network.
const patience = 10 * time.Second

// maxSkew is the clock difference from which signatures are refused; fairSkew is that from which
// the report warns.
const maxSkew, fairSkew = 5 * time.Minute, 20 * time.Second

// clock compares this machine's clock with another's.
func (r *Report) clock(whose string, there, here time.Time) {
	const do = "set both clocks by NTP (timedatectl set-ntp true)"
	skew := here.Sub(there).Round(time.Second)
	switch {
	case skew.Abs() >= maxSkew:
		r.fail("clock", do, "this machine's clock is %s %s that of %s: signatures are refused from 5 minutes on", skew.Abs(), aheadOrBehind(skew), whose)
	case skew.Abs() >= fairSkew:
		r.warn("clock", do, "this machine's clock is %s %s that of %s", skew.Abs(), aheadOrBehind(skew), whose)
	default:
		r.ok("clock", "agrees with that of %s", whose)
	}
}

func aheadOrBehind(skew time.Duration) string {
	if skew > 0 {
		return "ahead of"
	}
	return "behind"
}

// built compares the clock with the time of the commit that the program was built from. A
// correct clock is never earlier.
func (r *Report) built(at, now time.Time) {
	if !at.IsZero() && now.Before(at) {
		r.fail("clock", "set it (timedatectl set-ntp true)", "this machine's clock says %s, which is before this program was written", now.UTC().Format(time.RFC3339))
	}
}

// expiry checks when a certificate expires.
func (r *Report) expiry(name, do string, from, until, now time.Time) {
	switch {
	case now.After(until):
		r.fail("certificates", do, "%s expired on %s", name, until.UTC().Format(time.RFC3339))
	case now.Before(from):
		r.fail("certificates", "set the clock, or wait", "%s is valid from %s on only", name, from.UTC().Format(time.RFC3339))
	case until.Sub(now) < min(14*24*time.Hour, until.Sub(from)/5):
		r.warn("certificates", do, "%s expires on %s", name, until.UTC().Format(time.RFC3339))
	default:
		r.ok("certificates", "%s is valid until %s", name, until.UTC().Format("2006-01-02"))
	}
}

// plainly returns an error without the operation and address that package net prefixes.
func plainly(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	return err.Error()
}
