// Package client calls the actions of Daypass's own service, "daypass" (version 2026-11-01,
// docs/api.md). It sends AWS Query requests, signed with Signature Version 4 by the AWS SDK's
// signer. For the actions of Redshift, STS and IAM use any AWS client instead.
//
// It does not retry, because it cannot know whether a call without an answer was carried out.
// All actions can be repeated safely.
package client

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/daypass/daypass/internal/quote"
)

const (
	service = "daypass"
	version = "2026-11-01"
	// maxAnswer limits the size of an answer. A page is far smaller.
	maxAnswer = 4 << 20
)

// Config has the location of the API and the identity of the caller.
type Config struct {
	Endpoint    string // URL of the API
	Region      string
	Credentials aws.CredentialsProvider
	HTTP        aws.HTTPClient // optional; nil: a plain client
	Now         func() time.Time
	UserAgent   string
	// Renew is called with the error of a call whose access key the server rejects. It returns
	// another one, or nil if there is none, or an error instead of that of the call. Optional.
	Renew func(context.Context, error) (aws.CredentialsProvider, error)
}

// Client calls the API. It is safe for concurrent use.
type Client struct {
	config Config
	signer *v4.Signer

	mu          sync.Mutex // guards credentials; held by Renew, so that it runs once at a time
	credentials aws.CredentialsProvider
}

// New makes a Client. It opens no connection.
func New(config Config) (*Client, error) {
	u, err := url.Parse(config.Endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("the endpoint %q is not an http or https URL", config.Endpoint)
	}
	if config.Region == "" {
		return nil, errors.New("no region")
	}
	if config.Credentials == nil {
		return nil, errors.New("no access key")
	}
	if config.HTTP == nil {
		config.HTTP = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	u.Path, u.RawQuery, u.Fragment = "/", "", ""
	config.Endpoint = u.String()
	return &Client{config: config, signer: v4.NewSigner(), credentials: config.Credentials}, nil
}

// Error is an error that the service returned. Its text is quoted for a terminal.
type Error struct {
	Status                   int
	Code, Message, RequestID string
}

func (e *Error) Error() string { return quote.Terminal(e.Code) + ": " + quote.Terminal(e.Message) }

// call calls an action, and decodes its result into result: a pointer to a struct
// with the fields of the action's Result element.
func (c *Client) call(ctx context.Context, action string, form url.Values, result any) error {
	form.Set("Action", action)
	form.Set("Version", version)
	answer, err := c.sendRenewing(ctx, form.Encode())
	if err != nil {
		return fmt.Errorf("calling %s: %w", action, err)
	}
	// The Result element and ResponseMetadata are siblings.
	var outer struct {
		Children []child `xml:",any"`
	}
	if err := xml.Unmarshal(answer, &outer); err != nil {
		return fmt.Errorf("calling %s: the answer is not understood: %w", action, err)
	}
	for _, one := range outer.Children {
		if one.XMLName.Local == action+"Result" {
			if err := xml.Unmarshal([]byte("<r>"+one.Inner+"</r>"), result); err != nil {
				return fmt.Errorf("calling %s: the answer is not understood: %w", action, err)
			}
			return nil
		}
	}
	return fmt.Errorf("calling %s: the answer has no %sResult", action, action)
}

type child struct {
	XMLName xml.Name
	Inner   string `xml:",innerxml"`
}

// sendRenewing is send with a second attempt if the server rejects the access key.
func (c *Client) sendRenewing(ctx context.Context, body string) ([]byte, error) {
	c.mu.Lock()
	used := c.credentials
	c.mu.Unlock()
	answer, err := c.send(ctx, used, body)
	if c.config.Renew == nil || !IsRejected(err) {
		return answer, err
	}
	c.mu.Lock()
	if c.credentials == used {
		renewed, failed := c.config.Renew(ctx, err)
		if failed != nil || renewed == nil {
			c.mu.Unlock()
			return nil, cmp.Or(failed, err)
		}
		c.credentials = renewed
	}
	used = c.credentials
	c.mu.Unlock()
	return c.send(ctx, used, body)
}

// IsRejected reports whether an error is the service's answer to an access key that it does not
// accept, and never will.
func IsRejected(err error) bool {
	refused, ok := errors.AsType[*Error](err)
	return ok && refused.Code == "InvalidClientTokenId"
}

func (c *Client) send(ctx context.Context, from aws.CredentialsProvider, body string) ([]byte, error) {
	credentials, err := from.Retrieve(ctx)
	if err != nil {
		return nil, fmt.Errorf("finding an access key: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.config.Endpoint, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	// Without GetBody the client cannot follow a redirect. The API never redirects, and another
	// server's answer about revocations or sessions must not be trusted.
	request.GetBody = nil
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	if c.config.UserAgent != "" {
		request.Header.Set("User-Agent", c.config.UserAgent)
	}
	sum := sha256.Sum256([]byte(body))
	if err := c.signer.SignHTTP(ctx, credentials, request, hex.EncodeToString(sum[:]), service, c.config.Region, c.config.Now()); err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	response, err := c.config.HTTP.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if response.StatusCode == http.StatusOK {
		return answer, nil
	}
	var fault struct {
		XMLName   xml.Name `xml:"ErrorResponse"`
		Code      string   `xml:"Error>Code"`
		Message   string   `xml:"Error>Message"`
		RequestID string   `xml:"RequestId"`
	}
	if err := xml.Unmarshal(answer, &fault); err != nil || fault.Code == "" {
		return nil, fmt.Errorf("%s answered %s: is this a Daypass API?", c.config.Endpoint, quote.Terminal(response.Status))
	}
	return nil, &Error{response.StatusCode, fault.Code, fault.Message, fault.RequestID}
}
