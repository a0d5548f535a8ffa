package config

import (
	"net"
	"net/url"
)

// Admin is the operator's listener: metrics, readiness, profiles.
type Admin struct {
	Listen   string // empty: none
	Profiles bool
}

func (a *Admin) read(s *section) {
	a.Listen = s.listenAddress("listen")
	if host, _, err := net.SplitHostPort(a.Listen); err == nil && !IsLoopback(host) {
		s.errorf("listen", "%s is not a loopback address: what is served there is for nobody else, and asks for no password; "+
			"have a local agent scrape it, or a proxy that asks for one in front of it", a.Listen)
	}
	a.Profiles = s.boolean("pprof")
}

// Tracing says where traces go. Empty: nowhere, unless the environment says
// so, as OpenTelemetry has it.
type Tracing struct{ Endpoint string }

func (t *Tracing) read(s *section) {
	t.Endpoint = s.required("endpoint")
	u, err := url.Parse(t.Endpoint)
	if t.Endpoint != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		s.errorf("endpoint", "is %q, want the URL of an OTLP/HTTP receiver, such as http://127.0.0.1:4318", t.Endpoint)
	}
}

// Limits bounds what callers of the API can take.
type Limits struct {
	Rate, Burst, Concurrent int // of a principal
	Connections             int // in all
	PerAddress              int // connections, and calls in progress
}

// The limits where the configuration has none. The rate is about what two
// processors can do, so that nobody is refused what could be had; the others keep
// one principal or address from taking all there is at a time.
const (
	defaultRate        = 20_000
	defaultBurst       = 40_000
	defaultConcurrent  = 1024
	defaultConnections = 4096
	defaultPerAddress  = 1024
)

func (l *Limits) read(s *section) {
	const most = 1_000_000
	*l = Limits{Rate: defaultRate, Burst: defaultBurst, Concurrent: defaultConcurrent,
		Connections: defaultConnections, PerAddress: defaultPerAddress}
	if s == nil {
		return
	}
	l.Rate = s.integer("rate", l.Rate, 0, most)
	l.Burst = s.integer("burst", max(l.Burst, 2*l.Rate), 1, most)
	l.Concurrent = s.integer("concurrent", l.Concurrent, 0, most)
	l.Connections = s.integer("connections", l.Connections, 1, most)
	l.PerAddress = s.integer("per_address", l.PerAddress, 1, most)
	s.done()
}
