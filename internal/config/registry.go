package config

import (
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/daypass/daypass/internal/keyring"
)

// Registry says where it is kept what was revoked.
type Registry struct {
	Etcd *Etcd // nil: in the data directory
}

// Etcd is the etcd that several servers share.
type Etcd struct {
	Endpoints []string // SCHEME://HOST:PORT, all with the same scheme
	Prefix    string
	Username  string
	Password  keyring.Secret

	CA     string           // path, absolute; empty: the system's authorities
	Client CertificateFiles // empty: none
	TLS    *tls.Config      // nil: plain HTTP, on loopback
}

// String tells one place from another, without the password.
func (r Registry) String() string {
	e := r.Etcd
	if e == nil {
		return "the data directory"
	}
	parts := []string{"etcd", strings.Join(e.Endpoints, ","), e.Prefix}
	for _, part := range []struct{ name, value string }{
		{"username", e.Username}, {"ca", e.CA}, {"certificate", e.Client.Certificate}, {"key", e.Client.Key},
	} {
		if part.value != "" {
			parts = append(parts, part.name, part.value)
		}
	}
	return strings.Join(parts, " ")
}

func (r Registry) password() keyring.Secret {
	if r.Etcd == nil {
		return ""
	}
	return r.Etcd.Password
}

func (r *Registry) read(c *Config, s *section) {
	etcd := s.sub("etcd")
	if etcd == nil {
		if s.at["etcd"] == nil || !s.has("etcd") {
			s.errorf("etcd", "is required; without registry, what is revoked is kept in the data directory")
		}
		return
	}
	c.noteLines(s, "etcd")
	c.noteLines(etcd, "username")
	r.Etcd = &Etcd{}
	r.Etcd.read(etcd)
	etcd.done()
}

func (e *Etcd) read(s *section) {
	secure := e.readEndpoints(s)
	e.Prefix = s.text("prefix", "daypass/")
	if plain := strings.IndexFunc(e.Prefix, func(r rune) bool { return r <= ' ' || r > '~' }) < 0; !plain || len(e.Prefix) > 256 || !strings.HasSuffix(e.Prefix, "/") {
		s.errorf("prefix", "is %q, want up to 256 characters of ASCII without spaces, the last of them a slash, such as daypass/", e.Prefix)
	}
	if t := s.sub("tls"); t != nil {
		e.readTLS(t)
		t.done()
		if !secure && len(e.Endpoints) > 0 {
			s.errorf("tls", "needs endpoints that begin with https://")
		}
	}
	if secure && e.TLS == nil {
		e.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	e.Username = s.text("username", "")
	before := len(s.file.errs)
	var given bool
	e.Password, given = s.secret("password", "password_env", "password_file", false)
	switch {
	case len(s.file.errs) > before:
	case given && e.Username == "":
		s.errorf("username", "is required with a password")
	case !given && e.Username != "":
		s.errorf("username", "needs password_env or password_file; with a client certificate, its common name is the user")
	}
}

// readEndpoints says whether they are asked with TLS.
func (e *Etcd) readEndpoints(s *section) (secure bool) {
	texts := s.texts("endpoints")
	if len(texts) == 0 && len(s.list("endpoints")) == 0 {
		s.errorf("endpoints", "is required: the addresses of etcd's members, such as [https://10.0.0.1:2379]")
	}
	var schemes []string
	for i, text := range texts {
		u, err := url.Parse(text)
		switch {
		// Not told: what it says instead may be a password.
		case err != nil || u.User != nil:
			s.errorf("endpoints", "[%d] is not a URL such as https://10.0.0.1:2379; a password has keys of its own", i)
		case u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.Port() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
			s.errorf("endpoints", "[%d] is %q, want a URL such as https://10.0.0.1:2379", i, text)
		case u.Scheme == "http" && !IsLoopback(u.Hostname()):
			s.errorf("endpoints", "[%d] is %q, which is not a loopback address: it needs https, since whoever is in between could take revocations back", i, text)
		default:
			e.Endpoints = append(e.Endpoints, u.Scheme+"://"+u.Host)
			schemes = append(schemes, u.Scheme)
		}
	}
	slices.Sort(schemes)
	if schemes = slices.Compact(schemes); len(schemes) > 1 {
		s.errorf("endpoints", "mixes http and https")
	}
	return slices.Contains(schemes, "https")
}

func (e *Etcd) readTLS(s *section) {
	e.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	if ca := s.text("ca", ""); ca != "" {
		e.CA = s.file.resolve(ca)
		e.TLS.RootCAs = x509.NewCertPool()
		if data, err := os.ReadFile(e.CA); err != nil {
			s.errorf("ca", "%v", err)
		} else if !e.TLS.RootCAs.AppendCertsFromPEM(data) {
			s.errorf("ca", "%s has no certificate in PEM form", e.CA)
		}
	}
	s.known("certificate", "key")
	if s.has("certificate") || s.has("key") {
		e.Client = s.pair()
		// Read again for each connection, so that one that was renewed is used.
		e.TLS.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(e.Client.Certificate, e.Client.Key)
			return &cert, err
		}
	}
}
