package pgwire

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"hash"
)

// EndPointBinding is tls-server-end-point (RFC 5929, section 4.1): the hash of the
// server's certificate by the hash of its signature, SHA-256 at least. It is nil
// where that is not defined, as for Ed25519.
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
