package api_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/directory"
)

var sessionIDs = regexp.MustCompile(`<SessionId>([^<]*)</SessionId>`)

const ownSessions = `{"Effect":"Allow","Action":["daypass:ListSessions","daypass:TerminateSession"],"Resource":"*",
	"Condition":{"StringEquals":{"daypass:session-owner-iam-userid":"${aws:userid}"}}}`

// TestOwnSessions: with the condition key of the owner, principals see and end their own sessions
// and no others. The database user, the session name and the application make no one the owner.
func TestOwnSessions(t *testing.T) {
	spec := operators(t)
	spec.Users = append(spec.Users,
		user("own", policy(t, "own", ownSessions)),
		user("nothing", policy(t, "nothing", `{"Effect":"Allow","Action":"redshift:*","Resource":"*"}`)),
		user("here", policy(t, "here", strings.Replace(ownSessions, `"Resource":"*"`, `"Resource":["arn:aws:daypass:us-east-1:123456789012:cluster/examplecluster","arn:aws:daypass:us-east-1:123456789012:session/examplecluster/*"]`, 1))),
		user("notothers", policy(t, "notothers", `{"Effect":"Allow","Action":"daypass:*","Resource":"*"},
			{"Effect":"Deny","Action":"daypass:*","Resource":"*","Condition":{"StringNotEquals":{"daypass:session-owner-iam-userid":"${aws:userid}"}}}`)),
		user("one", policy(t, "one", `{"Effect":"Allow","Action":"daypass:*","Resource":"*","Condition":{"StringLike":{"daypass:session-owner-iam-userid":"*:nightly"}}}`)),
		user("elses", policy(t, "elses", `{"Effect":"Allow","Action":"daypass:*","Resource":"*"},
			{"Effect":"Deny","Action":"daypass:*","Resource":"*","Condition":{"StringNotLike":{"daypass:session-owner-iam-userid":["*:nightly","${aws:userid}"]}}}`)),
		user("none", policy(t, "none", `{"Effect":"Allow","Action":"daypass:*","Resource":"*","Condition":{"StringLike":{"daypass:session-owner-iam-userid":"*:weekly"}}}`)),
		user("bounded", policy(t, "bounded", `{"Effect":"Allow","Action":"daypass:*","Resource":"*"},{"Effect":"Deny","Action":"daypass:*","Resource":"*",
			"Condition":{"StringLike":{"daypass:session-owner-iam-userid":"*:nightly"},"Null":{"aws:MultiFactorAuthPresent":"true"}}}`)),
	)
	spec.Roles = append(spec.Roles, directory.RoleSpec{Name: "etl", Trust: trust(t, `{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:user/root"},"Action":"sts:AssumeRole"}`)})
	s := newSite(t, spec)
	add := func(id, principal, cluster, dbUser string) {
		one := *s.sessions[0]
		one.ID, one.Principal, one.Cluster, one.DBUser, one.Application = id, principal, cluster, dbUser, "own"
		s.sessions = append(s.sessions, &one)
	}
	for _, name := range []string{"own", "here", "notothers", "nothing"} {
		add(name+"1", "arn:aws:iam::123456789012:user/"+name, "examplecluster", "alice")
		add(name+"2", "arn:aws:iam::123456789012:user/"+name, "Other", "bob")
	}
	add("nobodys", "", "examplecluster", "own")
	add("account", "arn:aws:iam::999999999999:user/own", "examplecluster", "own")
	add("partition", "arn:aws-cn:iam::123456789012:user/own", "examplecluster", "own")
	add("path", "arn:aws:iam::123456789012:user/x/own", "examplecluster", "own")
	add("name", "arn:aws:sts::123456789012:assumed-role/etl/own", "examplecluster", "own")
	add("role", "arn:aws:sts::123456789012:assumed-role/own/own", "examplecluster", "own")
	add("nightly", "arn:aws:sts::123456789012:assumed-role/etl/nightly", "examplecluster", "own")
	for _, row := range []struct {
		user string
		form []string
		want string // "": refused
	}{
		{"own", nil, "own1 own2"},
		{"own", []string{"ClusterIdentifier", "Other"}, "own2"},
		{"own", []string{"DbUser", "alice"}, "own1"},
		{"here", []string{"ClusterIdentifier", "examplecluster"}, "here1"},
		{"here", nil, ""},
		{"here", []string{"ClusterIdentifier", "Other"}, ""},
		{"own", []string{"ClusterIdentifier", "missing"}, "404"},
		{"nothing", []string{"ClusterIdentifier", "missing"}, ""},
		{"notothers", nil, "notothers1 notothers2"},
		{"nothing", nil, ""},
		// What they may end they may list, also if it is not their own.
		{"one", nil, "nightly SESSION1"},
		{"one", []string{"ClusterIdentifier", "Other"}, "nothing"},
		{"elses", nil, "nightly SESSION1"},
		{"none", nil, "nothing"},
		{"bounded", []string{"DbUser", "own"}, "account name nobodys partition path role"},
	} {
		a := s.call(row.user, append([]string{"Action", "ListSessions"}, row.form...)...)
		switch {
		case row.want == "":
			s.refused(a, 403, "AccessDenied", "daypass:ListSessions")
			continue
		case row.want == "404":
			s.refused(a, 404, "ClusterNotFound", "")
			continue
		}
		var ids []string
		for _, id := range sessionIDs.FindAllStringSubmatch(a.body, -1) {
			ids = append(ids, id[1])
		}
		if row.want == "nothing" {
			row.want = ""
		}
		if got := strings.Join(ids, " "); a.status != 200 || got != row.want {
			t.Errorf("%s %q sees %d %q, want %q", row.user, row.form, a.status, got, row.want)
		}
	}
	// The refusal is the same for another's session and for one that does not exist.
	for _, id := range []string{"here1", "nobodys", "account", "partition", "path", "name", "role", "nightly", "SESSION0", "NONE"} {
		s.refused(s.call("own", "Action", "TerminateSession", "SessionId", id), 403, "AccessDenied", "session/*/"+id+" because no identity-based policy allows")
	}
	s.refused(s.call("here", "Action", "TerminateSession", "SessionId", "here2"), 403, "AccessDenied", "")
	s.refused(s.call("notothers", "Action", "TerminateSession", "SessionId", "own1"), 403, "AccessDenied", "")
	before := len(s.List())
	for _, row := range [][2]string{{"own", "own2"}, {"here", "here1"}, {"notothers", "notothers1"}, {"one", "nightly"}} {
		if a := s.call(row[0], "Action", "TerminateSession", "SessionId", row[1]); a.status != 200 {
			t.Errorf("%s ends its own session %s: %d %s", row[0], row[1], a.status, a.body)
		}
	}
	if left := len(s.List()); left != before-4 {
		t.Errorf("%d sessions are left of %d", left, before)
	}
}

// TestUnansweredServers: only callers who may list the sessions of everyone learn the names of the
// servers that did not answer.
func TestUnansweredServers(t *testing.T) {
	spec := operators(t)
	spec.Users = append(spec.Users, user("own", policy(t, "own", ownSessions)),
		user("all", policy(t, "all", `{"Effect":"Allow","Action":"daypass:*","Resource":"*"}`)))
	s := newSite(t, spec)
	for _, row := range []struct {
		silent    []string
		all, some string
	}{
		{nil, "", ""},
		{[]string{"db1"}, "<Unanswered><Server>db1</Server></Unanswered>", "<Unanswered><Server>another server</Server></Unanswered>"},
		{[]string{"db1", "db2"}, "<Unanswered><Server>db1</Server><Server>db2</Server></Unanswered>", "<Unanswered><Server>2 other servers</Server></Unanswered>"},
	} {
		s.silent = row.silent
		for name, want := range map[string]string{"all": row.all, "own": row.some} {
			a := s.call(name, "Action", "ListSessions")
			if a.status != 200 || strings.Contains(a.body, "<Unanswered>") != (want != "") || !strings.Contains(a.body, want) {
				t.Errorf("%s, while %q do not answer: %d %s, want %q", name, row.silent, a.status, a.body, want)
			}
		}
	}
}
