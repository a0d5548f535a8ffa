package metrics

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/admission"
	"github.com/daypass/daypass/internal/api"
	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/throttle"
)

// Sources are read at each scrape. They must not block. A nil source has no series.
type Sources struct {
	Gateway     func() gateway.Stats
	Clusters    func() map[string]adminconn.Stats // of the configuration, by identifier
	Pressure    func() api.Pressure
	Connections func() admission.Stats
	Audit       interface {
		Stats() audit.Stats
		Err() error
	}
	Keyring interface {
		Current() *keyring.Keyring
		Err() error
	}
	Registry interface{ Err() error }
	// Servers returns how many servers share keys with this one, itself included, and in
	// what they differ. Optional.
	Servers func() (servers int, differ map[string]bool)
	// Identities are the keys of identity providers.
	Identities func() []api.KeyState
	// Certificates returns the certificates that the server presents.
	Certificates func() []Certificate
	Now          func() time.Time // that keys are dated by
}

// Certificate is a certificate in use.
type Certificate struct {
	Use      string // api, gateway, gateway authority, etcd client, upstream client
	Cluster  string // of an upstream client
	File     string
	NotAfter time.Time
	RenewBy  time.Time // when warnings about it begin
}

// Collect adds the sources. It is called once.
func (m *Metrics) Collect(s Sources) { m.registry.MustRegister(&collector{s}) }

type collector struct{ Sources }

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("daypass_"+name, help, labels, nil)
}

var (
	sessions      = describe("sessions", "Sessions that are logged on.", "cluster")
	parkedNow     = describe("parked_sessions", "Sessions with the server that are kept for the next logon of their principal (`parked_sessions`).", "cluster")
	parkedUsed    = describe("parked_sessions_used_total", "Logons that got one of them.", "cluster")
	sessionsEnded = describe("sessions_ended_total", "Sessions that have ended.", "cluster")
	sessionBytes  = describe("session_bytes_total", "Bytes that sessions moved, from and to clients.", "cluster", "direction")
	halfOpen      = describe("half_open_connections", "Connections to the gateway that have not sent a valid credential yet.")
	halfOpenLimit = describe("half_open_connections_limit", "How many of them there may be.")
	halfOpenShut  = describe("half_open_connections_refused_total", "Connections to the gateway that were closed at once because their address had its share of them.")
	opening       = describe("logons_in_progress", "Logons with a valid credential that wait for their session.")
	held          = describe("held_answers", "Answers to failed logons that are held back.")
	cancels       = describe("cancel_requests_total", "Cancel requests: sent to the cluster, joined (one was sent for several), unknown (they name no session), failed.", "result")

	clusterUp       = describe("cluster_up", "1 if the last attempt to connect to the cluster succeeded, 0 if it failed; no series: there was none yet.", "cluster")
	clusterConns    = describe("cluster_admin_connections", "Administrative connections.", "cluster", "state")
	clusterLimit    = describe("cluster_admin_connections_limit", "How many of them there may be.", "cluster")
	clusterWaiting  = describe("cluster_admin_waiting", "Logons that wait for an administrative connection.", "cluster")
	clusterConnects = describe("cluster_admin_connects_total", "Attempts to open an administrative connection.", "cluster")

	gateBusy    = describe("api_in_progress", "Calls at work, by what bounds them: work (all), outside (an identity provider may be asked), large (large bodies are read), peers (other servers are asked), simulations.", "gate")
	gateSlots   = describe("api_in_progress_limit", "How many of them there may be.", "gate")
	gateWaiting = describe("api_waiting", "Calls that wait for their turn.", "gate")
	gateShed    = describe("api_shed_total", "Calls turned away with 503 because their turn did not come.", "gate")
	connsOpen   = describe("api_connections", "Connections to the API.")
	connsLimit  = describe("api_connections_limit", "How many of them there may be.")
	connsRefuse = describe("api_connections_refused_total", "Connections to the API that were closed at once.")

	auditOK      = describe("audit_ok", "1 if the audit log works, 0 if acts are refused because it does not.")
	auditLines   = describe("audit_lines_total", "Lines written to the audit log.")
	auditBytes   = describe("audit_bytes_total", "Bytes written to the audit log.")
	auditRefused = describe("audit_refused_total", "Acts refused because their line could not be written.")
	auditWrites  = describe("audit_writes_total", "Writes; several lines may share one.")
	auditSyncs   = describe("audit_syncs_total", "Syncs of the file.")
	auditFaults  = describe("audit_faults_total", "Attempts to write, sync or repair the audit log that failed.")
	auditLag     = describe("audit_lag_seconds", "Age of the oldest line that may not be on disk yet.")

	servers       = describe("servers", "Servers of this installation that are alive, as this one sees them.")
	serversDiffer = describe("servers_differ", "1 if the servers differ in this, 0 if they do not.", "about")

	registryOK = describe("registry_ok", "1 if it is known what is revoked, 0 if logons are refused because it is not.")

	providerKeys = describe("identity_provider_keys", "Keys of an identity provider that are in use; 0: its tokens are refused; no series: it was not asked yet.", "issuer")
	providerRead = describe("identity_provider_keys_age_seconds", "How long ago those keys were read.", "issuer")
	providerOK   = describe("identity_provider_keys_ok", "1 if the last attempt to read the keys succeeded, 0 if it failed; no series: there was none yet.", "issuer")

	certificateEnd   = describe("certificate_not_after_timestamp_seconds", "When a certificate that the server shows to others ends.", "use", "cluster")
	certificateRenew = describe("certificate_renew_by_timestamp_seconds", "When warnings about its end begin.", "use", "cluster")

	keyringOK = describe("keyring_ok", "1 if the keyring file is what is in force, 0 if it cannot be read.")
	keyAge    = describe("keyring_key_age_seconds", "Age of the key in use.", "purpose")
	keys      = describe("keyring_keys", "Keys, those kept for checking and those not yet in use included.", "purpose")
)

// Describe sends nothing, because the series vary.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect makes collector a prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	out := samples(ch)
	var clusters map[string]adminconn.Stats
	if c.Clusters != nil {
		clusters = c.Clusters()
		out.clusters(clusters)
	}
	if c.Gateway != nil {
		out.gateway(c.Gateway(), clusters)
	}
	if c.Pressure != nil {
		out.pressure(c.Pressure())
	}
	if c.Connections != nil {
		out.connections(c.Connections())
	}
	if c.Audit != nil {
		out.audit(c.Audit.Stats(), c.Audit.Err())
	}
	if c.Identities != nil {
		out.identities(c.Identities(), c.Now())
	}
	if c.Certificates != nil {
		out.certificates(c.Certificates())
	}
	if c.Servers != nil {
		out.servers(c.Servers())
	}
	if c.Registry != nil {
		out.gauge(registryOK, truth(c.Registry.Err() == nil))
	}
	if c.Keyring != nil {
		out.gauge(keyringOK, truth(c.Keyring.Err() == nil))
		now := c.Now()
		out.keys(c.Keyring.Current().Keys(now), now)
	}
}

// samples takes the values of one scrape.
type samples chan<- prometheus.Metric

func (out samples) gauge(d *prometheus.Desc, v float64, labels ...string) {
	out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (out samples) counter(d *prometheus.Desc, v float64, labels ...string) {
	out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

func (out samples) clusters(all map[string]adminconn.Stats) {
	for id, s := range all {
		if s.Err != nil || s.Reached {
			out.gauge(clusterUp, truth(s.Err == nil), id)
		}
		out.gauge(clusterConns, float64(s.InUse), id, "in use")
		out.gauge(clusterConns, float64(s.Idle), id, "idle")
		out.gauge(clusterLimit, float64(s.Limit), id)
		out.gauge(clusterWaiting, float64(s.Waiting), id)
		out.counter(clusterConnects, float64(s.Connects), id)
	}
}

// gateway has series for every cluster of the configuration, and for others while they have
// sessions.
func (out samples) gateway(s gateway.Stats, configured map[string]adminconn.Stats) {
	out.gauge(halfOpen, float64(s.HalfOpen.Open))
	out.gauge(halfOpenLimit, float64(s.HalfOpen.Limit))
	out.counter(halfOpenShut, float64(s.HalfOpen.Refused))
	out.gauge(opening, float64(s.Opening))
	out.gauge(held, float64(s.Held))
	out.counter(cancels, float64(s.Cancels.Sent), "sent")
	out.counter(cancels, float64(s.Cancels.Joined), "joined")
	out.counter(cancels, float64(s.Cancels.Unknown), "unknown")
	out.counter(cancels, float64(s.Cancels.Failed), "failed")
	out.counter(cancels, float64(s.Cancels.Passed), "passed on")
	for id := range configured {
		if _, there := s.Clusters[id]; !there {
			s.Clusters[id] = gateway.ClusterStats{}
		}
	}
	for id, of := range s.Clusters {
		if _, there := configured[id]; !there && of.Sessions == 0 {
			continue
		}
		out.gauge(sessions, float64(of.Sessions), id)
		out.gauge(parkedNow, float64(of.Parked), id)
		out.counter(parkedUsed, float64(of.Unparked), id)
		out.counter(sessionsEnded, float64(of.Ended), id)
		out.counter(sessionBytes, float64(of.BytesFromClient), id, "from client")
		out.counter(sessionBytes, float64(of.BytesToClient), id, "to client")
	}
}

func (out samples) pressure(p api.Pressure) {
	for _, g := range []struct {
		name string
		throttle.GateStats
	}{{"work", p.Work}, {"outside", p.Outside}, {"large", p.Large}, {"peers", p.Peers}, {"simulations", p.Simulations}} {
		out.gauge(gateBusy, float64(g.Busy), g.name)
		out.gauge(gateSlots, float64(g.Slots), g.name)
		out.gauge(gateWaiting, float64(g.Waiting), g.name)
		out.counter(gateShed, float64(g.Shed), g.name)
	}
}

func (out samples) connections(s admission.Stats) {
	out.gauge(connsOpen, float64(s.Open))
	out.gauge(connsLimit, float64(s.Limit))
	out.counter(connsRefuse, float64(s.Refused))
}

func (out samples) audit(s audit.Stats, err error) {
	out.gauge(auditOK, truth(err == nil))
	out.counter(auditLines, float64(s.Lines))
	out.counter(auditBytes, float64(s.Bytes))
	out.counter(auditRefused, float64(s.Refused))
	out.counter(auditWrites, float64(s.Writes))
	out.counter(auditSyncs, float64(s.Syncs))
	out.counter(auditFaults, float64(s.Faults))
	out.gauge(auditLag, s.Lag.Seconds())
}

func (out samples) identities(states []api.KeyState, now time.Time) {
	for _, s := range states {
		if s.Err == nil && s.Read.IsZero() {
			continue // no token of this provider has arrived yet
		}
		out.gauge(providerOK, truth(s.Err == nil), s.Issuer)
		out.gauge(providerKeys, float64(s.Keys), s.Issuer)
		if !s.Read.IsZero() {
			out.gauge(providerRead, max(0, now.Sub(s.Read).Seconds()), s.Issuer)
		}
	}
}

func (out samples) certificates(all []Certificate) {
	for _, s := range all {
		out.gauge(certificateEnd, float64(s.NotAfter.Unix()), s.Use, s.Cluster)
		out.gauge(certificateRenew, float64(s.RenewBy.Unix()), s.Use, s.Cluster)
	}
}

func (out samples) servers(count int, differ map[string]bool) {
	out.gauge(servers, float64(count))
	for about, differs := range differ {
		out.gauge(serversDiffer, truth(differs), about)
	}
}

func (out samples) keys(all []keyring.Info, now time.Time) {
	count := map[keyring.Purpose]int{}
	for _, k := range all {
		count[k.Purpose]++
		if k.State == keyring.InUse {
			out.gauge(keyAge, now.Sub(k.Active).Seconds(), string(k.Purpose))
		}
	}
	for purpose, n := range count {
		out.gauge(keys, float64(n), string(purpose))
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// clusterFault reports whether an error is the cluster's fault, not the caller's.
func clusterFault(err error) bool {
	return errors.Is(err, adminconn.ErrUnreachable) || errors.Is(err, adminconn.ErrRights)
}
