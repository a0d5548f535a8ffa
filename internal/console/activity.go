package console

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/throttle"
)

// mostLines is how many lines of the audit log a page shows.
const mostLines = 50

type activityPage struct {
	Lines  []activity
	Since  when   // the log was read back to this time; zero: all of it was read, or the page is full
	Server string // this server, if there are several
}

// activity is a line of the audit log for a person.
type activity struct {
	Time      when
	Event     string
	What      string
	From      string
	Console   bool
	Code      string // empty: it succeeded
	Message   string
	Decisions []checkRow
	Explain   string // address of the page that explains the call now
}

// activity shows the person's own lines.
func (e *exchange) activity() {
	e.showLines("activity", func(*audit.Line) bool { return true })
}

// refusals shows the person's own calls and logons that were refused.
func (e *exchange) refusals() {
	e.showLines("refusals", func(l *audit.Line) bool { return l.ErrorCode != "" && l.EventName != "SessionEnd" })
}

func (e *exchange) showLines(page string, keep func(*audit.Line) bool) {
	pass, verdict := e.readers.Enter(e.who.ARN, e.now)
	if verdict != throttle.Admitted {
		e.refuse(http.StatusTooManyRequests, "You are reading the audit log too often.", "Try again in a few seconds.")
		return
	}
	defer e.readers.Leave(e.who.ARN, pass)
	if !e.reading.Enter(e.r.Context()) {
		e.refuse(http.StatusServiceUnavailable, "Too many people are reading the audit log at once.", "Try again in a moment.")
		return
	}
	defer e.reading.Leave()
	found, since, err := e.config.Audit.Recent(e.r.Context(), e.who.ARN, mostLines, keep)
	if err != nil {
		if e.r.Context().Err() == nil { // the reader has not left
			e.failed(err)
		}
		return
	}
	data := activityPage{Server: e.config.Server}
	if !since.IsZero() {
		data.Since = e.when(since)
	}
	for i := range found {
		data.Lines = append(data.Lines, e.activityOf(&found[i]))
	}
	e.show(http.StatusOK, page, data)
}

func (e *exchange) activityOf(l *audit.Line) activity {
	a := activity{Time: e.when(l.EventTime), Event: l.EventName, From: l.SourceIP, Console: l.FromConsole == "true", Code: l.ErrorCode, Message: l.ErrorMessage}
	get := func(name string) string {
		switch v := l.Request[name].(type) {
		case string:
			return v
		case float64:
			return strconv.FormatFloat(v, 'f', -1, 64)
		case []any:
			var words []string
			for _, one := range v {
				words = append(words, fmt.Sprint(one))
			}
			return strings.Join(words, " ")
		}
		return ""
	}
	var what []string
	add := func(label, value string) {
		if value != "" {
			what = append(what, label+" "+value)
		}
	}
	switch l.EventName {
	case "Logon", "SessionEnd":
		add("cluster", l.More.Cluster)
		add("database", l.More.Database)
		add("user", l.More.DBUser)
		add("groups", strings.Join(l.More.DBGroups, " "))
		add("ended:", map[bool]string{true: l.More.Reason}[l.EventName == "SessionEnd"])
	default:
		add("cluster", get("clusterIdentifier"))
		add("database", get("dbName"))
		add("user", get("dbUser"))
		add("groups", get("dbGroups"))
		add("session", get("sessionId"))
		add("principal", get("principal"))
		add("IAM role", get("roleArn"))
	}
	a.What = strings.Join(what, ", ")
	// What was decided about a refused call can tell that a name exists. Its message does not.
	decisions := l.More.Decisions
	if l.ErrorCode != "" && !e.who.Details {
		decisions = nil
	}
	for _, d := range decisions {
		r := checkRow{Action: d.Action, Resource: d.Resource, Allowed: d.Effect == "Allow"}
		switch d.Effect {
		case "Allow":
			r.Verdict = "allowed"
		case "Deny":
			r.Verdict = "denied by a statement"
		default:
			r.Verdict = "denied: no statement of the " + d.Layer + " allows it"
		}
		if d.Policy != "" {
			r.By = statementName(d.Sid, d.Index) + " of " + d.Policy + " (" + d.Layer + ")"
		}
		a.Decisions = append(a.Decisions, r)
	}
	if l.EventName == "GetClusterCredentials" || l.EventName == "GetClusterCredentialsWithIAM" {
		q := url.Values{"cluster": {get("clusterIdentifier")}, "user": {get("dbUser")}, "database": {get("dbName")}, "groups": {get("dbGroups")}, "as": {asUser}}
		if l.EventName == "GetClusterCredentialsWithIAM" {
			q.Set("as", asIdentity)
		}
		if seconds, err := strconv.Atoi(get("durationSeconds")); err == nil {
			q.Set("minutes", strconv.Itoa(seconds/60))
		}
		if get("autoCreate") == "true" {
			q.Set("create", "on")
		}
		a.Explain = prefix + "explain?" + q.Encode()
	}
	return a
}
