// Package metrics counts and times Daypass's work for Prometheus
// (https://prometheus.io/docs/concepts/data_model/). The measured packages do not
// import it: it turns their callbacks and Stats methods into series.
//
// Labels come from bounded sets: actions of the API's table, AWS error codes, clusters
// of the configuration, SQLSTATE classes, reasons. They have no names of users,
// principals, databases or addresses; those are in the audit log. The series of a
// cluster are removed when it leaves the configuration.
package metrics

import (
	"net/http"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/daypass/daypass/internal/api"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/handover"
)

// Metrics counts events as they happen and reads states at each scrape. Make it with
// New; it is safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry

	calls       *prometheus.CounterVec
	callTime    *prometheus.HistogramVec
	denials     *prometheus.CounterVec
	issued      *prometheus.CounterVec
	logons      *prometheus.CounterVec
	logonTime   *prometheus.HistogramVec
	logonStep   *prometheus.HistogramVec
	adminTime   *prometheus.HistogramVec
	adminErrors *prometheus.CounterVec
	sweeps      *prometheus.CounterVec
	sweepTime   *prometheus.GaugeVec
	sweeper     *prometheus.GaugeVec
	handedOver  *prometheus.CounterVec
	dropped     *prometheus.CounterVec
	kept        *prometheus.GaugeVec
	swept       *prometheus.GaugeVec
	reloadOK    prometheus.Gauge
	reloaded    prometheus.Gauge

	perCluster []interface {
		DeletePartialMatch(prometheus.Labels) int
	}

	mu       sync.Mutex
	clusters map[string]bool // of the configuration, guarded by mu
	codes    map[string]bool // guarded by mu: error codes that have a series
}

// maxCodes bounds the error codes that get series of their own.
const maxCodes = 100

// Buckets, in seconds: of API calls, of logons, and of administrative queries.
var (
	callBuckets  = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}
	logonBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	adminBuckets = []float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 8}
)

// New returns the metrics of a server of the given version. Collect adds the series
// that are read at each scrape.
func New(version string) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), clusters: map[string]bool{}, codes: map[string]bool{}}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		m.registry.MustRegister(v)
		return v
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
		m.registry.MustRegister(v)
		return v
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
		m.registry.MustRegister(v)
		return v
	}
	m.calls = counter("daypass_api_calls_total", "API calls answered, by AWS error code; OK is success.", "service", "action", "code")
	m.callTime = histogram("daypass_api_call_seconds", "From the arrival of a call's header to the end of its answer.", callBuckets, "action")
	m.denials = counter("daypass_api_denials_total", "Calls that a policy denied, or none allowed, by the kind of policy that decided.", "action", "effect", "layer")
	m.issued = counter("daypass_credentials_issued_total", "Database credentials issued.", "action")
	m.logons = counter("daypass_logons_total", "Attempts to log on at the gateway, by result and by the class of the SQLSTATE answered; 00 is success, empty: the client got no answer.", "cluster", "result", "sqlstate_class")
	m.logonTime = histogram("daypass_logon_seconds", "From the password to the session, of logons that succeeded.", logonBuckets, "cluster")
	m.logonStep = histogram("daypass_logon_step_seconds", "Steps of a logon: greet (TLS and start-up), prepare (the session role), connect (the upstream session), record (the audit line and the answer).", logonBuckets, "step")
	m.adminTime = histogram("daypass_cluster_admin_seconds", "Operations on the administrative connections: look (at each logon), change (of a session role).", adminBuckets, "cluster", "operation")
	m.adminErrors = counter("daypass_cluster_admin_errors_total", "Operations on the administrative connections that failed because of the cluster: it cannot be reached, or rights are missing.", "cluster", "operation")
	m.sweeps = counter("daypass_reaper_sweeps_total", "Sweeps of the reaper, by result: ok, partly (something could not be cleaned up), standby (no host takes writes, so nothing was done), failed.", "cluster", "result")
	m.sweepTime = gauge("daypass_reaper_last_sweep_seconds", "How long the last sweep took.", "cluster")
	m.sweeper = gauge("daypass_reaper_sweeper", "1 where this server sweeps the cluster, 0 where another one does.", "cluster")
	m.handedOver = counter("daypass_reaper_handed_over_total", "Session roles, each with a database, whose objects the reaper handed to their users.", "cluster")
	m.dropped = counter("daypass_reaper_dropped_total", "Session roles that the reaper dropped.", "cluster")
	m.kept = gauge("daypass_reaper_kept_roles", "Session roles that the last sweep could not clean up.", "cluster")
	m.swept = gauge("daypass_reaper_last_success_timestamp_seconds", "When this server last finished a sweep or, before the first one, when it began to serve the cluster. A sweep that failed or found only a standby does not count.", "cluster")
	m.reloadOK = gauge("daypass_config_reload_ok", "1 if the configuration file is in force as it was last read; 0: it was refused, and the one before is.").WithLabelValues()
	m.reloaded = gauge("daypass_config_loaded_timestamp_seconds", "When the configuration in force was read.").WithLabelValues()
	m.perCluster = append(m.perCluster, m.logons, m.logonTime, m.adminTime, m.adminErrors, m.sweeps, m.sweepTime, m.sweeper, m.handedOver, m.dropped, m.kept, m.swept)

	revision := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = s.Value
			}
		}
	}
	gauge("daypass_build_info", "Always 1.", "version", "revision", "goversion").
		WithLabelValues(version, revision, runtime.Version()).Set(1)
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Handler answers scrapes.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
}

// ConfigLoaded records that the configuration file is in force, and its clusters.
// Series of other clusters are removed.
func (m *Metrics) ConfigLoaded(clusters []string, now time.Time) {
	m.reloadOK.Set(1)
	began := float64(now.UnixMilli()) / 1e3
	m.reloaded.Set(began)
	next := make(map[string]bool, len(clusters))
	for _, id := range clusters {
		next[id] = true
	}
	m.mu.Lock()
	gone := m.clusters
	m.clusters = next
	m.mu.Unlock()
	for id := range gone {
		if !next[id] {
			for _, v := range m.perCluster {
				v.DeletePartialMatch(prometheus.Labels{"cluster": id})
			}
		}
	}
	for id := range next { // a rate needs a zero to start from
		if !gone[id] {
			m.logons.WithLabelValues(id, gateway.ReasonOK, "00")
			m.handedOver.WithLabelValues(id)
			m.dropped.WithLabelValues(id)
			// An alert compares it. A first sweep may take minutes, so a zero would fire at every start.
			m.swept.WithLabelValues(id).Set(began)
			for _, op := range []dbuser.Operation{dbuser.Look, dbuser.Change} {
				m.adminErrors.WithLabelValues(id, string(op))
			}
		}
	}
}

// ConfigRefused says that the configuration file was refused.
func (m *Metrics) ConfigRefused() { m.reloadOK.Set(0) }

// cluster returns the label of a cluster. It is empty for a cluster that is no longer
// configured but still has sessions.
func (m *Metrics) cluster(id string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.clusters[id] {
		return id
	}
	return ""
}

// code returns the label of an error code. All codes come from our own tables, so the
// bound is not reached.
func (m *Metrics) code(code string) string {
	if code == "" {
		return "OK"
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.codes[code] {
		if len(m.codes) >= maxCodes {
			return "other"
		}
		m.codes[code] = true
	}
	return code
}

// Call is for api.Config.Observe.
func (m *Metrics) Call(e api.CallEvent) {
	m.calls.WithLabelValues(e.Service, e.Action, m.code(e.Code)).Inc()
	m.callTime.WithLabelValues(e.Action).Observe(e.Ended.Sub(e.Began).Seconds())
	if e.Effect != "" {
		m.denials.WithLabelValues(e.Action, e.Effect, e.Layer).Inc()
	}
	if e.CredentialID != "" {
		m.issued.WithLabelValues(e.Action).Inc()
	}
}

// Logon is for gateway.Config.Observe.
func (m *Metrics) Logon(e gateway.LogonEvent) {
	cluster := m.cluster(e.Cluster)
	m.logons.WithLabelValues(cluster, e.Reason, sqlstateClass(e)).Inc()
	if e.Reason == gateway.ReasonOK {
		m.logonTime.WithLabelValues(cluster).Observe(e.Ended.Sub(e.Password).Seconds())
	}
	before := e.Accepted
	for _, step := range []struct {
		name string
		done time.Time
	}{{"greet", e.Greeted}, {"", e.Password}, {"prepare", e.Prepared}, {"connect", e.Connected}, {"record", e.Ended}} {
		if step.done.IsZero() {
			return
		}
		if step.name != "" { // the client's time for its password is not measured
			m.logonStep.WithLabelValues(step.name).Observe(step.done.Sub(before).Seconds())
		}
		before = step.done
	}
}

// sqlstateClass returns the first two characters of a SQLSTATE. An upstream may send
// any text; other forms than the standard's become XX, internal error.
func sqlstateClass(e gateway.LogonEvent) string {
	if e.Reason == gateway.ReasonOK {
		return "00"
	}
	if e.SQLState == "" {
		return ""
	}
	if len(e.SQLState) != 5 || !known(e.SQLState[:2]) {
		return "XX"
	}
	return e.SQLState[:2]
}

// known reports whether PostgreSQL has the class (its manual, appendix A).
func known(class string) bool {
	const classes = "00 01 02 03 08 09 0A 0B 0F 0L 0P 0Z 10 20 21 22 23 24 25 26 27 28 2B 2D 2F 34 38 39 3B 3D 3F 40 42 44 53 54 55 57 58 72 F0 HV P0 XX"
	for i := 0; i < len(classes); i += 3 {
		if classes[i:i+2] == class {
			return true
		}
	}
	return false
}

// Admin is for dbuser.Config.Observe, with the cluster.
func (m *Metrics) Admin(cluster string, op dbuser.Operation, took time.Duration, err error) {
	id := m.cluster(cluster)
	m.adminTime.WithLabelValues(id, string(op)).Observe(took.Seconds())
	if clusterFault(err) {
		m.adminErrors.WithLabelValues(id, string(op)).Inc()
	}
}

// SweptElsewhere is for reaper.Config.Passed. It sets this server's gauges for the cluster to 0,
// because the other server now reports what could not be cleaned up.
func (m *Metrics) SweptElsewhere(cluster string) {
	id := m.cluster(cluster)
	m.sweeper.WithLabelValues(id).Set(0)
	m.kept.WithLabelValues(id).Set(0)
}

// Sweep is for reaper.Config.Observe.
func (m *Metrics) Sweep(cluster string, report handover.SweepReport, took time.Duration, err error) {
	id := m.cluster(cluster)
	result := "ok"
	switch {
	case err != nil:
		result = "failed"
	case report.Standby:
		result = "standby"
	case len(report.Kept) > 0:
		result = "partly"
	}
	m.sweeps.WithLabelValues(id, result).Inc()
	m.sweepTime.WithLabelValues(id).Set(took.Seconds())
	m.handedOver.WithLabelValues(id).Add(float64(len(report.HandedOver)))
	m.dropped.WithLabelValues(id).Add(float64(len(report.Dropped)))
	m.sweeper.WithLabelValues(id).Set(1)
	if err == nil && !report.Standby { // on a standby nothing was looked at
		m.kept.WithLabelValues(id).Set(float64(len(report.Kept)))
		m.swept.WithLabelValues(id).SetToCurrentTime()
	}
}
