package pgtest

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// Hand makes the server write a file to its data directory, so that the file belongs to its
// account.
func (s *Server) Hand(t testing.TB, name string, data []byte) {
	t.Helper()
	s.Exec(t, "postgres", "COPY (SELECT unnest(string_to_array('"+strings.TrimSpace(string(data))+"', E'\\n'))) TO PROGRAM 'umask 077; cat > "+name+"'")
}

// SecureWith turns on TLS in a server that only this test uses (StartAlone), with a certificate and
// its key in PEM.
func (s *Server) SecureWith(t testing.TB, certificate, key []byte) {
	t.Helper()
	s.Hand(t, "server.crt", certificate)
	s.Hand(t, "server.key", key)
	s.Exec(t, "postgres", "ALTER SYSTEM SET ssl = on")
	s.Reload(t)
}

// SetHBA sets the authentication method for TCP connections of the users, "all" by default, in a
// server that only this test uses (StartAlone). Everyone else needs a password with SCRAM.
func (s *Server) SetHBA(t testing.TB, method string, users ...string) {
	t.Helper()
	conn := Connect(t, s.Superuser("postgres"))
	var file string
	if err := conn.QueryRow(t.Context(), "SHOW hba_file").Scan(&file); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(users) == 0 {
		users = []string{"all"}
	}
	lines := "local all all scram-sha-256\nhost all " + strings.Join(users, ",") + " all " + method + "\nhost all all all scram-sha-256\n"
	// Overwrite the file, so that its owner stays the same.
	if err := os.WriteFile(file, []byte(lines), info.Mode()); err != nil {
		t.Fatal(err)
	}
	s.Reload(t)
}

// Reload makes the server read its configuration again, and returns when it has.
func (s *Server) Reload(t testing.TB) {
	t.Helper()
	const reloaded = "reloading configuration files"
	before := strings.Count(s.Log(t), reloaded)
	s.Exec(t, "postgres", "SELECT pg_reload_conf()")
	for end := time.Now().Add(30 * time.Second); strings.Count(s.Log(t), reloaded) == before; {
		if time.Now().After(end) {
			t.Fatal("the server did not read its configuration again")
		}
		time.Sleep(2 * time.Millisecond)
	}
	// The log line comes first. Once the server accepts another connection, all its processes
	// have been notified.
	s.Exec(t, "postgres", "SELECT 1")
}

// Certificate makes a self-signed certificate for the loopback address, and returns it and its key
// in PEM. algorithm may be 0, for the usual algorithm of the key.
func Certificate(t testing.TB, key crypto.Signer, algorithm x509.SignatureAlgorithm) (certificate, keyPEM []byte) {
	t.Helper()
	return CertificateFor(t, key, algorithm, time.Now().Add(-time.Hour), time.Now().Add(time.Hour), net.IPv4(127, 0, 0, 1))
}

// CertificateFor is Certificate with another validity, and for another address.
func CertificateFor(t testing.TB, key crypto.Signer, algorithm x509.SignatureAlgorithm, from, until time.Time, address net.IP) (certificate, keyPEM []byte) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "database"}, SignatureAlgorithm: algorithm,
		NotBefore: from, NotAfter: until,
		IPAddresses: []net.IP{address}, DNSNames: []string{"localhost"},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

// Ed25519Certificate makes a Certificate with a signature for which TLS channel binding is not
// defined.
func Ed25519Certificate(t testing.TB) (certificate, key []byte) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return Certificate(t, private, 0)
}
