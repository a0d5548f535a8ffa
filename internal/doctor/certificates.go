package doctor

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/daypass/daypass/internal/config"
)

func (o *Operator) certificates(r *Report, cfg *config.Config) {
	now := o.Now()
	pair := func(name string, files config.CertificateFiles, host string) {
		if !files.Given() || files.Pair.Leaf == nil {
			return
		}
		leaf := files.Pair.Leaf
		r.chain(name, files.Pair.Certificate, now)
		r.expiry("the certificate of "+name, "replace the files of "+name+".tls; they are put in force within seconds", leaf.NotBefore, leaf.NotAfter, now)
		if host != "" && leaf.VerifyHostname(host) != nil {
			r.fail("certificates", "have one made with that name, or change gateway.advertise", "the certificate of %s is not for %s, where clients are told to log on", name, host)
		}
	}
	pair("api", cfg.API.TLS, "")
	pair("gateway", cfg.Gateway.TLS, cfg.Gateway.Advertise.Host)
	pair("metrics", cfg.Metrics.TLS, "")
	if etcd := cfg.Registry.Etcd; etcd != nil {
		pair("registry.etcd", etcd.Client, "")
	}
	if cfg.Gateway.TLS.Given() {
		return
	}
	for _, file := range []struct{ name, do string }{
		{"ca.crt", "remove ca.crt and ca.key, restart the server, and give clients the new ca.crt"},
		{"server.crt", "restart the server, which makes another one"},
	} {
		name, do := file.name, file.do
		leaf, err := readCertificate(filepath.Join(cfg.Data, "tls", name))
		switch {
		case errors.Is(err, fs.ErrNotExist): // the server has not started yet
		case err != nil:
			r.fail("certificates", remedy(err, do), "%s of the gateway cannot be read: %v", name, err)
		default:
			r.expiry(name+" of the gateway", do, leaf.NotBefore, leaf.NotAfter, now)
			if host := cfg.Gateway.Advertise.Host; name == "server.crt" && leaf.VerifyHostname(host) != nil {
				r.fail("certificates", do, "server.crt of the gateway is not for %s, where clients are told to log on", host)
			}
		}
	}
}

func readCertificate(path string) (*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	first, _ := pem.Decode(data)
	if first == nil || first.Type != "CERTIFICATE" {
		return nil, errors.New("it has no certificate")
	}
	return x509.ParseCertificate(first.Bytes)
}

// chain checks the certificates of a file one after the other. A client that knows only the root
// needs all that are between it and the server's.
func (r *Report) chain(name string, file [][]byte, now time.Time) {
	const about, do = "certificates", "write into the file the server's certificate, then the one that signed it, and so on"
	certificates := make([]*x509.Certificate, len(file))
	for i, der := range file {
		var err error
		if certificates[i], err = x509.ParseCertificate(der); err != nil {
			r.fail(about, do, "certificate %d in the file of %s.tls cannot be read: %v", i+1, name, err)
			return
		}
	}
	intermediates := x509.NewCertPool()
	for i, certificate := range certificates[1:] {
		if err := certificates[i].CheckSignatureFrom(certificate); err != nil {
			r.fail(about, do, "certificate %d in the file of %s.tls is not signed by the next one: clients may refuse it", i+1, name)
			return
		}
		if now.After(certificate.NotAfter) {
			r.fail(about, do, "certificate %d in the file of %s.tls, which signed the one before, expired on %s", i+2, name, certificate.NotAfter.UTC().Format(time.RFC3339))
			return
		}
		intermediates.AddCert(certificate)
	}
	// Public authorities say where their own certificate is. Private ones, which clients know as they are, seldom do.
	leaf := certificates[0]
	if len(certificates) > 1 || len(leaf.IssuingCertificateURL) == 0 {
		return
	}
	var unknown x509.UnknownAuthorityError
	if _, err := leaf.Verify(x509.VerifyOptions{CurrentTime: now, Intermediates: intermediates}); errors.As(err, &unknown) {
		r.warn(about, do+" (certbot: fullchain.pem), unless clients know the one that signed it", "the file of %s.tls has one certificate, and no authority of this machine signed it: it lacks those in between", name)
	}
}
