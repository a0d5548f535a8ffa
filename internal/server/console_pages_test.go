package server

import (
	"context"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/test/pgtest"
)

const hostile = `<script>alert(1)</script>"'` + "\u202etxt.exe\u2066\u200b"

// consoleCredential asks for a credential of alice at the console, and returns the password on the page.
func (s *signInSite) consoleCredential(b *browser) issued {
	s.t.Helper()
	s.goTo(b, "/console/credential", 200)
	b.form(s.api+"/console/credential", url.Values{"cluster": {"examplecluster"}, "user": {"alice"}, "database": {"dev"}, "minutes": {"15"}})
	found := regexp.MustCompile(`<pre id="password"[^>]*>([^<]*)<`).FindStringSubmatch(b.page)
	if found == nil {
		s.t.Fatalf("no password: %d\n%s", b.status, b.page)
	}
	return issued{DbUser: "IAM:alice", DbPassword: html.UnescapeString(found[1])}
}

// logonAs logs on with a credential and an application name.
func (s *signInSite) logonAs(c issued, application string) *pgx.Conn {
	s.t.Helper()
	s.site.Gateway = s.where.Gateway.String()
	config, err := s.site.Logon(c.DbUser, c.DbPassword, "dev")
	if err != nil {
		s.t.Fatal(err)
	}
	config.RuntimeParams["application_name"] = application
	conn, err := pgx.ConnectConfig(s.t.Context(), config)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// TestConsoleSessionsOfTheGateway: policies decide who may see, end and revoke sessions; nothing is
// done without the confirmation; text from databases and clients is shown as text.
func TestConsoleSessionsOfTheGateway(t *testing.T) {
	s := newSignInSite(t)
	s.configureConsole("console: true", startDatabase(t))
	s.reload()
	ana, bob := s.enter("1", "analyst"), s.enter("2", "engineer")
	first := s.logonAs(s.consoleCredential(ana), hostile)
	second := s.logonAs(s.consoleCredential(bob), "bob's")

	s.goTo(bob, "/console/sessions", 200)
	hasAll(t, "who is on", bob.page, html.EscapeString("assumed-role/analyst/ana@example.com"), "&lt;script&gt;alert(1)", "yours", "/console/end?id=", "/console/revoke?")
	if strings.Contains(bob.page, "<script>alert") {
		t.Errorf("an application name is a script\n%s", bob.page)
	}
	ids := regexp.MustCompile(`/console/end\?id=([A-Za-z0-9_-]+)`).FindAllStringSubmatch(bob.page, -1)
	if len(ids) != 2 {
		t.Fatalf("the page has %d sessions to end\n%s", len(ids), bob.page)
	}
	// The oldest session is the first.
	hers, his := ids[0][1], ids[1][1]
	hasAll(t, "what is invisible in an application name", bob.page, `\u202etxt.exe\u2066\u200b`)
	if strings.ContainsAny(bob.page, "\u202e\u2066\u200b") {
		t.Errorf("an application name reverses the text of the page\n%s", bob.page)
	}

	// Ana's policies allow none of this: the page shows nothing, and the form does nothing.
	s.goTo(ana, "/console/sessions", 403)
	hasAll(t, "Ana at who is on", ana.page, "Refused: AccessDenied")
	if strings.Contains(ana.page, "engineer/bob") || strings.Contains(ana.page, his) {
		t.Errorf("Ana sees sessions\n%s", ana.page)
	}
	for name, row := range map[string]struct {
		page   string
		fields url.Values
	}{
		"end another's session":                {"end", url.Values{"id": {his}}},
		"end one's own":                        {"end", url.Values{"id": {hers}}},
		"end one that does not exist":          {"end", url.Values{"id": {"nothing"}}},
		"revoke another":                       {"revoke", url.Values{"what": {"principal"}, "principal": {"arn:aws:sts::123456789012:assumed-role/engineer/bob@example.com"}}},
		"revoke a database user":               {"revoke", url.Values{"what": {"user"}, "user": {"alice"}, "cluster": {"examplecluster"}}},
		"revoke a whole cluster by its user":   {"revoke", url.Values{"what": {"user"}, "user": {"*"}, "cluster": {"examplecluster"}}},
		"revoke an IAM role":                   {"revoke", url.Values{"what": {"principal"}, "principal": {"arn:aws:iam::123456789012:role/engineer"}}},
		"simulate the policies of an IAM role": {"simulate", url.Values{"principal": {"arn:aws:iam::123456789012:role/engineer"}, "actions": {"redshift:JoinGroup"}}},
		"simulate a policy":                    {"simulate", url.Values{"policy": {analystPolicy}, "actions": {"redshift:JoinGroup"}}},
	} {
		s.goTo(ana, "/console/credential", 200)
		ana.form(s.api+"/console/"+row.page, row.fields)
		if ana.status != 403 || !strings.Contains(ana.page, "Refused: AccessDenied") || strings.Contains(ana.page, "<h2>Result</h2>") {
			t.Errorf("%s: %d\n%s", name, ana.status, ana.page)
		}
	}
	if _, err := first.Exec(t.Context(), "select 1"); err != nil {
		t.Errorf("Ana's session: %v", err)
	}
	if _, err := second.Exec(t.Context(), "select 1"); err != nil {
		t.Errorf("Bob's session: %v", err)
	}

	// Bob's policies allow him to end her session. The link only asks; the form ends it.
	s.goTo(bob, "/console/end?id="+hers, 200)
	hasAll(t, "the question", bob.page, "End this session?", hers)
	if _, err := first.Exec(t.Context(), "select 1"); err != nil {
		t.Fatalf("the question has ended the session: %v", err)
	}
	bob.send()
	hasAll(t, "the end", bob.page, "is ended.")
	toldWhy(t, first, "57P01")
	s.goTo(bob, "/console/end?id="+url.QueryEscape(hostile), 200)
	if bob.send(); bob.status != 404 || strings.Contains(bob.page, "<script>alert") || !strings.Contains(bob.page, "Refused: SessionNotFound") {
		t.Errorf("the end of no session: %d\n%s", bob.status, bob.page)
	}
	// Bob can also revoke all her credentials, which ends her console session too.
	s.goTo(bob, "/console/revoke?principal="+url.QueryEscape("arn:aws:sts::123456789012:assumed-role/analyst/ana@example.com"), 200)
	bob.send("what", "principal")
	hasAll(t, "the revocation", bob.page, "Revoked: arn:aws:sts::123456789012:assumed-role/analyst/ana@example.com.")
	if ana.open(s.api + "/console/"); !isSignedOut(ana) {
		t.Errorf("after the revocation Ana is signed in\n%s", ana.page)
	}
	s.goTo(bob, "/console/revoke", 200)
	hasAll(t, "revoking by name", bob.page, "ARN of an IAM user")
	bob.send("principal", "nonsense") // it can be corrected
	hasAll(t, "revoking a mistyped name", bob.page, "Refused: InvalidParameterValue", `name="principal" value="nonsense" autofocus aria-invalid="true" aria-describedby="refusal"`)
	for _, event := range []string{"TerminateSession", "RevokeCredentials", "ListSessions", "SimulateCustomPolicy"} {
		records := s.records(event)
		if len(records) == 0 {
			t.Errorf("the audit log has no %s", event)
		}
		for _, r := range records {
			if r["sessionCredentialFromConsole"] != "true" {
				t.Errorf("a line of the console: %v", r)
			}
		}
	}
	// Logons are among a person's lines.
	s.goTo(bob, "/console/audit", 200)
	hasAll(t, "Bob's lines", words(bob.page), "Logon cluster examplecluster, database dev, user alice ok", "TerminateSession session "+hers, "ConsoleLogin")
	pgtest.Eventually(t, "the end of Ana's session in the log", func() bool { return s.sessionEnds() == 1 })
}

// TestConsoleExplains: the console explains why a call was refused, from the audit log and by the
// policies in force. It does not reveal which clusters exist.
func TestConsoleExplains(t *testing.T) {
	s := newConsoleSite(t)
	ana, bob := s.enter("1", "analyst"), s.enter("2", "engineer")
	explain := func(b *browser, query string) string {
		t.Helper()
		s.goTo(b, "/console/explain?"+query, 200)
		text := words(b.page)
		text, _, _ = strings.Cut(text, "Another call")
		return text
	}
	for query, want := range map[string][]string{
		"cluster=examplecluster&user=alice&database=dev&groups=analysts":      {"would be allowed", "allowed , OwnUsers of", "JoinGroup : allowed"},
		"cluster=examplecluster&user=alice-root&database=dev":                 {"would be refused", "denied by a statement , NotRoot of"},
		"cluster=examplecluster&user=bob&database=dev":                        {"would be refused", "OwnUsers of", "allows it for another resource of this kind"},
		"cluster=examplecluster&user=alice&database=dev&minutes=60":           {"would be refused", "but for its condition on redshift:DurationSeconds", "sts:DecodeAuthorizationMessage"},
		"cluster=examplecluster&user=alice&database=dev&groups=Not/A/Group":   {"would be refused"},
		"cluster=examplecluster&user=alice&database=dev&as=identity":          {"GetClusterCredentialsWithIAM", "would be refused"},
		"cluster=examplecluster&user=alice&database=dev&minutes=1":            {"DurationSeconds: it must be between 900 and 3600"},
		"cluster=examplecluster&user=&database=dev":                           {"DbUser must be provided"},
		"cluster=examplecluster&user=alice&database=dev&create=on&minutes=15": {"CreateClusterUser : allowed , MakeMine of"},
	} {
		s.goTo(ana, "/console/", 200)
		ana.open(s.api + "/console/explain?" + query)
		hasAll(t, query, words(ana.page), want...)
		if found := invalidField.FindStringSubmatch(ana.page); strings.Contains(query, "user=&") && (found == nil || found[1] != "user") {
			t.Errorf("%s: the page does not lead to the field for the user\n%s", query, ana.page)
		}
	}
	if text := explain(ana, "cluster=examplecluster&user=alice&database=dev&minutes=60"); strings.Contains(text, "1800") {
		t.Errorf("Ana sees what a condition compares with\n%s", text)
	}
	// A cluster that exists and one that does not are refused in the same words.
	secret := explain(ana, "cluster=secretcluster&user=alice&database=dev&groups=keepers")
	nowhere := explain(ana, "cluster=nowhere&user=alice&database=dev&groups=keepers")
	if strings.ReplaceAll(secret, "secretcluster", "C") != strings.ReplaceAll(nowhere, "nowhere", "C") || !strings.Contains(secret, "would be refused") {
		t.Errorf("a cluster that exists:\n%s\none that does not:\n%s", secret, nowhere)
	}
	hasAll(t, "for Bob", explain(bob, "cluster=nowhere&user=alice&database=dev"), "ClusterNotFound")
	if got := s.records("GetClusterCredentials"); len(got) != 0 {
		t.Errorf("explaining made a call: %v", got)
	}

	// A refusal is in the log, and on no other person's page.
	for _, user := range []string{"alice-root", hostile} {
		s.goTo(ana, "/console/credential", 200)
		ana.form(s.api+"/console/credential", url.Values{"cluster": {"examplecluster"}, "user": {user}, "database": {"dev"}, "minutes": {"15"}})
	}
	s.goTo(ana, "/console/refusals", 200)
	text := words(ana.page)
	hasAll(t, "Ana's refusals", text, "user alice-root", "AccessDenied", "with an explicit deny", "Explain this call now")
	if strings.Contains(ana.page, "<script>alert") {
		t.Errorf("a name is a script\n%s", ana.page)
	}
	link := html.UnescapeString(regexp.MustCompile(`/console/explain\?[^"]*alice-root[^"]*`).FindString(ana.page))
	s.goTo(ana, link, 200)
	hasAll(t, "the link", words(ana.page), "NotRoot of")
	s.goTo(ana, "/console/audit", 200)
	hasAll(t, "Ana's lines", words(ana.page), "GetClusterCredentials cluster examplecluster, database dev, user alice-root AccessDenied", "ConsoleLogin")
	for _, page := range []string{"/console/refusals", "/console/audit", "/console/audit?arn=arn:aws:sts::123456789012:assumed-role/analyst/ana@example.com"} {
		s.goTo(bob, page, 200)
		if strings.Contains(bob.page, "alice-root") || strings.Contains(bob.page, "analyst/ana") {
			t.Errorf("%s shows Bob what Ana did\n%s", page, bob.page)
		}
	}
	// The log does not reveal which cluster exists either.
	told := func(cluster string) string {
		t.Helper()
		s.goTo(ana, "/console/credential", 200)
		ana.form(s.api+"/console/credential", url.Values{"cluster": {cluster}, "user": {"alice"}, "database": {"dev"}, "minutes": {"15"}})
		s.goTo(ana, "/console/refusals", 200)
		_, text, _ := strings.Cut(words(ana.page), "cluster "+cluster+",")
		text, _, _ = strings.Cut(text, "GetClusterCredentials,")
		return strings.ReplaceAll(text, cluster, "C")
	}
	if secret, nowhere := told("secretcluster"), told("nowhere"); secret != nowhere || !strings.Contains(secret, "AccessDenied") {
		t.Errorf("the line about a cluster that exists:\n%s\nabout one that does not:\n%s", secret, nowhere)
	}
	// The same person with another IAM role is another principal, and may see what was decided.
	asEngineer := s.enter("1", "engineer")
	s.goTo(asEngineer, "/console/audit", 200)
	s.goTo(asEngineer, "/console/credential", 200)
	asEngineer.form(s.api+"/console/credential", url.Values{"cluster": {"nowhere"}, "user": {"alice"}, "database": {"dev"}, "minutes": {"15"}})
	s.goTo(asEngineer, "/console/refusals", 200)
	hasAll(t, "what was decided", words(asEngineer.page), "ClusterNotFound", "What was decided then redshift:GetClusterCredentials : allowed")
}

// TestConsoleReadersShareTheLog: someone who reads a long log over and over does not keep others
// from reading it.
func TestConsoleReadersShareTheLog(t *testing.T) {
	s := newConsoleSite(t)
	ana, bob := s.enter("1", "analyst"), s.enter("2", "engineer")
	line := `{"userIdentity":{"arn":"arn:aws:sts::123456789012:assumed-role/analyst/ana@example.com"},"eventName":"x","requestParameters":{"text":"` + strings.Repeat("x", 1000) + `"}}` + "\n"
	yesterday := filepath.Join(s.dir, "data", "audit", time.Now().UTC().AddDate(0, 0, -1).Format(time.DateOnly)+".jsonl")
	if err := os.WriteFile(yesterday, []byte(strings.Repeat(line, 20<<20/len(line))), 0o600); err != nil {
		t.Fatal(err)
	}
	cookie := s.consoleCookie(ana)
	ctx, cancel := context.WithCancel(t.Context())
	var flood sync.WaitGroup
	defer flood.Wait()
	defer cancel()
	for range 40 {
		flood.Go(func() {
			for ctx.Err() == nil {
				r, _ := http.NewRequestWithContext(ctx, "GET", s.api+"/console/refusals", nil)
				r.AddCookie(cookie)
				if answer, err := http.DefaultClient.Do(r); err == nil {
					answer.Body.Close()
				}
				time.Sleep(500 * time.Millisecond)
			}
		})
	}
	for range 5 {
		time.Sleep(50 * time.Millisecond)
		s.goTo(bob, "/console/audit", 200)
	}
}

// TestConsoleOffersAreBounded: with a policy of many names that are not allowed, the page says
// that there are too many, within the time that a client waits.
func TestConsoleOffersAreBounded(t *testing.T) {
	s := newConsoleSite(t)
	var names []string
	for i := range 400 {
		for _, kind := range []string{"dbuser", "dbname"} {
			names = append(names, fmt.Sprintf(`"arn:aws:redshift:us-east-1:123456789012:%s:examplecluster/n%d"`, kind, i))
		}
	}
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	many := strings.Replace(string(text), `{"Sid": "OwnUsers",`, `{"Effect": "Allow", "Action": "redshift:GetClusterCredentials", "Resource": [`+strings.Join(names, ",")+`], "Condition": {"NumericLessThan": {"redshift:DurationSeconds": "900"}}}, {"Sid": "OwnUsers",`, 1)
	if err := os.WriteFile(s.config, []byte(many), 0o600); err != nil {
		t.Fatal(err)
	}
	s.reload()
	hasAll(t, "the page", words(s.enter("1", "analyst").page), "more than this page can decide")
}

// invalidField finds the field that a refusal is about.
var invalidField = regexp.MustCompile(`name="([a-z]+)"[^>]* autofocus aria-invalid="true" aria-describedby="refusal`)

// TestConsoleSimulates: the simulator shows the deciding statement and near misses, limits its
// input, and shows policies as text.
func TestConsoleSimulates(t *testing.T) {
	s := newConsoleSite(t)
	b := s.enter("2", "engineer")
	simulate := func(fields url.Values) string {
		t.Helper()
		s.goTo(b, "/console/simulate", 200)
		b.form(s.api+"/console/simulate", fields)
		return words(b.page)
	}
	const alice = "arn:aws:redshift:us-east-1:123456789012:dbuser:examplecluster/alice"
	text := simulate(url.Values{"policy": {analystPolicy}, "actions": {"redshift:GetClusterCredentials\r\nredshift:JoinGroup"}, "resources": {alice}, "context": {"redshift:DbName=dev\r\nredshift:DurationSeconds=900"}})
	hasAll(t, "a policy", text, "redshift:GetClusterCredentials : allowed , OwnUsers of your policy (identity-based policy), line 2", "redshift:JoinGroup : denied: no statement")
	text = simulate(url.Values{"policy": {analystPolicy}, "actions": {"redshift:GetClusterCredentials"}, "resources": {alice}, "context": {"redshift:DbName=prod\r\nredshift:DurationSeconds=900"}})
	hasAll(t, "a near miss", text, "OwnUsers of your policy would allow it but for its condition on redshift:DbName (StringEquals dev)")
	text = simulate(url.Values{"principal": {"arn:aws:iam::123456789012:role/analyst"}, "actions": {"redshift:GetClusterCredentials"}, "resources": {strings.Replace(alice, "alice", "alice-root", 1)}})
	hasAll(t, "a principal", text, "denied by a statement , NotRoot of")
	// The values in a principal's conditions are shown only with sts:DecodeAuthorizationMessage.
	near := url.Values{"principal": {"arn:aws:iam::123456789012:role/analyst"}, "actions": {"redshift:GetClusterCredentials"}, "resources": {alice}, "context": {"redshift:DbName=prod"}}
	hasAll(t, "a near miss of a principal", simulate(near), "condition on redshift:DbName (StringEquals dev)")
	config, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.config, []byte(strings.Replace(string(config), `"sts:DecodeAuthorizationMessage", `, "", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	s.reload()
	text = simulate(near)
	hasAll(t, "the same without the permission", text, "condition on redshift:DbName and redshift:DurationSeconds")
	if strings.Contains(text, "StringEquals") || strings.Contains(text, "1800") {
		t.Errorf("a simulation shows what conditions compare with\n%s", text)
	}
	for what, row := range map[string]struct {
		fields url.Values
		status int
		want   string
		field  string // that has the focus
	}{
		"no policy":      {url.Values{"actions": {"redshift:JoinGroup"}}, 400, "paste a policy, or name a principal", "policy"},
		"no action":      {url.Values{"policy": {analystPolicy}}, 400, "There is no action", "actions"},
		"no JSON":        {url.Values{"policy": {hostile}, "actions": {"redshift:JoinGroup"}}, 400, "Refused: InvalidInput your policy: line 1", "policy"},
		"too long":       {url.Values{"policy": {strings.Repeat(" ", 40_000)}, "actions": {"redshift:JoinGroup"}}, 400, "more than 32 kB", "policy"},
		"context":        {url.Values{"policy": {analystPolicy}, "actions": {"redshift:JoinGroup"}, "context": {"nonsense"}}, 400, "no equals sign", "context"},
		"no principal":   {url.Values{"principal": {"arn:aws:iam::123456789012:role/nobody"}, "actions": {"redshift:JoinGroup"}}, 404, "NoSuchEntity", "principal"},
		"a bad ARN":      {url.Values{"principal": {"nonsense"}, "actions": {"redshift:JoinGroup"}}, 400, "Refused:", "principal"},
		"hostile names":  {url.Values{"policy": {`{"Version": "2012-10-17", "Statement": {"Sid": "x", "Effect": "Allow", "Action": "redshift:JoinGroup", "Resource": "arn:aws:redshift:us-east-1:123456789012:dbgroup:c/` + html.EscapeString(hostile) + `"}}`}, "actions": {hostile}, "resources": {alice}}, 400, "Refused:", "policy"},
		"many questions": {url.Values{"policy": {analystPolicy}, "actions": {strings.Repeat("redshift:JoinGroup\n", 60)}}, 200, "Only the first results are shown", ""},
		"many lines":     {url.Values{"policy": {analystPolicy}, "actions": {strings.Repeat("redshift:JoinGroup\n", 5000)}}, 400, "Refused:", ""},
	} {
		if text := simulate(row.fields); b.status != row.status || !strings.Contains(text, row.want) || strings.Contains(b.page, "<script>alert") {
			t.Errorf("%s: %d, want %d with %q\n%.3000s", what, b.status, row.status, row.want, text)
		}
		focused := ""
		if found := invalidField.FindStringSubmatch(b.page); found != nil {
			focused = found[1]
		}
		if focused != row.field {
			t.Errorf("%s: the focus is on %q, want the field %q\n%.1000s", what, focused, row.field, words(b.page))
		}
	}
	if n := len(s.records("SimulateCustomPolicy")); n < 4 {
		t.Errorf("the audit log has %d simulations", n)
	}
}
