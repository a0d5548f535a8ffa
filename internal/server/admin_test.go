package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/postgres"
	"github.com/daypass/daypass/test/envtest"
	"github.com/daypass/daypass/test/pgtest"
	"github.com/daypass/daypass/test/sitetest"
)

func TestMain(m *testing.M) {
	envtest.Clear()
	m.Run()
}

// served is a Daypass server in this process. A test can move its clock.
type served struct {
	t      *testing.T
	site   *sitetest.Site
	dir    string // the site's
	config string // path of the file
	where  Running
	hangup chan os.Signal
	drain  time.Duration
	delay  time.Duration // before the listeners close
	hurry  chan struct{}
	log    *pgtest.Log
	offset atomic.Int64  // of the clock, in nanoseconds
	starts time.Duration // StartPatience; 0: the default
	read   func()        // called after the configuration was read again; optional
	stop   func() error
}

func (s *served) now() time.Time { return time.Now().Add(time.Duration(s.offset.Load())) }

// newServed returns a server with the example's configuration plus more, in a directory of its
// own. upstream is an address; nothing needs to listen there.
func newServed(t *testing.T, upstream, more string) *served {
	t.Helper()
	site, err := sitetest.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &served{t: t, site: site, dir: site.Dir, config: site.ConfigFile(), log: &pgtest.Log{}, hangup: make(chan os.Signal, 1), drain: 5 * time.Second, hurry: make(chan struct{})}
	s.write(upstream, more)
	return s
}

func (s *served) write(upstream, more string) {
	s.t.Helper()
	if err := s.site.Configure(sitetest.Configuration+more, "API_LISTEN", "127.0.0.1:0, limits: {rate: 0}", "GATEWAY_LISTEN", "127.0.0.1:0",
		"UPSTREAM", "postgres://daypass@"+upstream+"/postgres?sslmode=disable&connect_timeout=2"); err != nil {
		s.t.Fatal(err)
	}
}

// tryStart starts the server, and returns once it serves, or with the reason why it does not.
func (s *served) tryStart() error {
	cfg, err := config.Load(s.config)
	if err != nil {
		return err
	}
	life, err := sitetest.Start(func(ctx context.Context, ready func()) error {
		return Run(ctx, cfg, Options{
			Log: slog.New(slog.NewTextHandler(s.log, nil)), Now: s.now, Drain: s.drain, ShutdownDelay: s.delay, Hurry: s.hurry, Hangup: s.hangup, StartPatience: s.starts,
			Load: func() (*config.Config, error) {
				cfg, err := config.Load(s.config)
				if s.read != nil {
					s.read()
				}
				return cfg, err
			},
			Ready: func(where Running) {
				s.where, s.site.Gateway = where, where.Gateway.String()
				ready()
			},
		})
	})
	if err == nil {
		s.stop = life.Stop
	}
	return err
}

func (s *served) start() {
	s.t.Helper()
	if err := s.tryStart(); err != nil {
		s.t.Fatalf("serve: %v\n%s", err, s.log)
	}
	s.t.Cleanup(func() {
		if err := s.stop(); err != nil {
			s.t.Errorf("serve: %v", err)
		}
		if s.t.Failed() {
			s.t.Logf("the server's log:\n%s", s.log)
		}
	})
}

// get sends a request without a signature.
func (s *served) get(url string) (status int, header http.Header, body string) {
	s.t.Helper()
	response, err := http.Get(url)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return response.StatusCode, response.Header, string(data)
}

// issued is the response to GetClusterCredentials, or the error.
type issued struct {
	DbUser     string    `xml:"GetClusterCredentialsResult>DbUser"`
	DbPassword string    `xml:"GetClusterCredentialsResult>DbPassword"`
	Expiration time.Time `xml:"GetClusterCredentialsResult>Expiration"`
	Code       string    `xml:"Error>Code"`
	status     int
}

// issue requests a credential for alice with ana's access key, signed at the given time.
func (s *served) issue(at time.Time) issued { return s.issueAs("ana", at) }

func (s *served) issueAs(principal string, at time.Time) issued {
	s.t.Helper()
	body := url.Values{"Action": {"GetClusterCredentials"}, "Version": {"2012-12-01"}, "ClusterIdentifier": {"examplecluster"},
		"DbUser": {"alice"}, "DbName": {"dev"}}.Encode()
	r, err := http.NewRequest("POST", s.where.API+"/", strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	sum := sha256.Sum256([]byte(body))
	key := sitetest.Keys[principal]
	if err := v4.NewSigner().SignHTTP(context.Background(), aws.Credentials{AccessKeyID: key[0], SecretAccessKey: key[1]}, r,
		hex.EncodeToString(sum[:]), "redshift", "us-east-1", at); err != nil {
		s.t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	answer := issued{status: response.StatusCode}
	if err := xml.NewDecoder(response.Body).Decode(&answer); err != nil {
		s.t.Fatal(err)
	}
	return answer
}

// logon logs on with a credential. It waits while the server cannot know whether it may admit a
// session: an etcd on a busy machine may be silent for some seconds.
func (s *served) logon(c issued) (*pgx.Conn, error) {
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		conn, err := s.tryLogon(c)
		if refused, ok := errors.AsType[*pgconn.PgError](err); !ok || refused.Code != "57P03" || strings.Contains(refused.Message, "shutting down") || time.Now().After(end) {
			return conn, err
		}
	}
}

func (s *served) tryLogon(c issued) (*pgx.Conn, error) {
	config, err := s.site.Logon(c.DbUser, c.DbPassword, "dev")
	if err != nil {
		s.t.Fatal(err)
	}
	return pgx.ConnectConfig(context.Background(), config)
}

const adminListener = "\nadmin: {listen: \"127.0.0.1:0\", pprof: true}\n"

// startDatabase starts a PostgreSQL server with the example, and returns its address.
func startDatabase(t *testing.T) string {
	t.Helper()
	installation, err := pgtest.Installation()
	if err != nil {
		t.Fatal(err)
	}
	site, err := sitetest.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := site.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := site.StartDatabase(t.Context(), installation, postgres.Options{}, sitetest.Example()...); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", site.Database.Port())
}

// TestWatching requests credentials and makes good and bad logons to a real server. Then it
// looks at Daypass as an operator does: scrape, readiness, profiles, traces. The scrape must
// contain every name that the dashboard and the alerts use.
func TestWatching(t *testing.T) {
	spans := newSpanReceiver(t)
	s := newServed(t, startDatabase(t), adminListener+"tracing: {endpoint: "+spans.url+"}\n")
	s.addProvider()
	s.start()
	admin := "http://" + s.where.Admin

	credential := s.issue(time.Now())
	conn, err := s.logon(credential)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var sum int
	if err := conn.QueryRow(t.Context(), "SELECT sum(n) FROM generate_series(1, 1000) n").Scan(&sum); err != nil {
		t.Fatal(err)
	}
	forged := credential
	forged.DbPassword += "x"
	if _, err := s.logon(forged); err == nil {
		t.Error("a forgery logs on")
	}
	s.get(s.where.API + "/?Action=GetCallerIdentity")
	if c := s.issueAs("bob", time.Now()); c.Code != "AccessDenied" {
		t.Errorf("bob is given %+v", c)
	}

	var text string
	pgtest.Eventually(t, "the reaper's first sweep", func() bool {
		_, _, text = s.get(admin + "/metrics")
		return strings.Contains(text, `daypass_reaper_sweeps_total{cluster="examplecluster",result="ok"}`)
	})
	for _, line := range []string{
		`daypass_credentials_issued_total{action="GetClusterCredentials"} 1`,
		`daypass_logons_total{cluster="examplecluster",result="ok",sqlstate_class="00"} 1`,
		`daypass_logons_total{cluster="",result="forged",sqlstate_class="28"} 1`,
		`daypass_api_calls_total{action="",code="MissingAuthenticationToken",service="redshift"} 1`,
		`daypass_sessions{cluster="examplecluster"} 1`,
		`daypass_cluster_up{cluster="examplecluster"} 1`,
		`daypass_api_denials_total{action="GetClusterCredentials",effect="ImplicitDeny",layer="identity-based policy"} 1`,
		`daypass_audit_ok 1`, `daypass_keyring_ok 1`, `daypass_registry_ok 1`, `daypass_config_reload_ok 1`,
	} {
		// Calls and logons are counted after they have been answered.
		pgtest.Eventually(t, "the scrape to have "+line, func() bool {
			_, _, text = s.get(admin + "/metrics")
			return strings.Contains(text, "\n"+line+"\n")
		})
	}
	for _, secret := range []string{"alice", "ana", "IAM:", credential.DbPassword} {
		if regexp.MustCompile(`="[^"]*\b` + regexp.QuoteMeta(secret)).MatchString(text) {
			t.Errorf("a label of the scrape has %q in it", secret)
		}
	}
	checkNames(t, text)

	// Readiness, for the operator and for strangers. A cluster that answers late on a busy machine is
	// asked again.
	pgtest.Eventually(t, "/readyz with everything in order", func() bool {
		status, header, body := s.get(admin + "/readyz")
		var state readiness
		if err := json.Unmarshal([]byte(body), &state); err != nil || status != 200 || !state.Ready || !state.Issue.OK || !state.Logons.OK ||
			len(state.Clusters) != 1 || header.Get("Content-Type") != "application/json" {
			t.Fatalf("/readyz: %d %v %s", status, header, body)
		}
		return state.Clusters[0].OK
	})
	for path, want := range map[string]string{"/healthz": "ok\n", "/readyz": "ready\n"} {
		status, header, body := s.get(s.where.API + path)
		if status != 200 || body != want || !strings.HasPrefix(header.Get("Content-Type"), "text/plain") {
			t.Errorf("%s on the API's listener: %d %v %q, want %q", path, status, header, body, want)
		}
	}
	for _, path := range []string{"/healthz/", "/readyz/x", "/metrics", "/debug/pprof/", "/Healthz"} {
		if status, header, _ := s.get(s.where.API + path); status != 404 || header.Get("Content-Type") != "text/xml" {
			t.Errorf("%s on the API's listener: %d %v, want AWS XML", path, status, header)
		}
	}
	if status, _, _ := s.get(admin + "/readyz?cluster=nowhere"); status != 404 {
		t.Errorf("/readyz of a cluster that there is not: %d", status)
	}
	if status, _, body := s.get(admin + "/debug/pprof/goroutine?debug=1"); status != 200 || !strings.Contains(body, "goroutine profile") {
		t.Errorf("a profile: %d %.100s", status, body)
	}

	// A faulty configuration changes nothing, and is reported.
	good, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	_ = os.WriteFile(s.config, append(good, "nonsense: 1\n"...), 0o600)
	s.hangup <- os.Interrupt
	pgtest.Eventually(t, "the refusal of the configuration", func() bool {
		_, _, text := s.get(admin + "/metrics")
		return strings.Contains(text, "\ndaypass_config_reload_ok 0\n")
	})
	_ = os.WriteFile(s.config, good, 0o600)
	s.hangup <- os.Interrupt
	pgtest.Eventually(t, "the configuration in force", func() bool {
		_, _, text := s.get(admin + "/metrics")
		return strings.Contains(text, "\ndaypass_config_reload_ok 1\n")
	})

	// The traces: the spans of issuing and of the logon share the credential's id.
	var call, logon, upstream *otlp.Span
	pgtest.Eventually(t, "the spans", func() bool {
		call, logon, upstream = spans.find("redshift/GetClusterCredentials"), spans.find("logon"), spans.find("upstream")
		return call != nil && logon != nil && upstream != nil
	})
	id := spanAttribute(call, "daypass.credential.id")
	if id == "" || spanAttribute(logon, "daypass.credential.id") != id {
		t.Errorf("credential of the call = %q, of the logon = %q", id, spanAttribute(logon, "daypass.credential.id"))
	}
	if len(logon.Links) != 1 || !bytes.Equal(logon.Links[0].TraceId, call.TraceId) {
		t.Errorf("the logon's links = %v, want the call %x", logon.Links, call.TraceId)
	}
	if !bytes.Equal(upstream.TraceId, logon.TraceId) || upstream.EndTimeUnixNano <= upstream.StartTimeUnixNano {
		t.Errorf("the upstream's span = %v", upstream)
	}
}

var (
	metricName = regexp.MustCompile(`\b(?:daypass|process|go)_[a-z_]+\b`)
	notMetrics = regexp.MustCompile(`"[^"]*"|\{[^}]*\}|by \([^)]*\)`)
)

// checkNames fails unless the scrape contains every metric in the queries of the dashboard and
// the alerts.
func checkNames(t *testing.T, scrape string) {
	t.Helper()
	// This metric needs several servers: TestServersShareKeys scrapes it.
	there := map[string]bool{"daypass_servers_differ": true}
	for line := range strings.Lines(scrape) {
		if name := metricName.FindString(line); strings.HasPrefix(line, name) {
			there[name] = true
		}
	}
	var queries []string
	dashboard, err := os.ReadFile("../../deploy/grafana/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var parsed struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(dashboard, &parsed); err != nil {
		t.Fatalf("dashboard.json: %v", err)
	}
	for _, panel := range parsed.Panels {
		for _, target := range panel.Targets {
			queries = append(queries, target.Expr)
		}
	}
	alerts, err := os.ReadFile("../../deploy/prometheus/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, expr := range regexp.MustCompile(`(?m)expr: (\|\n(?: {10}.*\n)+|.*\n)`).FindAllStringSubmatch(string(alerts), -1) {
		queries = append(queries, expr[1])
	}
	if len(queries) < 50 {
		t.Errorf("only %d queries were found", len(queries))
	}
	for _, query := range queries {
		for _, name := range metricName.FindAllString(notMetrics.ReplaceAllString(query, ""), -1) {
			if !there[name] {
				t.Errorf("the scrape has no %s, which is asked for: %s", name, query)
			}
		}
	}
}

// TestReadiness goes through conditions that make a server unready, and others that do not.
func TestReadiness(t *testing.T) {
	s := newServed(t, "127.0.0.1:1", adminListener)
	s.start()
	admin := "http://" + s.where.Admin
	state := func(query string) (int, readiness) {
		t.Helper()
		status, _, body := s.get(admin + "/readyz" + query)
		var state readiness
		if err := json.Unmarshal([]byte(body), &state); err != nil {
			t.Fatalf("/readyz%s: %v\n%s", query, err, body)
		}
		return status, state
	}
	// A cluster that is down is reported, but does not stop credentials from being issued.
	status, now := state("")
	if status != 200 || !now.Ready || len(now.Clusters) != 1 || now.Clusters[0].OK || !strings.Contains(now.Clusters[0].Reason, "cannot be reached") {
		t.Errorf("with a cluster that is down: %d %+v", status, now)
	}
	if status, now := state("?cluster=examplecluster"); status != 503 || now.Ready {
		t.Errorf("readiness for that cluster: %d %+v", status, now)
	}
	if got := s.issue(time.Now()); got.status != 200 {
		t.Errorf("issuing for a cluster that is down: %d %s", got.status, got.Code)
	}
	// A damaged keyring file causes a warning: the keys in force stay in use.
	path := filepath.Join(s.dir, "data", "keyring.json")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_ = os.WriteFile(path, good[:len(good)/2], 0o600)
	pgtest.Eventually(t, "the warning", func() bool { _, now := state(""); return len(now.Warnings) == 1 })
	if status, now := state(""); status != 200 || !strings.Contains(now.Warnings[0], "restore it from a backup") {
		t.Errorf("with a damaged keyring file: %d %+v", status, now)
	}
	_ = os.WriteFile(path, good, 0o600)
	pgtest.Eventually(t, "no warning", func() bool { _, now := state(""); return len(now.Warnings) == 0 })
	// If the audit log cannot be written, no credential is issued.
	restore := breakAuditLog(t, s)
	if got := s.issue(time.Now()); got.status != 503 || got.DbPassword != "" {
		t.Errorf("issuing without a record: %+v", got)
	}
	if status, now := state(""); status != 503 || now.Ready || !strings.Contains(now.Issue.Reason, "no space left") {
		t.Errorf("without a record: %d %+v", status, now)
	}
	if status, _, body := s.get(s.where.API + "/readyz"); status != 503 || body != "not ready\n" {
		t.Errorf("the API's listener says %d %q", status, body)
	}
	restore()
	pgtest.Eventually(t, "the record", func() bool { status, _ := state(""); return status == 200 })
}

func TestNoAdminListener(t *testing.T) {
	s := newServed(t, "127.0.0.1:1", "")
	s.start()
	if s.where.Admin != "" {
		t.Errorf("without admin there is a listener at %s", s.where.Admin)
	}
}

// TestNoProfiles: profiles are served only if the configuration asks for them.
func TestNoProfiles(t *testing.T) {
	s := newServed(t, "127.0.0.1:1", "\nadmin: {listen: \"127.0.0.1:0\"}\n")
	s.start()
	for path, want := range map[string]int{"/metrics": 200, "/debug/pprof/": 404, "/debug/pprof/profile?seconds=1": 404, "/debug/pprof/heap": 404} {
		if status, _, _ := s.get("http://" + s.where.Admin + path); status != want {
			t.Errorf("%s: %d, want %d", path, status, want)
		}
	}
}

// begin opens a connection to the API's listener and sends text.
func (s *served) begin(text string) (conn net.Conn, answer func() string) {
	s.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.where.API, "http://"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(conn, text)
	return conn, func() string {
		line, _ := bufio.NewReader(conn).ReadString('\n')
		return strings.TrimSpace(line)
	}
}

const unfinished = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Filler: "

// TestAPIHeadersAreBounded: headers that are too large are refused before there is a request.
func TestAPIHeadersAreBounded(t *testing.T) {
	s := newServed(t, "127.0.0.1:1", "")
	s.start()
	for size, want := range map[int]string{32 << 10: "HTTP/1.1 200 OK", 40 << 10: "HTTP/1.1 431 Request Header Fields Too Large"} {
		if _, answer := s.begin(unfinished + strings.Repeat("x", size) + "\r\n\r\n"); answer() != want {
			t.Errorf("a header of %d bytes is not answered with %s", size, want)
		}
	}
}

// TestAPIConnectionsAreBounded: the configured limit is in force. A caller beyond the limit
// is answered, in place of one of the connections that keep the server waiting.
func TestAPIConnectionsAreBounded(t *testing.T) {
	s := newServed(t, "127.0.0.1:1", "")
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	limited := strings.Replace(string(text), "limits: {rate: 0}", "limits: {rate: 0, connections: 3}", 1)
	if err := os.WriteFile(s.config, []byte(limited), 0o600); err != nil {
		t.Fatal(err)
	}
	s.start()
	var conns []net.Conn
	var answers []func() string
	for range 3 {
		conn, answer := s.begin(unfinished)
		conns, answers = append(conns, conn), append(answers, answer)
	}
	newcomer, answer := s.begin(unfinished)
	_, _ = io.WriteString(newcomer, "\r\n\r\n")
	if got := answer(); got != "HTTP/1.1 200 OK" {
		t.Errorf("the newcomer is answered with %q", got)
	}
	served := 0
	for i, answer := range answers {
		_, _ = io.WriteString(conns[i], "\r\n\r\n")
		if answer() == "HTTP/1.1 200 OK" {
			served++
		}
	}
	if served == 3 {
		t.Error("4 connections are served at a time, want 3")
	}
}

func TestAdminConfiguration(t *testing.T) {
	for _, row := range []struct{ more, want string }{
		{"admin: {listen: \"0.0.0.0:9440\"}\n", "is not a loopback address"},
		{"admin: {listen: \":9440\"}\n", "is not a loopback address"},
		{"admin: {pprof: true}\n", "admin.listen: is required"},
		{"admin: {listen: \"127.0.0.1:9440\", profiles: true}\n", "is not a key"},
		{"tracing: {endpoint: \"127.0.0.1:4318\"}\n", "want the URL of an OTLP/HTTP receiver"},
		{"tracing: {endpoint: \"http://127.0.0.1:4318\"}\n", ""},
	} {
		s := newServed(t, "127.0.0.1:1", row.more)
		_, err := config.Load(s.config)
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: %v, want %q", row.more, err, row.want)
		}
	}
}

// spanReceiver is an OTLP/HTTP receiver.
type spanReceiver struct {
	url   string
	mu    sync.Mutex
	spans []*otlp.Span
}

func newSpanReceiver(t *testing.T) *spanReceiver {
	r := &spanReceiver{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		var request collector.ExportTraceServiceRequest
		if err := proto.Unmarshal(body, &request); err != nil {
			t.Errorf("what was sent is not OTLP: %v", err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, resource := range request.ResourceSpans {
			for _, scope := range resource.ScopeSpans {
				r.spans = append(r.spans, scope.Spans...)
			}
		}
	}))
	t.Cleanup(server.Close)
	r.url = server.URL
	return r
}

func (r *spanReceiver) find(name string) *otlp.Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.spans {
		if s.Name == name {
			return s
		}
	}
	return nil
}

func spanAttribute(s *otlp.Span, key string) string {
	for _, a := range s.Attributes {
		if a.Key == key {
			return a.Value.GetStringValue()
		}
	}
	return ""
}
