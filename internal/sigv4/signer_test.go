package sigv4_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/daypass/daypass/internal/sigv4"
)

func hashOf(body string) string {
	sum := sha256.Sum256([]byte(body))
	return hex.EncodeToString(sum[:])
}

// signing is the parameters with which the official SDK's signer signs a request.
type signing struct {
	secret, token, region, service string
	at                             time.Time
	payload                        string // "": the body's hash
}

func (s signing) credentials() aws.Credentials {
	return aws.Credentials{AccessKeyID: keyID, SecretAccessKey: s.secret, SessionToken: s.token}
}

var signedNow = signing{secret: secret, region: "eu-central-1", service: "redshift", at: signedAt}

func newRequest(t testing.TB, method, target, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// signHeader signs as all SDKs do by default and returns what a server gets.
func signHeader(t testing.TB, r *http.Request, body string, s signing) (*http.Request, []byte) {
	t.Helper()
	if s.payload == "" {
		s.payload = hashOf(body)
	}
	if err := v4.NewSigner().SignHTTP(t.Context(), s.credentials(), r, s.payload, s.service, s.region, s.at); err != nil {
		t.Fatal(err)
	}
	return received(t, r)
}

// presign makes a presigned URL and returns what a server gets when it is used.
func presign(t testing.TB, r *http.Request, body string, s signing) (*http.Request, []byte) {
	t.Helper()
	if s.payload == "" {
		s.payload = hashOf(body)
	}
	signed, headers, err := v4.NewSigner().PresignHTTP(t.Context(), s.credentials(), r, s.payload, s.service, s.region, s.at)
	if err != nil {
		t.Fatal(err)
	}
	used := newRequest(t, r.Method, signed, body)
	for name, values := range headers {
		if name != "Host" && name != "Content-Length" {
			used.Header[name] = values
		}
	}
	return received(t, used)
}

// TestOfficialSigner verifies random requests that the official SDK signed. It leaves out the
// cases in which the SDK's canonical form differs from the specification: dot segments, which
// the SDK keeps, and names that sort differently before and after encoding.
func TestOfficialSigner(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(from string, most int) string {
		runes := []rune(from)
		b := make([]rune, random.IntN(most+1))
		for i := range b {
			b[i] = runes[random.IntN(len(runes))]
		}
		return string(b)
	}
	const plain = "abcXYZ019-_.~"
	const text = plain + " +&=%/?:@!$'()*,;<>[]\"\\äé€𝄞"
	for i := range 1000 {
		s := signing{
			secret:  "s" + pick(text, 40),
			region:  "r" + pick("abc-1", 12),
			service: "v" + pick("abc-1", 8),
			at:      time.Unix(1_500_000_000+random.Int64N(1_000_000_000), 0),
		}
		if random.IntN(2) == 0 {
			s.token = pick("ABCabc019+/=", 200)
		}
		query := url.Values{}
		for range random.IntN(8) {
			name := "n" + pick(plain, 6)
			for range 1 + random.IntN(2) {
				query.Add(name, pick(text, 12))
			}
		}
		target := "http://db.example.com"
		if random.IntN(2) == 0 {
			target += ":8440"
		}
		target += "/"
		for j := range random.IntN(3) {
			if j > 0 {
				target += "/"
			}
			target += url.PathEscape("p" + pick(text, 8))
		}
		if len(query) > 0 {
			target += "?" + query.Encode() // spaces are "+" on the wire
		}
		method, body := "GET", ""
		if random.IntN(2) == 0 {
			method, body = "POST", "b"+pick(text, 100)
		}
		r := newRequest(t, method, target, body)
		if method == "POST" {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
		}
		for range random.IntN(4) {
			r.Header.Add("My-"+pick("abc", 3)+"h", strings.TrimSpace(pick("abc  ,\"", 10)))
		}
		wire, sign := "header", signHeader
		if random.IntN(2) == 0 {
			wire, sign = "query", presign
		} else if random.IntN(2) == 0 {
			r.Header.Set("X-Amz-Content-Sha256", hashOf(body))
		}
		got, gotBody := sign(t, r, body, s)
		v := &sigv4.Verifier{Region: s.region, Services: []string{"other", s.service}, Now: func() time.Time { return s.at }}
		lookup := func(id, token string) (string, error) {
			if id != keyID || token != s.token {
				return "", sigv4.ErrUnknownKey
			}
			return s.secret, nil
		}
		signature, err := v.Verify(got, gotBody, lookup)
		if err != nil {
			canonical, _, _, _ := v.Steps(got, gotBody, s.secret, true)
			t.Fatalf("request %d, %s: Verify = %v; canonical request:\n%s", i, wire, err, canonical)
		}
		if signature.SessionToken != s.token || signature.Presigned != (wire == "query") {
			t.Fatalf("request %d, %s: Verify = %+v", i, wire, signature)
		}
	}
}

// TestCanonicalForms has forms that the random requests do not have: a target as on the wire, and
// the path and the query that the specification requires in the canonical request.
func TestCanonicalForms(t *testing.T) {
	for _, row := range []struct{ target, path, query string }{
		{"/", "/", ""},
		{"/?", "/", ""},
		{"/a/./b/../c", "/a/c", ""},
		{"/a/b/..", "/a", ""},
		{"/a/b/../", "/a/", ""},
		{"/../../a", "/a", ""},
		{"//a///b//", "/a/b/", ""},
		{"/%2e%2e/a", "/%252e%252e/a", ""}, // an encoded dot is no dot segment
		{"/a%20b", "/a%2520b", ""},
		{"/a+b", "/a%2Bb", ""},
		{"http://example.com/a?b=c", "/a", "b=c"},
		{"http://example.com?b=c", "/", "b=c"},
		{"/?b&a", "/", "a=&b="},
		{"/?a=1&&b=2&", "/", "a=1&b=2"},
		{"/?a=b=c", "/", "a=b%3Dc"},
		{"/?a=+%20%2B", "/", "a=%20%20%2B"},
		{"/?a=2&a=10&a=", "/", "a=&a=10&a=2"},
		{"/?b=1&%61=1", "/", "a=1&b=1"},
		{"/?a-b=1&a=1&aB=1&A=1", "/", "A=1&a=1&a-b=1&aB=1"},
		{"/?~=1&%C3%A9=1&%5B=1&Z=1", "/", "%5B=1&%C3%A9=1&Z=1&~=1"}, // sorted after encoding
		{"/?a=%c3%a9", "/", "a=%C3%A9"},
		{"/?a=\xff&b=%ff", "/", "a=%FF&b=%FF"},
		{"/?=1", "/", "=1"},
	} {
		r, _ := parseRequest(t, "GET "+row.target+" HTTP/1.1\nHost: example.com\nX-Amz-Date: 20260102T030405Z\n"+
			"Authorization: AWS4-HMAC-SHA256 Credential=a/20260102/r/s/aws4_request, SignedHeaders=host;x-amz-date, Signature=0\n")
		canonical, _, _, err := verifierAt(signedAt).Steps(r, nil, secret, true)
		if err != nil {
			t.Errorf("%s: %v", row.target, err)
			continue
		}
		if want := fmt.Sprintf("GET\n%s\n%s\nhost:example.com\n", row.path, row.query); !strings.HasPrefix(canonical, want) {
			t.Errorf("%s: canonical request =\n%s\nwant\n%s", row.target, canonical, want)
		}
	}
}
