package config

import (
	"crypto/tls"
	"crypto/x509"
	"github.com/daypass/daypass/internal/filemode"
	"net/url"
	"slices"
	"strings"

	"github.com/daypass/daypass/internal/keyring"
)

// Registry is where revocations are kept.
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
	CAPEM  []byte           // the content of the CA file
	Client CertificateFiles // empty: none
	TLS    *tls.Config      // nil: plain HTTP, on loopback
}

func (r *Registry) read(s *section) {
	if etcd := s.sub("etcd"); etcd != nil {
		r.Etcd = &Etcd{}
		r.Etcd.read(etcd)
	}
}

// Peers describes the listener at which other servers reach this one.
type Peers struct {
	Listen    string
	Advertise string // empty: found at the start
}

// RootKey is the source of the root key of several servers. Exactly one field is set.
type RootKey struct {
	File    string   // path, absolute
	Command []string // a program and its arguments
}

func (r *RootKey) read(s *section) {
	r.File, r.Command = s.filePath("file"), s.texts("command")
	_ = s.contents("file") // a file that cannot be read is reported with its line
}

func (e *Etcd) read(s *section) {
	secure := e.readEndpoints(s)
	e.Prefix = s.text("prefix")
	if t := s.sub("tls"); t != nil {
		e.readTLS(t)
		if !secure && len(e.Endpoints) > 0 {
			s.errorf("tls", "needs endpoints that begin with https://")
		}
	}
	if secure && e.TLS == nil {
		e.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	e.Username = s.text("username")
	e.Password, _ = s.secret("password")
	switch given := s.at["password_env"] != nil || s.at["password_file"] != nil; {
	case given && s.at["username"] == nil:
		s.errorf("username", "is required with a password")
	case !given && e.Username != "":
		s.errorf("username", "needs password_env or password_file; with a client certificate, its common name is the user")
	}
}

// readEndpoints reads the endpoints, and reports whether they use TLS.
func (e *Etcd) readEndpoints(s *section) (secure bool) {
	var schemes []string
	for i, text := range s.texts("endpoints") {
		u, err := url.Parse(text)
		switch {
		// The message does not include the error, which may quote a password.
		case err != nil || u.User != nil:
			s.errorf("endpoints", "[%d] is not a URL such as https://10.0.0.1:2379; a password has keys of its own", i)
		case u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.Port() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
			s.errorf("endpoints", "[%d] is %q, want a URL such as https://10.0.0.1:2379", i, text)
		case u.Scheme == "http" && !IsLoopback(u.Hostname()):
			s.errorf("endpoints", "[%d] is %q, which is not a loopback address: it needs https, or anyone on the way could take revocations back", i, text)
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
	e.CA = s.filePath("ca")
	if pem := s.contents("ca"); pem != nil {
		e.CAPEM = pem
		e.TLS.RootCAs = x509.NewCertPool()
		if !e.TLS.RootCAs.AppendCertsFromPEM(pem) {
			s.errorf("ca", "%s has no certificate in PEM form", e.CA)
		}
	}
	for _, pair := range [][2]string{{"certificate", "key"}, {"key", "certificate"}} {
		if s.at[pair[0]] != nil && s.at[pair[1]] == nil {
			s.errorf(pair[1], "is required with %s", pair[0])
			return
		}
	}
	if e.Client = s.pair(); e.Client.Given() {
		// The files are read for each connection, so that a renewed certificate is used.
		e.TLS.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			certificate, _, err := filemode.ReadRegular(e.Client.Certificate, maxFile)
			if err != nil {
				return nil, err
			}
			key, _, err := filemode.ReadRegular(e.Client.Key, maxFile)
			if err != nil {
				return nil, err
			}
			cert, err := tls.X509KeyPair(certificate, key)
			return &cert, err
		}
	}
}
