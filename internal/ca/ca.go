// Package ca is the gateway's own certificate authority, for installations that
// bring no certificate.
//
// It makes a CA once, and with it a server certificate for the names that clients
// connect to; both are kept in one directory:
//
//	ca.crt      the CA's certificate: what clients are given as sslrootcert
//	ca.key      its key, mode 0600
//	server.crt  the server's certificate
//	server.key  its key, mode 0600
//
// All keys are ECDSA P-256, with which a handshake costs half as much as with RSA. The
// server certificate is valid for 90 days. It is renewed 30 days before its end, also
// while the server runs, and when the names change.
//
// Some clients trust the CA only if it is added to the operating system's store. So its
// certificate is constrained (RFC 5280, section 4.2.1.10): it can sign server
// certificates but no further CAs, and only for loopback, the names that it was made
// for and their siblings. A thief of ca.key can impersonate this gateway, but not a
// bank.
//
// The package does no logging. It follows RFC 5280, and RFC 6125 in that a
// certificate has subject alternative names and no common name that counts.
package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	caLifetime     = 10 * 365 * 24 * time.Hour
	serverLifetime = 90 * 24 * time.Hour
	renewBefore    = 30 * 24 * time.Hour
	backdated      = time.Hour // for clients whose clocks are slow
	// retryAfter is the pause before the next attempt to renew a certificate, after one
	// that failed. The old certificate stays in use meanwhile.
	retryAfter = time.Minute
)

// ErrNotCovered means that the CA's name constraints exclude one of the names.
// The error's text says what to do.
var ErrNotCovered = errors.New("name not covered by the certificate authority")

// Authority is a CA with its server certificate. It is safe for concurrent use.
type Authority struct {
	dir         string
	names       []string
	now         func() time.Time
	certificate *x509.Certificate
	key         crypto.Signer

	mu      sync.Mutex // guards what follows
	server  *tls.Certificate
	retryAt time.Time
}

// Open reads the CA in dir, or makes it, and makes sure that there is a server
// certificate for names, localhost, 127.0.0.1 and ::1. names are host names and IP
// addresses; empty and unspecified ones are ignored. now is time.Now if nil. A CA that
// is damaged, has expired or does not cover a name is an error, and is never replaced,
// because clients hold copies of it.
func Open(dir string, names []string, now func() time.Time) (*Authority, error) {
	if now == nil {
		now = time.Now
	}
	a := &Authority{dir: dir, names: subjects(names), now: now}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := a.openCA(); err != nil {
		return nil, err
	}
	if err := a.covers(); err != nil {
		return nil, err
	}
	if _, err := a.GetCertificate(nil); err != nil {
		return nil, err
	}
	return a, nil
}

// CertificateFile returns the file that clients need as sslrootcert.
func (a *Authority) CertificateFile() string { return filepath.Join(a.dir, "ca.crt") }

// Certificate returns the CA's certificate.
func (a *Authority) Certificate() *x509.Certificate { return a.certificate }

// Pool returns a pool with the CA's certificate, for clients in Go.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

// GetCertificate returns the server certificate, renewed if necessary. It can be
// tls.Config's GetCertificate, and does not use its argument.
func (a *Authority) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	if a.server == nil {
		a.server = a.loadServer()
	}
	if a.server != nil && now.Before(a.server.Leaf.NotAfter.Add(-renewBefore)) && !now.Before(a.server.Leaf.NotBefore) {
		return a.server, nil
	}
	if a.server != nil && now.Before(a.server.Leaf.NotAfter) && now.Before(a.retryAt) {
		return a.server, nil
	}
	renewed, err := a.issue(now)
	if err != nil {
		a.retryAt = now.Add(retryAfter)
		if a.server != nil && now.Before(a.server.Leaf.NotAfter) {
			return a.server, nil
		}
		return nil, fmt.Errorf("making the server certificate: %w", err)
	}
	a.server = renewed
	return renewed, nil
}

// openCA reads the CA, or makes one if both files are missing.
func (a *Authority) openCA() error {
	certificate, key, err := load(a.CertificateFile(), filepath.Join(a.dir, "ca.key"))
	switch {
	case err == nil:
		if !certificate.IsCA {
			return fmt.Errorf("%s is not the certificate of a CA", a.CertificateFile())
		}
		if now := a.now(); now.After(certificate.NotAfter) {
			return fmt.Errorf("%s expired on %s: move %s away, start the server, which makes a new one, and give clients the new ca.crt",
				a.CertificateFile(), certificate.NotAfter.Format(time.DateOnly), a.dir)
		}
		a.certificate, a.key = certificate, key
		return nil
	case errors.Is(err, fs.ErrNotExist) && !exists(a.CertificateFile()):
		// The key is written first, so a key without a certificate is from a crash.
		if err := a.makeCA(); err != nil {
			return fmt.Errorf("making the CA: %w", err)
		}
		return nil
	}
	return fmt.Errorf("%s with ca.key beside it cannot be used: %w; restore both from a backup. "+
		"To begin with a new one instead, move %s away, start the server and give clients the new ca.crt", a.CertificateFile(), err, a.dir)
}

func (a *Authority) makeCA() error {
	now := a.now()
	serial, err := serialNumber()
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{Organization: []string{"Daypass"}, CommonName: "Daypass gateway CA " + serial.Text(36)[:8]},
		NotBefore:    now.Add(-backdated),
		NotAfter:     now.Add(caLifetime),
		KeyUsage:     x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},

		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,

		PermittedDNSDomainsCritical: true,
	}
	template.PermittedDNSDomains, template.PermittedIPRanges = constraints(a.names)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	if a.certificate, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	a.key = key
	return store(a.dir, "ca", der, key)
}

// loadServer returns the server certificate of an earlier run, or nil if it no longer
// fits. Then the caller makes a new one, which clients trust as well.
func (a *Authority) loadServer() *tls.Certificate {
	leaf, key, err := load(filepath.Join(a.dir, "server.crt"), filepath.Join(a.dir, "server.key"))
	if err != nil || leaf.CheckSignatureFrom(a.certificate) != nil {
		return nil
	}
	has := slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		has = append(has, ip.String())
	}
	slices.Sort(has)
	if !slices.Equal(has, a.names) {
		return nil
	}
	return a.pair(leaf, key)
}

// issue makes a server certificate and keeps it.
func (a *Authority) issue(now time.Time) (*tls.Certificate, error) {
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	notAfter := now.Add(serverLifetime)
	if end := a.certificate.NotAfter; end.Before(notAfter) {
		notAfter = end
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{Organization: []string{"Daypass"}, CommonName: "Daypass gateway"},
		NotBefore:    now.Add(-backdated),
		NotAfter:     notAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},

		BasicConstraintsValid: true,
	}
	for _, name := range a.names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	if err := store(a.dir, "server", der, key); err != nil {
		return nil, err
	}
	return a.pair(leaf, key), nil
}

// pair returns the server's certificate and key. The CA's certificate is not sent
// along, because clients have it.
func (a *Authority) pair(leaf *x509.Certificate, key crypto.Signer) *tls.Certificate {
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
}

// covers checks the names against the CA's constraints.
func (a *Authority) covers() error {
	for _, name := range a.names {
		if !covered(a.certificate, name) {
			return fmt.Errorf("%w: %s was made for %s, not for %q; move %s away to have a new one made, and give clients the new ca.crt",
				ErrNotCovered, a.CertificateFile(), strings.Join(permitted(a.certificate), ", "), name, a.dir)
		}
	}
	return nil
}

// subjects returns the names of the server certificate, sorted, each once.
func subjects(names []string) []string {
	all := []string{"localhost", "127.0.0.1", "::1"}
	for _, name := range names {
		name = strings.ToLower(strings.TrimSuffix(strings.TrimSpace(name), "."))
		if ip := net.ParseIP(strings.Trim(name, "[]")); ip != nil {
			if ip.IsUnspecified() {
				continue
			}
			name = ip.String()
		}
		if name != "" {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// domain returns the domain that a host adds to what a new CA may sign for. It is the parent
// domain, or the host itself if the parent may be a public suffix: example.co.uk adds itself and
// not co.uk.
func domain(host string) string {
	labels := strings.Split(host, ".")
	if n := len(labels); n >= 4 || n == 3 && len(labels[2]) > 2 {
		return strings.Join(labels[1:], ".")
	}
	return host
}

// constraints returns what a new CA may sign for: the siblings of a host with a domain,
// private networks as a whole, and any other address by itself.
func constraints(names []string) (domains []string, ranges []*net.IPNet) {
	add := func(cidr string) {
		_, network, err := net.ParseCIDR(cidr)
		if err != nil {
			panic("internal error: " + err.Error())
		}
		ranges = append(ranges, network)
	}
	add("127.0.0.0/8")
	add("::1/128")
	private := []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"}
	for _, name := range names {
		ip := net.ParseIP(name)
		if ip == nil {
			domains = append(domains, domain(name))
			continue
		}
		if ip.IsLoopback() {
			continue
		}
		whole := false
		for _, cidr := range private {
			if _, network, _ := net.ParseCIDR(cidr); network.Contains(ip) {
				add(cidr)
				whole = true
			}
		}
		if !whole && ip.To4() != nil {
			add(ip.String() + "/32")
		} else if !whole {
			add(ip.String() + "/128")
		}
	}
	slices.Sort(domains)
	return slices.Compact(domains), ranges
}

func covered(ca *x509.Certificate, name string) bool {
	if ip := net.ParseIP(name); ip != nil {
		return len(ca.PermittedIPRanges) == 0 ||
			slices.ContainsFunc(ca.PermittedIPRanges, func(n *net.IPNet) bool { return n.Contains(ip) })
	}
	return len(ca.PermittedDNSDomains) == 0 || slices.ContainsFunc(ca.PermittedDNSDomains, func(domain string) bool {
		return name == domain || strings.HasSuffix(name, "."+domain)
	})
}

func permitted(ca *x509.Certificate) []string {
	list := slices.Clone(ca.PermittedDNSDomains)
	for _, n := range ca.PermittedIPRanges {
		list = append(list, n.String())
	}
	return list
}

func serialNumber() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	return n.SetBit(n, 126, 1), nil
}

func load(certificateFile, keyFile string) (*x509.Certificate, crypto.Signer, error) {
	pair, err := tls.LoadX509KeyPair(certificateFile, keyFile)
	if err != nil {
		return nil, nil, err
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("%s cannot sign", keyFile)
	}
	return pair.Leaf, key, nil
}

// store writes name.key and name.crt, the key first.
func store(dir, name string, certificate []byte, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := write(filepath.Join(dir, name+".key"), 0o600, "PRIVATE KEY", der); err != nil {
		return err
	}
	return write(filepath.Join(dir, name+".crt"), 0o644, "CERTIFICATE", certificate)
}

// write replaces a PEM file whole: a crash leaves the old one or the new one.
func write(path string, mode fs.FileMode, kind string, der []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if err := pem.Encode(f, &pem.Block{Type: kind, Bytes: der}); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
