// Package tracing makes OpenTelemetry spans of what Daypass does, and sends them by
// OTLP over HTTP (https://opentelemetry.io/docs/specs/otlp/): one trace for each API
// call, with its steps, and one for each attempt to log on, down to the upstream.
//
// Both spans have the credential's id as daypass.credential.id, and the logon's is
// linked to the call that issued the credential if this process did. The traceparent
// header of a caller is used once the caller is authenticated.
//
// Spans are made afterwards from recorded times, so the traced code does not know of
// them and nothing waits for a collector. While the collector is unreachable, spans are
// lost, and the log has a line a minute.
package tracing

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/daypass/daypass/internal/api"
	"github.com/daypass/daypass/internal/gateway"
)

// maxIssued bounds the credentials whose calls are remembered for links.
const maxIssued = 8192

// Config says where spans go.
type Config struct {
	// Endpoint is the receiver's URL, such as http://127.0.0.1:4318. If it is empty,
	// OTEL_EXPORTER_OTLP_ENDPOINT and OpenTelemetry's other variables apply.
	Endpoint string
	Version  string
	Log      *slog.Logger // default: discarded
}

// Enabled reports whether the environment configures traces.
func Enabled(getenv func(string) (string, bool)) bool {
	if off, _ := getenv("OTEL_SDK_DISABLED"); off == "true" {
		return false
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"} {
		if value, _ := getenv(name); value != "" {
			return true
		}
	}
	return false
}

// Tracer makes the spans. Make it with New; safe for concurrent use.
type Tracer struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer

	mu     sync.Mutex // guards what follows
	issued map[string]trace.SpanContext
	ring   []string // the keys of issued, in the order they came
	next   int
}

// New returns a Tracer; it does not connect yet.
func New(ctx context.Context, c Config) (*Tracer, error) {
	var options []otlptracehttp.Option
	if c.Endpoint != "" {
		u, err := url.Parse(c.Endpoint)
		if err != nil {
			return nil, err
		}
		if u.Path == "" || u.Path == "/" {
			u.Path = "/v1/traces"
		}
		options = append(options, otlptracehttp.WithEndpointURL(u.String()))
	}
	exporter, err := otlptracehttp.New(ctx, options...)
	if err != nil {
		return nil, err
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	about, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", "daypass"), attribute.String("service.version", c.Version)),
		resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return nil, err
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithResource(about),
		sdktrace.WithBatcher(&reporting{SpanExporter: exporter, log: c.Log}))
	return &Tracer{provider: provider, tracer: provider.Tracer("github.com/daypass/daypass"),
		issued: map[string]trace.SpanContext{}}, nil
}

// Close sends the remaining spans until ctx ends.
func (t *Tracer) Close(ctx context.Context) error { return t.provider.Shutdown(ctx) }

// reporting logs what could not be sent, instead of OpenTelemetry's global handler.
type reporting struct {
	sdktrace.SpanExporter
	log  *slog.Logger
	said time.Time // only ExportSpans, which is not called concurrently
}

func (r *reporting) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := r.SpanExporter.ExportSpans(ctx, spans)
	if err != nil && time.Since(r.said) > time.Minute {
		r.said = time.Now()
		r.log.Warn("traces not sent", "spans", len(spans), "err", err)
	}
	return nil
}

// Call is for api.Config.Observe.
func (t *Tracer) Call(e api.CallEvent) {
	ctx := context.Background()
	if e.Principal != "" {
		ctx = propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(e.Header))
	}
	name := e.Service
	if e.Action != "" {
		name += "/" + e.Action
	}
	attributes := []attribute.KeyValue{
		attribute.String("rpc.system", "aws-api"), attribute.String("rpc.service", e.Service),
		attribute.Int("http.response.status_code", e.Status), attribute.String("aws.request_id", e.RequestID),
	}
	if e.Action != "" {
		attributes = append(attributes, attribute.String("rpc.method", e.Action))
	}
	if e.CredentialID != "" {
		attributes = append(attributes, attribute.String("daypass.credential.id", e.CredentialID))
	}
	if e.Code != "" {
		attributes = append(attributes, attribute.String("error.type", e.Code))
	}
	if e.Effect != "" {
		attributes = append(attributes, attribute.String("daypass.denied.effect", e.Effect), attribute.String("daypass.denied.layer", e.Layer))
	}
	ctx, span := t.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(e.Began), trace.WithAttributes(attributes...))
	if e.Status >= 500 { // a caller's mistake is not an error of the server
		span.SetStatus(codes.Error, e.Code)
	}
	if !e.Authenticated.IsZero() {
		t.step(ctx, "authenticate", e.Began, e.Authenticated)
		t.step(ctx, "authorize and act", e.Authenticated, e.Acted)
	}
	if !e.Recorded.IsZero() {
		t.step(ctx, "record", e.Acted, e.Recorded)
	}
	span.End(trace.WithTimestamp(e.Ended))
	if e.CredentialID != "" {
		t.remember(e.CredentialID, span.SpanContext())
	}
}

// Logon is for gateway.Config.Observe.
func (t *Tracer) Logon(e gateway.LogonEvent) {
	attributes := []attribute.KeyValue{attribute.String("db.system.name", "postgresql"), attribute.String("daypass.result", e.Reason)}
	for _, a := range []struct{ key, value string }{
		{"daypass.cluster", e.Cluster}, {"db.namespace", e.Database}, {"daypass.credential.id", e.CredentialID},
		{"daypass.session.id", e.SessionID}, {"db.response.status_code", e.SQLState},
	} {
		if a.value != "" {
			attributes = append(attributes, attribute.String(a.key, a.value))
		}
	}
	options := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(e.Accepted), trace.WithAttributes(attributes...)}
	if issued, ok := t.issuedBy(e.CredentialID); ok {
		options = append(options, trace.WithLinks(trace.Link{SpanContext: issued}))
	}
	ctx, span := t.tracer.Start(context.Background(), "logon", options...)
	switch e.Reason {
	case gateway.ReasonUnreachable, gateway.ReasonRights, gateway.ReasonUpstream, gateway.ReasonAudit, gateway.ReasonInternal:
		span.SetStatus(codes.Error, e.Reason)
	}
	// Each step begins where the previous one ended. The step during which a logon was
	// refused is the last.
	before := e.Accepted
	for _, s := range []struct {
		name string
		done time.Time
		more []trace.SpanStartOption
	}{
		{"greet", e.Greeted, nil},
		{"password", e.Password, nil},
		{"session role", e.Prepared, []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindClient)}},
		{"upstream", e.Connected, []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attribute.String("server.address", e.Upstream))}},
		{"record", e.Ended, nil},
	} {
		if s.done.IsZero() {
			t.step(ctx, s.name, before, e.Ended, s.more...)
			break
		}
		t.step(ctx, s.name, before, s.done, s.more...)
		before = s.done
	}
	span.End(trace.WithTimestamp(e.Ended))
}

func (t *Tracer) step(ctx context.Context, name string, from, to time.Time, more ...trace.SpanStartOption) {
	_, span := t.tracer.Start(ctx, name, append(more, trace.WithTimestamp(from))...)
	span.End(trace.WithTimestamp(to))
}

func (t *Tracer) remember(credential string, span trace.SpanContext) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.ring) < maxIssued {
		t.ring = append(t.ring, credential)
	} else {
		delete(t.issued, t.ring[t.next])
		t.ring[t.next] = credential
		t.next = (t.next + 1) % maxIssued
	}
	t.issued[credential] = span
}

func (t *Tracer) issuedBy(credential string) (trace.SpanContext, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	span, ok := t.issued[credential]
	return span, ok
}
