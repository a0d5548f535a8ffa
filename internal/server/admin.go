package server

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/daypass/daypass/internal/api"
	"github.com/daypass/daypass/internal/config"
)

// listenHost returns the host of a listen address.
func listenHost(address string) string {
	host, _, _ := net.SplitHostPort(address)
	return host
}

// adminHandler serves the operator's listener. It asks for no password, since it listens
// on loopback only.
func (s *service) adminHandler(health *health, profiles bool) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", health.alive)
	mux.HandleFunc("GET /readyz", health.ready)
	if s.observers.metrics != nil {
		mux.Handle("GET /metrics", s.observers.metrics.Handler())
	}
	if profiles {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// startAdmin serves the operator's listener until stop is called, after the drain.
func (s *service) startAdmin(cfg config.Admin, health *health) (address string, stop func(), err error) {
	if cfg.Listen == "" && s.opts.Admin == nil {
		return "", func() {}, nil
	}
	l, err := listen(s.opts.Admin, cfg.Listen)
	if err != nil {
		return "", nil, s.live.Load().cfg.Fault("admin.listen", err)
	}
	server := &http.Server{
		Handler:           withoutWebPages([]string{listenHost(cfg.Listen)}, s.adminHandler(health, cfg.Profiles)),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	return l.Addr().String(), s.serveBeside("admin", server, l), nil
}

// startMetrics serves metrics, and nothing else, to other machines. The metrics name
// clusters, but no users, principals or addresses.
func (s *service) startMetrics(cfg config.Metrics) (address string, stop func(), err error) {
	if cfg.Listen == "" && s.opts.Metrics == nil {
		return "", func() {}, nil
	}
	l, err := listen(s.opts.Metrics, cfg.Listen)
	if err != nil {
		return "", nil, s.live.Load().cfg.Fault("metrics.listen", err)
	}
	address = l.Addr().String()
	connections := api.NewConnections(metricsConnections, metricsPerAddress, nil)
	l = connections.Listener(l)
	if s.metricsTLS.given() {
		l = tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.metricsTLS.GetCertificate, NextProtos: []string{"http/1.1"}})
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.observers.metrics.Handler())
	server := &http.Server{
		Handler:           mux,
		ConnState:         connections.Track,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	return address, s.serveBeside("metrics", server, l), nil
}

// metricsConnections bounds the connections of the metrics listener, which anyone on the
// network may reach, so that they cannot use up the gateway's file descriptors. One address
// may have metricsPerAddress of them, and those that keep the server waiting make room, so
// that strangers keep no Prometheus out.
const (
	metricsConnections = 64
	metricsPerAddress  = 16
)

// serveBeside serves a listener until stop is called.
func (s *service) serveBeside(name string, server *http.Server, l net.Listener) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("a listener has ended", "listener", name, "err", err)
		}
	}()
	return func() { server.Close(); <-done }
}
