package api_test

import (
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
	"github.com/daypass/daypass/internal/throttle"
)

// pressed is a server whose limits a test can set, and what was told of its calls.
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

// event is the next thing that was told; it comes after the answer.
func (p *pressed) event() api.CallEvent {
	p.t.Helper()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		p.mu.Lock()
		if len(p.events) > 0 {
			e := p.events[0]
			p.events = p.events[1:]
			p.mu.Unlock()
			return e
		}
		p.mu.Unlock()
	}
	p.t.Fatal("nothing was told")
	return api.CallEvent{}
}

func (p *pressed) lineCount() int {
	p.server.mu.Lock()
	defer p.server.mu.Unlock()
	return len(p.lines)
}

// omitted is how many calls the records say have none.
func (p *pressed) omitted() (sum int64) {
	p.server.mu.Lock()
	defer p.server.mu.Unlock()
	for _, line := range p.lines {
		sum += line.Omitted
	}
	return sum
}

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
	// Whoever cannot sign spends nothing of it.
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

// TestStrangersFillNoDisk: each of a flood of forgeries is answered as ever, few of
// them are recorded, and the record says of how many there is none.
func TestStrangersFillNoDisk(t *testing.T) {
	p := newPressed(t)
	lines, flood := 5, 200
	p.handler.SetStrangerLines(throttle.Limit{Rate: 0.001, Burst: lines})
	forge := func() {
		t.Helper()
		r := p.signed("root", "redshift", "POST", query("2012-12-01", "Action", "DescribeClusters"))
		r.Header.Set("X-Amz-Date", "20260102T030406Z")
		if a := p.do(r); a.status != 403 || a.fault(t).Code != "SignatureDoesNotMatch" {
			t.Fatalf("a forgery: %d %s", a.status, a.body)
		}
	}
	for range lines {
		forge()
	}
	if n := p.lineCount(); n != lines {
		t.Fatalf("%d audit lines for %d forgeries within the bounds", n, lines)
	}
	began := time.Now()
	for range flood {
		forge()
	}
	// Until one is recorded again, which tells of the others.
	for before := p.lineCount(); p.lineCount() == before; flood++ {
		forge()
	}
	recorded := p.lineCount() - lines
	if most := int(time.Since(began)/time.Second) + 2; recorded > most {
		t.Errorf("%d audit lines for %d forgeries in %v, want one a second", recorded, flood, time.Since(began))
	}
	if got := p.omitted(); got != int64(flood-recorded) {
		t.Errorf("the records say that %d calls have none, want %d", got, flood-recorded)
	}
	// Whoever signs has a line for each call all the same.
	for range 3 {
		if a := p.redshiftCall("root", "Action", "DescribeClusters"); a.status != 200 {
			t.Fatalf("an honest call: %d %s", a.status, a.body)
		}
	}
	if n := p.lineCount() - lines - recorded; n != 3 {
		t.Errorf("%d audit lines for 3 honest calls", n)
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
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: 10\r\n\r\nAct", address)
		slow = append(slow, conn)
	}
	try := func() answer { return p.redshiftCall("root", "Action", "DescribeClusters") }
	var a answer
	for deadline := time.Now().Add(5 * time.Second); ; {
		if a = try(); a.status == 503 || time.Now().After(deadline) {
			break
		}
	}
	before := p.lineCount()
	if a = try(); a.status != 503 || a.fault(t).Code != "ServiceUnavailable" || a.fault(t).Type != "Receiver" {
		t.Fatalf("a third call of the address: %d %s", a.status, a.body)
	}
	if n := p.lineCount(); n != before {
		t.Errorf("%d audit lines for a call that nothing is known of", n-before)
	}
	slow[0].Close()
	for deadline := time.Now().Add(5 * time.Second); ; {
		if a = try(); a.status == 200 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after one of them is gone: %d %s", a.status, a.body)
		}
	}
}

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

// TestBodyLimits: what is too large is refused in AWS's XML.
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
