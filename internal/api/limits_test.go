package api_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/admission"
	"github.com/daypass/daypass/internal/api"
	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/throttle"

	"github.com/daypass/daypass/test/pgtest"
)

// pressed is a server whose limits a test can set, with the events of its calls.
type pressed struct {
	*server
	handler *api.Handler

	mu     sync.Mutex
	events []api.CallEvent
}

func newPressed(t *testing.T) *pressed {
	t.Helper()
	p := &pressed{server: &server{t: t, keyring: newKeyring(), directory: build(t, example(t)), now: start}}
	config := p.config()
	config.Observe = func(e api.CallEvent) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.events = append(p.events, e)
	}
	p.handler = api.New(config)
	h := httptest.NewServer(p.handler)
	t.Cleanup(h.Close)
	p.url = h.URL
	return p
}

// event returns the next event, which arrives after the answer.
func (p *pressed) event() api.CallEvent {
	p.t.Helper()
	var e api.CallEvent
	pgtest.Eventually(p.t, "an event", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.events) == 0 {
			return false
		}
		e, p.events = p.events[0], p.events[1:]
		return true
	})
	return e
}

func (p *pressed) lineCount() int {
	p.server.mu.Lock()
	defer p.server.mu.Unlock()
	return len(p.lines)
}

// omitted returns how many calls were left out of the records, as the records count them.
func (p *pressed) omitted() (sum int64) {
	p.server.mu.Lock()
	defer p.server.mu.Unlock()
	for _, line := range p.lines {
		sum += line.Omitted
	}
	return sum
}

// TestPrincipalIsThrottled: calls above a principal's limit get Throttling, and one a second of
// them is recorded. Neither other principals nor forged signatures count towards it.
func TestPrincipalIsThrottled(t *testing.T) {
	p := newPressed(t)
	p.handler.SetLimits(api.Limits{Principal: throttle.Limit{Rate: 0.001, Burst: 3}})
	call := func(user string) answer { return p.redshiftCall(user, "Action", "DescribeClusters") }
	for i := range 3 {
		if a := call("root"); a.status != 200 {
			t.Fatalf("call %d: %d %s", i, a.status, a.body)
		}
	}
	for range 5 {
		a := call("root")
		if f := a.fault(t); a.status != 400 || f.Code != "Throttling" || f.Message != "Rate exceeded" || f.Type != "Sender" {
			t.Fatalf("beyond the burst: %d %s", a.status, a.body)
		}
	}
	if n := p.lineCount(); n < 4 || n > 6 {
		t.Errorf("%d audit lines, want the 3 calls and one a second of the refusals", n)
	}
	if line := p.lastLine(); line.ErrorCode != "Throttling" || !strings.HasSuffix(line.Identity.ARN, "user/root") {
		t.Errorf("the record of a refusal = %+v", line)
	}
	if a := call("bob"); a.fault(t).Code != "AccessDenied" {
		t.Errorf("root's calls keep bob out: %s", a.body)
	}
	// Calls with a wrong signature do not count against the principal's limit.
	p.handler.SetLimits(api.Limits{Principal: throttle.Limit{Rate: 0.001, Burst: 1}})
	for range 5 {
		r := p.signed("root", "redshift", "POST", query("2012-12-01", "Action", "DescribeClusters"))
		r.Header.Set("X-Amz-Date", "20260102T030406Z")
		if a := p.do(r); a.fault(t).Code != "SignatureDoesNotMatch" {
			t.Fatalf("a forgery: %s", a.body)
		}
	}
	if a := call("root"); a.status != 200 {
		t.Errorf("a stranger has spent root's calls: %s", a.body)
	}
}

// TestStrangersFillNoDisk: in a flood of forgeries each one is answered as usual, a few are
// recorded, and the record counts the omitted ones.
func TestStrangersFillNoDisk(t *testing.T) {
	p := newPressed(t)
	lines, flood := 5, 200
	p.handler.SetStrangerLines(throttle.Limit{Rate: 1, Burst: lines})
	forge := func() {
		t.Helper()
		r := p.signed("root", "redshift", "POST", query("2012-12-01", "Action", "DescribeClusters"))
		r.Header.Set("X-Amz-Date", "20260102T030406Z")
		if a := p.do(r); a.status != 403 || a.fault(t).Code != "SignatureDoesNotMatch" {
			t.Fatalf("a forgery: %d %s", a.status, a.body)
		}
	}
	for range flood {
		forge()
	}
	if n := p.lineCount(); n != lines {
		t.Fatalf("%d audit lines for %d forgeries, want %d", n, flood, lines)
	}
	p.now = p.now.Add(2 * time.Second)
	forge()
	if n := p.lineCount(); n != lines+1 {
		t.Errorf("%d audit lines later, want one more than %d", n, lines)
	}
	if got := p.omitted(); got != int64(flood-lines) {
		t.Errorf("the records say that %d calls have none, want %d", got, flood-lines)
	}
	// Every call with a valid signature still gets a line.
	for range 3 {
		if a := p.redshiftCall("root", "Action", "DescribeClusters"); a.status != 200 {
			t.Fatalf("an honest call: %d %s", a.status, a.body)
		}
	}
	if n := p.lineCount() - lines - 1; n != 3 {
		t.Errorf("%d audit lines for 3 honest calls", n)
	}
}

// TestBytesAreCharged: a caller that has written too much to the audit log waits, and
// so does the holder of a provider's tokens; others do not.
func TestBytesAreCharged(t *testing.T) {
	i := newIDP(t)
	spec := withIDP(t, i)
	spec.Providers = []directory.Provider{{Issuer: i.URL, Audiences: []string{"daypass"}}}
	p := newPressed(t)
	p.directory = build(t, spec)
	const burst = 20_000
	p.handler.SetLimits(api.Limits{Principal: throttle.Limit{Bytes: 100, BytesBurst: burst}})
	signed := func(user string) func() answer {
		return func() answer { return p.redshiftCall(user, "Action", "DescribeClusters", "TagKeys.TagKey.1", "team") }
	}
	token := func(more map[string]any) func() answer {
		form := webForm("ci", i.token(t, p.now, more))
		return func() answer { return p.do(p.request("POST", form)) }
	}
	for _, row := range []struct {
		name  string
		call  func() answer
		burst int
		other func() answer
		code  string // of the other, who is not throttled
	}{
		{"an access key", signed("root"), burst, signed("ana"), "AccessDenied"},
		{"a key without rights", signed("bob"), burst, signed("ana"), "AccessDenied"},
		{"a token", token(nil), burst / 8, token(map[string]any{"sub": "another"}), "AccessDenied"},
	} {
		t.Run(row.name, func(t *testing.T) {
			before, bytes := p.lineCount(), 0
			for n := 0; ; n++ {
				if a := row.call(); strings.Contains(a.body, "<Code>Throttling</Code>") {
					break
				}
				if n > 1000 {
					t.Fatal("1000 calls, and none is throttled")
				}
			}
			p.server.mu.Lock()
			for _, line := range p.lines[before:] {
				if line.ErrorCode != "Throttling" {
					bytes += line.Size()
				}
			}
			p.server.mu.Unlock()
			if bytes < row.burst || bytes > row.burst+audit.MaxLine {
				t.Errorf("%d bytes before the first is throttled, want %d and no more than a line", bytes, row.burst)
			}
			if f := row.other().fault(t); f.Code != row.code {
				t.Errorf("another caller: %s, want %s", f.Code, row.code)
			}
		})
	}
}

// TestTokensOfStrangers: genuine tokens of a provider that may assume no IAM role are limited like
// strangers, by subject. They use up no limit of the subjects that may assume one.
func TestTokensOfStrangers(t *testing.T) {
	i := newIDP(t)
	spec := withIDP(t, i)
	spec.Providers = []directory.Provider{{Issuer: i.URL, Audiences: []string{"daypass"}}}
	p := newPressed(t)
	p.directory = build(t, spec)
	p.handler.SetLimits(api.Limits{Principal: throttle.Limit{Bytes: 1000, BytesBurst: 100_000}})
	p.handler.SetStrangerLines(throttle.Limit{Rate: 1, Burst: 5})
	form := webForm("ci", i.token(t, p.now, map[string]any{"sub": "a stranger"}))
	for range 100 {
		if f := p.do(p.request("POST", form)).fault(t); f.Code != "AccessDenied" {
			t.Fatalf("a stranger's token: %s", f.Code)
		}
	}
	if n := p.lineCount(); n != 5 {
		t.Errorf("%d audit lines, want 5", n)
	}
	if a := p.do(p.request("POST", webForm("ci", i.token(t, p.now, nil)))); a.status != 200 {
		t.Errorf("a token that may: %d %s", a.status, a.body)
	}
}

// TestAddressIsBounded holds calls open by not sending the end of their bodies.
func TestAddressIsBounded(t *testing.T) {
	p := newPressed(t)
	p.handler.SetLimits(api.Limits{Address: 2})
	address := strings.TrimPrefix(p.url, "http://")
	var slow []net.Conn
	for range 2 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		// The server asks for the body after it has admitted the call.
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n", address)
		if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 100 ") {
			t.Fatalf("a slow call: %q, %v", line, err)
		}
		slow = append(slow, conn)
	}
	try := func() answer { return p.redshiftCall("root", "Action", "DescribeClusters") }
	before := p.lineCount()
	if a := try(); a.status != 503 || a.fault(t).Code != "ServiceUnavailable" || a.fault(t).Type != "Receiver" {
		t.Fatalf("a third call of the address: %d %s", a.status, a.body)
	}
	if n := p.lineCount(); n != before {
		t.Errorf("%d audit lines for a call that nothing is known of", n-before)
	}
	slow[0].Close()
	pgtest.Eventually(t, "an answer after one of them is gone", func() bool { return try().status == 200 })
}

// TestOverloadSheds: a call that finds no place at what it needs gets 503, and other calls are
// answered.
func TestOverloadSheds(t *testing.T) {
	full := func() *throttle.Gate {
		g := throttle.NewGate(1, 0, time.Millisecond)
		g.Enter(t.Context())
		return g
	}
	free := func() *throttle.Gate { return throttle.NewGate(1, 0, time.Millisecond) }
	fullRoom := func() *admission.Room {
		busy, room := admission.NewVisitor(netip.Addr{}, func() {}), admission.NewRoom(1, 1)
		busy.Serve()
		if wait, err := room.Enter(busy); wait != 0 || err != nil {
			t.Fatal("a room with a place is shut")
		}
		return room
	}
	freeRoom := func() *admission.Room { return admission.NewRoom(1, 1) }
	small := []string{"Action", "DescribeClusters"}
	large := []string{"Action", "SimulateCustomPolicy", "PolicyInputList.member.1", strings.Repeat(" ", 70<<10) + `{"Version":"2012-10-17","Statement":[]}`}
	unsigned := []string{"Action", "AssumeRoleWithWebIdentity", "RoleArn", "arn:aws:iam::123456789012:role/etl", "RoleSessionName", "x", "WebIdentityToken", "y.y.y"}
	for _, row := range []struct {
		name             string
		work, outside    *throttle.Gate
		large            *admission.Room
		service, version string
		form             []string
		want             int
	}{
		{"busy", full(), free(), freeRoom(), "redshift", "2012-12-01", small, 503},
		{"not busy", free(), full(), fullRoom(), "redshift", "2012-12-01", small, 200},
		{"a large body", free(), full(), fullRoom(), "iam", "2010-05-08", large, 503},
		{"a large body, and room", free(), full(), freeRoom(), "iam", "2010-05-08", large, 400},
		{"identity providers are slow", free(), full(), fullRoom(), "sts", "2011-06-15", unsigned, 503},
		{"identity providers answer", free(), free(), fullRoom(), "sts", "2011-06-15", unsigned, 400},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newPressed(t)
			p.handler.SetGates(row.work, row.outside, row.large)
			for range 2 { // each place is given back
				a := p.do(p.signed("root", row.service, "POST", query(row.version, row.form...)))
				if a.status != row.want {
					t.Fatalf("%d %s, want %d", a.status, a.body, row.want)
				}
				if row.want == 503 && (a.fault(t).Code != "ServiceUnavailable" || p.lineCount() > 0) {
					t.Errorf("shed with %s and %d audit lines", a.body, p.lineCount())
				}
			}
		})
	}
}

// TestBodyLimits: a body that is too large is refused with AWS's XML.
func TestBodyLimits(t *testing.T) {
	p := newPressed(t)
	for _, row := range []struct {
		name   string
		length int64
		body   io.Reader
	}{
		{"announced", 65 << 10, strings.NewReader(strings.Repeat("x", 65<<10))},
		{"not announced", -1, strings.NewReader(strings.Repeat("x", 65<<10))},
	} {
		r, err := http.NewRequest("POST", p.url, io.NopCloser(row.body))
		if err != nil {
			t.Fatal(err)
		}
		r.ContentLength = row.length
		var body bytes.Buffer
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = body.ReadFrom(response.Body)
		response.Body.Close()
		if response.StatusCode != 413 || !strings.Contains(body.String(), "<Code>RequestEntityTooLarge</Code>") {
			t.Errorf("%s: %d %s", row.name, response.StatusCode, body.String())
		}
	}
}

// TestObserve: the event of a call has its steps in order, its outcome, and the credential only if
// it was issued.
func TestObserve(t *testing.T) {
	p := newPressed(t)
	issue := []string{"Action", "GetClusterCredentials", "ClusterIdentifier", "examplecluster", "DbUser", "ana", "DbName", "dev"}
	p.redshiftCall("ana", issue...)
	e := p.event()
	if e.Action != "GetClusterCredentials" || e.Service != "redshift" || e.Code != "" || e.Status != 200 ||
		e.CredentialID == "" || !strings.HasSuffix(e.Principal, "user/ana") || e.CredentialID != p.lastLine().CredentialID {
		t.Errorf("of a credential that was issued: %+v", e)
	}
	for i, step := range [][2]time.Time{{e.Began, e.Authenticated}, {e.Authenticated, e.Acted}, {e.Acted, e.Recorded}, {e.Recorded, e.Ended}} {
		if step[0].IsZero() || step[1].Before(step[0]) {
			t.Errorf("step %d goes from %v to %v", i, step[0], step[1])
		}
	}
	p.redshiftCall("bob", issue...)
	if e := p.event(); e.Code != "AccessDenied" || e.Status != 403 || e.Effect != "ImplicitDeny" || e.CredentialID != "" {
		t.Errorf("of a refusal: %+v", e)
	}
	p.redshiftCall("ana", "Action", "LaunchRockets")
	if e := p.event(); e.Code != "InvalidAction" || e.Action != "" {
		t.Errorf("of an action that there is not: %+v", e)
	}
	p.server.mu.Lock()
	p.broken = io.ErrShortWrite
	p.server.mu.Unlock()
	p.redshiftCall("ana", issue...)
	if e := p.event(); e.Code != "ServiceUnavailable" || e.CredentialID != "" {
		t.Errorf("of a credential that could not be recorded: %+v", e)
	}
}

// TestHostileParametersAreReduced: the record has only the length of an invalid value, in any
// parameter of any action, and in the other fields that hold names.
func TestHostileParametersAreReduced(t *testing.T) {
	s := newServer(t, example(t))
	hostile := strings.Repeat("\x01\"", 15_000)
	record := func(name string, r *http.Request) audit.CallRecord {
		t.Helper()
		if a := s.do(r); a.status == 200 {
			t.Errorf("%s: taken", name)
		}
		line := s.lastLine()
		if text := fmt.Sprintf("%v %v %v", line.Request, line.Identity, line.EventName); strings.Contains(text, hostile[:20]) {
			t.Errorf("%s: the record has the value: %.300q", name, text)
		}
		if n := line.Size(); n > 4<<10 {
			t.Errorf("%s: the line has %d bytes", name, n)
		}
		return line
	}
	for service, actions := range map[string]map[string][]string{
		"redshift": {
			"GetClusterCredentials":            {"DbUser", "DbName", "ClusterIdentifier", "CustomDomainName", "DurationSeconds", "AutoCreate", "DbGroups.DbGroup.1"},
			"GetClusterCredentialsWithIAM":     {"DbName", "ClusterIdentifier", "DurationSeconds"},
			"DescribeClusters":                 {"ClusterIdentifier", "TagKeys.TagKey.1", "TagValues.TagValue.1", "MaxRecords", "Marker"},
			"DescribeCustomDomainAssociations": {"CustomDomainName", "CustomDomainCertificateArn", "Marker"},
		},
		"sts": {
			"AssumeRole": {"RoleArn", "RoleSessionName", "ExternalId", "SourceIdentity", "Policy", "PolicyArns.member.1.arn", "Tags.member.1.Key",
				"Tags.member.1.Value", "TransitiveTagKeys.member.1", "SerialNumber", "TokenCode", "DurationSeconds"},
			"AssumeRoleWithWebIdentity": {"RoleArn", "RoleSessionName", "WebIdentityToken", "ProviderId", "Policy"},
			"GetSessionToken":           {"SerialNumber", "TokenCode"},
			"GetAccessKeyInfo":          {"AccessKeyId"},
		},
		"iam": {
			"SimulateCustomPolicy":    {"PolicyInputList.member.1", "ActionNames.member.1", "ResourceArns.member.1", "CallerArn", "ResourcePolicy", "Marker"},
			"SimulatePrincipalPolicy": {"PolicySourceArn", "ActionNames.member.1"},
		},
	} {
		version := map[string]string{"redshift": "2012-12-01", "sts": "2011-06-15", "iam": "2010-05-08"}[service]
		for action, parameters := range actions {
			for _, parameter := range parameters {
				form := map[string]string{"ClusterIdentifier": "examplecluster", "DbUser": "ana", "RoleArn": "arn:aws:iam::123456789012:role/etl",
					"RoleSessionName": "nightly", "ActionNames.member.1": "redshift:GetClusterCredentials", "WebIdentityToken": "a.b.c"}
				form[parameter] = hostile
				list := []string{"Action", action}
				for name, value := range form {
					list = append(list, name, value)
				}
				record(action+" "+parameter, s.signed("bob", service, "POST", query(version, list...)))
			}
		}
	}
	line := record("an action", s.signed("bob", "redshift", "POST", query("2012-12-01", "Action", strings.Repeat("x", 30_000))))
	if text := fmt.Sprintf("%+v", line.Request); line.EventName != "" || !strings.Contains(text, "action") {
		t.Errorf("the record of an action that is none: %q, %s", line.EventName, text)
	}
	r := s.signed("bob", "redshift", "POST", query("2012-12-01", "Action", "DescribeClusters"))
	r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), keyOf("bob"), strings.Repeat("ü", 3000), 1))
	if line := record("an access key id", r); line.Identity.AccessKeyID != "" {
		t.Errorf("the record has the access key id %.50q", line.Identity.AccessKeyID)
	}
	r = s.signed("bob", "redshift", "POST", query("2012-12-01", "Action", "DescribeClusters"))
	r.Header.Set("User-Agent", strings.Repeat("\xff", 40_000))
	record("a user agent", r)
}
