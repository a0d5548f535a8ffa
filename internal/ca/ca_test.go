package ca_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/ca"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

func open(t *testing.T, dir string, now time.Time, names ...string) (*ca.Authority, *x509.Certificate) {
	t.Helper()
	a, err := ca.Open(dir, names, at(now))
	if err != nil {
		t.Fatalf("Open(%q) = %v", names, err)
	}
	certificate, err := a.GetCertificate(nil)
	if err != nil {
		t.Fatalf("GetCertificate() = %v", err)
	}
	return a, certificate.Leaf
}

func TestVerifies(t *testing.T) {
	a, leaf := open(t, t.TempDir(), start, "db.example.com", "10.1.2.3", "gateway", "0.0.0.0", "")
	for _, test := range []struct {
		name string
		want bool
	}{
		{"db.example.com", true}, {"localhost", true}, {"127.0.0.1", true}, {"::1", true}, {"10.1.2.3", true}, {"gateway", true},
		{"db2.example.com", false}, {"10.1.2.4", false}, {"0.0.0.0", false}, {"127.0.0.2", false},
	} {
		host := test.name
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		_, err := leaf.Verify(x509.VerifyOptions{Roots: a.Pool(), DNSName: host, CurrentTime: start})
		if got := err == nil; got != test.want {
			t.Errorf("verify-full against %q = %v, want %v", test.name, err, test.want)
		}
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: a.Pool(), CurrentTime: start, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err == nil {
		t.Error("the certificate is good for clients too")
	}
}

func TestKeeps(t *testing.T) {
	dir := t.TempDir()
	a, leaf := open(t, dir, start, "db.example.com")
	b, again := open(t, dir, start.Add(time.Hour), "DB.example.com.")
	if !b.Certificate().Equal(a.Certificate()) || !again.Equal(leaf) {
		t.Error("the second Open made new certificates")
	}
	for file, mode := range map[string]os.FileMode{"ca.key": 0o600, "server.key": 0o600, "ca.crt": 0o644, "server.crt": 0o644} {
		info, err := os.Stat(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != mode {
			t.Errorf("mode of %s = %v, want %v", file, info.Mode().Perm(), mode)
		}
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 4 {
		t.Errorf("%d files in the directory, want 4", len(entries))
	}
}

func TestNewNames(t *testing.T) {
	dir := t.TempDir()
	a, leaf := open(t, dir, start, "db.example.com")
	b, other := open(t, dir, start, "db2.example.com")
	if !b.Certificate().Equal(a.Certificate()) {
		t.Error("another name of the same domain made a new CA")
	}
	if other.Equal(leaf) || !slices.Contains(other.DNSNames, "db2.example.com") || slices.Contains(other.DNSNames, "db.example.com") {
		t.Errorf("names of the new certificate = %q", other.DNSNames)
	}
	dir = t.TempDir()
	open(t, dir, start, "example.co.uk")
	if _, err := ca.Open(dir, []string{"bank.co.uk"}, at(start)); !errors.Is(err, ca.ErrNotCovered) {
		t.Errorf("a CA made for example.co.uk signs for bank.co.uk: %v", err)
	}
	dir = t.TempDir()
	open(t, dir, start, "db.example.com")
	for _, name := range []string{"db.example.org", "example.net", "badexample.com", "10.0.0.1", "2001:db8::1"} {
		if _, err := ca.Open(dir, []string{name}, at(start)); !errors.Is(err, ca.ErrNotCovered) {
			t.Errorf("Open(%q) = %v, want ErrNotCovered", name, err)
		}
	}
}

func TestRenewal(t *testing.T) {
	dir := t.TempDir()
	now := start
	a, err := ca.Open(dir, nil, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	get := func() *x509.Certificate {
		t.Helper()
		certificate, err := a.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		return certificate.Leaf
	}
	first := get()
	now = start.Add(59 * 24 * time.Hour)
	if !get().Equal(first) {
		t.Error("renewed more than 30 days ahead")
	}
	now = start.Add(61 * 24 * time.Hour)
	second := get()
	if second.Equal(first) || second.NotAfter.Sub(now) < 89*24*time.Hour {
		t.Error("not renewed 29 days ahead")
	}

	// Where the directory cannot be written, a certificate is used to its end.
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	now = second.NotAfter.Add(-time.Hour)
	if !get().Equal(second) {
		t.Error("the certificate was not used to its end")
	}
	now = second.NotAfter
	if _, err := a.GetCertificate(nil); err == nil {
		t.Error("GetCertificate() = nil error with a certificate that is over")
	}
}

// A certificate never outlives the CA that signed it, and an expired CA is not replaced.
func TestEndOfCA(t *testing.T) {
	dir := t.TempDir()
	a, _ := open(t, dir, start)
	end := a.Certificate().NotAfter
	_, leaf := open(t, dir, end.Add(-time.Hour))
	if leaf.NotAfter.After(end) {
		t.Errorf("server certificate ends %v, its CA %v", leaf.NotAfter, end)
	}
	if _, err := ca.Open(dir, nil, at(end.Add(time.Second))); err == nil {
		t.Error("Open() = nil error with a CA that is over")
	}
}

func TestDamage(t *testing.T) {
	for _, test := range []struct {
		name   string
		damage func(dir string) error
		ok     bool
	}{
		{"no ca.key", func(dir string) error { return os.Remove(filepath.Join(dir, "ca.key")) }, false},
		{"only ca.key", func(dir string) error { return os.Remove(filepath.Join(dir, "ca.crt")) }, true}, // a crash while making it
		{"ca.crt cut", func(dir string) error { return os.Truncate(filepath.Join(dir, "ca.crt"), 100) }, false},
		{"ca.key of another", func(dir string) error {
			return os.Rename(filepath.Join(dir, "server.key"), filepath.Join(dir, "ca.key"))
		}, false},
		{"ca.crt is no CA", func(dir string) error {
			return errors.Join(os.Rename(filepath.Join(dir, "server.key"), filepath.Join(dir, "ca.key")),
				os.Rename(filepath.Join(dir, "server.crt"), filepath.Join(dir, "ca.crt")))
		}, false},
		{"server.crt cut", func(dir string) error { return os.Truncate(filepath.Join(dir, "server.crt"), 100) }, true},
		{"no server.key", func(dir string) error { return os.Remove(filepath.Join(dir, "server.key")) }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			open(t, dir, start)
			if err := test.damage(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := ca.Open(dir, nil, at(start)); (err == nil) != test.ok {
				t.Errorf("Open() = %v, want ok %v", err, test.ok)
			}
		})
	}
}

// TestForeignName signs, with the CA's key, for a name it was not made for.
func TestForeignName(t *testing.T) {
	dir := t.TempDir()
	a, _ := open(t, dir, start, "db.example.com")
	pair, err := tls.LoadX509KeyPair(a.CertificateFile(), filepath.Join(dir, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	forged, err := ca.Sign(pair, "bank.example.org", start)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := forged.Verify(x509.VerifyOptions{Roots: a.Pool(), DNSName: "bank.example.org", CurrentTime: start}); err == nil {
		t.Error("a certificate for a foreign name was accepted")
	}
}

// TestOpenSSL has another implementation look at the chain.
func TestOpenSSL(t *testing.T) {
	program, err := exec.LookPath("openssl")
	if err != nil {
		t.Log("openssl is not here; the chain was checked by crypto/x509 only")
		return
	}
	dir := t.TempDir()
	a, err := ca.Open(dir, []string{"db.example.com", "10.1.2.3"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, flag := range [][]string{{"-verify_hostname", "db.example.com"}, {"-verify_ip", "10.1.2.3"}, {"-verify_ip", "::1"}} {
		args := append([]string{"verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", a.CertificateFile()}, flag...)
		out, err := exec.Command(program, append(args, filepath.Join(dir, "server.crt"))...).CombinedOutput()
		if err != nil {
			t.Errorf("openssl %v = %v\n%s", args, err, out)
		}
	}
}
