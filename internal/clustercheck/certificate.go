package clustercheck

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"
)

// notice is how long before something expires it is a Warning.
const notice = 14 * 24 * time.Hour

// certificate explains why the certificate of the server is not accepted. fault is of
// adminconn.CertificateFault.
func (k *checker) certificate(fault error) {
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](fault); ok && invalid.Reason == x509.Expired && invalid.Cert != nil {
		k.add(Broken, "certificate", "the certificate of %q, which the server at %s shows or was signed by, expired on %s, or this machine's clock is wrong: "+
			"replace it there (ssl_cert_file), and reload PostgreSQL", invalid.Cert.Subject, k.report.Address, invalid.Cert.NotAfter.UTC().Format(time.RFC3339))
		return
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](fault); ok {
		k.add(Broken, "certificate", "the server at %s shows a certificate that no authority in sslrootcert has signed: if its authority was replaced, "+
			"write the new one into that file, beside the old one until every host has a new certificate; it is read within seconds", k.report.Address)
		return
	}
	k.add(Broken, "certificate", "the certificate of the server at %s is not accepted: %v", k.report.Address, fault)
}

// certificateExpires warns before the certificate of the server expires. Nothing else does: it is
// not ours.
func (k *checker) certificateExpires(now time.Time) {
	conn, ok := k.c.PgConn().Conn().(*tls.Conn)
	if !ok || len(conn.ConnectionState().PeerCertificates) == 0 {
		return
	}
	leaf := conn.ConnectionState().PeerCertificates[0]
	if leaf.NotAfter.Sub(now) < min(notice, leaf.NotAfter.Sub(leaf.NotBefore)/5) {
		k.add(Warning, "certificate-expires", "the certificate of the server expires on %s: replace it there (ssl_cert_file), and reload PostgreSQL",
			leaf.NotAfter.UTC().Format(time.RFC3339))
	}
}
