package sigv4_test

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/sigv4"
)

// FuzzAuthorization reads any Authorization header and query string. Only the holder of the
// secret is accepted, every refusal has a code, Peek agrees with Verify, and the canonical query
// does not depend on how the query was written.
func FuzzAuthorization(f *testing.F) {
	const valid = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/eu-central-1/redshift/aws4_request, " +
		"SignedHeaders=host;x-amz-date, Signature=0000000000000000000000000000000000000000000000000000000000000000"
	f.Add(valid, "")
	f.Add("", "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20260102%2Feu-central-1%2Fredshift%2Faws4_request"+
		"&X-Amz-Date=20260102T030405Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Security-Token=t&X-Amz-Signature=00")
	f.Fuzz(func(t *testing.T, header, query string) {
		r := &http.Request{Method: "GET", Host: "h", RequestURI: "/", URL: &url.URL{Path: "/", RawQuery: query},
			Header: http.Header{"X-Amz-Date": {"20260102T030405Z"}}}
		if header != "" {
			r.Header["Authorization"] = []string{header}
		} else {
			delete(r.Header, "X-Amz-Date")
		}
		v := verifierAt(signedAt)
		_, err := v.Verify(r, nil, anyToken)
		var refusal *sigv4.Error
		switch {
		case err == nil:
			t.Fatal("Verify accepts what nobody signed")
		case !errors.As(err, &refusal) || refusal.Code == "" || refusal.Status < 400 || refusal.Message == "":
			t.Fatalf("Verify = %#v", err)
		case refusal.Status == http.StatusBadRequest && len(refusal.Message) > 300:
			t.Fatalf("message of %d bytes", len(refusal.Message))
		}
		claim, peeked := sigv4.Peek(r)
		if errors.Is(err, sigv4.ErrSignature) && (peeked != nil || claim.AccessKeyID != keyID) {
			t.Fatalf("Peek = %+v, %v where only the signature was wrong", claim, peeked)
		}
		request, _, signature, err := v.Steps(r, nil, secret, true)
		if err != nil {
			return
		}
		// With a valid signature it is accepted, or refused for its content, and its canonical
		// query does not change when it is canonicalized again.
		if !claim.Presigned {
			r.Header["Authorization"] = []string{replaceSignature(header, signature)}
			if _, err := v.Verify(r, nil, anyToken); errors.Is(err, sigv4.ErrSignature) {
				t.Fatalf("Verify = %v with the signature it computes itself", err)
			}
			canonical := strings.Split(request, "\n")[2]
			r.URL.RawQuery = canonical
			if again, _, _, err := v.Steps(r, nil, secret, true); err != nil || strings.Split(again, "\n")[2] != canonical {
				t.Fatalf("canonical query %q of itself is %q (%v)", canonical, again, err)
			}
		}
	})
}

// replaceSignature puts a signature into a header that has exactly one.
func replaceSignature(header, signature string) string {
	before, after, _ := strings.Cut(header, "Signature=")
	if comma := strings.IndexByte(after, ','); comma >= 0 {
		return before + "Signature=" + signature + after[comma:]
	}
	return before + "Signature=" + signature
}
