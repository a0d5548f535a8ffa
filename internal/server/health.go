package server

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/daypass/daypass/internal/keyring"
)

// health answers probes: whether the process is alive, whether it can issue credentials,
// whether people can log on, and to which clusters.
//
// Ready means that this server can do its part: the audit log works, so credentials can
// be issued; the revocations are known, so logons are accepted; and it is not shutting
// down. A cluster that is down does not affect the others, so it does not make the
// server unready. A balancer for one cluster asks /readyz?cluster=ID.
type health struct {
	audit, registry, keys func() error // nil while they work
	live                  func() *clusters
	warnings              func() []string
	instance              keyring.Secret // of this run of the server; see Proof
	draining              atomic.Bool

	mu     sync.Mutex // guards the fields below; held while clusters are asked
	asked  time.Time
	states []clusterHealth
}

const (
	// pingTimeout is how long a cluster has to answer a probe. Its answer is kept for
	// pingFor, so that frequent probes do not put load on the clusters.
	pingTimeout = 2 * time.Second
	pingFor     = 2 * time.Second
)

// readiness is the body of /readyz.
type readiness struct {
	Ready    bool            `json:"ready"`
	Issue    ability         `json:"issue"`
	Logons   ability         `json:"logons"`
	Clusters []clusterHealth `json:"clusters"`
	// Warnings list problems that would keep the server from becoming ready after a restart.
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

// issue reports whether credentials can be issued.
func (h *health) issue() ability {
	if h.draining.Load() {
		return ability{Reason: "shutting down"}
	}
	if err := h.audit(); err != nil {
		return ability{Reason: "the audit log cannot be written: " + err.Error()}
	}
	return ability{OK: true}
}

// logons reports whether the gateway accepts logons.
func (h *health) logons() ability {
	if can := h.issue(); !can.OK { // a logon needs its audit line too
		return can
	}
	if err := h.registry(); err != nil {
		return ability{Reason: "the revocations are not known: " + err.Error()}
	}
	if err := h.keys(); err != nil {
		return ability{Reason: "the keys in force are not known: " + err.Error()}
	}
	return ability{OK: true}
}

// clusters asks every cluster, or returns recent results.
func (h *health) clusters() []clusterHealth {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.states != nil && time.Since(h.asked) < pingFor {
		return h.states
	}
	live := h.live()
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
	_ = group.Wait() // the functions return no errors
	h.states, h.asked = states, time.Now()
	return states
}

func (h *health) readiness() readiness {
	r := readiness{Issue: h.issue(), Logons: h.logons(), Clusters: h.clusters()}
	r.Ready = r.Issue.OK && r.Logons.OK
	r.Warnings = h.warnings()
	return r
}

// keysErr returns why the keys that the servers share cannot be read; logons are refused
// then. It ignores a keyring file that cannot be read, because only the operator changes that
// file.
func (s *service) keysErr() error {
	if s.member == nil {
		return nil
	}
	return s.member.Err()
}

// warnings lists problems that would keep the server from becoming ready after a restart.
func (s *service) warnings() (warnings []string) {
	if err := s.keys.Err(); err != nil {
		about := "the keyring file was refused, earlier keys stay in force: "
		if s.member != nil {
			about = "the keys in force may not be the latest: "
		}
		warnings = append(warnings, about+err.Error())
	}
	if err := s.refused.Load(); err != nil {
		warnings = append(warnings, "the configuration file was refused, an earlier one stays in force: "+(*err).Error())
	}
	warnings = append(warnings, s.differing()...)
	return append(append(warnings, s.identities()...), s.expiring()...)
}

// identities lists the identity providers whose tokens are refused, or soon will be,
// because their keys are missing.
func (s *service) identities() (warnings []string) {
	for _, provider := range s.api.ProviderKeys() {
		about := "identity provider " + provider.Issuer + ": "
		switch {
		case provider.Err != nil && provider.Keys > 0:
			warnings = append(warnings, about+"its keys are used until they are an hour old: "+provider.Err.Error())
		case provider.Err != nil:
			warnings = append(warnings, about+"its tokens are refused: "+provider.Err.Error())
		case provider.Keys == 0 && !provider.Read.IsZero():
			warnings = append(warnings, about+"its tokens are refused: it has no keys")
		}
	}
	return warnings
}

// alive serves /healthz.
func (h *health) alive(w http.ResponseWriter, r *http.Request) {
	plainText(w)
	_, _ = io.WriteString(w, "ok\n")
}

// readyForAll serves /readyz on the API's listener. Anyone may call it, so it names no
// cluster and no reason.
func (h *health) readyForAll(w http.ResponseWriter, r *http.Request) {
	plainText(w)
	h.prove(w, r)
	if !h.logons().OK { // which includes issuing
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, "not ready\n")
		return
	}
	_, _ = io.WriteString(w, "ready\n")
}

// ready serves /readyz on the operator's listener.
func (h *health) ready(w http.ResponseWriter, r *http.Request) {
	h.prove(w, r)
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
	_ = body.Encode(state) // fails only if the client has gone
}

func plainText(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
}

// probes answers the two probes on the API's listener, for load balancers that reach no other
// listener, and passes all other requests to next.
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
