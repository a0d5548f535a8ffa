package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/daypass/daypass/internal/client"
	"github.com/daypass/daypass/internal/sigv4"
)

// serving starts a server that checks the signature of each call and returns the result of
// answer.
func serving(t *testing.T, answer func(form url.Values) (int, string)) *client.Client {
	t.Helper()
	verifier := &sigv4.Verifier{Region: "us-east-1", Services: []string{"daypass"}, Now: time.Now}
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if _, err := verifier.Verify(r, body, func(id, token string) (string, error) {
			if id != "AKIAIOSFODNN7EXAMPLE" || token != "token" {
				t.Errorf("signed with %s, %s", id, token)
			}
			return "secret", nil
		}); err != nil {
			t.Errorf("signature: %v", err)
		}
		form, err := url.ParseQuery(string(body))
		if err != nil || form.Get("Version") != "2026-11-01" || r.URL.Path != "/" || r.Method != "POST" {
			t.Errorf("%s %s %q, %v", r.Method, r.URL, body, err)
		}
		status, text := answer(form)
		w.Header().Set("Content-Type", "text/xml")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(h.Close)
	c, err := client.New(client.Config{Endpoint: h.URL + "/ignored?x=y", Region: "us-east-1",
		Credentials: credentials.NewStaticCredentialsProvider("AKIAIOSFODNN7EXAMPLE", "secret", "token")})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func result(action, inner string) string {
	return `<` + action + `Response xmlns="https://daypass.dev/doc/2026-11-01/"><` + action + `Result>` + inner + `</` + action +
		`Result><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></` + action + `Response>`
}

func TestRevoke(t *testing.T) {
	when := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	for _, row := range []struct {
		selector client.Selector
		form     string
	}{
		{client.Selector{All: true}, "All=true"},
		{client.Selector{CredentialID: "X"}, "CredentialId=X"},
		{client.Selector{Principal: "arn:aws:iam::1:user/a+b c"}, "Principal=arn%3Aaws%3Aiam%3A%3A1%3Auser%2Fa%2Bb+c"},
		{client.Selector{DBUser: "alice", Cluster: "east", IssuedBefore: when}, "ClusterIdentifier=east&DbUser=alice&IssuedBefore=2026-01-02T03%3A04%3A05.000000006Z"},
	} {
		c := serving(t, func(form url.Values) (int, string) {
			if form.Get("Action") != "RevokeCredentials" {
				t.Errorf("called %q", form)
			}
			form.Del("Action")
			form.Del("Version")
			if got := form.Encode(); got != row.form {
				t.Errorf("sent %s, want %s", got, row.form)
			}
			return 200, result("RevokeCredentials", `<Revocation><DbUser>a&amp;b</DbUser><IssuedBefore>2026-01-02T03:04:05.000Z</IssuedBefore>`+
				`<RevokedAt>2026-01-02T03:04:06.000Z</RevokedAt><RevokedBy>arn</RevokedBy><ExpiresAt>2026-01-02T04:09:06.000Z</ExpiresAt></Revocation><Sessions>7</Sessions><Warnings><Warning>w &lt; x</Warning></Warnings>`)
		})
		revoked, err := c.Revoke(t.Context(), row.selector)
		got := revoked.Revocation
		if err != nil || revoked.Sessions != 7 || !slices.Equal(revoked.Warnings, []string{"w < x"}) || got.DBUser != "a&b" || !got.IssuedBefore.Equal(when.Truncate(time.Second)) || got.RevokedBy != "arn" {
			t.Errorf("Revoke() = %+v, %v", revoked, err)
		}
	}
}

func TestPages(t *testing.T) {
	c := serving(t, func(form url.Values) (int, string) {
		switch form.Get("Action") + form.Get("Marker") {
		case "ListSessions":
			return 200, result("ListSessions", `<Marker>next</Marker><Sessions><Session><SessionId>A</SessionId><DbGroups><DbGroup>g</DbGroup><DbGroup>h</DbGroup></DbGroups>`+
				`<TLS>true</TLS><BytesToClient>1099511627776</BytesToClient><StartedAt>2026-01-02T03:04:05.678Z</StartedAt></Session></Sessions>`)
		case "ListSessionsnext":
			return 200, result("ListSessions", `<Sessions><Session><SessionId>B</SessionId><DbGroups></DbGroups></Session></Sessions><Unanswered><Server>db2</Server></Unanswered>`)
		case "ListRevocations":
			return 200, result("ListRevocations", `<Revocations></Revocations>`)
		case "TerminateSession":
			return 200, result("TerminateSession", `<SessionId>`+form.Get("SessionId")+`</SessionId>`)
		}
		t.Errorf("called %q", form)
		return 500, ""
	})
	sessions, unanswered, err := c.Sessions(t.Context(), "", "")
	if err != nil || len(unanswered) != 1 || unanswered[0] != "db2" || len(sessions) != 2 || sessions[0].ID != "A" || len(sessions[0].DBGroups) != 2 || !sessions[0].TLS || sessions[0].BytesToClient != 1<<40 || sessions[1].ID != "B" {
		t.Errorf("Sessions() = %+v, %v", sessions, err)
	}
	if groups := sessions[1].DBGroups; groups == nil {
		t.Errorf("Sessions() has %#v for no groups, which is null in JSON", groups)
	}
	if list, err := c.Revocations(t.Context()); err != nil || list == nil || len(list) != 0 {
		t.Errorf("Revocations() = %+v, %v", list, err)
	}
	if err := c.Terminate(t.Context(), "A"); err != nil {
		t.Errorf("Terminate() = %v", err)
	}
}

func TestErrors(t *testing.T) {
	answers := []struct {
		status int
		body   string
		want   string
	}{
		{403, `<ErrorResponse xmlns="https://daypass.dev/doc/2026-11-01/"><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>no &lt;way&gt;</Message></Error><RequestId>r</RequestId></ErrorResponse>`, "calling TerminateSession: AccessDenied: no <way>"},
		{404, `<html>not found</html>`, "is this a Daypass API?"},
		{502, ``, "502 Bad Gateway"},
		{200, `<html>hello</html>`, "no TerminateSessionResult"},
		{200, `no XML`, "not understood"},
		{200, `<TerminateSessionResponse><TerminateSessionResult><Sess`, "not understood"},
	}
	for _, row := range answers {
		c := serving(t, func(url.Values) (int, string) { return row.status, row.body })
		err := c.Terminate(t.Context(), "A")
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%d %q: %v, want %q", row.status, row.body, err, row.want)
		}
		var refused *client.Error
		if is := errors.As(err, &refused); is != (row.status == 403) || is && (refused.Code != "AccessDenied" || refused.RequestID != "r" || refused.Status != 403) {
			t.Errorf("%d: %+v", row.status, refused)
		}
	}
	c := serving(t, func(url.Values) (int, string) { return 200, "" })
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Terminate(over, "A"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestNew(t *testing.T) {
	good := client.Config{Endpoint: "https://api.example.com", Region: "us-east-1", Credentials: aws.AnonymousCredentials{}}
	for name, change := range map[string]func(*client.Config){
		"no endpoint":  func(c *client.Config) { c.Endpoint = "" },
		"no host":      func(c *client.Config) { c.Endpoint = "https://" },
		"no scheme":    func(c *client.Config) { c.Endpoint = "api.example.com:8440" },
		"another one":  func(c *client.Config) { c.Endpoint = "ftp://api.example.com" },
		"no region":    func(c *client.Config) { c.Region = "" },
		"no key":       func(c *client.Config) { c.Credentials = nil },
		"not a URL":    func(c *client.Config) { c.Endpoint = "http://[" },
		"only a space": func(c *client.Config) { c.Endpoint = " " },
	} {
		config := good
		change(&config)
		if _, err := client.New(config); err == nil {
			t.Errorf("%s: New() = nil", name)
		}
	}
	if _, err := client.New(good); err != nil {
		t.Error(err)
	}
}

// TestRedirects: no client follows a redirect. Otherwise an answer of another server, over an
// unverified connection, would pass for the API's.
func TestRedirects(t *testing.T) {
	var asked atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = io.WriteString(w, result("TerminateSession", "<SessionId>S</SessionId>"))
	}))
	t.Cleanup(other.Close)
	for _, status := range []int{301, 302, 303, 307, 308} {
		api := httptest.NewServer(http.RedirectHandler(other.URL, status))
		t.Cleanup(api.Close)
		for name, through := range map[string]aws.HTTPClient{"none given": nil, "the SDK's": awshttp.NewBuildableClient()} {
			c, err := client.New(client.Config{Endpoint: api.URL, Region: "us-east-1", HTTP: through,
				Credentials: credentials.NewStaticCredentialsProvider("AKIAIOSFODNN7EXAMPLE", "secret", "token")})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Terminate(t.Context(), "S"); err == nil || !strings.Contains(err.Error(), "is this a Daypass API?") || asked.Load() != 0 {
				t.Errorf("%d, client %s: %v, %d calls of the other server", status, name, err, asked.Swap(0))
			}
		}
	}
}
