// Package doctor looks at an installation as a whole and says what is odd, each time
// with what to do. Operator looks at a server from its configuration, Person at what
// someone needs who logs on. Nothing is changed.
//
// A report is made to be pasted into a public issue. Everything that is printed goes
// through Mask: secrets that are known or look like one are taken out, and so are
// account numbers, access key ids, host names and addresses, unless the caller asks for
// these. What other programs said (an error of the resolver, of PostgreSQL) is masked
// like everything else. Names of users, roles and policies are not reported at all:
// findings about them are counted, and the command that lists them is named.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Severity is how bad a finding is.
type Severity string

// The severities, from good to bad.
const (
	OK      Severity = "ok"
	Warning Severity = "warning"
	Error   Severity = "error"
)

// Finding is one thing that was looked at.
type Finding struct {
	About    string   `json:"about"` // what was looked at, such as "clock"
	Severity Severity `json:"severity"`
	Message  string   `json:"message"`
	Do       string   `json:"do,omitempty"` // what mends it
}

// Report collects findings, masked.
type Report struct {
	Findings []Finding
	mask     *Mask
	see      func(Finding)
}

// NewReport makes a report. see is called with each finding as it is found; optional.
func NewReport(mask *Mask, see func(Finding)) *Report {
	return &Report{Findings: []Finding{}, mask: mask, see: see}
}

// Failed reports whether something has to be mended.
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

// patience is how long one look at something on the network may take.
const patience = 10 * time.Second

// maxSkew is how far two clocks may be apart before signatures are refused; from
// fairSkew on it is worth a warning.
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

// built compares the clock with the time of the commit that the program was built
// from: no clock is before that.
func (r *Report) built(at, now time.Time) {
	if !at.IsZero() && now.Before(at) {
		r.fail("clock", "set it (timedatectl set-ntp true)", "this machine's clock says %s, which is before this program was written", now.UTC().Format(time.RFC3339))
	}
}

// expiry looks at the end of a certificate.
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

// plainly is an error without the operation and the address that net puts before it.
func plainly(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	return err.Error()
}
