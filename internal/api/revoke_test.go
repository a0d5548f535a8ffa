package api_test

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/api"
	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/registry"
	"github.com/daypass/daypass/internal/registry/registrytest"
)

// site is a server with a registry and sessions.
type site struct {
	*server
	registry *registry.Registry
	store    *registrytest.Memory
	broken   atomic.Pointer[error] // the error that the store returns

	mu       sync.Mutex
	sessions []*api.Session
	silent   []string // servers that do not answer
	// hang, if not nil, keeps calls that ask other servers waiting until it is closed.
	hang  chan struct{}
	asked atomic.Int32 // calls that have asked other servers
	// stall, if not nil, keeps calls of the registry waiting until it is closed.
	stall   atomic.Pointer[chan struct{}]
	handler *api.Handler
	arrived atomic.Int32 // requests
}

// List and Kill make site an api.Sessions.
func (s *site) List() []*api.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.sessions)
}

func (s *site) Elsewhere(context.Context, string) ([]*api.Session, []string) {
	s.asked.Add(1)
	if s.hang != nil {
		<-s.hang
	}
	return nil, s.silent
}

func (s *site) Kill(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.sessions)
	s.sessions = slices.DeleteFunc(s.sessions, func(one *api.Session) bool { return one.ID == id })
	return len(s.sessions) < before
}

func newSite(t *testing.T, spec directory.Spec) *site {
	t.Helper()
	s := &site{server: &server{t: t, keyring: newKeyring(), directory: build(t, spec), now: start}}
	s.store = &registrytest.Memory{Fail: func(string, bool) error {
		if stall := s.stall.Load(); stall != nil {
			<-*stall
		}
		if err := s.broken.Load(); err != nil {
			return *err
		}
		return nil
	}}
	s.registry = registry.New(registry.Config{Store: s.store, Now: s.clock})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.registry.Run(ctx) }()
	config := s.config()
	config.Revocations, config.Sessions = s.registry, s
	s.handler = api.New(config)
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.arrived.Add(1)
		s.handler.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { h.Close(); stop(); <-done })
	s.url = h.URL
	for i, one := range []struct{ cluster, user, principal string }{
		{"examplecluster", "alice", "arn:aws:iam::123456789012:user/ana"},
		{"examplecluster", "bob", "arn:aws:sts::123456789012:assumed-role/etl/nightly"},
		{"Other", "alice", "arn:aws:iam::123456789012:user/bob"},
	} {
		s.sessions = append(s.sessions, &api.Session{
			ID: fmt.Sprintf("SESSION%d", i), CredentialID: credentialID(i), Principal: one.principal,
			Cluster: one.cluster, Database: "dev", DBUser: one.user, DBGroups: []string{"analysts"}, SessionRole: "IAM:" + one.user + ":analysts",
			Application: "psql", Client: netip.MustParseAddrPort("192.0.2.7:5000"), TLS: true, PID: 4711,
			Started: start.Add(time.Duration(i-10) * time.Minute), IssuedAt: start.Add(time.Duration(i-11) * time.Minute).Truncate(time.Second), NotAfter: start.Add(time.Minute),
			State: "idle", BytesFromClient: 10, BytesToClient: 1 << 40,
		})
	}
	return s
}

// credentialID is an identifier for each number.
func credentialID(i int) string { return fmt.Sprintf("01JG3F5D4T0A1B2C3D4E5F6%03d", i) }

func (s *site) call(user string, form ...string) answer {
	s.t.Helper()
	return s.do(s.signed(user, "daypass", "POST", query("2026-11-01", form...)))
}

func (s *site) refused(a answer, status int, code, text string) {
	s.t.Helper()
	if f := a.fault(s.t); a.status != status || f.Code != code || !strings.Contains(f.Message, text) {
		s.t.Errorf("answered %d %s %q, want %d %s %q", a.status, f.Code, f.Message, status, code, text)
	}
}

func operators(t *testing.T) directory.Spec {
	spec := example(t)
	spec.Users = append(spec.Users,
		user("east", policy(t, "east", `{"Effect":"Allow","Action":"daypass:*","Resource":[
			"arn:aws:daypass:us-east-1:123456789012:cluster/examplecluster",
			"arn:aws:daypass:us-east-1:123456789012:dbuser/examplecluster/*",
			"arn:aws:daypass:us-east-1:123456789012:session/examplecluster/*"]}`)),
		user("self", policy(t, "self", `{"Effect":"Allow","Action":"daypass:RevokeCredentials",
			"Resource":"arn:aws:daypass:*:*:principal/user/${aws:username}"}`)),
		user("almost", policy(t, "almost", `{"Effect":"Allow","Action":"daypass:*","Resource":"*"},
			{"Effect":"Deny","Action":"daypass:*","Resource":["arn:aws:daypass:*:*:cluster/Other","arn:aws:daypass:*:*:session/Other/*"]}`)))
	return spec
}

// TestRevokeAuthorization: what each caller may revoke, and the resource in the refusal.
func TestRevokeAuthorization(t *testing.T) {
	s := newSite(t, operators(t))
	const arn = "arn:aws:daypass:us-east-1:123456789012:"
	for _, row := range []struct {
		user     string
		form     []string
		resource string
		sessions int // found; -1: denied
	}{
		{"root", []string{"CredentialId", credentialID(1)}, "credential/" + credentialID(1), 1},
		{"root", []string{"CredentialId", " " + strings.ToLower(credentialID(1)) + "\n"}, "credential/" + credentialID(1), 1},
		{"root", []string{"Principal", "arn:aws:iam::123456789012:user/ana"}, "principal/user/ana", 1},
		{"root", []string{"Principal", "arn:aws:iam::123456789012:role/jobs/etl"}, "principal/role/jobs/etl", 1},
		{"root", []string{"Principal", "arn:aws:sts::123456789012:assumed-role/etl/nightly"}, "principal/assumed-role/etl/nightly", 1},
		{"root", []string{"DbUser", "alice"}, "dbuser/*/alice", 2},
		{"root", []string{"DbUser", "IAM:ana"}, "dbuser/*/IAM:ana", 0},
		{"root", []string{"DbUser", "alice", "ClusterIdentifier", "examplecluster"}, "dbuser/examplecluster/alice", 1},
		{"root", []string{"ClusterIdentifier", "examplecluster"}, "cluster/examplecluster", 2},
		{"root", []string{"All", "true"}, "cluster/*", 3},
		{"root", []string{"ClusterIdentifier", "Other", "IssuedBefore", "2026-01-02T02:00:00Z"}, "cluster/Other", 0},
		{"east", []string{"ClusterIdentifier", "examplecluster"}, "cluster/examplecluster", 2},
		{"east", []string{"DbUser", "bob", "ClusterIdentifier", "examplecluster"}, "dbuser/examplecluster/bob", 1},
		{"east", []string{"DbUser", "bob"}, "dbuser/*/bob", -1},
		{"east", []string{"ClusterIdentifier", "Other"}, "cluster/Other", -1},
		{"east", []string{"ClusterIdentifier", "missing"}, "cluster/missing", -1},
		{"east", []string{"All", "true"}, "cluster/*", -1},
		{"east", []string{"CredentialId", credentialID(1)}, "credential/" + credentialID(1), -1},
		{"self", []string{"Principal", "arn:aws:iam::123456789012:user/self"}, "principal/user/self", 0},
		{"self", []string{"Principal", "arn:aws:iam::123456789012:user/ana"}, "principal/user/ana", -1},
		{"self", []string{"Principal", "arn:aws:iam::999999999999:user/self"}, "principal/arn:aws:iam::999999999999:user/self", -1},
		{"bob", []string{"All", "true"}, "cluster/*", -1},
	} {
		a := s.call(row.user, append([]string{"Action", "RevokeCredentials"}, row.form...)...)
		if row.sessions < 0 {
			s.refused(a, 403, "AccessDenied", "daypass:RevokeCredentials on resource: "+arn+row.resource+" because")
		} else if want := fmt.Sprintf("<Sessions>%d</Sessions>", row.sessions); a.status != 200 || !strings.Contains(a.body, want) {
			t.Errorf("%s %q: %d %s, want %s", row.user, row.form, a.status, a.body, want)
		}
		line := s.lastLine()
		if len(line.Decisions) != 1 || line.Decisions[0].Resource != arn+row.resource || line.EventSource != "daypass.dev" || line.EventName != "RevokeCredentials" || line.ReadOnly {
			t.Errorf("%s %q: recorded %+v", row.user, row.form, line)
		}
	}
}

// TestRevokeValidation: parameters that select nothing, more than one thing, or something that
// cannot exist are refused.
func TestRevokeValidation(t *testing.T) {
	s := newSite(t, operators(t))
	password := "2D3ShE2iAScES" + strings.Repeat("Ab0_", 60)
	for _, row := range []struct {
		form   []string
		status int
		code   string
		text   string
	}{
		{nil, 400, "MissingParameter", "CredentialId, Principal, DbUser, ClusterIdentifier or All"},
		{[]string{"All", "false"}, 400, "MissingParameter", ""},
		{[]string{"All", "yes"}, 400, "", "All"},
		{[]string{"All", "true", "DbUser", "alice"}, 400, "InvalidParameterCombination", ""},
		{[]string{"CredentialId", credentialID(1), "ClusterIdentifier", "Other"}, 400, "InvalidParameterCombination", ""},
		{[]string{"CredentialId", credentialID(1)[1:]}, 400, "InvalidParameterValue", "CredentialId: it must be the identifier"},
		{[]string{"CredentialId", password}, 400, "InvalidParameterValue", "CredentialId: it must be the identifier"},
		{[]string{"DbUser", "IAMA:alice"}, 400, "InvalidParameterValue", "without the IAM: or IAMA:"},
		{[]string{"DbUser", "IAM:alice:analysts"}, 400, "InvalidParameterValue", "without groups"},
		{[]string{"ClusterIdentifier", "missing"}, 404, "ClusterNotFound", "missing"},
		{[]string{"DbUser", "alice", "ClusterIdentifier", "missing"}, 404, "ClusterNotFound", "missing"},
		{[]string{"Principal", "ana"}, 400, "", "ARN"},
		{[]string{"Principal", "arn:aws:iam::123456789012:group/x"}, 400, "", "ARN"},
		{[]string{"Principal", "arn:aws:iam::999999999999:user/ana"}, 400, "", "of this account"},
		{[]string{"Principal", "arn:aws:sts::123456789012:assumed-role/etl"}, 400, "", "ARN"},
		{[]string{"All", "true", "IssuedBefore", "yesterday"}, 400, "", "IssuedBefore"},
		{[]string{"All", "true", "IssuedBefore", "2026-01-02T03:05:05Z"}, 400, "", "future"},
		{[]string{"DbUser", strings.Repeat("x", 300)}, 400, "InvalidParameterValue", ""},
	} {
		a := s.call("root", append([]string{"Action", "RevokeCredentials"}, row.form...)...)
		f := a.fault(t)
		if a.status != row.status || row.code != "" && f.Code != row.code || !strings.Contains(f.Message, row.text) {
			t.Errorf("%q: %d %s %q, want %d %s %q", row.form, a.status, f.Code, f.Message, row.status, row.code, row.text)
		}
	}
	if list, err := s.registry.Revocations(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("a refused call has revoked: %+v, %v", list, err)
	}
	// The Redshift service does not have this action.
	s.refused(s.redshiftCall("root", "Action", "RevokeCredentials", "All", "true"), 400, "InvalidAction", "")
}

func TestRevocationsAreListed(t *testing.T) {
	s := newSite(t, operators(t))
	for i := range 150 {
		s.call("root", "Action", "RevokeCredentials", "CredentialId", credentialID(i))
	}
	s.call("root", "Action", "RevokeCredentials", "DbUser", "alice", "ClusterIdentifier", "Other")
	s.call("root", "Action", "RevokeCredentials", "DbUser", "alice", "ClusterIdentifier", "Other")
	var ids []string
	marker := ""
	for pages := 0; ; pages++ {
		a := s.call("root", "Action", "ListRevocations", "MaxRecords", "60", "Marker", marker)
		var list struct {
			Marker string   `xml:"ListRevocationsResult>Marker"`
			IDs    []string `xml:"ListRevocationsResult>Revocations>Revocation>CredentialId"`
			Users  []string `xml:"ListRevocationsResult>Revocations>Revocation>DbUser"`
			By     []string `xml:"ListRevocationsResult>Revocations>Revocation>RevokedBy"`
		}
		if err := xml.Unmarshal([]byte(a.body), &list); err != nil || a.status != 200 {
			t.Fatalf("%d %s: %v", a.status, a.body, err)
		}
		for _, by := range list.By {
			if by != "arn:aws:iam::123456789012:user/root" {
				t.Errorf("RevokedBy = %s", by)
			}
		}
		ids = append(append(ids, list.IDs...), list.Users...)
		if marker = list.Marker; marker == "" {
			if pages != 2 {
				t.Errorf("%d pages, want 3", pages+1)
			}
			break
		}
	}
	slices.Sort(ids)
	if len(ids) != 151 || len(slices.Compact(ids)) != 151 {
		t.Errorf("%d revocations", len(ids))
	}
	s.refused(s.call("east", "Action", "ListRevocations"), 403, "AccessDenied", "cluster/*")
}

// TestRegistryDown: the caller gets an error, and only the audit log has its cause.
func TestRegistryDown(t *testing.T) {
	s := newSite(t, operators(t))
	broken := errors.New("broken disk")
	s.broken.Store(&broken)
	for _, action := range []string{"RevokeCredentials", "ListRevocations"} {
		a := s.call("root", "Action", action, "All", "true")
		s.refused(a, 503, "ServiceUnavailable", "registry")
		if strings.Contains(a.body, "broken disk") || !strings.Contains(s.lastLine().Reason, "broken disk") {
			t.Errorf("%s: answered %s, recorded %q", action, a.body, s.lastLine().Reason)
		}
	}
	// Without a registry, the service does not exist.
	plain := newServer(t, example(t))
	a := plain.do(plain.signed("root", "daypass", "POST", query("2026-11-01", "Action", "ListSessions")))
	if f := a.fault(t); f.Code != "InvalidAction" {
		t.Errorf("without a registry: %+v", f)
	}
}

// TestRevokedUnrecorded: if a revocation cannot be recorded it still takes effect, and the
// caller is told to try again.
func TestRevokedUnrecorded(t *testing.T) {
	s := newSite(t, operators(t))
	s.server.mu.Lock()
	s.server.broken = errors.New("disk full")
	s.server.mu.Unlock()
	s.refused(s.call("root", "Action", "TerminateSession", "SessionId", "SESSION1"), 503, "ServiceUnavailable", "The request was carried out, but could not be recorded")
	if len(s.List()) != 2 {
		t.Error("the session goes on")
	}
	s.refused(s.call("root", "Action", "RevokeCredentials", "All", "true"), 503, "ServiceUnavailable", "The request was carried out, but could not be recorded")
	s.refused(s.call("root", "Action", "RevokeCredentials"), 503, "ServiceUnavailable", "The request was not carried out")
	if list, err := s.registry.Revocations(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("Revocations() = %+v, %v", list, err)
	}
}

func TestListSessions(t *testing.T) {
	s := newSite(t, operators(t))
	type row struct {
		ID        string   `xml:"SessionId"`
		Principal string   `xml:"Principal"`
		Cluster   string   `xml:"ClusterIdentifier"`
		User      string   `xml:"DbUser"`
		Groups    []string `xml:"DbGroups>DbGroup"`
		Client    string   `xml:"ClientAddress"`
		Started   string   `xml:"StartedAt"`
		State     string   `xml:"State"`
		To        string   `xml:"BytesToClient"`
	}
	list := func(user string, form ...string) (rows []row, marker string) {
		t.Helper()
		a := s.call(user, append([]string{"Action", "ListSessions"}, form...)...)
		var result struct {
			Marker string `xml:"ListSessionsResult>Marker"`
			Rows   []row  `xml:"ListSessionsResult>Sessions>Session"`
		}
		if err := xml.Unmarshal([]byte(a.body), &result); err != nil || a.status != 200 {
			t.Fatalf("%d %s: %v", a.status, a.body, err)
		}
		return result.Rows, result.Marker
	}
	ids := func(rows []row) string {
		var all []string
		for _, r := range rows {
			all = append(all, r.ID)
		}
		return strings.Join(all, " ")
	}
	rows, _ := list("root")
	if ids(rows) != "SESSION0 SESSION1 SESSION2" {
		t.Errorf("all: %s", ids(rows))
	}
	if got, want := fmt.Sprint(rows[0]), "{SESSION0 arn:aws:iam::123456789012:user/ana examplecluster alice [analysts] 192.0.2.7:5000 2026-01-02T02:54:05.678Z idle 1099511627776}"; got != want {
		t.Errorf("row %s, want %s", got, want)
	}
	for _, test := range []struct {
		user string
		form []string
		want string
	}{
		{"root", []string{"ClusterIdentifier", "Other"}, "SESSION2"},
		{"root", []string{"DbUser", "alice"}, "SESSION0 SESSION2"},
		{"east", []string{"ClusterIdentifier", "examplecluster"}, "SESSION0 SESSION1"},
		{"almost", nil, "SESSION0 SESSION1"},
	} {
		if rows, _ := list(test.user, test.form...); ids(rows) != test.want {
			t.Errorf("%s %q: %s, want %s", test.user, test.form, ids(rows), test.want)
		}
	}
	s.refused(s.call("east", "Action", "ListSessions"), 403, "AccessDenied", "cluster/*")
	s.refused(s.call("root", "Action", "ListSessions", "ClusterIdentifier", "missing"), 404, "ClusterNotFound", "")
	s.mu.Lock()
	for i := range 250 {
		one := *s.sessions[0]
		one.ID = fmt.Sprintf("MORE%03d", i)
		s.sessions = append(s.sessions, &one)
	}
	s.mu.Unlock()
	seen := map[string]bool{}
	for marker, pages := "", 0; ; pages++ {
		var rows []row
		rows, marker = list("root", "Marker", marker)
		for _, r := range rows {
			seen[r.ID] = true
		}
		s.Kill(rows[0].ID) // a session that ends between two pages does not disturb the list
		if marker == "" {
			if pages != 2 || len(seen) != 253 {
				t.Errorf("%d pages with %d sessions", pages+1, len(seen))
			}
			break
		}
	}
}

// TestTerminateSession: a session is ended by a caller who may end this one. Others do not learn
// whether it exists.
func TestTerminateSession(t *testing.T) {
	s := newSite(t, operators(t))
	s.refused(s.call("almost", "Action", "TerminateSession", "SessionId", "SESSION2"), 403, "AccessDenied", "session/*/SESSION2")
	s.refused(s.call("east", "Action", "TerminateSession", "SessionId", "SESSION2"), 403, "AccessDenied", "")
	// A caller who may not end every session does not learn which sessions exist.
	s.refused(s.call("east", "Action", "TerminateSession", "SessionId", "NONE"), 403, "AccessDenied", "session/*/NONE")
	s.refused(s.call("root", "Action", "TerminateSession", "SessionId", "NONE"), 404, "SessionNotFound", "")
	s.refused(s.call("root", "Action", "TerminateSession"), 400, "MissingParameter", "SessionId")
	if len(s.List()) != 3 {
		t.Fatal("a refused call ended a session")
	}
	a := s.call("east", "Action", "TerminateSession", "SessionId", "SESSION1")
	want := `<TerminateSessionResponse xmlns="https://daypass.dev/doc/2026-11-01/"><TerminateSessionResult><SessionId>SESSION1</SessionId></TerminateSessionResult>`
	if a.status != 200 || !strings.Contains(a.body, want) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if line := s.lastLine(); line.CredentialID != credentialID(1) || line.EventName != "TerminateSession" || line.Identity.Type != "IAMUser" {
		t.Errorf("recorded %+v", line)
	}
	if len(s.List()) != 2 {
		t.Error("the session goes on")
	}
}
