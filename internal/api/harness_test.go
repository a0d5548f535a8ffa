package api_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/redshift"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/daypass/daypass/internal/api"
	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/iam"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/test/envtest"
)

func TestMain(m *testing.M) {
	envtest.Clear()
	m.Run()
}

const (
	account = "123456789012"
	region  = "us-east-1"
	secret  = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY" // of every user in these tests
)

// start is the time of every test: a fraction of a second after a whole one.
var start = time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)

// server is a Handler with everything around it that a test looks at.
type server struct {
	t       testing.TB
	url     string
	keyring *keyring.Keyring

	mu        sync.Mutex
	directory *directory.Directory
	now       time.Time
	proxies   []netip.Prefix
	lines     []audit.CallRecord
	broken    error // the error that the audit log returns
	silent    bool  // lines are not kept
}

// Call records the line; it makes server an api.Recorder.
func (s *server) Call(r *audit.CallRecord) (size int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	size = r.Size()
	if s.broken != nil {
		return size, s.broken
	}
	if !s.silent {
		s.lines = append(s.lines, *r)
	}
	return size, nil
}

// lastLine is the newest audit record.
func (s *server) lastLine() audit.CallRecord {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.lines) == 0 {
		s.t.Fatal("no audit line was written")
	}
	return s.lines[len(s.lines)-1]
}

func newServer(t testing.TB, spec directory.Spec) *server {
	t.Helper()
	s := &server{t: t, keyring: newKeyring(), directory: build(t, spec), now: start}
	h := httptest.NewServer(api.New(s.config()))
	t.Cleanup(h.Close)
	s.url = h.URL
	return s
}

func newKeyring() *keyring.Keyring { return keyring.New(start.Add(-time.Hour)) }

func (s *server) config() api.Config {
	return api.Config{
		Directory:      func() *directory.Directory { return s.directory },
		Keyring:        func() *keyring.Keyring { return s.keyring },
		Audit:          s,
		TrustedProxies: func() []netip.Prefix { return s.proxies },
		Now:            s.clock,
	}
}

func build(t testing.TB, spec directory.Spec) *directory.Directory {
	t.Helper()
	spec.Account, spec.Region = account, region
	d, err := directory.New(spec)
	if err != nil {
		t.Fatalf("directory.New: %v", err)
	}
	return d
}

// example is a configuration with three users: root may do everything, ana may get
// credentials as ana and join analysts, and bob may do nothing.
func example(t testing.TB) directory.Spec {
	return directory.Spec{
		Users: []directory.UserSpec{
			user("root", policy(t, "everything", `{"Effect":"Allow","Action":"*","Resource":"*"}`)),
			user("ana",
				policy(t, "own", `
				{"Sid":"Own","Effect":"Allow","Action":"redshift:GetClusterCredentials","Resource":[
					"arn:aws:redshift:us-east-1:123456789012:dbuser:examplecluster/${aws:username}",
					"arn:aws:redshift:us-east-1:123456789012:dbname:examplecluster/dev"]},
				{"Sid":"Create","Effect":"Allow","Action":"redshift:CreateClusterUser",
					"Resource":"arn:aws:redshift:us-east-1:123456789012:dbuser:examplecluster/${aws:username}"}`),
				policy(t, "analysts", `{"Effect":"Allow","Action":"redshift:JoinGroup",
					"Resource":"arn:aws:redshift:us-east-1:123456789012:dbgroup:examplecluster/analysts"}`)),
			user("bob"),
		},
		Clusters: []directory.Cluster{
			{Identifier: "examplecluster", Database: "dev", Host: "127.0.0.1", Port: 5439,
				CustomDomains: []string{"warehouse.example.com"}, Tags: map[string]string{"env": "test", "team": "data"}},
			{Identifier: "Other", Database: "app", Host: "other.example.com", Port: 5439},
		},
	}
}

func user(name string, policies ...*iam.Policy) directory.UserSpec {
	return directory.UserSpec{
		Name:       name,
		AccessKeys: []directory.AccessKey{{ID: keyOf(name), Secret: secret}},
		Tags:       map[string]string{"team": "data"},
		Inline:     policies,
	}
}

// keyOf is the access key id of a test user.
func keyOf(user string) string {
	return "AKIA" + strings.ToUpper(user) + strings.Repeat("0", 16-len(user))
}

func policy(t testing.TB, name, statements string) *iam.Policy {
	t.Helper()
	p, err := iam.ParsePolicy(iam.IdentityPolicy, name, []byte(`{"Version":"2012-10-17","Statement":[`+statements+`]}`))
	if err != nil {
		t.Fatalf("iam.ParsePolicy: %v", err)
	}
	return p
}

// clock returns the server's time. If now is zero it is the real time, because the official SDKs
// sign with that.
func (s *server) clock() time.Time {
	if s.now.IsZero() {
		return time.Now()
	}
	return s.now
}

func (s *server) setRealTime() { s.now = time.Time{} }

// redshift is the official SDK's client, as a user of this test's server.
func (s *server) redshift(user string) *redshift.Client {
	s.now = time.Time{}
	return redshift.New(redshift.Options{
		Region: region, BaseEndpoint: &s.url, Retryer: aws.NopRetryer{}, HTTPClient: wholeBody{},
		Credentials: credentials.NewStaticCredentialsProvider(keyOf(user), secret, ""),
	})
}

func (s *server) sts(user string) *sts.Client {
	s.now = time.Time{}
	return sts.New(sts.Options{
		Region: region, BaseEndpoint: &s.url, Retryer: aws.NopRetryer{}, HTTPClient: wholeBody{},
		Credentials: credentials.NewStaticCredentialsProvider(keyOf(user), secret, ""),
	})
}

// wholeBody reads an answer to its end before the SDK sees it. smithy-go 1.28 closes the
// request's body as soon as the answer begins. If net/http's writer has not seen the end of
// the body by then, net/http closes the connection, and the rest of a long answer is lost.
// This happens only if the server is as near as this one.
type wholeBody struct{}

func (wholeBody) Do(r *http.Request) (*http.Response, error) {
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	response.Body = io.NopCloser(bytes.NewReader(body))
	return response, err
}

// answer is a response with its body read.
type answer struct {
	status int
	header http.Header
	body   string
}

// fault is the error in an answer.
type fault struct {
	XMLName   xml.Name `xml:"ErrorResponse"`
	Type      string   `xml:"Error>Type"`
	Code      string   `xml:"Error>Code"`
	Message   string   `xml:"Error>Message"`
	RequestID string   `xml:"RequestId"`
}

func (a answer) fault(t testing.TB) fault {
	t.Helper()
	var f fault
	if err := xml.Unmarshal([]byte(a.body), &f); err != nil {
		t.Fatalf("status %d: the body is not an ErrorResponse: %v\n%s", a.status, err, a.body)
	}
	return f
}

// redshiftCall signs and sends a call of the redshift service; form lists names
// and values.
func (s *server) redshiftCall(user string, form ...string) answer {
	s.t.Helper()
	return s.do(s.signed(user, "redshift", "POST", query("2012-12-01", form...)))
}

func query(version string, form ...string) string {
	values := url.Values{"Version": {version}}
	for i := 0; i < len(form); i += 2 {
		values.Add(form[i], form[i+1])
	}
	return values.Encode()
}

func (s *server) signed(user, service, method, query string) *http.Request {
	s.t.Helper()
	return s.signedWith(aws.Credentials{AccessKeyID: keyOf(user), SecretAccessKey: secret}, service, method, query)
}

func (s *server) signedWith(keys aws.Credentials, service, method, query string) *http.Request {
	s.t.Helper()
	r := s.request(method, query)
	body := query
	if method == "GET" {
		body = ""
	}
	sum := sha256.Sum256([]byte(body))
	err := v4.NewSigner().SignHTTP(context.Background(), keys, r, hex.EncodeToString(sum[:]), service, region, s.clock())
	if err != nil {
		s.t.Fatalf("signing: %v", err)
	}
	return r
}

// request returns an unsigned request.
func (s *server) request(method, query string) *http.Request {
	s.t.Helper()
	target, body := s.url+"/", query
	if method == "GET" {
		target, body = target+"?"+query, ""
	}
	r, err := http.NewRequest(method, target, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if method == "POST" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	}
	return r
}

func (s *server) do(r *http.Request) answer {
	s.t.Helper()
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error {
		return errors.New("the API redirects")
	}}
	response, err := client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	var body bytes.Buffer
	if _, err := io.Copy(&body, response.Body); err != nil {
		s.t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, body.String()}
}
