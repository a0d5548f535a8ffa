package server

import (
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/devidp"
)

// ownSessions is the statement of docs/policy.md for people.
const ownSessions = `{"Sid": "OwnSessions", "Effect": "Allow", "Action": ["daypass:ListSessions", "daypass:TerminateSession"], "Resource": "*",
	"Condition": {"StringEquals": {"daypass:session-owner-iam-userid": "${aws:userid}"}}}`

// rewrite changes the configuration and puts it in force.
func (s *signInSite) rewrite(pairs ...string) {
	s.t.Helper()
	text, err := os.ReadFile(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	changed := strings.NewReplacer(pairs...).Replace(string(text))
	if err := os.WriteFile(s.config, []byte(changed), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.reload()
}

// TestConsoleOwnSessions: people see and end their own sessions where policies allow that, although
// others have the same IAM role and the same database user. "Revoke" is on the page only where the
// policies allow it, and it is refused otherwise.
func TestConsoleOwnSessions(t *testing.T) {
	s := newSignInSite(t)
	s.mu.Lock()
	s.people = append(s.people, devidp.Person{Subject: "4", Name: "Cleo", Email: "cleo@example.com", Groups: []string{"analysts"}})
	s.mu.Unlock()
	s.configureConsole("console: true", startDatabase(t))
	s.rewrite(`{"Sid": "OwnUsers"`, strings.ReplaceAll(ownSessions, "\n", " ")+`, {"Sid": "OwnUsers"`,
		`"Action": "sts:GetCallerIdentity", "Resource": "*"}`, `"Action": "daypass:ListSessions", "Resource": "*"}, {"Effect": "Allow", "Action": "daypass:RevokeCredentials", "Resource": "arn:aws:daypass:*:*:dbuser/examplecluster/alice"}`)
	ana, cleo, bob, eve := s.enter("1", "analyst"), s.enter("4", "analyst"), s.enter("2", "engineer"), s.enter("3", "sales")
	s.goTo(ana, "/console/sessions", 200)
	hasAll(t, "Ana's page", words(ana.page), "My sessions", "You have no open sessions.")
	hers, others := s.logonAs(s.consoleCredential(ana), "hers"), s.logonAs(s.consoleCredential(cleo), "cleo's")

	sessions := func(b *browser) []string {
		s.goTo(b, "/console/sessions", 200)
		var ids []string
		for _, part := range strings.Split(b.page, "/console/end?id=")[1:] {
			id, _, _ := strings.Cut(part, `"`)
			ids = append(ids, id)
		}
		return ids
	}
	mine, theirs := sessions(ana), sessions(cleo)
	if len(mine) != 1 || len(theirs) != 1 || mine[0] == theirs[0] {
		t.Fatalf("Ana sees %v and Cleo %v, want one each", mine, theirs)
	}
	if strings.Contains(ana.page, "cleo") || strings.Contains(ana.page, "/console/revoke") {
		t.Errorf("Ana's page has more than her own session\n%s", ana.page)
	}
	if all := sessions(bob); len(all) != 2 || strings.Count(bob.page, "/console/revoke?cluster=examplecluster&amp;principal=") != 2 || !strings.Contains(bob.page, "Who is on") {
		t.Errorf("Bob, who may do all, sees %v\n%s", all, bob.page)
	}
	if all := sessions(eve); len(all) != 0 || strings.Count(eve.page, `href="/console/revoke?cluster=examplecluster&amp;user=alice"`) != 2 {
		t.Errorf("Eve, who may revoke a database user only, can end %v\n%s", all, eve.page)
	}
	principal := url.QueryEscape("arn:aws:sts::123456789012:assumed-role/analyst/cleo@example.com")
	s.goTo(eve, "/console/revoke?cluster=examplecluster&user=alice&principal="+principal, 200)
	if !strings.Contains(eve.page, "the database user alice") || strings.Contains(eve.page, "everything of") {
		t.Errorf("what Eve may revoke: %s", eve.page)
	}
	s.goTo(ana, "/console/revoke?cluster=examplecluster&user=alice&principal="+principal, 403)
	// Without parameters the page asks for an ARN, if there is one that the policies allow to revoke.
	for _, b := range []*browser{ana, eve} {
		s.goTo(b, "/console/revoke", 403)
		s.goTo(b, "/console/credential", 200)
		if b.form(s.api+"/console/revoke", url.Values{}); b.status != 403 || strings.Contains(b.page, `name="principal"`) {
			t.Errorf("a form without a choice: %d\n%s", b.status, b.page)
		}
	}
	s.goTo(bob, "/console/revoke", 200)
	for name, row := range map[string]struct {
		b      *browser
		page   string
		fields url.Values
	}{
		"Ana ends another's":               {ana, "end", url.Values{"id": theirs}},
		"Ana revokes herself":              {ana, "revoke", url.Values{"what": {"principal"}, "principal": {anaAsAnalyst}}},
		"Ana revokes the database user":    {ana, "revoke", url.Values{"what": {"user"}, "user": {"alice"}, "cluster": {"examplecluster"}}},
		"Eve ends one":                     {eve, "end", url.Values{"id": mine}},
		"Eve revokes a principal":          {eve, "revoke", url.Values{"what": {"principal"}, "principal": {anaAsAnalyst}}},
		"Eve revokes another user":         {eve, "revoke", url.Values{"what": {"user"}, "user": {"bob"}, "cluster": {"examplecluster"}}},
		"Eve revokes the user in clusters": {eve, "revoke", url.Values{"what": {"user"}, "user": {"alice"}}},
	} {
		s.goTo(row.b, "/console/credential", 200)
		if row.b.form(s.api+"/console/"+row.page, row.fields); row.b.status != 403 || !strings.Contains(row.b.page, "Refused: AccessDenied") || strings.Contains(row.b.page, `id="principal"`) {
			t.Errorf("%s: %d\n%s", name, row.b.status, row.b.page)
		}
	}
	for what, conn := range map[string]*pgx.Conn{"Ana's": hers, "Cleo's": others} {
		if err := conn.Ping(t.Context()); err != nil {
			t.Errorf("%s session: %v", what, err)
		}
	}
	s.goTo(ana, "/console/end?id="+mine[0], 200)
	ana.send()
	hasAll(t, "the end", ana.page, "is ended.")
	toldWhy(t, hers, "57P01")
	if err := others.Ping(t.Context()); err != nil {
		t.Errorf("Cleo's session: %v", err)
	}

}
