package pgwire

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"hash"
)

// EndPointBinding returns tls-server-end-point (RFC 5929, section 4.1): the hash of the
// server's certificate. The hash function is the one of the certificate's signature, or
// SHA-256 if that is MD5 or SHA-1. The result is nil if the RFC defines none, as for Ed25519.
func EndPointBinding(certificate *x509.Certificate) []byte {
	var h hash.Hash
	switch certificate.SignatureAlgorithm {
	case x509.MD5WithRSA, x509.SHA1WithRSA, x509.ECDSAWithSHA1,
		x509.SHA256WithRSA, x509.SHA256WithRSAPSS, x509.ECDSAWithSHA256:
		h = sha256.New()
	case x509.SHA384WithRSA, x509.SHA384WithRSAPSS, x509.ECDSAWithSHA384:
		h = sha512.New384()
	case x509.SHA512WithRSA, x509.SHA512WithRSAPSS, x509.ECDSAWithSHA512:
		h = sha512.New()
	default:
		return nil
	}
	h.Write(certificate.Raw)
	return h.Sum(nil)
}
