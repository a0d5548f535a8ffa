package tracing_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/daypass/daypass/internal/api"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/tracing"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func at(ms int) time.Time { return noon.Add(time.Duration(ms) * time.Millisecond) }

// receiver is an OTLP/HTTP receiver.
type receiver struct {
	url string

	mu       sync.Mutex
	spans    []*trace.Span
	resource string
	path     string
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		var request collector.ExportTraceServiceRequest
		if err := proto.Unmarshal(body, &request); err != nil {
			t.Errorf("what was sent is not OTLP: %v", err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.path = q.URL.Path
		for _, of := range request.ResourceSpans {
			r.resource = of.Resource.String()
			for _, scope := range of.ScopeSpans {
				r.spans = append(r.spans, scope.Spans...)
			}
		}
		answer, _ := proto.Marshal(&collector.ExportTraceServiceResponse{})
		w.Header().Set("Content-Type", "application/x-protobuf")
		w.Write(answer)
	}))
	t.Cleanup(s.Close)
	r.url = s.URL
	return r
}

func (r *receiver) find(t *testing.T, name string) *trace.Span {
	t.Helper()
	for _, s := range r.spans {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("no span %q was received, of %d", name, len(r.spans))
	return nil
}

func attributes(s *trace.Span) map[string]string {
	m := map[string]string{}
	for _, a := range s.Attributes {
		m[a.Key] = a.Value.GetStringValue()
		if m[a.Key] == "" {
			m[a.Key] = fmt.Sprint(a.Value.GetIntValue())
		}
	}
	return m
}

func TestSpans(t *testing.T) {
	r := newReceiver(t)
	tr, err := tracing.New(t.Context(), tracing.Config{Endpoint: r.url, Version: "1.2.3"})
	if err != nil {
		t.Fatal(err)
	}
	const parent = "4bf92f3577b34da6a3ce929d0e0e4736"
	header := http.Header{"Traceparent": {"00-" + parent + "-00f067aa0ba902b7-01"}}
	tr.Call(api.CallEvent{RequestID: "r-1", Service: "redshift", Action: "GetClusterCredentials", Status: 200, Principal: "arn:aws:iam::123456789012:user/ana",
		CredentialID: "c-1", Header: header, Began: at(0), Authenticated: at(1), Acted: at(3), Recorded: at(4), Ended: at(5)})
	tr.Call(api.CallEvent{Service: "sts", Status: 403, Code: "SignatureDoesNotMatch", Header: header, Began: at(0), Acted: at(1), Recorded: at(2), Ended: at(3)})
	tr.Logon(gateway.LogonEvent{Cluster: "one", Database: "dev", CredentialID: "c-1", SessionID: "s-1", Upstream: "192.0.2.1:5432", Reason: gateway.ReasonOK,
		Accepted: at(10), Greeted: at(12), Password: at(13), Prepared: at(15), Connected: at(18), Ended: at(19)})
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	if r.path != "/v1/traces" || !strings.Contains(r.resource, `"daypass"`) || !strings.Contains(r.resource, `"1.2.3"`) {
		t.Errorf("received at %s from %s", r.path, r.resource)
	}
	call := r.find(t, "redshift/GetClusterCredentials")
	if hex.EncodeToString(call.TraceId) != parent || hex.EncodeToString(call.ParentSpanId) != "00f067aa0ba902b7" {
		t.Errorf("the call is of trace %x, parent %x, want the caller's", call.TraceId, call.ParentSpanId)
	}
	if a := attributes(call); a["daypass.credential.id"] != "c-1" || a["rpc.method"] != "GetClusterCredentials" || a["http.response.status_code"] != "200" || a["aws.request_id"] != "r-1" {
		t.Errorf("attributes of the call = %v", a)
	}
	if call.Kind != trace.Span_SPAN_KIND_SERVER || call.StartTimeUnixNano != uint64(at(0).UnixNano()) || call.EndTimeUnixNano != uint64(at(5).UnixNano()) {
		t.Errorf("the call = %v", call)
	}
	acting := r.find(t, "authorize and act")
	if !bytes.Equal(acting.ParentSpanId, call.SpanId) || acting.StartTimeUnixNano != uint64(at(1).UnixNano()) || acting.EndTimeUnixNano != uint64(at(3).UnixNano()) {
		t.Errorf("its step = %v", acting)
	}
	stranger := r.find(t, "sts")
	if hex.EncodeToString(stranger.TraceId) == parent {
		t.Error("a caller who is not authenticated adds spans to a trace of his choice")
	}
	if a := attributes(stranger); a["error.type"] != "SignatureDoesNotMatch" {
		t.Errorf("attributes of a refusal = %v", a)
	}

	logon := r.find(t, "logon")
	if a := attributes(logon); a["daypass.credential.id"] != "c-1" || a["daypass.cluster"] != "one" || a["daypass.session.id"] != "s-1" || a["daypass.result"] != "ok" {
		t.Errorf("attributes of the logon = %v", a)
	}
	if len(logon.Links) != 1 || !bytes.Equal(logon.Links[0].TraceId, call.TraceId) || !bytes.Equal(logon.Links[0].SpanId, call.SpanId) {
		t.Errorf("links of the logon = %v, want the call that issued the credential", logon.Links)
	}
	upstream := r.find(t, "upstream")
	if !bytes.Equal(upstream.ParentSpanId, logon.SpanId) || upstream.Kind != trace.Span_SPAN_KIND_CLIENT || attributes(upstream)["server.address"] != "192.0.2.1:5432" ||
		upstream.StartTimeUnixNano != uint64(at(15).UnixNano()) || upstream.EndTimeUnixNano != uint64(at(18).UnixNano()) {
		t.Errorf("the step upstream = %v", upstream)
	}
}

// TestRefusedLogon: the step that failed is the last, and a cluster's fault is an
// error while a client's is not.
func TestRefusedLogon(t *testing.T) {
	r := newReceiver(t)
	tr, err := tracing.New(t.Context(), tracing.Config{Endpoint: r.url + "/v1/traces"})
	if err != nil {
		t.Fatal(err)
	}
	tr.Logon(gateway.LogonEvent{Cluster: "one", Reason: gateway.ReasonUnreachable, SQLState: "08001", Accepted: at(0), Greeted: at(1), Password: at(2), Ended: at(9)})
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if logon := r.find(t, "logon"); logon.Status.Code != trace.Status_STATUS_CODE_ERROR || attributes(logon)["db.response.status_code"] != "08001" {
		t.Errorf("logon = %v", logon)
	}
	if s := r.find(t, "session role"); s.EndTimeUnixNano != uint64(at(9).UnixNano()) {
		t.Errorf("the step that failed = %v", s)
	}
	for _, s := range r.spans {
		if s.Name == "upstream" || s.Name == "record" {
			t.Errorf("a step that was not taken has a span: %v", s)
		}
	}
}

// TestNobodyReceives: no caller waits for a collector that is not there.
func TestNobodyReceives(t *testing.T) {
	var log bytes.Buffer
	tr, err := tracing.New(t.Context(), tracing.Config{Endpoint: "http://127.0.0.1:1", Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for i := range 5_000 { // more than the queue holds
		tr.Call(api.CallEvent{Service: "redshift", CredentialID: fmt.Sprint(i), Began: noon, Ended: noon})
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("5 000 calls took %v", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_ = tr.Close(ctx)
}

func TestEnabled(t *testing.T) {
	for _, row := range []struct {
		env  map[string]string
		want bool
	}{
		{nil, false},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, true},
		{map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, true},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, false},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}, false},
	} {
		if got := tracing.Enabled(func(name string) (string, bool) { v, ok := row.env[name]; return v, ok }); got != row.want {
			t.Errorf("Enabled with %v = %t", row.env, got)
		}
	}
}
