package metrics_test

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/admission"
	"github.com/daypass/daypass/internal/api"
	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/metrics"
	"github.com/daypass/daypass/internal/throttle"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

type record struct{ err error }

func (r record) Stats() audit.Stats {
	return audit.Stats{Lines: 7, Refused: 2, Lag: 1500 * time.Millisecond}
}
func (r record) Err() error { return r.err }

type keys struct{ ring *keyring.Keyring }

func (k keys) Current() *keyring.Keyring { return k.ring }
func (k keys) Err() error                { return errors.New("truncated") }

func scrape(t *testing.T, m *metrics.Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("scrape: %d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func want(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains(text, "\n"+line+"\n") {
			name, _, _ := strings.Cut(line, "{")
			var near []string
			for l := range strings.Lines(text) {
				if strings.HasPrefix(l, name) {
					near = append(near, l)
				}
			}
			t.Errorf("the scrape lacks %s; it has\n%s", line, strings.Join(near, ""))
		}
	}
}

func TestSeries(t *testing.T) {
	m := metrics.New("1.2.3")
	m.ConfigLoaded([]string{"one", "two"}, noon)
	down := &adminconn.Error{Kind: adminconn.ErrUnreachable, Message: "down"}
	m.Collect(metrics.Sources{
		Gateway: func() gateway.Stats {
			return gateway.Stats{HalfOpen: admission.Stats{Open: 3, Limit: 2048, Refused: 5}, Opening: 6, Cancels: gateway.CancelStats{Sent: 1, Joined: 4, Unknown: 2},
				Clusters: map[string]gateway.ClusterStats{"one": {Sessions: 4, Ended: 5, BytesToClient: 6}, "gone": {Ended: 1}, "leaving": {Sessions: 1}}}
		},
		Clusters: func() map[string]adminconn.Stats {
			return map[string]adminconn.Stats{"one": {Reached: true, Idle: 2}, "two": {Reached: true, Err: down}, "new": {}}
		},
		Pressure:    func() api.Pressure { return api.Pressure{Work: throttle.GateStats{Slots: 64, Busy: 1, Shed: 9}} },
		Connections: func() admission.Stats { return admission.Stats{Limit: 10, Open: 1} },
		Audit:       record{}, Keyring: keys{keyring.New(noon.Add(-time.Hour))}, Now: func() time.Time { return noon },
		Identities: func() []api.KeyState {
			return []api.KeyState{{Issuer: "good", Keys: 2, Read: noon.Add(-time.Minute)}, {Issuer: "down", Err: down}, {Issuer: "unasked"}}
		},
	})
	m.Call(api.CallEvent{Service: "redshift", Action: "GetClusterCredentials", CredentialID: "x", Began: noon, Ended: noon.Add(time.Millisecond)})
	m.Call(api.CallEvent{Service: "redshift", Action: "GetClusterCredentials", Code: "AccessDenied", Effect: "ImplicitDeny", Layer: "identity-based policy"})
	ok := gateway.LogonEvent{Cluster: "one", Reason: gateway.ReasonOK, Accepted: noon, Greeted: noon.Add(2 * time.Millisecond), Password: noon.Add(time.Minute),
		Prepared: noon.Add(time.Minute + time.Millisecond), Connected: noon.Add(time.Minute + 3*time.Millisecond), Ended: noon.Add(time.Minute + 4*time.Millisecond)}
	m.Logon(ok)
	m.Logon(gateway.LogonEvent{Cluster: "one", Reason: gateway.ReasonForged, SQLState: "28000"})
	m.Logon(gateway.LogonEvent{Cluster: "one", Reason: gateway.ReasonUpstream, SQLState: "QQ123"})
	m.Logon(gateway.LogonEvent{Cluster: "of somebody's making", Reason: gateway.ReasonGone})
	m.Admin("one", dbuser.Look, time.Millisecond, down)
	m.Admin("one", dbuser.Look, time.Millisecond, &adminconn.Error{Kind: dbuser.ErrUserMissing})
	m.Sweep("one", handover.SweepReport{Dropped: []string{"a", "b"}, Kept: []handover.KeptRole{{}}}, time.Second, nil)
	m.Sweep("two", handover.SweepReport{}, time.Second, down)

	text := scrape(t, m)
	want(t, text,
		`daypass_api_calls_total{action="GetClusterCredentials",code="OK",service="redshift"} 1`,
		`daypass_api_calls_total{action="GetClusterCredentials",code="AccessDenied",service="redshift"} 1`,
		`daypass_api_denials_total{action="GetClusterCredentials",effect="ImplicitDeny",layer="identity-based policy"} 1`,
		`daypass_credentials_issued_total{action="GetClusterCredentials"} 1`,
		`daypass_api_call_seconds_bucket{action="GetClusterCredentials",le="0.001"} 2`,
		`daypass_logons_total{cluster="one",result="ok",sqlstate_class="00"} 1`,
		`daypass_logons_total{cluster="two",result="ok",sqlstate_class="00"} 0`,
		`daypass_logons_total{cluster="one",result="forged",sqlstate_class="28"} 1`,
		`daypass_logons_total{cluster="one",result="upstream",sqlstate_class="XX"} 1`,
		`daypass_logons_total{cluster="",result="gone",sqlstate_class=""} 1`,
		`daypass_logon_seconds_count{cluster="one"} 1`, `daypass_logon_seconds_sum{cluster="one"} 0.004`,
		`daypass_logon_step_seconds_sum{step="greet"} 0.002`, `daypass_logon_step_seconds_sum{step="connect"} 0.002`,
		`daypass_cluster_admin_errors_total{cluster="one",operation="look"} 1`,
		`daypass_cluster_admin_seconds_count{cluster="one",operation="look"} 2`,
		`daypass_cluster_up{cluster="one"} 1`, `daypass_cluster_up{cluster="two"} 0`,
		`daypass_reaper_sweeps_total{cluster="one",result="partly"} 1`, `daypass_reaper_sweeps_total{cluster="two",result="failed"} 1`,
		`daypass_reaper_dropped_total{cluster="one"} 2`, `daypass_reaper_kept_roles{cluster="one"} 1`,
		`daypass_sessions{cluster="one"} 4`, `daypass_sessions{cluster="two"} 0`, `daypass_sessions{cluster="leaving"} 1`,
		`daypass_session_bytes_total{cluster="one",direction="to client"} 6`,
		`daypass_half_open_connections 3`, `daypass_half_open_connections_limit 2048`, `daypass_half_open_connections_refused_total 5`,
		`daypass_logons_in_progress 6`, `daypass_cancel_requests_total{result="joined"} 4`, `daypass_cancel_requests_total{result="unknown"} 2`,
		`daypass_api_shed_total{gate="work"} 9`, `daypass_api_connections_limit 10`,
		`daypass_audit_ok 1`, `daypass_audit_lines_total 7`, `daypass_audit_lag_seconds 1.5`,
		`daypass_keyring_ok 0`, `daypass_keyring_key_age_seconds{purpose="credential"} 3600`,
		`daypass_identity_provider_keys{issuer="good"} 2`, `daypass_identity_provider_keys_ok{issuer="good"} 1`,
		`daypass_identity_provider_keys_age_seconds{issuer="good"} 60`,
		`daypass_identity_provider_keys{issuer="down"} 0`, `daypass_identity_provider_keys_ok{issuer="down"} 0`,
		`daypass_config_reload_ok 1`,
	)
	for _, never := range []string{`cluster_up{cluster="new"}`, `cluster="gone"`, "of somebody's making", `issuer="unasked"`} {
		if strings.Contains(text, never) {
			t.Errorf("the scrape has %s", never)
		}
	}

	// When a cluster is removed from the configuration, its series disappear. What its remaining
	// sessions do is not counted.
	m.ConfigRefused()
	want(t, scrape(t, m), `daypass_config_reload_ok 0`)
	m.ConfigLoaded([]string{"two"}, noon)
	m.Logon(ok)
	text = scrape(t, m)
	want(t, text, `daypass_config_reload_ok 1`, `daypass_logons_total{cluster="",result="ok",sqlstate_class="00"} 1`)
	for _, name := range []string{"logons_total", "logon_seconds_count", "reaper_dropped_total", "cluster_admin_seconds_count"} {
		if strings.Contains(text, "daypass_"+name+`{cluster="one"`) {
			t.Errorf("%s of a cluster that is gone is still there", name)
		}
	}
}

// TestSeriesAreBounded makes up error codes and SQLSTATEs.
func TestSeriesAreBounded(t *testing.T) {
	m := metrics.New("1.2.3")
	count := func() int { return strings.Count(scrape(t, m), "\n") }
	for i := range 200 {
		m.Call(api.CallEvent{Service: "redshift", Code: fmt.Sprint("Code", i)})
		m.Logon(gateway.LogonEvent{Reason: gateway.ReasonUpstream, SQLState: fmt.Sprintf("%05d", i*499)})
	}
	before := count()
	for i := range 2000 {
		m.Call(api.CallEvent{Service: "redshift", Code: fmt.Sprint("Another", i)})
		m.Logon(gateway.LogonEvent{Reason: gateway.ReasonUpstream, SQLState: fmt.Sprintf("%05d", i*37), Cluster: fmt.Sprint(i)})
	}
	if after := count(); after > before+20 {
		t.Errorf("%d lines became %d", before, after)
	}
}

func BenchmarkCall(b *testing.B) {
	m := metrics.New("1.2.3")
	e := api.CallEvent{Service: "redshift", Action: "GetClusterCredentials", CredentialID: "x", Began: noon, Ended: noon.Add(time.Millisecond)}
	b.ReportAllocs()
	for b.Loop() {
		m.Call(e)
	}
}

func BenchmarkLogon(b *testing.B) {
	m := metrics.New("1.2.3")
	m.ConfigLoaded([]string{"one"}, noon)
	e := gateway.LogonEvent{Cluster: "one", Reason: gateway.ReasonOK, Accepted: noon, Greeted: noon, Password: noon, Prepared: noon, Connected: noon, Ended: noon}
	b.ReportAllocs()
	for b.Loop() {
		m.Logon(e)
	}
}

// TestSweepOfAStandby: a sweep that found only a standby has done nothing, so it is no success. For
// a cluster that was never swept, the time counts at which the server began to serve it: neither a
// standby nor a reload of the configuration moves it.
func TestSweepOfAStandby(t *testing.T) {
	m := metrics.New("1.2.3")
	m.ConfigLoaded([]string{"one"}, noon)
	m.Sweep("one", handover.SweepReport{Standby: true}, time.Second, nil)
	m.ConfigLoaded([]string{"one", "two"}, noon.Add(time.Hour))
	since := func(cluster string, at time.Time) string {
		return fmt.Sprintf("daypass_reaper_last_success_timestamp_seconds{cluster=%q} %s", cluster, strconv.FormatFloat(float64(at.Unix()), 'g', -1, 64))
	}
	want(t, scrape(t, m),
		since("one", noon),
		since("two", noon.Add(time.Hour)),
		`daypass_reaper_sweeps_total{cluster="one",result="standby"} 1`,
	)
	m.Sweep("one", handover.SweepReport{Kept: []handover.KeptRole{{}}}, time.Second, nil)
	m.Sweep("one", handover.SweepReport{Standby: true}, time.Second, nil)
	text := scrape(t, m)
	want(t, text, `daypass_reaper_kept_roles{cluster="one"} 1`)
	if strings.Contains(text, since("one", noon)) {
		t.Error("a sweep that did its work left no time")
	}
}
