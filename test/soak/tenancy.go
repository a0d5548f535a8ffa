//go:build linux

package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/daypass/daypass/internal/credential"
)

// The soak's cluster parks sessions, for short times, so that an hour has many of their ends.
const (
	parkedMax  = 40
	parkedIdle = 12 * time.Second
	parkedAge  = 3 * time.Minute
)

const (
	// parkedSlack is how long a parked session may still be used after it was revoked or its
	// time is up.
	parkedSlack = time.Second
	// parkedGone is how long the process of a parked session may survive the end of its time.
	parkedGone = 6 * time.Second
)

// process is one server process: a process ID is used again, but not with the same start.
type process struct {
	pid     int
	started string // in ticks since the machine started
}

// serverProcess returns the process that has a process ID now. ok is false if there is none.
func serverProcess(pid int) (p process, ok bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, false
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the name of the program may have spaces
	fields := strings.Fields(rest)
	if len(fields) < 20 || fields[0] == "Z" {
		return process{}, false
	}
	return process{pid, fields[19]}, true
}

// tenancy is what the clients know of one server process that a tenant's logon got.
type tenancy struct {
	key     string // what all logons that share it must have in common
	user    string
	uses    []string  // the IDs of their credentials
	begun   time.Time // the first logon
	last    time.Time // the last logon
	left    time.Time // when the last client left; zero: it has not
	expires time.Time // when the first of the credentials expires

	disorderly bool      // the last client left in a way that forbids another use
	revoked    time.Time // when the first of the credentials was revoked; zero: none
	changed    time.Time // when the session role's state changed after the last logon; zero: it has not
	judged     bool      // its survival was reported
}

// tenancies knows which server process each tenant's logon got, and which of them may be used
// again. It is safe for concurrent use.
type tenancies struct {
	mu       sync.Mutex // guards the fields below
	held     map[process]*tenancy
	attempts map[string][]*attempt // by the ID of their credential
	reused   int                   // logons that got a process that was used before
	unseen   int                   // logons whose process is not known
}

func newTenancies() *tenancies {
	return &tenancies{held: map[process]*tenancy{}, attempts: map[string][]*attempt{}}
}

// triedWith registers an attempt with a credential, and returns what the credential grants.
func (t *tenancies) triedWith(p *pass, a *attempt) *credential.Grant {
	grant := credential.Inspect(nil, p.password, a.began).Grant
	if grant == nil {
		panic("internal error: a credential that cannot be read")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.attempts[grant.ID] = append(t.attempts[grant.ID], a)
	return grant
}

// missed registers a logon whose process is not known.
func (t *tenancies) missed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unseen++
}

// use registers that a logon got a process. It returns what is wrong with that, or "".
func (t *tenancies) use(p process, key, credentialID, user string, began, now, expires time.Time) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.held[p]
	if was == nil {
		t.held[p] = &tenancy{key: key, user: user, uses: []string{credentialID}, begun: now, last: now, expires: expires}
		return ""
	}
	t.reused++
	var fault string
	switch {
	case was.key != key:
		fault = fmt.Sprintf("of %s to %s", was.key, key)
	case was.left.IsZero():
		fault = "while its client used it"
	case was.disorderly:
		fault = "after its client did not leave in good order"
	case began.After(was.expires.Add(parkedSlack)):
		fault = fmt.Sprintf("%v after the expiry of a credential that used it", began.Sub(was.expires).Round(time.Millisecond))
	case !was.revoked.IsZero() && began.After(was.revoked.Add(parkedSlack)):
		fault = fmt.Sprintf("%v after the revocation of a credential that used it", began.Sub(was.revoked).Round(time.Millisecond))
	case !was.changed.IsZero() && began.After(was.changed):
		fault = "after its session role had changed"
	case began.After(was.begun.Add(parkedAge + parkedSlack)):
		fault = fmt.Sprintf("%v after it began", began.Sub(was.begun).Round(time.Second))
	case began.After(was.left.Add(parkedIdle + parkedSlack)):
		fault = fmt.Sprintf("%v after its client left", began.Sub(was.left).Round(time.Second))
	}
	if fault != "" {
		fault = fmt.Sprintf("process %d, %s", p.pid, fault)
	}
	was.key, was.uses, was.last, was.left, was.disorderly = key, append(was.uses, credentialID), now, time.Time{}, false
	if expires.Before(was.expires) {
		was.expires = expires
	}
	return fault
}

// leave registers that the client of a process is about to leave.
func (t *tenancies) leave(p process, orderly bool, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if was := t.held[p]; was != nil {
		was.left, was.disorderly = now, !orderly
	}
}

// revoke registers that a revocation is in force.
func (t *tenancies) revoke(credentialID string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, was := range t.held {
		if was.revoked.IsZero() && slices.Contains(was.uses, credentialID) {
			was.revoked = now
		}
	}
}

// change registers that the session roles of a user have changed. None of them is in use.
func (t *tenancies) change(user string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, was := range t.held {
		if was.user == user && was.changed.IsZero() {
			was.changed = now
		}
	}
}

// survivor is a process that outlived its time as a parked session.
type survivor struct {
	due  time.Time // when its time was up
	text string
}

// overdue returns the processes that are still alive parkedGone after their time was up, each only
// once. It forgets processes that have ended.
func (t *tenancies) overdue(now time.Time, alive func(process) bool) (list []survivor) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for p, was := range t.held {
		if !alive(p) {
			delete(t.held, p)
			continue
		}
		if was.left.IsZero() || was.judged {
			continue
		}
		due, why := was.left.Add(parkedIdle), "its client left"
		for _, other := range []struct {
			at  time.Time
			why string
		}{{was.expires, "a credential expired"}, {was.revoked, "a credential was revoked"}, {was.changed, "its session role changed"}} {
			if !other.at.IsZero() && other.at.Before(due) {
				due, why = other.at, other.why
			}
		}
		if due.Before(was.left) {
			due = was.left // the session may go on, and is not parked after that
		}
		if now.Sub(due) > parkedGone {
			was.judged = true
			list = append(list, survivor{due, fmt.Sprintf("process %d of %s, %v after its client left, was due to end %v ago because %s", p.pid, was.key,
				now.Sub(was.left).Round(time.Millisecond), now.Sub(due).Round(time.Millisecond), why)})
		}
	}
	return list
}

// compareTenants checks that the audit log has each of the tenants' logons once. The number of
// logons that it marks as parked must equal the number that got a used server process.
func (l *load) compareTenants(r *records, byCredential map[string][]line) {
	t := l.tenancies
	for id, attempts := range t.attempts {
		in, unknown := 0, 0
		for _, a := range attempts {
			switch a.outcome {
			case "in":
				in++
			case "unknown":
				unknown++
			}
		}
		p, logons := attempts[0].pass, 0
		for _, one := range byCredential[id] {
			if one.Additional.Outcome != "success" {
				continue
			}
			logons++
			if one.Additional.UpstreamSession == "parked" {
				r.parked++
			}
			if got := one.Additional; got.DBUser != p.user || got.SessionRole != p.sessionRole() || !slices.Equal(sorted(got.DBGroups), sorted(p.groups)) {
				l.ledger.violate("the audit log differs", "credential %s: %s %v as %s, want %s %v", id, got.DBUser, got.DBGroups, got.SessionRole, p.user, p.groups)
			}
		}
		if logons < in || logons > in+unknown {
			l.ledger.violate("the audit log differs", "credential %s of %s was let in %d times, and perhaps %d times more, and is there %d times", id, p.logon, in, unknown, logons)
		}
		t.unseen += unknown
	}
	switch {
	case r.parked < t.reused || r.parked > t.reused+t.unseen:
		l.ledger.violate("the audit log differs", "%d logons got a parked session in it, of %d that did and %d that may have", r.parked, t.reused, t.unseen)
	case t.reused == 0:
		l.ledger.violate("soak", "no logon got a parked session")
	}
}
