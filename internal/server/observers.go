package server

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/api"
	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/internal/metrics"
	"github.com/daypass/daypass/internal/tracing"
)

// observers turn the callbacks of the other packages into metrics, if a listener serves them,
// and into traces, if they are sent anywhere. A callback that has no use is nil and costs
// nothing.
type observers struct {
	metrics *metrics.Metrics
	tracer  *tracing.Tracer
}

func newObservers(ctx context.Context, cfg *config.Config, opts Options) (observers, error) {
	var o observers
	if cfg.Admin.Listen != "" || opts.Admin != nil || cfg.Metrics.Listen != "" || opts.Metrics != nil {
		o.metrics = metrics.New(opts.Version)
		o.reloaded(cfg, opts.Now())
	}
	if cfg.Tracing.Endpoint != "" || tracing.Enabled(os.LookupEnv) {
		tracer, err := tracing.New(ctx, tracing.Config{Endpoint: cfg.Tracing.Endpoint, Version: opts.Version, Log: opts.Log})
		if err != nil {
			return o, err
		}
		o.tracer = tracer
	}
	return o, nil
}

// close sends the remaining spans.
func (o observers) close(log *slog.Logger) {
	if o.tracer == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if err := o.tracer.Close(ctx); err != nil {
		log.Warn("the last traces were not sent", "err", err)
	}
}

// reloaded records that cfg is in force or, if cfg is nil, that the file was refused.
func (o observers) reloaded(cfg *config.Config, now time.Time) {
	switch {
	case o.metrics == nil:
	case cfg == nil:
		o.metrics.ConfigRefused()
	default:
		clusters := make([]string, len(cfg.Clusters))
		for i, c := range cfg.Clusters {
			clusters[i] = c.Identifier
		}
		o.metrics.ConfigLoaded(clusters, now)
	}
}

func (o observers) call() func(api.CallEvent) {
	switch m, t := o.metrics, o.tracer; {
	case m == nil && t == nil:
		return nil
	case t == nil:
		return m.Call
	case m == nil:
		return t.Call
	default:
		return func(e api.CallEvent) { m.Call(e); t.Call(e) }
	}
}

func (o observers) logon() func(gateway.LogonEvent) {
	switch m, t := o.metrics, o.tracer; {
	case m == nil && t == nil:
		return nil
	case t == nil:
		return m.Logon
	case m == nil:
		return t.Logon
	default:
		return func(e gateway.LogonEvent) { m.Logon(e); t.Logon(e) }
	}
}

func (o observers) admin(cluster string) func(dbuser.Operation, time.Duration, error) {
	if o.metrics == nil {
		return nil
	}
	return func(op dbuser.Operation, took time.Duration, err error) { o.metrics.Admin(cluster, op, took, err) }
}

func (o observers) sweep() func(string, handover.SweepReport, time.Duration, error) {
	if o.metrics == nil {
		return nil
	}
	return o.metrics.Sweep
}

func (o observers) passed() func(cluster string) {
	if o.metrics == nil {
		return nil
	}
	return o.metrics.SweptElsewhere
}

// measure sets the sources of metrics that are read at each scrape.
func (s *service) measure(connections *api.Connections) {
	if s.observers.metrics == nil {
		return
	}
	var servers func() (int, map[string]bool)
	if s.member != nil {
		servers = s.member.stats
	}
	s.observers.metrics.Collect(metrics.Sources{
		Servers: servers,
		Gateway: s.front.Stats,
		Clusters: func() map[string]adminconn.Stats {
			live := s.live.Load().clusters
			stats := make(map[string]adminconn.Stats, len(live.byID))
			for id, c := range live.byID {
				stats[id] = c.admin.Pool.Stats()
			}
			return stats
		},
		Pressure:     s.api.Pressure,
		Connections:  connections.Stats,
		Audit:        s.audit,
		Keyring:      s.keys,
		Registry:     s.revoked,
		Identities:   s.api.ProviderKeys,
		Certificates: s.inUse,
		Now:          s.opts.Now,
	})
}
