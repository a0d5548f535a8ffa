package sigv4_test

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/sigv4"
)

// TestSessionToken: the session token that the lookup gets is the one of the request, signed or
// added after signing, and cannot be exchanged.
func TestSessionToken(t *testing.T) {
	s := signedNow
	s.token = token
	lookup := func(id, got string) (string, error) {
		if id != keyID || got != token {
			return "", sigv4.ErrInvalidToken
		}
		return secret, nil
	}
	for name, sign := range map[string]func(*testing.T, signing) (*http.Request, []byte){"header": post, "query": get} {
		r, body := sign(t, s)
		got, err := verifierAt(signedAt).Verify(r, body, lookup)
		if err != nil || got.SessionToken != token || got.AccessKeyID != keyID {
			t.Errorf("%s: Verify = %+v, %v", name, got, err)
		}
	}
	// The token that is used is the one that was signed.
	r, body := post(t, s)
	r.Header.Set("X-Amz-Security-Token", "another")
	_, err := verifierAt(signedAt).Verify(r, body, anyToken)
	wantRefused(t, err, sigv4.ErrSignature, mismatch, 403)
	r, body = post(t, s)
	r.Header.Del("X-Amz-Security-Token")
	_, err = verifierAt(signedAt).Verify(r, body, anyToken)
	wantRefused(t, err, sigv4.ErrHeaderAbsent, mismatch, 403)

	// Added after signing, it is used all the same.
	r, body = post(t, signedNow)
	r.Header.Set("X-Amz-Security-Token", token)
	if got, err := verifierAt(signedAt).Verify(r, body, lookup); err != nil || got.SessionToken != token {
		t.Errorf("added after signing: Verify = %+v, %v", got, err)
	}
	r, body = get(t, signedNow)
	r.URL.RawQuery += "&X-Amz-Security-Token=AQoDYXdzEPT%2F%2F%2F%2F%2F%2F%2F%2F%2F%2FwEXAMPLE%2Bt%3D%3D"
	if got, err := verifierAt(signedAt).Verify(r, body, lookup); err != nil || got.SessionToken != token {
		t.Errorf("added after presigning: Verify = %+v, %v", got, err)
	}
}

// TestDateHeader: without X-Amz-Date the time is that of the Date header, in either format.
func TestDateHeader(t *testing.T) {
	for name, value := range map[string]string{
		"HTTP format":  "Fri, 02 Jan 2026 03:04:05 GMT",
		"basic format": "20260102T030405Z",
	} {
		r, body := dated(t, value)
		got, err := verifierAt(signedAt).Verify(r, body, longTerm)
		if err != nil || !got.Date.Equal(signedAt) {
			t.Errorf("%s: Verify = %+v, %v", name, got, err)
		}
	}
	r, body := dated(t, "Fri, 02 Jan 2026 03:04:06 GMT")
	if _, err := verifierAt(signedAt).Verify(r, body, longTerm); !errors.Is(err, sigv4.ErrSignature) {
		t.Errorf("another second: Verify = %v", err)
	}
	r, body = dated(t, "yesterday")
	_, err := verifierAt(signedAt).Verify(r, body, longTerm)
	wantRefused(t, err, sigv4.ErrDate, incomplete, 400)
	r, body = dated(t, "20260102T030405Z")
	r.Header.Add("Date", "20260102T030405Z")
	_, err = verifierAt(signedAt).Verify(r, body, longTerm)
	wantRefused(t, err, sigv4.ErrDuplicate, incomplete, 400)
}

// dated returns a request whose only time is in the header Date. It is signed with the verifier's
// own functions.
func dated(t *testing.T, value string) (*http.Request, []byte) {
	const fake = "GET / HTTP/1.1\nHost: h\nDate: %s\nAuthorization: AWS4-HMAC-SHA256 " +
		"Credential=AKIDEXAMPLE/20260102/eu-central-1/redshift/aws4_request, SignedHeaders=host, Signature=%s\n"
	r, _ := parseRequest(t, fmt.Sprintf(fake, "20260102T030405Z", "0"))
	_, _, signature, err := verifierAt(signedAt).Steps(r, nil, secret, true)
	if err != nil {
		t.Fatal(err)
	}
	return parseRequest(t, fmt.Sprintf(fake, value, signature))
}

// TestLookupFailures: errors of the lookup become AWS's codes. Any other error is returned as it
// is, and an empty secret verifies nothing.
func TestLookupFailures(t *testing.T) {
	broken := errors.New("registry is away")
	for _, row := range []struct {
		answer error
		reason error
		code   string
	}{
		{sigv4.ErrUnknownKey, sigv4.ErrUnknownKey, "InvalidClientTokenId"},
		{fmt.Errorf("opening token: %w", sigv4.ErrInvalidToken), sigv4.ErrInvalidToken, "InvalidClientTokenId"},
		{fmt.Errorf("opening token: %w", sigv4.ErrTokenExpired), sigv4.ErrTokenExpired, "ExpiredToken"},
	} {
		r, body := post(t, signedNow)
		_, err := verifierAt(signedAt).Verify(r, body, func(string, string) (string, error) { return secret, row.answer })
		wantRefused(t, err, row.reason, row.code, 403)
		if err.Error() != row.answer.Error() {
			t.Errorf("Error() = %q, want %q", err, row.answer)
		}
	}
	r, body := post(t, signedNow)
	_, err := verifierAt(signedAt).Verify(r, body, func(string, string) (string, error) { return secret, broken })
	var refusal *sigv4.Error
	if !errors.Is(err, broken) || errors.As(err, &refusal) {
		t.Errorf("Verify = %v, want %v and no AWS code", err, broken)
	}

	// A lookup that returns neither a secret nor an error must not let anyone in.
	s := signedNow
	s.secret = ""
	r, body = post(t, s)
	_, err = verifierAt(signedAt).Verify(r, body, func(string, string) (string, error) { return "", nil })
	wantRefused(t, err, sigv4.ErrUnknownKey, "InvalidClientTokenId", 403)

	// A signature with the stand-in for an unknown key's secret is refused.
	s.secret = "no access key has this secret"
	r, body = post(t, s)
	_, err = verifierAt(signedAt).Verify(r, body, func(string, string) (string, error) { return "", sigv4.ErrUnknownKey })
	wantRefused(t, err, sigv4.ErrUnknownKey, "InvalidClientTokenId", 403)
}

// TestChangedSecret: the cache never answers for a secret that is not in force.
func TestChangedSecret(t *testing.T) {
	v := verifierAt(signedAt)
	current := secret
	lookup := func(string, string) (string, error) { return current, nil }
	r, body := post(t, signedNow)
	if _, err := v.Verify(r, body, lookup); err != nil {
		t.Fatal(err)
	}
	current = "changed"
	if _, err := v.Verify(r, body, lookup); !errors.Is(err, sigv4.ErrSignature) {
		t.Errorf("Verify with the old secret = %v, want %v", err, sigv4.ErrSignature)
	}
	s := signedNow
	s.secret = current
	r, body = post(t, s)
	if _, err := v.Verify(r, body, lookup); err != nil {
		t.Errorf("Verify with the new secret = %v", err)
	}
	if got := v.CachedKeys(); got != 2 {
		t.Errorf("%d keys cached, want 2", got)
	}
}

// TestCacheIsBounded fills the cache several times over, from concurrent callers.
func TestCacheIsBounded(t *testing.T) {
	v := verifierAt(signedAt)
	r, body := post(t, signedNow)
	var group sync.WaitGroup
	for worker := range 3 {
		group.Go(func() {
			for i := range sigv4.CacheGeneration {
				other := func(string, string) (string, error) { return fmt.Sprint(worker, " ", i), nil }
				if _, err := v.Verify(r, body, other); !errors.Is(err, sigv4.ErrSignature) {
					t.Errorf("Verify = %v", err)
				}
				if i%32 != 0 {
					continue
				}
				if _, err := v.Verify(r, body, longTerm); err != nil {
					t.Errorf("Verify = %v", err)
				}
			}
		})
	}
	group.Wait()
	if got := v.CachedKeys(); got > 2*sigv4.CacheGeneration || got < sigv4.CacheGeneration {
		t.Errorf("%d keys cached, want %d to %d", got, sigv4.CacheGeneration, 2*sigv4.CacheGeneration)
	}
	// Unknown keys share one entry: strangers cannot push others out.
	before := v.CachedKeys()
	for i := range 100 {
		v.Verify(r, body, func(string, string) (string, error) { return fmt.Sprint(i), sigv4.ErrUnknownKey })
	}
	if got := v.CachedKeys(); got > before+1 {
		t.Errorf("%d keys cached after unknown ones, want %d at most", got, before+1)
	}
}

// TestPeek: Peek returns the claim of a header or a query string, and the error of an unsigned
// request.
func TestPeek(t *testing.T) {
	r, _ := post(t, signedNow)
	want := sigv4.Claim{AccessKeyID: keyID, Region: "eu-central-1", Service: "redshift"}
	if got, err := sigv4.Peek(r); err != nil || got.Bare() != want {
		t.Errorf("Peek = %+v, %v, want %+v", got, err, want)
	}
	r, _ = get(t, signedNow)
	want.Presigned = true
	if got, err := sigv4.Peek(r); err != nil || got.Bare() != want {
		t.Errorf("Peek = %+v, %v, want %+v", got, err, want)
	}
	r = newRequest(t, "POST", target, "Action=AssumeRoleWithWebIdentity")
	if _, err := sigv4.Peek(r); !errors.Is(err, sigv4.ErrUnsigned) {
		t.Errorf("Peek of an unsigned request = %v, want %v", err, sigv4.ErrUnsigned)
	}
	_, err := verifierAt(signedAt).Verify(r, nil, longTerm)
	wantRefused(t, err, sigv4.ErrUnsigned, "MissingAuthenticationToken", 403)
}

// TestZeroVerifier: the optional fields have defaults, and a Verifier without services refuses
// every request.
func TestZeroVerifier(t *testing.T) {
	s := signedNow
	s.at = time.Now()
	r, body := post(t, s)
	v := &sigv4.Verifier{Region: s.region, Services: []string{s.service}}
	if _, err := v.Verify(r, body, longTerm); err != nil {
		t.Errorf("Verify by the system clock = %v", err)
	}
	if _, err := new(sigv4.Verifier).Verify(r, body, longTerm); !errors.Is(err, sigv4.ErrScopeService) {
		t.Errorf("Verify by the zero Verifier = %v, want %v", err, sigv4.ErrScopeService)
	}
}

func BenchmarkVerify(b *testing.B) {
	const body = "Action=GetClusterCredentials&Version=2012-12-01&DbUser=alice&DbName=dev&ClusterIdentifier=examplecluster" +
		"&DurationSeconds=900&AutoCreate=true&DbGroups.DbGroup.1=analysts&DbGroups.DbGroup.2=finance"
	run := func(name string, r *http.Request, body []byte, lookup sigv4.Lookup) {
		b.Run(name, func(b *testing.B) {
			v := verifierAt(signedAt)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(r, body, lookup); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	r := newRequest(b, "POST", target, body)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	r, sent := signHeader(b, r, body, signedNow)
	run("header", r, sent, longTerm)
	r, sent = presign(b, newRequest(b, "GET", target+"?"+body+"&X-Amz-Expires=60", ""), "", signedNow)
	run("presigned", r, sent, longTerm)
}

// TestVerifyInParallel: calls that verify at the same time share keyed hashes, and none of them
// gets the result of another.
func TestVerifyInParallel(t *testing.T) {
	v := verifierAt(signedAt)
	var group sync.WaitGroup
	for i := range 8 {
		r, body := post(t, signedNow)
		forged := i%2 == 1
		if forged {
			body = append(body, "&DbUser=root"...)
		}
		group.Go(func() {
			for range 200 {
				if _, err := v.Verify(r, body, longTerm); forged != errors.Is(err, sigv4.ErrSignature) || !forged && err != nil {
					t.Errorf("forged %v: Verify = %v", forged, err)
					return
				}
			}
		})
	}
	group.Wait()
}

// TestVerifyClaim: what Peek has read does not stand for a signature.
func TestVerifyClaim(t *testing.T) {
	v := verifierAt(signedAt)
	r, body := post(t, signedNow)
	claim, err := sigv4.Peek(r)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := v.VerifyClaim(claim, r, body, longTerm); err != nil || got.AccessKeyID != keyID {
		t.Errorf("VerifyClaim = %+v, %v", got, err)
	}
	_, err = v.VerifyClaim(claim, r, append(body, '&'), longTerm)
	wantRefused(t, err, sigv4.ErrSignature, mismatch, 403)
	r.Header.Set("X-Amz-Date", "20260102T030406Z")
	_, err = v.VerifyClaim(claim, r, body, longTerm)
	wantRefused(t, err, sigv4.ErrSignature, mismatch, 403)
	_, err = v.VerifyClaim(claim, r, body, func(string, string) (string, error) { return "", sigv4.ErrUnknownKey })
	wantRefused(t, err, sigv4.ErrUnknownKey, "InvalidClientTokenId", 403)
}
