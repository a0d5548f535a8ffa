package server

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/daypass/daypass/internal/ca"
	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/metrics"
)

// certificates provides the certificate for a listener's handshakes. It can be replaced while
// the listener runs.
type certificates struct {
	get atomic.Pointer[func(*tls.ClientHelloInfo) (*tls.Certificate, error)]
}

func (c *certificates) set(get func(*tls.ClientHelloInfo) (*tls.Certificate, error)) {
	c.get.Store(&get)
}

func (c *certificates) given() bool { return c.get.Load() != nil }

// GetCertificate is for tls.Config.
func (c *certificates) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return (*c.get.Load())(hello)
}

// always gives every client the same certificate.
func always(pair *tls.Certificate) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return pair, nil }
}

// loadCertificates reads or makes the certificates of both listeners, and puts them in force
// if none has a fault.
func (s *service) loadCertificates(cfg *config.Config) error {
	gateway := always(cfg.Gateway.TLS.Pair)
	var authority *ca.Authority
	if !cfg.Gateway.TLS.Given() {
		listenHost, _, _ := net.SplitHostPort(cfg.Gateway.Listen)
		var err error
		authority, err = ca.Open(s.data.join("tls"), []string{cfg.Gateway.Advertise.Host, listenHost}, s.opts.Now)
		if err != nil {
			return cfg.Fault("gateway", fmt.Errorf("opening the gateway's certificate authority: %w", err))
		}
		gateway = authority.GetCertificate
	}
	if cfg.API.TLS.Given() {
		s.apiTLS.set(always(cfg.API.TLS.Pair))
	}
	if cfg.Metrics.TLS.Given() {
		s.metricsTLS.set(always(cfg.Metrics.TLS.Pair))
	}
	s.gatewayTLS.set(gateway)
	s.authority.Store(authority)
	return nil
}

const (
	// fairNotice is how long before its expiry a warning about a certificate begins. For a
	// short lifetime the warning begins in the last fifth, since most programs renew when a
	// third is left.
	fairNotice = 14 * 24 * time.Hour
	// authorityNotice replaces fairNotice for a CA certificate, of which clients have copies.
	authorityNotice = 90 * 24 * time.Hour
	// remind is how often a warning is repeated.
	remind = 24 * time.Hour
)

// inUse lists the certificates that this server presents to others.
func (s *service) inUse() []metrics.Certificate {
	cfg := s.live.Load().cfg
	var list []metrics.Certificate
	add := func(use, cluster, file string, leaf *x509.Certificate, notice time.Duration) {
		if leaf != nil {
			notice = min(notice, leaf.NotAfter.Sub(leaf.NotBefore)/5)
			list = append(list, metrics.Certificate{Use: use, Cluster: cluster, File: file, NotAfter: leaf.NotAfter, RenewBy: leaf.NotAfter.Add(-notice)})
		}
	}
	pair := func(use string, files config.CertificateFiles) {
		if files.Given() {
			add(use, "", files.Certificate, files.Pair.Leaf, fairNotice)
		}
	}
	pair("api", cfg.API.TLS)
	pair("gateway", cfg.Gateway.TLS)
	pair("metrics", cfg.Metrics.TLS)
	if etcd := cfg.Registry.Etcd; etcd != nil {
		pair("etcd client", etcd.Client)
	}
	if authority := s.authority.Load(); authority != nil {
		add("gateway authority", "", authority.CertificateFile(), authority.Certificate(), authorityNotice)
		if own, err := authority.GetCertificate(nil); err == nil {
			add("gateway", "", filepath.Join(filepath.Dir(authority.CertificateFile()), "server.crt"), own.Leaf, fairNotice)
		}
	}
	for _, c := range cfg.Clusters {
		if c.Upstream.TLSConfig == nil {
			continue
		}
		for _, own := range c.Upstream.TLSConfig.Certificates {
			if leaf, err := x509.ParseCertificate(own.Certificate[0]); err == nil {
				add("upstream client", c.Identifier, "", leaf, fairNotice)
			}
		}
	}
	return list
}

// expiry remembers which warnings about certificates were given, and when.
type expiry struct {
	told map[metrics.Certificate]time.Time
}

// look warns about certificates that expire soon or have expired, once a day for each.
func (e *expiry) look(log *slog.Logger, list []metrics.Certificate, now time.Time) {
	told := map[metrics.Certificate]time.Time{}
	for _, c := range list {
		over := now.After(c.NotAfter)
		if !over && now.Before(c.RenewBy) {
			continue
		}
		key := c
		if over {
			key.RenewBy = time.Time{} // expiry is logged even if a warning was just given
		}
		told[key] = e.told[key]
		if now.Sub(told[key]) < remind {
			continue
		}
		told[key] = now
		attributes := []any{"use", c.Use, "file", c.File, "expires", c.NotAfter.UTC().Format(time.RFC3339)}
		if c.Cluster != "" {
			attributes = append(attributes, "cluster", c.Cluster)
		}
		if over {
			log.Error("a certificate has expired: clients that verify it refuse to connect; replace the file, which is put in force within seconds", attributes...)
		} else {
			log.Warn("a certificate expires soon: renew it; the new file is put in force within seconds", attributes...)
		}
	}
	e.told = told
}

// expiring returns the warnings about certificates for /readyz.
func (s *service) expiring() (warnings []string) {
	now := s.opts.Now()
	for _, c := range s.inUse() {
		name := c.Use
		if c.Cluster != "" {
			name += " of cluster " + c.Cluster
		}
		switch {
		case now.After(c.NotAfter):
			warnings = append(warnings, fmt.Sprintf("the certificate of the %s expired on %s: replace %s", name, c.NotAfter.UTC().Format(time.RFC3339), c.File))
		case !now.Before(c.RenewBy):
			warnings = append(warnings, fmt.Sprintf("the certificate of the %s expires on %s: renew %s", name, c.NotAfter.UTC().Format(time.RFC3339), c.File))
		}
	}
	return warnings
}
