package awscli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/redshift"
	smithyauth "github.com/aws/smithy-go/auth"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/daypass/daypass/internal/awsconfig"
)

// client calls the operations of the model. It is not safe for concurrent use.
type client struct {
	api         *redshift.Client
	credentials aws.CredentialsProvider // nil for unsigned requests
	retrieved   bool
	found       awsconfig.Found
	profile     awsconfig.Profile
	endpoint    string // URL
	timestamps  func(string) (any, error)
	debug       io.Writer
}

// newClient makes a client. It opens no connection. The error names the missing part of
// the configuration.
func newClient(ctx context.Context, s awsconfig.Settings) (*client, error) {
	found, err := awsconfig.Load(ctx, s, "redshift")
	if err != nil {
		return nil, err
	}
	c := &client{found: found, profile: found.Profile, endpoint: found.Endpoint, debug: s.Debug, credentials: found.SDK.Credentials}
	if c.timestamps, err = timestampFormat(found.Profile.Setting("cli_timestamp_format")); err != nil {
		return nil, err
	}
	c.api = redshift.NewFromConfig(found.SDK, func(o *redshift.Options) {
		o.BaseEndpoint = aws.String(found.Endpoint)
		if s.NoSignRequest {
			c.credentials = nil
			o.Credentials = nil
			o.AuthSchemeResolver = unsigned{}
		}
	})
	return c, nil
}

// printAs sets how timestamps are printed, unless the profile has cli_timestamp_format. By default
// version 1 of the AWS CLI prints them as they arrive, and version 2, which has the yaml formats,
// as ISO 8601 with an offset.
func (c *client) printAs(form string) {
	if (form == "yaml" || form == "yaml-stream") && c.profile.Setting("cli_timestamp_format") == "" {
		c.timestamps = iso8601
	}
}

type unsigned struct{}

func (unsigned) ResolveAuthSchemes(context.Context, *redshift.AuthResolverParameters) ([]*smithyauth.Option, error) {
	return []*smithyauth.Option{{SchemeID: smithyauth.SchemeIDAnonymous}}, nil
}

func (c *client) call(ctx context.Context, op *operation, params *object) (*object, error) {
	if err := validate(params, op.input); err != nil {
		return nil, err
	}
	// Before the first request, so that missing credentials are not reported as a
	// refusal by the service.
	if c.credentials != nil && !c.retrieved {
		if _, err := c.credentials.Retrieve(ctx); err != nil {
			return nil, err
		}
		c.retrieved = true
	}
	x := &exchange{form: encode(op, params), debug: c.debug}
	if err := x.send(ctx, c.api, op); err != nil {
		return nil, err
	}
	return decode(op, x.answer, c.timestamps)
}

// exchange is one request and its answer. The SDK signs, sends and retries. The form is
// encoded and the answer decoded here, so that the user's values are sent, and the
// answer's printed, unchanged.
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

// install replaces the SDK's serializer and deserializer. result satisfies the SDK's
// method and is not used.
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

func (x *exchange) deserialize(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
	var target url.URL
	if request, ok := in.Request.(*smithyhttp.Request); ok {
		target = *request.URL
	}
	x.log("POST %s\n%s", &target, x.form)
	out, metadata, err := next.HandleDeserialize(ctx, in)
	if err != nil {
		x.log("no answer: %v", err)
		return out, metadata, &awsconfig.TransportError{URL: target.String(), Err: err}
	}
	response, ok := out.RawResponse.(*smithyhttp.Response)
	if !ok {
		return out, metadata, fmt.Errorf("unknown transport type %T", out.RawResponse)
	}
	x.answer, err = io.ReadAll(io.LimitReader(response.Body, awsconfig.MaxAnswer+1))
	if err != nil {
		return out, metadata, &awsconfig.TransportError{URL: target.String(), Err: err}
	}
	x.log("%s, request id %s, %d bytes", response.Status, response.Header.Get("X-Amzn-Requestid"), len(x.answer))
	if len(x.answer) > awsconfig.MaxAnswer {
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
