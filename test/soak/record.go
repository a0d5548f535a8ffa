//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/daypass/daypass/test/sitetest"
)

// line holds the parts of an audit line that the checks need.
type line struct {
	EventID           string
	EventName         string
	EventTime         time.Time
	RequestID         string
	ErrorCode         string
	RequestParameters struct{ ApplicationName string }
	Additional        struct {
		SessionID, Outcome, DBUser, SessionRole string
		CredentialID, UpstreamSession           string
		DBGroups                                []string
	} `json:"additionalEventData"`
}

// records summarizes the audit log and how it compares with what clients saw.
type records struct {
	lines, twice, torn      int
	logons, refused, ends   int
	calls                   int
	parked                  int // logons that got a parked session
	gaps                    int
	endsLost, endsRefused   int // lost because daypass was killed, or because the log could not be written
	refusedUnwritten        int // refusals while the log could not be written
	unseen                  int // sessions that began although the client did not learn of it
	logBytes, auditBytes    int64
	secrets, forgottenCalls int
}

// lines calls f with each line of a file.
func lines(path string, f func([]byte)) (int64, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	var size int64
	reader := bufio.NewReaderSize(file, 1<<16)
	for {
		text, err := reader.ReadBytes('\n')
		size += int64(len(text))
		if len(text) > 0 {
			f(bytes.TrimSuffix(text, []byte{'\n'}))
		}
		if errors.Is(err, io.EOF) {
			return size, nil
		}
		if err != nil {
			return size, err
		}
	}
}

// source is one server's logs, and the lifetimes of its processes.
type source struct {
	audit, log string
	lives      []life
}

// files lists the files of the audit log.
func (s *source) files() ([]string, error) {
	files, err := filepath.Glob(filepath.Join(s.audit, "*.jsonl"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("no audit log in %s: %w", s.audit, err)
	}
	return files, nil
}

// beginning is a logon, and the server whose audit log has it.
type beginning struct {
	line
	source *source
}

// evidence is what the audit logs of all servers say together.
type evidence struct {
	seen     map[string]bool      // events, by their ID
	begun    map[string]beginning // logons, by session
	byName   map[string][]line    // logons, by application_name
	tenants  map[string][]line    // those of tenants, by credential
	ended    map[string]int       // ends, by session
	requests map[string]string    // error codes, by request ID
}

// compare reads the audit logs of all servers as one, and the servers' own logs.
func (l *load) compare(sources ...source) (*records, error) {
	r := &records{}
	finder := newFinder(l.issuer.secrets)
	found := evidence{seen: map[string]bool{}, begun: map[string]beginning{}, byName: map[string][]line{},
		tenants: map[string][]line{}, ended: map[string]int{}, requests: map[string]string{}}
	for i := range sources {
		if err := l.readAudit(&sources[i], r, &found, finder); err != nil {
			return nil, err
		}
	}
	unwritten, err := l.readLogs(sources, r, finder)
	if err != nil {
		return nil, err
	}
	r.secrets = finder.found
	l.compareLogons(r, found.byName)
	if l.tenancies != nil {
		l.compareTenants(r, found.tenants)
	}
	l.compareEnds(r, found.begun, found.ended, unwritten)
	for id, code := range l.issuer.requests {
		if got, ok := found.requests[id]; ok && got == code || code == "InternalFailure" || code == "ServiceUnavailable" {
			continue
		}
		r.forgottenCalls++
		l.ledger.violate("the audit log differs", "call %s, which the client saw end with %q, is %q there", id, code, found.requests[id])
	}
	kills := 0
	for _, of := range sources {
		kills += deaths(of.lives, "killed")
	}
	if r.torn > kills {
		l.ledger.violate("the audit log differs", "%d torn lines after %d kills", r.torn, kills)
	}
	return r, nil
}

// readAudit reads the audit log of one server.
func (l *load) readAudit(of *source, r *records, found *evidence, finder *finder) error {
	files, err := of.files()
	if err != nil {
		return err
	}
	for _, file := range files {
		size, err := lines(file, func(text []byte) {
			finder.look(text, l.ledger, file)
			var one line
			if err := json.Unmarshal(text, &one); err != nil {
				r.torn++
				return
			}
			r.lines++
			if found.seen[one.EventID] {
				r.twice++
				return
			}
			found.seen[one.EventID] = true
			found.add(one, of, r, l.ledger)
		})
		r.auditBytes += size
		if err != nil {
			return err
		}
	}
	return nil
}

// add counts a line and keeps what is compared later.
func (e *evidence) add(one line, of *source, r *records, ledger *ledger) {
	session := one.Additional.SessionID
	switch one.EventName {
	case "Logon":
		if one.Additional.Outcome == "success" {
			r.logons++
			if _, also := e.begun[session]; also {
				ledger.violate("the audit log differs", "session %s began twice", session)
			}
			e.begun[session] = beginning{one, of}
		} else {
			r.refused++
		}
		if name := one.RequestParameters.ApplicationName; name == tenantName {
			e.tenants[one.Additional.CredentialID] = append(e.tenants[one.Additional.CredentialID], one)
		} else {
			e.byName[name] = append(e.byName[name], one)
		}
	case "SessionEnd":
		r.ends++
		e.ended[session]++
	case "AuditGap":
		r.gaps++
	default:
		r.calls++
		e.requests[one.RequestID] = one.ErrorCode
	}
}

// readLogs reads the logs of PostgreSQL and of all servers. It returns the sessions whose end could
// not be recorded.
func (l *load) readLogs(sources []source, r *records, finder *finder) (unwritten map[string]bool, err error) {
	unwritten = map[string]bool{}
	read := func(file string) (int64, error) {
		return lines(file, func(text []byte) {
			finder.look(text, l.ledger, file)
			if _, rest, ok := strings.Cut(string(text), `msg="the audit record of a session's end could not be written" session=`); ok {
				id, _, _ := strings.Cut(rest, " ")
				unwritten[id] = true
			}
		})
	}
	if _, err := read(l.stack.Path("postgres/postgres.log")); err != nil {
		return nil, err
	}
	for _, of := range sources {
		size, err := read(of.log)
		if err != nil {
			return nil, err
		}
		r.logBytes += size
	}
	return unwritten, nil
}

func deaths(lives []life, how string) (n int) {
	for _, life := range lives {
		if life.how == how {
			n++
		}
	}
	return n
}

// compareLogons checks that each successful logon has exactly one line, with the right user and
// groups, and each refused one exactly one line, with the right code.
func (l *load) compareLogons(r *records, byName map[string][]line) {
	for name := range byName {
		if _, ours := l.gate.attempts[name]; !ours && name != "soak-hostile" && strings.HasPrefix(name, "soak-") {
			l.ledger.violate("the audit log differs", "nobody tried to log on as %s", name)
		}
	}
	for name, a := range l.gate.attempts {
		found := byName[name]
		if len(found) > 1 {
			l.ledger.violate("the audit log differs", "%s tried once and is there %d times", name, len(found))
			continue
		}
		var one line
		if len(found) == 1 {
			one = found[0]
		}
		success := one.Additional.Outcome == "success"
		switch {
		case success:
			got := one.Additional
			if got.DBUser != a.pass.user || got.SessionRole != a.pass.sessionRole() || !slices.Equal(sorted(got.DBGroups), sorted(a.pass.groups)) {
				l.ledger.violate("the audit log differs", "%s: %s %v as %s, want %s %v", name, got.DBUser, got.DBGroups, got.SessionRole, a.pass.user, a.pass.groups)
			}
			if a.outcome != "in" {
				r.unseen++
			}
		case a.outcome == "in":
			l.ledger.violate("the audit log differs", "%s was let in and has %d lines: %+v", name, len(found), one)
		case a.outcome == "unknown", a.outcome == "57P03", a.outcome == "58030":
			// The connection failed before or after the line was written, or no line was due.
		case len(found) == 0 && l.ledger.active("audit directory away", a.began.Add(-time.Second), a.settled.Add(time.Second)):
			r.refusedUnwritten++ // the logon was refused anyway, and the server's log has it
		case len(found) == 0 || one.ErrorCode != a.outcome:
			l.ledger.violate("the audit log differs", "%s was refused with %s and is there %d times, as %q", name, a.outcome, len(found), one.ErrorCode)
		}
	}
}

func sorted(list []string) []string { return slices.Sorted(slices.Values(list)) }

// compareEnds checks that every session that began has exactly one end, unless its process was
// killed or logged that it could not record the end.
func (l *load) compareEnds(r *records, begun map[string]beginning, ended map[string]int, unwritten map[string]bool) {
	for id := range ended {
		if _, ok := begun[id]; !ok {
			l.ledger.violate("the audit log differs", "session %s ended and never began", id)
		}
	}
	for id, one := range begun {
		switch {
		case ended[id] == 1:
		case ended[id] > 1:
			l.ledger.violate("the audit log differs", "session %s ended %d times", id, ended[id])
		case unwritten[id]:
			r.endsRefused++
		case one.source.killedAfter(one.EventTime):
			r.endsLost++
		default:
			l.ledger.violate("the audit log differs", "session %s of %s, %v, never ended", id, one.Additional.SessionRole, one.EventTime)
		}
	}
}

// killedAfter reports whether the process that was running at a time was killed later. Audit lines
// have whole seconds.
func (s *source) killedAfter(t time.Time) bool {
	for _, life := range s.lives {
		if life.how == "killed" && t.Add(time.Second).After(life.began) && t.Before(life.ended) {
			return true
		}
	}
	return false
}

// finder looks for secrets. It looks for the beginning and the end of passwords, so that it also
// finds one that was cut off.
type finder struct {
	ends  map[string]bool
	whole [][]byte
	found int
}

const piece = 40

func newFinder(passwords []string) *finder {
	f := &finder{ends: make(map[string]bool, 2*len(passwords))}
	for _, p := range passwords {
		f.ends[p[:piece]], f.ends[p[len(p)-piece:]] = true, true
	}
	for _, s := range []string{secretKey, weakKey, passingKey, sitetest.AdminPassword, principals[1].key, principals[2].key} {
		f.whole = append(f.whole, []byte(s))
	}
	return f
}

func (f *finder) look(text []byte, l *ledger, file string) {
	for _, secret := range f.whole {
		if bytes.Contains(text, secret) {
			f.found++
			l.violate("a secret in a log", "%s: a configured one", filepath.Base(file))
		}
	}
	from := -1
	for i := 0; i <= len(text); i++ {
		if i < len(text) && strings.IndexByte(alphabet, text[i]) >= 0 {
			if from < 0 {
				from = i
			}
			continue
		}
		if run := text[max(from, 0):i]; from >= 0 && len(run) >= piece {
			if f.ends[string(run[:piece])] || f.ends[string(run[len(run)-piece:])] {
				f.found++
				l.violate("a secret in a log", "%s: a password", filepath.Base(file))
			}
		}
		from = -1
	}
}
