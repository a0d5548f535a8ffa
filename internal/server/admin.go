package server

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"github.com/daypass/daypass/internal/config"
)

// health answers probes: is the process alive, can it issue credentials, can
// people log on, cluster by cluster.
//
// Ready means that this server can do its part: credentials can be issued, which
// needs an audit log that works, logons are taken, which needs to know what is
// revoked, and it is not shutting down. A cluster
// that is down takes nothing from the others, so it does not make the server
// unready; whoever balances logons of one cluster asks /readyz?cluster=ID.
type health struct {
	service  *service
	draining atomic.Bool

	mu     sync.Mutex // guards what follows; held while clusters are asked
	asked  time.Time
	states []clusterHealth
}

const (
	// pingTimeout is how long a cluster has to answer a probe, and pingFor how
	// long its answer is good: however often probes come, clusters are not asked
	// more often.
	pingTimeout = 2 * time.Second
	pingFor     = 2 * time.Second
)

// readiness is the body of /readyz.
type readiness struct {
	Ready    bool            `json:"ready"`
	Issue    ability         `json:"issue"`
	Logons   ability         `json:"logons"`
	Clusters []clusterHealth `json:"clusters"`
	// Warnings are what will make the server unready when it is started again.
	Warnings []string `json:"warnings,omitempty"`
}

type ability struct {
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"`
}

type clusterHealth struct {
	Cluster string `json:"cluster"`
	ability
}

// issue says whether credentials can be issued.
func (h *health) issue() ability {
	if h.draining.Load() {
		return ability{Reason: "shutting down"}
	}
	if err := h.service.audit.Err(); err != nil {
		return ability{Reason: "the audit log cannot be written: " + err.Error()}
	}
	return ability{OK: true}
}

// logons says whether the gateway takes any at all.
func (h *health) logons() ability {
	if can := h.issue(); !can.OK { // a logon needs its line too
		return can
	}
	if err := h.service.revoked.Err(); err != nil {
		return ability{Reason: "nobody can tell what is revoked: " + err.Error()}
	}
	return ability{OK: true}
}

// clusters asks every cluster, unless that was done a moment ago.
func (h *health) clusters() []clusterHealth {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.states != nil && time.Since(h.asked) < pingFor {
		return h.states
	}
	live := h.service.live.Load().clusters
	states := make([]clusterHealth, 0, len(live.byID))
	for id := range live.byID {
		states = append(states, clusterHealth{Cluster: id})
	}
	slices.SortFunc(states, func(a, b clusterHealth) int { return strings.Compare(a.Cluster, b.Cluster) })
	ctx, cancel := context.WithTimeout(context.Background(), pingTimeout)
	defer cancel()
	var group errgroup.Group
	group.SetLimit(32)
	for i := range states {
		group.Go(func() error {
			err := live.byID[states[i].Cluster].admin.Pool.Ping(ctx)
			if states[i].OK = err == nil; err != nil {
				states[i].Reason = err.Error()
			}
			return nil
		})
	}
	_ = group.Wait() // there are no errors
	h.states, h.asked = states, time.Now()
	return states
}

func (h *health) readiness() readiness {
	r := readiness{Issue: h.issue(), Logons: h.logons(), Clusters: h.clusters()}
	r.Ready = r.Issue.OK && r.Logons.OK
	if err := h.service.keys.Err(); err != nil {
		r.Warnings = append(r.Warnings, "the keys in force are not those of the file, which is refused: "+err.Error())
	}
	if err := h.service.refused.Load(); err != nil {
		r.Warnings = append(r.Warnings, "the configuration in force is not that of the file, which is refused: "+(*err).Error())
	}
	r.Warnings = append(r.Warnings, h.identities()...)
	r.Warnings = append(r.Warnings, h.service.expiring()...)
	return r
}

// identities names the identity providers whose tokens are refused for want of keys,
// or soon will be.
func (h *health) identities() (warnings []string) {
	for _, s := range h.service.api.ProviderKeys() {
		about := "identity provider " + s.Issuer + ": "
		switch {
		case s.Err != nil && s.Keys > 0:
			warnings = append(warnings, about+"its keys are used until they are an hour old: "+s.Err.Error())
		case s.Err != nil:
			warnings = append(warnings, about+"its tokens are refused: "+s.Err.Error())
		case s.Keys == 0 && !s.Read.IsZero():
			warnings = append(warnings, about+"its tokens are refused: it has no keys")
		}
	}
	return warnings
}

// alive is /healthz.
func (h *health) alive(w http.ResponseWriter, r *http.Request) {
	plainText(w)
	_, _ = io.WriteString(w, "ok\n")
}

// readyForAll is /readyz for strangers: it names no cluster and no reason.
func (h *health) readyForAll(w http.ResponseWriter, r *http.Request) {
	plainText(w)
	if !h.logons().OK { // which includes issuing
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, "not ready\n")
		return
	}
	_, _ = io.WriteString(w, "ready\n")
}

// ready is /readyz for the operator.
func (h *health) ready(w http.ResponseWriter, r *http.Request) {
	state := h.readiness()
	status := http.StatusOK
	if !state.Ready {
		status = http.StatusServiceUnavailable
	}
	if id := r.URL.Query().Get("cluster"); id != "" {
		i := slices.IndexFunc(state.Clusters, func(c clusterHealth) bool { return c.Cluster == id })
		if i < 0 {
			plainText(w)
			w.WriteHeader(http.StatusNotFound)
			_, _ = fmt.Fprintf(w, "no cluster %q in the configuration\n", id)
			return
		}
		state.Clusters = state.Clusters[i : i+1]
		if state.Ready = state.Ready && state.Clusters[0].OK; !state.Ready {
			status = http.StatusServiceUnavailable
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	body := json.NewEncoder(w)
	body.SetIndent("", "  ")
	_ = body.Encode(state) // who has gone needs no answer
}

func plainText(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
}

// probes answers the two probes on the API's listener, for load balancers that
// reach nothing else, and leaves the rest to next.
func (h *health) probes(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if (r.Method == http.MethodGet || r.Method == http.MethodHead) && len(r.URL.Path) > 1 {
			switch r.URL.Path {
			case "/healthz":
				h.alive(w, r)
				return
			case "/readyz":
				h.readyForAll(w, r)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// listenHost is the host of an address that the configuration has.
func listenHost(address string) string {
	host, _, _ := net.SplitHostPort(address)
	return host
}

// adminHandler is what the operator's listener serves. It has no log-in: it is on
// loopback only.
func (s *service) adminHandler(profiles bool) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.health.alive)
	mux.HandleFunc("GET /readyz", s.health.ready)
	if s.metrics != nil {
		mux.Handle("GET /metrics", s.metrics.Handler())
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

// startAdmin serves the operator's listener, until the returned function is
// called: it goes on while the server drains.
func (s *service) startAdmin(cfg config.Admin) (address string, stop func(), err error) {
	if cfg.Listen == "" && s.opts.Admin == nil {
		return "", func() {}, nil
	}
	l, err := listen(s.opts.Admin, cfg.Listen)
	if err != nil {
		return "", nil, s.live.Load().cfg.Fault("admin.listen", err)
	}
	server := &http.Server{
		Handler:           withoutWebPages([]string{listenHost(cfg.Listen)}, s.adminHandler(cfg.Profiles)),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	return l.Addr().String(), s.serveBeside("admin", server, l), nil
}

// startMetrics serves metrics to other machines: nothing else is on that listener,
// and what it says names clusters, never users, principals or addresses.
func (s *service) startMetrics(cfg config.Metrics) (address string, stop func(), err error) {
	if cfg.Listen == "" && s.opts.Metrics == nil {
		return "", func() {}, nil
	}
	l, err := listen(s.opts.Metrics, cfg.Listen)
	if err != nil {
		return "", nil, s.live.Load().cfg.Fault("metrics.listen", err)
	}
	address = l.Addr().String()
	if s.metricsTLS.given() {
		l = tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.metricsTLS.GetCertificate, NextProtos: []string{"http/1.1"}})
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.metrics.Handler())
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	return address, s.serveBeside("metrics", server, netutil.LimitListener(l, metricsConnections)), nil
}

// metricsConnections is how many connections the listener of metrics has at a time:
// strangers may reach it, and must not take the gateway's descriptors.
const metricsConnections = 64

// serveBeside serves a listener until the returned function is called.
func (s *service) serveBeside(name string, server *http.Server, l net.Listener) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("a listener has ended", "listener", name, "error", err)
		}
	}()
	return func() { server.Close(); <-done }
}
