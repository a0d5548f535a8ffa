package etcdstore_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/daypass/daypass/test/etcdtest"
)

// authority signs certificates for a test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert, a.key = a.sign(template, nil, nil)
	a.file = writePEM(t, "ca.crt", "CERTIFICATE", a.cert.Raw)
	return a
}

func (a *authority) sign(template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if parent == nil {
		parent, signer = template, key
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

// issue makes a certificate for 127.0.0.1 that works for both client and server.
func (a *authority) issue(name string) (certificate, key string) {
	a.t.Helper()
	cert, private := a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, a.key)
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	return writePEM(a.t, name+".crt", "CERTIFICATE", cert.Raw), writePEM(a.t, name+".key", "PRIVATE KEY", raw)
}

func writePEM(t *testing.T, name, kind string, raw []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// TestTLS: client and server present certificates, and each refuses a wrong one.
func TestTLS(t *testing.T) {
	t.Parallel()
	good, other := newAuthority(t), newAuthority(t)
	var files etcdtest.TLS
	files.Certificate, files.Key = good.issue("server")
	files.CA = good.file
	server := etcdtest.StartTLS(t, files)
	pair := func(a *authority) []tls.Certificate {
		cert, err := tls.LoadX509KeyPair(a.issue("client"))
		if err != nil {
			t.Fatal(err)
		}
		return []tls.Certificate{cert}
	}
	ask := func(config *tls.Config) error {
		c := at(server)
		c.TLS = config
		_, err := open(t, c).List(t.Context(), "")
		return err
	}
	if err := ask(&tls.Config{RootCAs: good.pool(), Certificates: pair(good)}); err != nil {
		t.Errorf("the right certificates: %v", err)
	}
	var all sync.WaitGroup // calls that take a while to fail
	for name, row := range map[string]struct {
		config *tls.Config
		want   string
	}{
		"another's server":   {&tls.Config{RootCAs: other.pool(), Certificates: pair(good)}, "certificate signed by unknown authority"},
		"the system's roots": {&tls.Config{}, "certificate signed by unknown authority"},
		// The error is the server's reason, or the end of the connection that follows.
		"another's client": {&tls.Config{RootCAs: good.pool(), Certificates: pair(other)}, "etcd at " + server.Host + ": "},
		"no client":        {&tls.Config{RootCAs: good.pool()}, "etcd at " + server.Host + ": "},
	} {
		all.Go(func() {
			if err := ask(row.config); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%s: %v, want %q", name, err, row.want)
			} else {
				t.Logf("%s: %v", name, err)
			}
		})
	}
	all.Wait()
}
