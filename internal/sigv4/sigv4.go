// Package sigv4 finds out who signed a request: AWS Signature Version 4,
// verification only, as the query services (redshift, sts, iam) do it
// (IAM User Guide, "AWS Signature Version 4 for API requests").
//
//	canonical request  method, path, query string, signed headers, SHA-256 of the body
//	string to sign     AWS4-HMAC-SHA256, time, date/region/service/aws4_request, SHA-256 of the above
//	signing key        HMAC chain over secret, date, region, service, "aws4_request"
//	signature          HMAC(signing key, string to sign), in hexadecimal
//
// The signature is in the Authorization header, or in the query string of a presigned URL, never in
// both. It counts only if
//
//   - host is signed, and so is every x-amz- header of the request, except the session
//     token, which needs no signature because it is sealed;
//   - the signed hash is that of the body: UNSIGNED-PAYLOAD and STREAMING-… are for S3;
//   - all parts of the credential scope are ours, and the time is near.
//
// Content-Type need not be signed: these services read every body as a form and
// refuse other types, so changing it gains nothing, and not every client signs it.
// Headers that a proxy adds (X-Forwarded-…) are ignored; Host must arrive as the client signed it.
//
// The package remembers only derived signing keys, in a bounded cache.
package sigv4

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// defaultMaxSkew is how far the clocks of client and server may differ, and so how long
// a signed request can be replayed.
const defaultMaxSkew = 15 * time.Minute

// Verifier verifies signatures. Its fields must not change once it is in use; it
// is safe for concurrent use and must not be copied.
type Verifier struct {
	// Region is the region that credential scopes have to name.
	Region string
	// Services are the services that credential scopes may name.
	Services []string
	// GlobalServices are the services for which a scope may name GlobalRegion too: SDKs
	// always sign iam that way, and sts for its global endpoint. Optional.
	GlobalServices []string
	GlobalRegion   string
	// MaxSkew is the distance allowed between a request's time and Now, either
	// way. Default: 15 minutes.
	MaxSkew time.Duration
	// Now is the clock. Default: time.Now.
	Now func() time.Time

	keys keyCache
	// keepPath leaves dot segments and double slashes in the path, as S3 does.
	// Only the public test vectors ask for it.
	keepPath bool
}

// Signature is a signature that was verified.
type Signature struct {
	AccessKeyID string
	// SessionToken is the session token of the request, "" for long-term keys. The
	// lookup verifies it.
	SessionToken string
	Region       string
	Service      string
	// Date is when the request says it was signed.
	Date time.Time
	// Presigned reports whether the signature is in the query string.
	Presigned bool
}

// Lookup returns the secret access key for an access key id and its session token (""
// if there is none). It returns ErrUnknownKey, ErrInvalidToken (also for a token with a
// long-term key) or ErrTokenExpired, which may be wrapped.
type Lookup = func(accessKeyID, sessionToken string) (secret string, err error)

// Verify returns the signature of r once it is verified. body is the whole body as it arrived;
// r.Body is not read. The error is an *Error around one of the sentinels (ErrUnsigned for an
// unsigned request), or wraps another error of the lookup.
//
// An unknown access key takes as long as a known one with a wrong signature.
func (v *Verifier) Verify(r *http.Request, body []byte, lookup Lookup) (Signature, error) {
	claim, err := Peek(r)
	if err != nil {
		return Signature{}, err
	}
	return v.VerifyClaim(claim, r, body, lookup)
}

// VerifyClaim is Verify with what Peek has returned for r, which has not changed since.
func (v *Verifier) VerifyClaim(claim Claim, r *http.Request, body []byte, lookup Lookup) (Signature, error) {
	a := claim.read
	var space [512]byte
	headers, err := checkHeaders(space[:0], r, a)
	if err != nil {
		return Signature{}, err
	}
	if err := v.checkTime(a); err != nil {
		return Signature{}, err
	}
	if err := v.checkScope(a); err != nil {
		return Signature{}, err
	}
	hash := sha256.Sum256(body)
	var payload payloadHash
	hex.Encode(payload[:], hash[:])
	if err := checkPayload(r, a, &payload); err != nil {
		return Signature{}, err
	}

	secret, lookupErr := lookup(a.accessKeyID, a.token)
	if lookupErr == nil && secret == "" {
		lookupErr = ErrUnknownKey // anyone could sign with an empty secret
	}
	if lookupErr != nil {
		secret = noSecret
	}
	key := v.keys.get(keyParts{secret, a.date, a.region, a.service})
	matches := v.matches(r, a, headers, &payload, key)
	switch {
	case lookupErr != nil:
		return Signature{}, refuseKey(lookupErr)
	case !matches:
		return Signature{}, refuse(ErrSignature, textSignature)
	}
	return Signature{
		AccessKeyID:  a.accessKeyID,
		SessionToken: a.token,
		Region:       a.region,
		Service:      a.service,
		Date:         a.time,
		Presigned:    a.presigned,
	}, nil
}

// payloadHash is the SHA-256 of the body, in hexadecimal.
type payloadHash [2 * sha256.Size]byte

// noSecret replaces the secret of an unknown access key. The result of verifying with
// it is ignored.
const noSecret = "no access key has this secret"

// matches computes the signature and compares.
//
// A client may add the session token to a presigned URL before or after signing (the test vectors
// have both), and the URL does not show which. So both forms are tried. That is safe even if the
// signature does not cover the token, because the secret access key was looked up with it.
func (v *Verifier) matches(r *http.Request, a *authorization, headers []byte, payload *payloadHash, key *signingKey) bool {
	if v.signedAs(r, a, headers, payload, key, true) {
		return true
	}
	return a.presigned && a.token != "" && v.signedAs(r, a, headers, payload, key, false)
}

func (v *Verifier) signedAs(r *http.Request, a *authorization, headers []byte, payload *payloadHash, key *signingKey, token bool) bool {
	var space [1024]byte
	request := v.appendCanonicalRequest(space[:0], r, a, headers, payload, token)
	mac := key.sign(func(b []byte) []byte { return appendStringToSign(b, a, request) })
	var want [2 * sha256.Size]byte
	hex.Encode(want[:], mac[:])
	return subtle.ConstantTimeCompare(want[:], []byte(a.signature)) == 1
}

// checkTime compares the request's time with ours, in whole seconds. The bounds are
// inclusive. A presigned URL with a lifetime may be older.
func (v *Verifier) checkTime(a *authorization) error {
	now := time.Now
	if v.Now != nil {
		now = v.Now
	}
	skew := v.MaxSkew
	if skew == 0 {
		skew = defaultMaxSkew
	}
	t := now().UTC().Truncate(time.Second)
	latest, earliest := t.Add(skew), t.Add(-skew)
	switch {
	case a.time.After(latest):
		return refuse(ErrNotYetCurrent, fmt.Sprintf("Signature not yet current: %s is still later than %s (%s + %v min.)",
			stamp(a.time), stamp(latest), stamp(t), skew.Minutes()))
	case a.expires > 0:
		if end := a.time.Add(time.Duration(a.expires) * time.Second); t.After(end) {
			return refuse(ErrExpired, fmt.Sprintf("Signature expired: %s (%s + %d sec.) is now earlier than %s",
				stamp(end), stamp(a.time), a.expires, stamp(t)))
		}
	case a.time.Before(earliest):
		return refuse(ErrExpired, fmt.Sprintf("Signature expired: %s is now earlier than %s (%s - %v min.)",
			stamp(a.time), stamp(earliest), stamp(t), skew.Minutes()))
	}
	return nil
}

func stamp(t time.Time) string { return t.Format(basicFormat) }

// checkScope requires a credential scope for this day, this region and one of our
// services, so that a signature for another service does not work here.
func (v *Verifier) checkScope(a *authorization) error {
	switch {
	case a.terminator != terminator:
		return refuse(ErrScopeTerminator, "Credential should be scoped with a valid terminator: '"+terminator+"'.")
	case a.date != a.timestamp[:len("20060102")]:
		return refuse(ErrScopeDate, "Date in Credential scope does not match the date of the request, "+a.timestamp+".")
	case !slices.Contains(v.Services, a.service):
		e := refuse(ErrScopeService, "Credential should be scoped to correct service: '"+strings.Join(v.Services, "', '")+"'.")
		return e.signedFor(a.service, "which is not a service of this endpoint")
	case a.region != v.Region && (a.region != v.GlobalRegion || !slices.Contains(v.GlobalServices, a.service)):
		e := refuse(ErrScopeRegion, "Credential should be scoped to a valid region: '"+v.Region+"'.")
		return e.signedFor(a.region, "which is not the region of this endpoint")
	}
	return nil
}

// Claim is the signature's claim, which may be false.
type Claim struct {
	AccessKeyID string
	Region      string
	Service     string
	Presigned   bool

	read *authorization
}

// Peek returns the claim of r without verifying it, to choose limits and the format of
// errors. Its errors are those of Verify for a missing signature or one that cannot be
// parsed.
func Peek(r *http.Request) (Claim, error) {
	a, err := readAuthorization(r)
	if err != nil {
		return Claim{}, err
	}
	return Claim{AccessKeyID: a.accessKeyID, Region: a.region, Service: a.service, Presigned: a.presigned, read: a}, nil
}
