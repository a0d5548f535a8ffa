//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/redshift"
	"github.com/aws/smithy-go"
)

// wish is a request for a credential.
type wish struct {
	user   string
	groups []string
	create bool
	any    bool // the credential is for any database
}

// pass is an issued credential and the request for it.
type pass struct {
	wish
	logon, password string
	expires         time.Time
}

// issuer asks the API for credentials with the official SDK. It remembers every secret that it was
// given, so that the run can search for secrets in places where they must not be. It is safe for
// concurrent use.
type issuer struct {
	ledger    *ledger
	transport *http.Transport
	client    *redshift.Client   // ana's
	weak      *redshift.Client   // bob's
	passing   *redshift.Client   // eve's
	of        []*redshift.Client // those of principals
	again     again

	mu       sync.Mutex // guards the fields below
	secrets  []string
	requests map[string]string // error code by request ID; empty: no error
}

// again makes an attempt, and repeats it for as long as a client would.
type again func(ctx context.Context, c class, once func(context.Context) error) error

// onlyOnce makes one attempt.
func onlyOnce(ctx context.Context, _ class, once func(context.Context) error) error { return once(ctx) }

func newIssuer(l *ledger, api string) *issuer {
	i := &issuer{ledger: l, again: onlyOnce, transport: &http.Transport{MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute}, requests: map[string]string{}}
	client := func(id, secret string) *redshift.Client {
		return redshift.New(redshift.Options{
			Region: region, BaseEndpoint: aws.String("http://" + api), Retryer: aws.NopRetryer{},
			Credentials: credentials.NewStaticCredentialsProvider(id, secret, ""),
			HTTPClient:  &http.Client{Transport: i.transport, Timeout: 20 * time.Second},
		})
	}
	for _, p := range principals {
		i.of = append(i.of, client(p.id, p.key))
	}
	i.client, i.weak, i.passing = client(accessKeyID, secretKey), client(weakKeyID, weakKey), client(passingKeyID, passingKey)
	return i
}

// call calls GetClusterCredentials once. code is the API's error, if it answered with one.
func (i *issuer) call(ctx context.Context, client *redshift.Client, w wish) (p *pass, code string, err error) {
	in := &redshift.GetClusterCredentialsInput{
		ClusterIdentifier: aws.String(cluster), DbUser: aws.String(w.user), DbGroups: w.groups, DurationSeconds: aws.Int32(900),
	}
	if w.create {
		in.AutoCreate = aws.Bool(true)
	}
	if !w.any {
		in.DbName = aws.String(database)
	}
	out, err := client.GetClusterCredentials(ctx, in)
	var response interface{ ServiceRequestID() string }
	if failed, ok := errors.AsType[smithy.APIError](err); ok {
		code = failed.ErrorCode()
		if errors.As(err, &response) && response.ServiceRequestID() != "" {
			i.remember(response.ServiceRequestID(), code, "")
		}
	}
	if err != nil {
		return nil, code, err
	}
	if id, ok := awsmiddleware.GetRequestIDMetadata(out.ResultMetadata); ok {
		i.remember(id, "", *out.DbPassword)
	}
	return &pass{wish: w, logon: *out.DbUser, password: *out.DbPassword, expires: *out.Expiration}, "", nil
}

func (i *issuer) remember(request, code, secret string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.requests[request] = code
	if secret != "" {
		i.secrets = append(i.secrets, secret)
	}
}

// also remembers a secret that was sent, not issued.
func (i *issuer) also(secret string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.secrets = append(i.secrets, secret)
}

// issue makes an honest call as ana, and records whether it succeeded.
func (i *issuer) issue(ctx context.Context, w wish) *pass { return i.issueTo(ctx, i.client, w) }

// issueTo is issue for another caller.
func (i *issuer) issueTo(ctx context.Context, client *redshift.Client, w wish) *pass {
	begin := time.Now()
	var p *pass
	err := i.again(ctx, classCall, func(ctx context.Context) (err error) {
		p, _, err = i.call(ctx, client, w)
		return err
	})
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		i.ledger.failed(classCall, "GetClusterCredentials", begin, err)
		return nil
	}
	want := "IAM:" + w.user
	if w.create {
		want = "IAMA:" + w.user
	}
	if left := time.Until(p.expires); p.logon != want || left > 901*time.Second || left < 890*time.Second {
		i.ledger.violate("wrong answer of the API", "%s for %q, expires in %v", p.logon, w.user, left)
	}
	i.ledger.done(classCall, "credentials issued", begin)
	return p
}

// refused makes a call that the API must refuse with a code.
func (i *issuer) refused(ctx context.Context, client *redshift.Client, w wish, want string) {
	begin := time.Now()
	_, code, err := i.call(ctx, client, w)
	switch {
	case ctx.Err() != nil:
	case err == nil:
		i.ledger.violate("the API gave what it must refuse", "%+v, want %s", w, want)
	case code == want:
		i.ledger.done(classCall, "calls refused as they must be ("+want+")", begin)
	default:
		i.ledger.failed(classCall, "a call that gets "+want, begin, fmt.Errorf("code %q: %w", code, err))
	}
}
