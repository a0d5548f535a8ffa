package awscli

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// This file is for the places in which the AWS SDK for Go does less than the AWS
// CLI, and a caller would notice.

// wholeBody reads an answer to its end before the SDK sees it. smithy-go closes
// the request's body as soon as the answer begins; where that is before net/http's
// writer has looked at the body's end, net/http closes the connection, and what is
// left of a long answer is lost. It takes a server as near as this machine.
type wholeBody struct{ client config.HTTPClient }

func (w wholeBody) Do(r *http.Request) (*http.Response, error) {
	response, err := w.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	return response, nil
}

// mfa makes the credential chain ask for the code of an MFA device where a profile
// has mfa_serial.
func mfa(ctx context.Context, s Settings, p profile) config.LoadOptionsFunc {
	return config.WithAssumeRoleCredentialOptions(func(o *stscreds.AssumeRoleOptions) {
		o.TokenProvider = func() (string, error) {
			if s.MFACode == nil {
				return "", fail(ExitConfiguration, "profile %q wants a code of an MFA device (mfa_serial), and there is nobody to ask", p.name)
			}
			code, err := s.MFACode(ctx, aws.ToString(o.SerialNumber))
			if err != nil {
				return "", &failure{code: ExitConfiguration, message: err.Error(), cause: err}
			}
			return code, nil
		}
	})
}

// stsEndpoint makes the credential chain ask for role sessions where the AWS CLI
// would. AWS_ENDPOINT_URL, or endpoint_url of the profile, is for all services; the
// SDK reads it after it has made the STS client of its chain.
func stsEndpoint(ctx context.Context, cfg aws.Config, getenv func(string) string) (config.LoadOptionsFunc, error) {
	found, err := findEndpoint(ctx, cfg, getenv, "sts")
	if err != nil || found == "" {
		return func(*config.LoadOptions) error { return nil }, err
	}
	// Whether it can be used matters when it is.
	endpoint, bad := parseEndpoint(found)
	redirect := middleware.FinalizeMiddlewareFunc("daypass:stsEndpoint", func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
		if request, ok := in.Request.(*smithyhttp.Request); ok && awsmiddleware.GetServiceID(ctx) == "STS" {
			if bad != nil {
				return middleware.FinalizeOutput{}, middleware.Metadata{}, bad
			}
			request.URL.Scheme, request.URL.Host = endpoint.Scheme, endpoint.Host
			request.URL.Path, request.Host = cmp.Or(endpoint.Path, "/"), endpoint.Host
		}
		return next.HandleFinalize(ctx, in)
	})
	return config.WithAPIOptions([]func(*middleware.Stack) error{func(stack *middleware.Stack) error {
		if _, ok := stack.Finalize.Get("ResolveEndpointV2"); !ok {
			return nil
		}
		return stack.Finalize.Insert(redirect, "ResolveEndpointV2", middleware.After)
	}}), nil
}
