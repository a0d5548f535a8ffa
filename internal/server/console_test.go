package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/test/sitetest"
)

// newConsoleSite is a sign-in site with a console, two clusters, and three IAM roles: analyst
// may ask for credentials, engineer may do what an operator does, and sales may do nothing.
func newConsoleSite(t *testing.T) *signInSite {
	t.Helper()
	s := newSignInSite(t)
	s.configureConsole("console: true", "127.0.0.1:1")
	s.reload()
	return s
}

const analystPolicy = `{"Version": "2012-10-17", "Statement": [
	{"Sid": "OwnUsers", "Effect": "Allow", "Action": "redshift:GetClusterCredentials", "Resource": [
		"arn:aws:redshift:us-east-1:123456789012:dbuser:examplecluster/alice", "arn:aws:redshift:us-east-1:123456789012:dbuser:examplecluster/alice-*",
		"arn:aws:redshift:us-east-1:123456789012:dbname:examplecluster/dev"],
	 "Condition": {"StringEquals": {"redshift:DbName": "dev"}, "NumericLessThanEquals": {"redshift:DurationSeconds": "1800"}}},
	{"Sid": "MakeMine", "Effect": "Allow", "Action": "redshift:CreateClusterUser", "Resource": "arn:aws:redshift:us-east-1:123456789012:dbuser:examplecluster/alice"},
	{"Sid": "NoSecrets", "Effect": "Deny", "Action": "redshift:GetClusterCredentials", "Resource": "*", "Condition": {"StringEquals": {"aws:ResourceTag/kind": "secret"}}},
	{"Effect": "Allow", "Action": "redshift:JoinGroup", "Resource": "arn:aws:redshift:us-east-1:123456789012:dbgroup:*/keepers", "Condition": {"StringEquals": {"aws:ResourceTag/kind": "secret"}}},
	{"Sid": "NotRoot", "Effect": "Deny", "Action": "redshift:GetClusterCredentials", "Resource": "arn:aws:redshift:us-east-1:123456789012:dbuser:*/alice-root"},
	{"Effect": "Allow", "Action": "redshift:JoinGroup", "Resource": ["arn:aws:redshift:us-east-1:123456789012:dbgroup:examplecluster/analysts", "arn:aws:redshift:us-east-1:123456789012:dbgroup:secretcluster/analysts", "arn:aws:redshift:us-east-1:123456789012:dbgroup:nowhere/analysts"]}]}`

const engineerPolicy = `{"Version": "2012-10-17", "Statement": [
	{"Effect": "Allow", "Action": ["daypass:*", "iam:Simulate*", "sts:DecodeAuthorizationMessage", "redshift:*"], "Resource": "*"}]}`

func (s *signInSite) configureConsole(console, upstream string) {
	s.t.Helper()
	name := strings.TrimPrefix(s.idp, "http://")
	role := func(role, group, policy string) string {
		return fmt.Sprintf(`
    - name: %s
      trust_policy:
        Version: "2012-10-17"
        Statement:
          - {Effect: Allow, Principal: {Federated: "arn:aws:iam::123456789012:oidc-provider/%s"}, Action: sts:AssumeRoleWithWebIdentity, Condition: {"ForAnyValue:StringEquals": {"%s:groups": %s}}}
      policies: [%s]`, role, name, name, group, strings.ReplaceAll(policy, "\n", " "))
	}
	text := fmt.Sprintf(`account: "123456789012"
region: us-east-1
data: ./data
api: {listen: "%s"}
gateway: {listen: "127.0.0.1:0"}
sign_in: {url: "%s", issuer: "%s", client_id: daypass, client_secret: "provider's secret"}
%s
clusters:
  - {identifier: examplecluster, database: dev, upstream: "postgres://daypass@%[5]s/postgres?sslmode=disable&connect_timeout=2", upstream_password_file: upstream.password}
  - {identifier: secretcluster, database: dev, tags: {kind: secret}, upstream: "postgres://daypass@127.0.0.1:1/postgres?sslmode=disable&connect_timeout=2", upstream_password_file: upstream.password}
iam:
  users:
    - name: admin
      access_keys: [{id: %s, secret: "%s"}]
      policies: [{Version: "2012-10-17", Statement: [{Effect: Allow, Action: "*", Resource: "*"}]}]
  oidc_providers: [{issuer: "%s", audiences: [daypass]}]
  roles:%s%s%s
`, strings.TrimPrefix(s.api, "http://"), s.api, s.idp, console, upstream, sitetest.Keys["admin"][0], sitetest.Keys["admin"][1], s.idp,
		role("analyst", "analysts", analystPolicy), role("engineer", "engineers", engineerPolicy),
		role("sales", "sales", `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:GetCallerIdentity", "Resource": "*"}]}`))
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// enter signs a person in to the console.
func (s *signInSite) enter(person, role string) *browser {
	s.t.Helper()
	b := newBrowser(s.t)
	s.enterAs(b, "/console/", person, role)
	return b
}

func (s *signInSite) enterAs(b *browser, page, person, role string) {
	s.t.Helper()
	b.open(s.api + "/sign-in/console?page=" + url.QueryEscape(page))
	b.send("person", person)
	b.send("role", role)
	if b.status != http.StatusOK || !strings.HasPrefix(b.last.String(), s.api+"/console/") {
		s.t.Fatalf("after the sign-in: %d at %s\n%s", b.status, b.last, b.page)
	}
}

// goTo opens a page of the console, which has to answer with a status.
func (s *signInSite) goTo(b *browser, path string, status int) {
	s.t.Helper()
	b.open(s.api + path)
	if b.status != status {
		s.t.Fatalf("%s: %d, want %d\n%s", path, b.status, status, b.page)
	}
}

// form sends a form of the console with the page's token.
func (b *browser) form(address string, fields url.Values) {
	b.t.Helper()
	if _, token, ok := strings.Cut(b.page, `name="token" value="`); ok && !fields.Has("token") {
		token, _, _ = strings.Cut(token, `"`)
		fields.Set("token", token)
	}
	r, err := http.NewRequest("POST", address, strings.NewReader(fields.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	b.do(r)
}

// records returns the lines of the audit log with an event name.
func (s *signInSite) records(event string) (records []map[string]any) {
	s.t.Helper()
	paths, err := filepath.Glob(filepath.Join(s.dir, "data", "audit", "*.jsonl"))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, path := range paths {
		for line := range bytes.Lines(wholeLines(s.t, path)) {
			var record map[string]any
			if err := json.Unmarshal(line, &record); err != nil {
				s.t.Fatal(err)
			}
			if record["eventName"] == event {
				records = append(records, record)
			}
		}
	}
	return records
}

var tags = regexp.MustCompile(`<[^>]*>`)

// words is a page's text, without tags and with single spaces.
func words(page string) string {
	return strings.Join(strings.Fields(tags.ReplaceAllString(page, " ")), " ")
}

func hasAll(t *testing.T, what, page string, want ...string) {
	t.Helper()
	for _, text := range want {
		if !strings.Contains(page, text) {
			t.Errorf("%s: there is no %q\n%s", what, text, page)
		}
	}
}

// TestConsole: a person signs in, sees what policies allow and nothing else, gets a credential, and
// is refused another. The audit log has all of this, as calls of the console.
func TestConsole(t *testing.T) {
	s := newSignInSite(t)
	b := newBrowser(t)
	b.open(s.api + "/console/")
	if b.status != 404 || !strings.Contains(b.page, "UnknownOperationException") {
		t.Fatalf("a console that is not configured: %d %s", b.status, b.page)
	}
	if b.open(s.api + "/sign-in/console"); b.status != 404 {
		t.Fatalf("a sign-in to a console that is not configured: %d %s", b.status, b.page)
	}
	s.configureConsole("console: true", "127.0.0.1:1")
	s.reload()
	s.goTo(b, "/console", 200)
	hasAll(t, "signed out", b.page, "Sign in to Daypass", `href="/sign-in/console?page=%2fconsole%2f"`)
	s.enterAs(b, "/console/credential", "1", "analyst")
	if b.last.Path != "/console/credential" {
		t.Errorf("the sign-in led to %s", b.last)
	}
	s.goTo(b, "/console/", 200)
	text := words(b.page)
	hasAll(t, "what Ana may ask for", text, "ana@example.com as analyst", "examplecluster", "alice is made if it does not exist dev , a credential as alice up to 30 min",
		"any name like alice-* (a statement denies some of them) dev , a credential as alice-* up to 30 min", "Groups that you may join analysts")
	for _, hidden := range []string{"secretcluster", "all databases", "Who is on", "IAMR:"} {
		if strings.Contains(text, hidden) {
			t.Errorf("what Ana may ask for has %q\n%s", hidden, text)
		}
	}
	s.goTo(b, "/console/credential?cluster=examplecluster&user=alice&database=dev", 200)
	hasAll(t, "the form", b.page, `value="alice"`, `<option value="dev">`, "You may join analysts.")
	ask := func(more ...string) {
		t.Helper()
		fields := url.Values{"cluster": {"examplecluster"}, "user": {"alice"}, "database": {"dev"}, "minutes": {"30"}, "groups": {"analysts"}}
		for i := 0; i < len(more); i += 2 {
			fields.Set(more[i], more[i+1])
		}
		b.form(s.api+"/console/credential", fields)
	}
	ask()
	if b.status != 200 || b.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("a credential: %d %v\n%s", b.status, b.header, b.page)
	}
	_, password, _ := strings.Cut(b.page, `<pre id="password" tabindex="0" role="region" aria-label="Password">`)
	password, _, _ = strings.Cut(password, "<")
	hasAll(t, "the credential", b.page, "IAM:alice", "jdbc:postgresql://", "create_engine(", "PGSSLMODE=verify-full", "daypass-ca.crt", "data-until=")
	if len(password) < 100 || strings.Count(b.page, password) != 8 {
		t.Errorf("the page has the password %d times: %q", strings.Count(b.page, password), password)
	}
	if outside := regexp.MustCompile(`(?s)<details>.*?</details>`).ReplaceAllString(b.page, ""); strings.Contains(outside, password) {
		t.Error("the password is shown before it is asked for")
	}
	s.goTo(b, "/console/daypass-ca.crt", 200)
	hasAll(t, "the CA certificate", b.page, "BEGIN CERTIFICATE")
	for what, more := range map[string][]string{
		"another user":      {"user", "bob"},
		"a denied user":     {"user", "alice-root"},
		"too long":          {"minutes", "60"},
		"all databases":     {"database", ""},
		"another group":     {"groups", "analysts finance"},
		"another cluster":   {"cluster", "secretcluster"},
		"no cluster at all": {"cluster", "nowhere"},
	} {
		s.goTo(b, "/console/credential", 200)
		ask(more...)
		if b.status != 403 || strings.Contains(b.page, "jdbc:") {
			t.Errorf("%s: %d\n%s", what, b.status, b.page)
		}
		hasAll(t, what, b.page, "Refused: AccessDenied", `href="/console/explain?`, "is not authorized to perform")
	}
	issued, refused := 0, 0
	for _, r := range s.records("GetClusterCredentials") {
		if r["sessionCredentialFromConsole"] != "true" || r["userIdentity"].(map[string]any)["arn"] != "arn:aws:sts::123456789012:assumed-role/analyst/ana@example.com" {
			t.Errorf("a line of the console: %v", r)
		}
		if r["errorCode"] == nil {
			issued++
		} else {
			refused++
		}
	}
	if issued != 1 || refused != 7 {
		t.Errorf("the audit log has %d credentials and %d refusals, want 1 and 7", issued, refused)
	}
	if r := s.records("ConsoleLogin"); len(r) != 1 || r[0]["eventSource"] != "signin.amazonaws.com" {
		t.Errorf("lines of the sign-in: %v", r)
	}
	hasAll(t, "nothing", words(s.enter("3", "sales").page), "let you ask for no database user")
	engineer := words(s.enter("2", "engineer").page)
	hasAll(t, "everything", engineer, "secretcluster", "any name like * is made if it does not exist all databases of the cluster , a credential as * up to 60 min", "IAMR:engineer your IAM role itself all databases", "Who is on")
}

// TestConsoleIdentity: a credential of the IAM role itself.
func TestConsoleIdentity(t *testing.T) {
	s := newConsoleSite(t)
	b := s.enter("1", "engineer")
	s.goTo(b, "/console/credential?cluster=examplecluster&as=identity&database=dev", 200)
	b.form(s.api+"/console/credential", url.Values{"cluster": {"examplecluster"}, "as": {"identity"}, "database": {"dev"}, "minutes": {"15"}})
	hasAll(t, "the credential", words(b.page), "Your credential", "IAMR:engineer")
	if len(s.records("GetClusterCredentialsWithIAM")) != 1 {
		t.Error("the audit log has no GetClusterCredentialsWithIAM")
	}
}

// consoleCookie returns the cookie of a browser's session.
func (s *signInSite) consoleCookie(b *browser) *http.Cookie {
	s.t.Helper()
	u, _ := url.Parse(s.api)
	for _, c := range b.http.Jar.Cookies(u) {
		if c.Name == "daypass-console" {
			return c
		}
	}
	return nil
}

// with returns a browser that has the given cookies.
func (s *signInSite) with(cookies ...*http.Cookie) *browser {
	b := newBrowser(s.t)
	u, _ := url.Parse(s.api)
	b.http.Jar.SetCookies(u, cookies)
	return b
}

func isSignedOut(b *browser) bool { return strings.Contains(b.page, "<h1>Sign in to Daypass</h1>") }

// TestConsoleForms: a form counts only if a page of this session has sent it. Each row changes one
// thing in a valid request, which must then do nothing.
func TestConsoleForms(t *testing.T) {
	s := newConsoleSite(t)
	b, other := s.enter("1", "analyst"), s.enter("2", "engineer")
	token := func(b *browser) string {
		_, text, _ := strings.Cut(b.page, `name="token" value="`)
		text, _, _ = strings.Cut(text, `"`)
		return text
	}
	mine, theirs := token(b), token(other)
	if mine == "" || mine == theirs {
		t.Fatalf("the tokens are %q and %q", mine, theirs)
	}
	fields := func(token string) string {
		return url.Values{"token": {token}, "cluster": {"examplecluster"}, "user": {"alice"}, "database": {"dev"}, "minutes": {"15"}}.Encode()
	}
	for name, row := range map[string]struct {
		method, query, body string
		header              map[string]string
		status              int
	}{
		"without a token":           {"POST", "", strings.ReplaceAll(fields(mine), "token=", "tocken="), nil, 403},
		"with an empty token":       {"POST", "", fields(""), nil, 403},
		"with a token of others":    {"POST", "", fields(theirs), nil, 403},
		"with an altered token":     {"POST", "", fields(altered(mine, 0)), nil, 403},
		"with two tokens":           {"POST", "", fields(mine) + "&token=" + mine, nil, 403},
		"token in the address":      {"POST", "?token=" + mine, strings.ReplaceAll(fields(mine), "token=", "t="), nil, 403},
		"GET":                       {"GET", "?" + fields(mine), "", nil, 200},
		"PUT":                       {"PUT", "", fields(mine), nil, 405},
		"from another site":         {"POST", "", fields(mine), map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		"from the same site":        {"POST", "", fields(mine), map[string]string{"Sec-Fetch-Site": "same-site"}, 403},
		"from another origin":       {"POST", "", fields(mine), map[string]string{"Origin": "https://evil.example"}, 403},
		"from no origin":            {"POST", "", fields(mine), map[string]string{"Origin": "null"}, 403},
		"from this host by http":    {"POST", "", fields(mine), map[string]string{"Origin": strings.Replace(s.api, "http:", "https:", 1)}, 403},
		"as JSON":                   {"POST", "", `{"token":"` + mine + `"}`, map[string]string{"Content-Type": "application/json"}, 403},
		"as text, with a form":      {"POST", "", fields(mine), map[string]string{"Content-Type": "text/plain"}, 403},
		"an enormous form":          {"POST", "", fields(mine) + "&x=" + strings.Repeat("x", 1<<20), nil, 413},
		"for the host of a page":    {"POST", "", fields(mine), map[string]string{"Host": "evil.example"}, 421},
		"for another port":          {"POST", "", fields(mine), map[string]string{"Host": "127.0.0.1:1"}, 421},
		"percent signs that end it": {"POST", "", fields(mine) + "&x=%", nil, 400},
	} {
		r, err := http.NewRequest(row.method, s.api+"/console/credential"+row.query, strings.NewReader(row.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for key, value := range row.header {
			if r.Header.Set(key, value); key == "Host" {
				r.Host = value
			}
		}
		if b.do(r); b.status != row.status || strings.Contains(b.page, "jdbc:") {
			t.Errorf("%s: %d, want %d\n%s", name, b.status, row.status, b.page)
		}
	}
	if got := s.records("GetClusterCredentials"); len(got) != 0 {
		t.Errorf("the forgeries reached the API: %v", got)
	}
	// The same form, unchanged, works: with the headers of a browser, and of an old one.
	for _, header := range []map[string]string{{}, {"Sec-Fetch-Site": "same-origin", "Origin": s.api}, {"Sec-Fetch-Site": "same-origin", "Origin": "null"}} {
		r, _ := http.NewRequest("POST", s.api+"/console/credential", strings.NewReader(fields(mine)))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for key, value := range header {
			r.Header.Set(key, value)
		}
		if b.do(r); b.status != 200 || !strings.Contains(b.page, "jdbc:") {
			t.Errorf("the form with %v: %d\n%s", header, b.status, b.page)
		}
	}
}

// TestConsoleSessions: all ways in which a session ends, and cookies that are not a session's.
func TestConsoleSessions(t *testing.T) {
	s := newConsoleSite(t)
	other := newConsoleSite(t)
	b := s.enter("1", "analyst")
	cookie := s.consoleCookie(b)
	refused := func(what string, b *browser) {
		t.Helper()
		if b.open(s.api + "/console/"); !isSignedOut(b) {
			t.Errorf("%s: %d\n%s", what, b.status, b.page)
		}
	}
	changed := *cookie
	changed.Value = altered(cookie.Value, 40)
	longer := *cookie
	longer.Value += "A"
	refused("an altered cookie", s.with(&changed))
	refused("a longer cookie", s.with(&longer))
	refused("a cookie of another installation", s.with(&http.Cookie{Name: "daypass-console", Value: other.consoleCookie(other.enter("1", "analyst")).Value, Path: "/"}))
	d := s.device(sameDevice)
	refused("a refresh token", s.with(&http.Cookie{Name: "daypass-console", Value: d.redeem(d.signIn("1", "analyst")).RefreshToken, Path: "/"}))
	twice, _ := http.NewRequest("GET", s.api+"/console/", nil)
	twice.Header.Set("Cookie", "daypass-console="+cookie.Value+"; daypass-console="+cookie.Value)
	bare := newBrowser(t)
	if bare.do(twice); !isSignedOut(bare) {
		t.Error("a request with the cookie twice has a session")
	}
	// A sign-in replaces a session that was planted in the browser before.
	planted := s.consoleCookie(s.enter("2", "engineer"))
	victim := s.with(planted)
	s.enterAs(victim, "/console/", "1", "analyst")
	if got := s.consoleCookie(victim); got.Value == planted.Value || !strings.Contains(victim.page, "ana@example.com") {
		t.Error("the session that was there before the sign-in is still in use")
	}
	// The page of roles cannot start a second session.
	again := newBrowser(t)
	again.open(s.api + "/sign-in/console")
	again.send("person", "1")
	roles, at := again.page, again.last
	again.send("role", "analyst")
	again.page, again.last = roles, at
	again.http.Jar, _ = cookiejar.New(nil)
	if again.send("role", "analyst"); again.status != 400 {
		t.Errorf("the page of roles in another browser: %d", again.status)
	}
	// A sign-out ends the copies of the cookie too.
	signOut := s.with(cookie)
	s.goTo(signOut, "/console/sign-out", 200)
	signOut.form(s.api+"/console/sign-out", url.Values{})
	if !isSignedOut(signOut) || s.consoleCookie(signOut) != nil {
		t.Errorf("after the sign-out: %d\n%s", signOut.status, signOut.page)
	}
	refused("a copy of the cookie after the sign-out", s.with(cookie))
	if r := s.records("ConsoleLogout"); len(r) != 1 || r[0]["errorCode"] != nil {
		t.Errorf("lines of the sign-out: %v", r)
	}
	// The copy is not renewed either. A renewed cookie would be valid for longer than the
	// registry remembers the sign-out.
	s.offset.Store(int64(40 * time.Minute))
	thief := s.with(cookie)
	refused("a copy of the cookie, some time after the sign-out", thief)
	for _, sent := range (&http.Response{Header: thief.header}).Cookies() {
		if sent.Value != "" {
			t.Errorf("a cookie for someone who has signed out: %v", sent)
		}
	}
	s.offset.Store(0)
	// A revocation of the principal ends all sessions of the person, and of no other.
	b = s.enter("1", "analyst")
	bob := s.enter("2", "engineer")
	if err := s.revokePrincipal("arn:aws:sts::123456789012:assumed-role/analyst/ana@example.com"); err != nil {
		t.Fatal(err)
	}
	token := b.page
	b.page = token
	b.form(s.api+"/console/credential", url.Values{"cluster": {"examplecluster"}, "user": {"alice"}, "database": {"dev"}, "minutes": {"15"}})
	if b.status != 403 || !isSignedOut(b) {
		t.Errorf("a form after the revocation: %d\n%s", b.status, b.page)
	}
	s.goTo(bob, "/console/credential", 200)
	// A person who leaves the group loses the session at once when the trust policy changes.
	s.offset.Store(int64(2 * time.Second)) // a revocation covers everything that began up to the same second
	b = s.enter("1", "analyst")
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.config, []byte(strings.Replace(string(text), `:groups": analysts`, `:groups": others`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	s.reload()
	refused("after the trust policy has changed", b)
	// Sessions end an hour after the last request, and twelve hours after the sign-in.
	later := func(d time.Duration) { s.offset.Add(int64(d)) }
	idle, used := s.enter("2", "engineer"), s.enter("2", "engineer")
	for range 4 {
		later(50 * time.Minute)
		s.goTo(used, "/console/", 200)
		if isSignedOut(used) {
			t.Fatal("a session that is used has ended")
		}
	}
	refused("an hour without a request", idle)
	for range 11 {
		later(50 * time.Minute)
		used.open(s.api + "/console/")
	}
	refused("twelve hours after the sign-in", used)
}

// TestConsoleRolesPageWorksOnce: someone who goes back to the page of roles after a sign-out, even
// with a copy of its cookies, is not signed in again.
func TestConsoleRolesPageWorksOnce(t *testing.T) {
	s := newConsoleSite(t)
	b := newBrowser(t)
	b.open(s.api + "/sign-in/console")
	b.send("person", "1")
	roles, at, cookies := b.page, *b.last, b.http.Jar.Cookies(b.last)
	b.send("role", "analyst")
	s.goTo(b, "/console/sign-out", 200)
	b.form(s.api+"/console/sign-out", url.Values{})
	b.page, b.last = roles, &at
	for _, cookie := range cookies {
		cookie.Path = "/"
	}
	b.http.Jar.SetCookies(&at, cookies)
	if b.send("role", "analyst"); b.status != 403 || !strings.Contains(b.page, "has been used") || s.consoleCookie(b) != nil {
		t.Errorf("the page of roles a second time: %d\n%s", b.status, b.page)
	}
}

// TestConsoleLeadsNowhere: a sign-in leads to a page of the console only, and no parameter gets
// into a header.
func TestConsoleLeadsNowhere(t *testing.T) {
	s := newConsoleSite(t)
	for _, page := range []string{"https://evil.example/", "//evil.example/console/", "/console/../..//evil.example", "/console//evil.example", "/console/?x=1", "/console/a\r\nX-Evil: 1", `/console/\evil`, "/", ""} {
		b := newBrowser(t)
		s.enterAs(b, page, "1", "analyst")
		if b.last.String() != s.api+"/console/" || b.header.Get("X-Evil") != "" {
			t.Errorf("page %q led to %s, %v", page, b.last, b.header)
		}
	}
	b := s.enter("1", "analyst")
	for _, path := range []string{"/console/", "/console/credential", "/console/sign-out", "/console/nowhere", "/console/console.css", "/console/console.js"} {
		b.open(s.api + path)
		csp := b.header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'", "script-src 'self'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: the policy %q has no %s", path, csp, want)
			}
		}
		if b.header.Get("X-Frame-Options") != "DENY" || b.header.Get("Referrer-Policy") != "no-referrer" || b.header.Get("X-Content-Type-Options") != "nosniff" ||
			b.header.Get("Access-Control-Allow-Origin") != "" || b.header.Get("Cross-Origin-Resource-Policy") != "same-origin" {
			t.Errorf("%s: %v", path, b.header)
		}
		if strings.Contains(b.page, "<style") || strings.Contains(b.page, " style=") || strings.Contains(b.page, " onclick") || regexp.MustCompile(`(src|href)="(https?:)?//`).MatchString(b.page) {
			t.Errorf("%s has inline code or loads from elsewhere\n%s", path, b.page)
		}
	}
	// Text that a person typed is shown as text everywhere.
	const evil = `"><script>alert(1)</script>'`
	s.goTo(b, "/console/credential?"+url.Values{"cluster": {evil}, "user": {evil}, "database": {evil}, "groups": {evil}}.Encode(), 200)
	if strings.Contains(b.page, "<script>alert") {
		t.Errorf("the form has a script\n%s", b.page)
	}
	b.form(s.api+"/console/credential", url.Values{"cluster": {evil}, "user": {evil}, "database": {evil}, "groups": {evil}, "minutes": {"15"}})
	if strings.Contains(b.page, "<script>alert") || b.status == 200 {
		t.Errorf("the refusal: %d\n%s", b.status, b.page)
	}
}
