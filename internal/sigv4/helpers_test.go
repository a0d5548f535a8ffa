package sigv4_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/sigv4"
)

const (
	keyID  = "AKIDEXAMPLE"
	secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
	token  = "AQoDYXdzEPT//////////wEXAMPLE+t=="
)

// signedAt is when requests in these tests are signed, unless they say otherwise.
var signedAt = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func verifierAt(now time.Time) *sigv4.Verifier {
	return &sigv4.Verifier{
		Region:         "eu-central-1",
		Services:       []string{"redshift", "sts", "iam"},
		GlobalServices: []string{"sts", "iam"},
		GlobalRegion:   "us-east-1",
		Now:            func() time.Time { return now },
	}
}

// anyToken is the lookup of an installation with one access key, which may have
// come with any session token or none.
func anyToken(id, _ string) (string, error) {
	if id != keyID {
		return "", sigv4.ErrUnknownKey
	}
	return secret, nil
}

// received is a client's request as a server gets it.
func received(t testing.TB, r *http.Request) (*http.Request, []byte) {
	t.Helper()
	var wire bytes.Buffer
	if err := r.Write(&wire); err != nil {
		t.Fatal(err)
	}
	return readRequest(t, wire.Bytes())
}

// readRequest reads a request off the wire with net/http.
func readRequest(t testing.TB, wire []byte) (*http.Request, []byte) {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(wire)))
	if err != nil {
		t.Fatalf("reading %q: %v", wire, err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r, body
}

// parseRequest reads the text form of the test vectors and of captured requests,
// with LF line ends. It takes targets that net/http refuses, and passes headers
// the way net/http does: folded lines joined by a space, Host apart.
func parseRequest(t testing.TB, text string) (*http.Request, []byte) {
	t.Helper()
	head, body, _ := strings.Cut(text, "\n\n")
	lines := strings.Split(strings.TrimRight(head, "\n"), "\n")
	method, rest, _ := strings.Cut(lines[0], " ")
	target := strings.TrimSuffix(rest, " HTTP/1.1")
	path, query, _ := strings.Cut(target, "?")
	r := &http.Request{
		Method:        method,
		RequestURI:    target,
		URL:           &url.URL{Path: path, RawQuery: query},
		Header:        http.Header{},
		ContentLength: int64(len(body)),
	}
	var name string
	for _, line := range lines[1:] {
		if strings.HasPrefix(line, " ") {
			values := r.Header[name]
			values[len(values)-1] += " " + strings.TrimSpace(line)
			continue
		}
		key, value, _ := strings.Cut(line, ":")
		name = http.CanonicalHeaderKey(key)
		if name == "Host" {
			r.Host = strings.TrimSpace(value)
			continue
		}
		r.Header.Add(name, strings.TrimSpace(value))
	}
	return r, []byte(body)
}

// wantRefused checks the sentinel and the answer of a refusal.
func wantRefused(t *testing.T, err error, reason error, code string, status int) {
	t.Helper()
	var refusal *sigv4.Error
	switch {
	case !errors.Is(err, reason):
		t.Errorf("Verify = %v, want %v", err, reason)
	case !errors.As(err, &refusal):
		t.Errorf("Verify = %T, want *Error", err)
	case refusal.Code != code || refusal.Status != status:
		t.Errorf("Verify = %s (%d), want %s (%d)", refusal.Code, refusal.Status, code, status)
	case refusal.Message == "":
		t.Error("Verify has no message")
	}
}
