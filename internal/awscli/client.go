package awscli

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/redshift"
	smithyauth "github.com/aws/smithy-go/auth"
	"github.com/aws/smithy-go/logging"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Settings say where the API is and as whom it is called. What is empty comes
// from the environment and the shared AWS configuration, as with every AWS
// client.
type Settings struct {
	Profile     string
	Region      string
	EndpointURL string
	CABundle    string // a file of CA certificates for the endpoint
	// NoVerifySSL leaves the endpoint's certificate unchecked.
	NoVerifySSL bool
	// NoSignRequest sends requests without a signature.
	NoSignRequest bool
	// ConnectTimeout and ReadTimeout bound the two halves of a call; 0 is no
	// bound.
	ConnectTimeout, ReadTimeout time.Duration
	// MFACode asks for a code of the MFA device that a profile names as mfa_serial.
	// Optional: without it such a profile is an error.
	MFACode func(ctx context.Context, serial string) (string, error)
	// Getenv looks up an environment variable. Optional.
	Getenv func(string) string
	// Debug, when not nil, is told what is sent and answered, without secrets.
	Debug io.Writer
}

// Client calls the Amazon Redshift API. It is not safe for concurrent use.
type Client struct {
	api         *redshift.Client
	credentials aws.CredentialsProvider // nil for unsigned requests
	retrieved   bool
	profile     profile
	endpoint    string
	timestamps  func(string) (any, error)
	debug       io.Writer
}

// Endpoint is the URL that is called.
func (c *Client) Endpoint() string { return c.endpoint }

// NewClient makes a client. It opens no connection. The error says what is
// missing from the configuration.
func NewClient(ctx context.Context, s Settings) (*Client, error) {
	p, cfg, endpoint, err := load(ctx, s, []string{"redshift"})
	if err != nil {
		return nil, err
	}
	c := &Client{profile: p, debug: s.Debug, credentials: cfg.Credentials, endpoint: endpoint}
	if c.timestamps, err = timestampFormat(p.values["cli_timestamp_format"]); err != nil {
		return nil, err
	}
	c.api = redshift.NewFromConfig(cfg, func(o *redshift.Options) {
		o.BaseEndpoint = aws.String(endpoint)
		if s.NoSignRequest {
			c.credentials = nil
			o.Credentials = nil
			o.AuthSchemeResolver = unsigned{}
		}
	})
	return c, nil
}

func loadSDKConfig(ctx context.Context, s Settings, p profile) (aws.Config, error) {
	// Half an access key is not a reason to look for another one.
	if s.Profile == "" && !s.NoSignRequest && s.Getenv("AWS_ACCESS_KEY_ID") != "" && s.Getenv("AWS_SECRET_ACCESS_KEY") == "" {
		return aws.Config{}, fail(ExitConfiguration, "Partial credentials found in env, missing: AWS_SECRET_ACCESS_KEY")
	}
	client := awshttp.NewBuildableClient().
		WithDialerOptions(func(d *net.Dialer) { d.Timeout = s.ConnectTimeout }).
		WithTransportOptions(func(t *http.Transport) {
			t.ResponseHeaderTimeout = s.ReadTimeout
			t.TLSHandshakeTimeout = s.ConnectTimeout
			if s.NoVerifySSL {
				if t.TLSClientConfig == nil {
					t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
				}
				t.TLSClientConfig.InsecureSkipVerify = true
			}
		})
	// The SDK warns on standard error, which is not its to write to.
	log := logging.Logger(logging.Nop{})
	if s.Debug != nil {
		log = logging.NewStandardLogger(s.Debug)
	}
	options := []func(*config.LoadOptions) error{config.WithHTTPClient(client), config.WithLogger(log), mfa(ctx, s, p)}
	if s.Region != "" {
		options = append(options, config.WithRegion(s.Region))
	}
	// Only an option means "this profile's credentials, whatever the
	// environment holds", and the SDK is told of a profile by an option alone. Of
	// the two variables the AWS CLI reads this one first, the SDK the other.
	other := s.Getenv("AWS_DEFAULT_PROFILE")
	if s.Profile == "" && other != "" && other != s.Getenv("AWS_PROFILE") {
		s.Profile = other
		if id := s.Getenv("AWS_ACCESS_KEY_ID"); id != "" {
			options = append(options, config.WithCredentialsProvider(
				credentials.NewStaticCredentialsProvider(id, s.Getenv("AWS_SECRET_ACCESS_KEY"), s.Getenv("AWS_SESSION_TOKEN"))))
		}
	}
	if s.Profile != "" {
		options = append(options, config.WithSharedConfigProfile(s.Profile))
	}
	bundle, err := readBundle(s, p)
	if err != nil {
		return aws.Config{}, err
	}
	if bundle != nil {
		// Not WithCustomCABundle: the options are read twice, a reader only once.
		options = append(options, func(o *config.LoadOptions) error {
			o.CustomCABundle = bytes.NewReader(bundle)
			return nil
		})
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err == nil {
		var sts config.LoadOptionsFunc
		if sts, err = stsEndpoint(ctx, cfg, s.Getenv); err == nil {
			cfg, err = config.LoadDefaultConfig(ctx, append(options, sts)...)
		}
	}
	var explained *failure
	switch {
	case err == nil:
	case errors.As(err, &explained):
		return aws.Config{}, explained
	case p.partial != "":
		return aws.Config{}, fail(ExitConfiguration, "Partial credentials found in %s", p.partial)
	default:
		return aws.Config{}, &failure{code: ExitConfiguration, message: err.Error(), cause: err}
	}
	cfg.HTTPClient = wholeBody{cfg.HTTPClient}
	return cfg, nil
}

// readBundle returns the CA certificates that check the endpoint's, nil for the
// system's. The error says where the name of the file is from, since nobody may
// have typed it just now.
func readBundle(s Settings, p profile) ([]byte, error) {
	for _, one := range []struct{ source, path string }{
		{"--ca-bundle", s.CABundle},
		{"AWS_CA_BUNDLE", s.Getenv("AWS_CA_BUNDLE")},
		{"ca_bundle of profile " + p.name, p.values["ca_bundle"]},
	} {
		if one.path == "" || s.NoVerifySSL && one.source == "--ca-bundle" {
			continue
		}
		bundle, err := os.ReadFile(expandPath(one.path))
		if err != nil {
			return nil, fail(ExitConfiguration, "Could not find a suitable TLS CA certificate bundle, invalid path: %s (%s)", one.path, one.source)
		}
		if !x509.NewCertPool().AppendCertsFromPEM(bundle) {
			return nil, fail(ExitConfiguration, "The TLS CA certificate bundle has no certificate in it: %s (%s)", one.path, one.source)
		}
		return bundle, nil
	}
	return nil, nil
}

// validRegion accepts what can be part of a host name.
func validRegion(region string) bool {
	for _, r := range region {
		if r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
			return false
		}
	}
	return len(region) <= 63 && region[0] != '-' && region[len(region)-1] != '-'
}

type unsigned struct{}

func (unsigned) ResolveAuthSchemes(context.Context, *redshift.AuthResolverParameters) ([]*smithyauth.Option, error) {
	return []*smithyauth.Option{{SchemeID: smithyauth.SchemeIDAnonymous}}, nil
}

// Call calls an operation by the name the API gives it and returns the members
// of its answer, in the order of the model. An error of the service is an
// *APIError; see ExitCode for what kinds there are.
func (c *Client) Call(ctx context.Context, name string, params *object) (*object, error) {
	op := operationByName(name)
	if op == nil {
		return nil, fmt.Errorf("calling %s: no such operation", name)
	}
	answer, err := c.call(ctx, op, params)
	if err != nil {
		return nil, asFailure(err)
	}
	return answer, nil
}

func (c *Client) call(ctx context.Context, op *operation, params *object) (*object, error) {
	if err := validate(params, op.input); err != nil {
		return nil, err
	}
	if err := c.retrieve(ctx); err != nil {
		return nil, err
	}
	x := &exchange{form: encode(op, params), debug: c.debug}
	if err := x.send(ctx, c.api, op); err != nil {
		return nil, err
	}
	return decode(op, x.answer, c.timestamps)
}

// retrieve finds the credentials before the first request, so that "there are
// none" is told apart from "the service said no".
func (c *Client) retrieve(ctx context.Context) error {
	if c.retrieved {
		return nil
	}
	if c.credentials != nil {
		if _, err := c.credentials.Retrieve(ctx); err != nil {
			return credentialsError(ctx, err)
		}
	}
	c.retrieved = true
	return nil
}

// exchange is one request and its answer. The SDK signs, sends and retries;
// the form and the reading of the answer are ours, so that what was typed is
// sent as it was typed and what was answered is printed as it was answered.
type exchange struct {
	form   string
	answer []byte
	debug  io.Writer
}

func (x *exchange) send(ctx context.Context, api *redshift.Client, op *operation) error {
	var err error
	switch op.name {
	case "GetClusterCredentials":
		_, err = api.GetClusterCredentials(ctx, &redshift.GetClusterCredentialsInput{}, x.install(&redshift.GetClusterCredentialsOutput{}))
	case "GetClusterCredentialsWithIAM":
		_, err = api.GetClusterCredentialsWithIAM(ctx, &redshift.GetClusterCredentialsWithIAMInput{}, x.install(&redshift.GetClusterCredentialsWithIAMOutput{}))
	case "DescribeClusters":
		_, err = api.DescribeClusters(ctx, &redshift.DescribeClustersInput{}, x.install(&redshift.DescribeClustersOutput{}))
	default:
		panic("internal error: awscli: operation without a call: " + op.name)
	}
	return err
}

// install puts our serializer and deserializer in the place of the SDK's.
// result is what the SDK's method wants to see; nobody reads it.
func (x *exchange) install(result any) func(*redshift.Options) {
	return func(o *redshift.Options) {
		o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
			// Absent where the operation has nothing that is required.
			stack.Initialize.Remove("OperationInputValidation")
			if _, err := stack.Serialize.Swap("OperationSerializer", middleware.SerializeMiddlewareFunc("OperationSerializer", x.serialize)); err != nil {
				return err
			}
			_, err := stack.Deserialize.Swap("OperationDeserializer", middleware.DeserializeMiddlewareFunc("OperationDeserializer",
				func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
					out, metadata, err := x.deserialize(ctx, in, next)
					out.Result = result
					return out, metadata, err
				}))
			return err
		})
	}
}

func (x *exchange) serialize(ctx context.Context, in middleware.SerializeInput, next middleware.SerializeHandler) (middleware.SerializeOutput, middleware.Metadata, error) {
	request, ok := in.Request.(*smithyhttp.Request)
	if !ok {
		return middleware.SerializeOutput{}, middleware.Metadata{}, fmt.Errorf("unknown transport type %T", in.Request)
	}
	request.Method = http.MethodPost
	if request.URL.Path == "" {
		request.URL.Path = "/"
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	request, err := request.SetStream(strings.NewReader(x.form))
	if err != nil {
		return middleware.SerializeOutput{}, middleware.Metadata{}, err
	}
	in.Request = request
	return next.HandleSerialize(ctx, in)
}

// maxAnswer bounds what is read of an answer. A page of a list is far smaller, and what
// is read takes several times its size to decode.
const maxAnswer = 8 << 20

func (x *exchange) deserialize(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
	var target url.URL
	if request, ok := in.Request.(*smithyhttp.Request); ok {
		target = *request.URL
	}
	x.log("POST %s\n%s", &target, x.form)
	out, metadata, err := next.HandleDeserialize(ctx, in)
	if err != nil {
		x.log("no answer: %v", err)
		return out, metadata, &transportError{url: target.String(), err: err}
	}
	response, ok := out.RawResponse.(*smithyhttp.Response)
	if !ok {
		return out, metadata, fmt.Errorf("unknown transport type %T", out.RawResponse)
	}
	x.answer, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return out, metadata, &transportError{url: target.String(), err: err}
	}
	x.log("%s, request id %s, %d bytes", response.Status, response.Header.Get("X-Amzn-Requestid"), len(x.answer))
	if len(x.answer) > maxAnswer {
		return out, metadata, errors.New("the answer is larger than 8 MiB")
	}
	if response.StatusCode >= 301 {
		return out, metadata, decodeError(response.StatusCode, x.answer)
	}
	return out, metadata, nil
}

func (x *exchange) log(format string, args ...any) {
	if x.debug != nil {
		fmt.Fprintf(x.debug, "DEBUG - "+format+"\n", args...)
	}
}

// transportError is a request that got no answer.
type transportError struct {
	url string
	err error
}

func (e *transportError) Error() string { return e.err.Error() }
func (e *transportError) Unwrap() error { return e.err }
