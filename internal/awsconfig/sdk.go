package awsconfig

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/smithy-go/logging"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

func loadSDKConfig(ctx context.Context, s Settings, p Profile) (aws.Config, error) {
	// Half an access key is an error, not a reason to look for another key.
	if s.Profile == "" && !s.NoSignRequest && s.Getenv("AWS_ACCESS_KEY_ID") != "" && s.Getenv("AWS_SECRET_ACCESS_KEY") == "" {
		return aws.Config{}, fail(ExitConfiguration, "Partial credentials found in env, missing: AWS_SECRET_ACCESS_KEY")
	}
	client := awshttp.NewBuildableClient().
		WithDialerOptions(func(d *net.Dialer) { d.Timeout = s.ConnectTimeout }).
		WithTransportOptions(func(t *http.Transport) {
			t.ResponseHeaderTimeout = s.ReadTimeout
			t.TLSHandshakeTimeout = s.ConnectTimeout
			t.DisableKeepAlives = s.OneShot
			if s.NoVerifySSL {
				if t.TLSClientConfig == nil {
					t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
				}
				t.TLSClientConfig.InsecureSkipVerify = true
			}
		})
	// By default the SDK writes warnings to standard error, which belongs to the command.
	log := logging.Logger(logging.Nop{})
	if s.Debug != nil {
		log = logging.NewStandardLogger(s.Debug)
	}
	options := []func(*config.LoadOptions) error{config.WithHTTPClient(client), config.WithLogger(log), mfa(ctx, s, p)}
	if s.Region != "" {
		options = append(options, config.WithRegion(s.Region))
	}
	// Only a profile given as an option takes precedence over an access key in the environment,
	// and the SDK accepts a profile only as an option. If both variables name a profile, the AWS
	// CLI uses AWS_DEFAULT_PROFILE and the SDK uses AWS_PROFILE.
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
		// WithCustomCABundle would not work: the SDK reads the options twice, and a reader can
		// be read only once.
		options = append(options, func(o *config.LoadOptions) error {
			o.CustomCABundle = bytes.NewReader(bundle)
			return nil
		})
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err == nil {
		for _, of := range [][2]string{{"sts", "STS"}, {"signin", "Signin"}, {"sso", "SSO"}, {"sso_oidc", "SSO OIDC"}} {
			options = append(options, chainEndpoint(ctx, cfg, s, of[0], of[1]))
		}
		cfg, err = config.LoadDefaultConfig(ctx, options...)
	}
	var explained *Failure
	switch {
	case err == nil:
	case errors.As(err, &explained):
		return aws.Config{}, explained
	case p.partial != "":
		return aws.Config{}, fail(ExitConfiguration, "Partial credentials found in %s", p.partial)
	default:
		return aws.Config{}, &Failure{Code: ExitConfiguration, Message: err.Error(), Err: err}
	}
	cfg.HTTPClient = wholeBody{cfg.HTTPClient}
	return cfg, nil
}

// readBundle returns the CA certificates for the endpoint, or nil for the system's. An error
// names the setting that the file's name comes from, because the user may not have typed the
// name.
func readBundle(s Settings, p Profile) ([]byte, error) {
	for _, one := range []struct{ source, path string }{
		{"--ca-bundle", s.CABundle},
		{"AWS_CA_BUNDLE", s.Getenv("AWS_CA_BUNDLE")},
		{"ca_bundle of profile " + p.Name, p.values["ca_bundle"]},
	} {
		if one.path == "" || s.NoVerifySSL && one.source == "--ca-bundle" {
			continue
		}
		bundle, err := os.ReadFile(ExpandPath(one.path))
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

// validRegion reports whether a region can be part of a host name.
func validRegion(region string) bool {
	for _, r := range region {
		if r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
			return false
		}
	}
	return len(region) <= 63 && region[0] != '-' && region[len(region)-1] != '-'
}

// MaxAnswer bounds the size of an answer. A page of a list is far smaller, and decoding
// takes several times the size.
const MaxAnswer = 8 << 20

// wholeBody reads an answer to its end before the SDK gets it. smithy-go closes the
// request's body as soon as the answer begins. If net/http has not yet seen the end of
// that body, it then closes the connection, and the rest of a long answer is lost. This
// happens with a server on the same machine.
type wholeBody struct{ client config.HTTPClient }

func (w wholeBody) Do(r *http.Request) (*http.Response, error) {
	response, err := w.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, MaxAnswer))
	if err != nil {
		return nil, err
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	return response, nil
}

// mfa makes the credential chain ask for the code of an MFA device if a profile has mfa_serial.
func mfa(ctx context.Context, s Settings, p Profile) config.LoadOptionsFunc {
	return config.WithAssumeRoleCredentialOptions(func(o *stscreds.AssumeRoleOptions) {
		o.TokenProvider = func() (string, error) {
			if s.MFACode == nil {
				return "", fail(ExitConfiguration, "profile %q wants a code of an MFA device (mfa_serial), which cannot be asked for here", p.Name)
			}
			code, err := s.MFACode(ctx, aws.ToString(o.SerialNumber))
			if err != nil {
				return "", &Failure{Code: ExitConfiguration, Message: err.Error(), Err: err}
			}
			return code, nil
		}
	})
}

// chainEndpoint sends the credential chain's own calls, for role sessions and for the refresh of
// a sign-in, to the endpoint that the AWS CLI would use. AWS_ENDPOINT_URL, or endpoint_url of
// the profile, is for all services. But the SDK reads it only after it has made the clients of
// the chain, which would send a refresh token or an access token to Amazon.
func chainEndpoint(ctx context.Context, cfg aws.Config, s Settings, service, id string) config.LoadOptionsFunc {
	found, bad := findEndpoint(ctx, cfg, s.Getenv, service)
	if service == "signin" && s.EndpointURL != "" {
		found, bad = s.EndpointURL, nil
	}
	if bad == nil && found == "" {
		return func(*config.LoadOptions) error { return nil }
	}
	// An invalid endpoint, or a services section that does not exist, is an error only if the
	// chain uses it.
	var endpoint *url.URL
	if bad == nil {
		endpoint, bad = parseEndpoint(found)
	}
	redirect := middleware.FinalizeMiddlewareFunc("daypass:endpoint:"+service, func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
		if request, ok := in.Request.(*smithyhttp.Request); ok && awsmiddleware.GetServiceID(ctx) == id {
			if bad != nil {
				return middleware.FinalizeOutput{}, middleware.Metadata{}, bad
			}
			request.URL.Scheme, request.URL.Host = endpoint.Scheme, endpoint.Host
			request.Host = endpoint.Host
			if service == "sts" {
				request.URL.Path = cmp.Or(endpoint.Path, "/")
			}
		}
		return next.HandleFinalize(ctx, in)
	})
	return config.WithAPIOptions([]func(*middleware.Stack) error{func(stack *middleware.Stack) error {
		if _, ok := stack.Finalize.Get("ResolveEndpointV2"); !ok {
			return nil
		}
		return stack.Finalize.Insert(redirect, "ResolveEndpointV2", middleware.After)
	}})
}
