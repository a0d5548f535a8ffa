package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/daypass/daypass/internal/pgwire"
)

// TLS describes how the certificate of a gateway is checked.
type TLS struct {
	// Mode is libpq's sslmode: verify-full, verify-ca or require. As in libpq, require checks
	// the chain if there are roots.
	Mode string
	// Roots are CA certificates in PEM. nil means those that the system trusts, except with
	// require, which then checks nothing.
	Roots []byte
}

// config returns the configuration for a connection to a host.
func (t *TLS) config(host string) (*tls.Config, error) {
	c := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12, NextProtos: []string{pgwire.ALPN}}
	if t.Roots != nil {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(t.Roots) {
			return nil, errors.New("the file of the gateway's CA has no certificate in it")
		}
	}
	switch {
	case t.Mode == "verify-full":
	case t.Mode == "verify-ca", t.Mode == "require" && t.Roots != nil:
		c.InsecureSkipVerify = true // skips only the check of the name: VerifyConnection checks the chain
		c.VerifyConnection = func(state tls.ConnectionState) error {
			opts := x509.VerifyOptions{Roots: c.RootCAs, Intermediates: x509.NewCertPool()}
			for _, one := range state.PeerCertificates[1:] {
				opts.Intermediates.AddCert(one)
			}
			_, err := state.PeerCertificates[0].Verify(opts)
			return err
		}
	case t.Mode == "require":
		c.InsecureSkipVerify = true
	default:
		return nil, fmt.Errorf("sslmode %q does not protect the password", t.Mode)
	}
	return c, nil
}
