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

// watchers are told what the packages at work do: metrics when there is a listener
// that serves them, traces when somebody receives them. Its callbacks are nil when
// nobody watches, so that watching costs nothing then.
type watchers struct {
	metrics *metrics.Metrics
	tracer  *tracing.Tracer
}

func newWatchers(ctx context.Context, cfg *config.Config, opts Options) (watchers, error) {
	var w watchers
	if cfg.Admin.Listen != "" || opts.Admin != nil || cfg.Metrics.Listen != "" || opts.Metrics != nil {
		w.metrics = metrics.New(opts.Version)
		w.reloaded(cfg, opts.Now())
	}
	if cfg.Tracing.Endpoint != "" || tracing.Enabled(os.LookupEnv) {
		tracer, err := tracing.New(ctx, tracing.Config{Endpoint: cfg.Tracing.Endpoint, Version: opts.Version, Log: opts.Log})
		if err != nil {
			return w, err
		}
		w.tracer = tracer
	}
	return w, nil
}

// close sends the spans that are left.
func (w watchers) close(log *slog.Logger) {
	if w.tracer == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if err := w.tracer.Close(ctx); err != nil {
		log.Warn("the last traces were not sent", "error", err)
	}
}

// reloaded says that cfg is in force; nil: the configuration file was refused.
func (w watchers) reloaded(cfg *config.Config, now time.Time) {
	switch {
	case w.metrics == nil:
	case cfg == nil:
		w.metrics.ConfigRefused()
	default:
		clusters := make([]string, len(cfg.Clusters))
		for i, c := range cfg.Clusters {
			clusters[i] = c.Identifier
		}
		w.metrics.ConfigLoaded(clusters, now)
	}
}

func (w watchers) call() func(api.CallEvent) {
	switch m, t := w.metrics, w.tracer; {
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

func (w watchers) logon() func(gateway.LogonEvent) {
	switch m, t := w.metrics, w.tracer; {
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

func (w watchers) admin(cluster string) func(dbuser.Operation, time.Duration, error) {
	if w.metrics == nil {
		return nil
	}
	return func(op dbuser.Operation, took time.Duration, err error) { w.metrics.Admin(cluster, op, took, err) }
}

func (w watchers) sweep() func(string, handover.SweepReport, time.Duration, error) {
	if w.metrics == nil {
		return nil
	}
	return w.metrics.Sweep
}

// measure names what scrapes ask.
func (s *service) measure(front *gateway.Server, connections *api.Connections) {
	if s.metrics == nil {
		return
	}
	s.metrics.Collect(metrics.Sources{
		Gateway: front.Stats,
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
