package api_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/redshift"
	"github.com/aws/smithy-go"

	"github.com/daypass/daypass/internal/api"
	"github.com/daypass/daypass/internal/throttle"
)

// retried is a server that counts requests. Its answers have the server's time as Date, as those
// of a server whose machine has that time.
type retried struct {
	*server
	handler *api.Handler
	count   atomic.Int32
}

const attempts = 3

func newRetried(t *testing.T, now time.Time) *retried {
	t.Helper()
	r := &retried{server: &server{t: t, keyring: newKeyring(), directory: build(t, example(t)), now: now}}
	r.handler = api.New(r.config())
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		r.count.Add(1)
		w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
		r.handler.ServeHTTP(w, request)
	}))
	t.Cleanup(h.Close)
	r.url = h.URL
	return r
}

// client is the official SDK with its own retries, but for the pauses between them.
func (r *retried) client(user string) *redshift.Client {
	return redshift.New(redshift.Options{
		Region: region, BaseEndpoint: &r.url, HTTPClient: wholeBody{},
		Credentials: credentials.NewStaticCredentialsProvider(keyOf(user), secret, ""),
		Retryer: retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts = attempts
			o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
		}),
	})
}

func call(c *redshift.Client, cluster string) error {
	_, err := c.GetClusterCredentials(context.Background(), &redshift.GetClusterCredentialsInput{DbUser: aws.String("ana"), ClusterIdentifier: &cluster})
	return err
}

// TestSDKCorrectsItsClock: if the clocks are an hour apart, the refusal makes the SDK sign again
// with the server's time, and later calls have it from the start.
func TestSDKCorrectsItsClock(t *testing.T) {
	for _, off := range []time.Duration{time.Hour, -time.Hour} {
		r := newRetried(t, time.Now().Add(off))
		client := r.client("ana")
		for i, want := range []int32{2, 1} {
			err := call(client, "examplecluster")
			if got := r.count.Swap(0); err != nil || got != want {
				t.Errorf("clock %v ahead, call %d: %d requests and %v, want %d and no error", off, i, got, err, want)
			}
		}
	}
}

// TestSDKRetries: the SDK tries again what may succeed later, and nothing else.
func TestSDKRetries(t *testing.T) {
	r := newRetried(t, time.Now())
	for _, test := range []struct {
		user, cluster, code string
		requests            int32
		prepare             func()
	}{
		{"ana", "examplecluster", "", 1, nil},
		{"bob", "examplecluster", "AccessDenied", 1, nil},
		{"root", "nosuch", "ClusterNotFound", 1, nil},
		{"root", "", "MissingParameter", 1, nil},
		{"nobody", "examplecluster", "InvalidClientTokenId", 1, nil},
		{"ana", "examplecluster", "ServiceUnavailable", attempts, func() { r.broken = errors.New("no space left on device") }},
		{"ana", "examplecluster", "Throttling", attempts, func() {
			r.broken = nil
			r.handler.SetLimits(api.Limits{Principal: throttle.Limit{Rate: 0.001, Burst: 1}})
			if err := call(r.client("ana"), "examplecluster"); err != nil {
				t.Fatal(err)
			}
			r.count.Store(0)
		}},
	} {
		if test.prepare != nil {
			test.prepare()
		}
		err := call(r.client(test.user), test.cluster)
		code := ""
		if refusal, ok := errors.AsType[smithy.APIError](err); ok {
			code = refusal.ErrorCode()
		}
		if got := r.count.Swap(0); code != test.code || got != test.requests {
			t.Errorf("%s on %q: %q after %d requests (%v), want %q after %d", test.user, test.cluster, code, got, err, test.code, test.requests)
		}
	}
}
