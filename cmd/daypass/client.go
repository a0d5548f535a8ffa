package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"runtime"
	"time"

	"github.com/spf13/pflag"

	"github.com/daypass/daypass/internal/awscli"
	"github.com/daypass/daypass/internal/client"
)

// callerFlags say where the API is and as whom it is called, for the commands that
// call Daypass's own actions. What is not given is found as by every AWS client.
type callerFlags struct {
	endpointURL, region, profile, caBundle string
	noVerifySSL, allowHTTP                 bool
}

func (f *callerFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.endpointURL, "endpoint-url", "", "URL of the API (default AWS_ENDPOINT_URL_DAYPASS, AWS_ENDPOINT_URL_REDSHIFT, AWS_ENDPOINT_URL or the AWS configuration)")
	flags.StringVar(&f.region, "region", "", "region of the API (default AWS_REGION, AWS_DEFAULT_REGION or the AWS configuration)")
	flags.StringVar(&f.profile, "profile", "", "profile of the AWS configuration to use")
	flags.StringVar(&f.caBundle, "ca-bundle", "", "file of CA certificates to check the API's certificate with (default AWS_CA_BUNDLE)")
	flags.BoolVar(&f.noVerifySSL, "no-verify-ssl", false, "do not check the API's certificate")
	flags.BoolVar(&f.allowHTTP, "allow-http", false, allowHTTPHelp)
}

func (f *callerFlags) client(ctx context.Context, env environment) (*client.Client, error) {
	const timeout = 30 * time.Second
	// One listener answers for all services, so what says where Redshift's is will do.
	cfg, endpoint, err := awscli.LoadConfig(ctx, awscli.Settings{
		Profile: f.profile, Region: f.region, EndpointURL: f.endpointURL, CABundle: f.caBundle, NoVerifySSL: f.noVerifySSL,
		ConnectTimeout: timeout, ReadTimeout: timeout, MFACode: env.mfaCode,
	}, "daypass", "redshift")
	if err != nil {
		return nil, callFailed(err)
	}
	if f.noVerifySSL {
		env.warn("the certificate of the API is not checked (--no-verify-ssl)")
	}
	if err := checkEndpoint(endpoint, f.allowHTTP); err != nil {
		return nil, err
	}
	c, err := client.New(client.Config{
		Endpoint: endpoint, Region: cfg.Region, Credentials: cfg.Credentials, HTTP: cfg.HTTPClient, Now: env.now,
		UserAgent: fmt.Sprintf("daypass/%s %s %s/%s", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH),
	})
	if err != nil {
		return nil, &exitError{awscli.ExitConfiguration, err}
	}
	return c, nil
}

const allowHTTPHelp = "accept an http:// URL of another machine: anyone in between can read and change the answers"

// checkEndpoint refuses the URL of another machine without TLS. The AWS CLI takes it,
// and so does "daypass redshift", with a warning. But an answer of this API is a
// password, which would cross the network in clear text, and says where the password
// is sent; "revoked" would be anyone's word. A Daypass server listens off loopback with
// TLS only, so that a URL like this is a mistake, or a proxy's that should not be there.
func checkEndpoint(endpoint string, allowHTTP bool) error {
	if !awscli.Plaintext(endpoint) || allowHTTP {
		return nil
	}
	return &exitError{awscli.ExitConfiguration, fmt.Errorf("the endpoint %.200s is on another machine and has no TLS: passwords would cross the network in clear text. "+
		"Use its https:// URL (--endpoint-url, AWS_ENDPOINT_URL or endpoint_url of the profile), or accept that with --allow-http", endpoint)}
}

// callFailed gives an error of a call the exit code that the AWS CLI has for it.
func callFailed(err error) error {
	var refused *client.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		return &exitError{awscli.ExitService, err}
	case errors.Is(err, context.Canceled):
		return &exitError{awscli.ExitInterrupted, errors.New("interrupted")}
	}
	var transport *url.Error
	if errors.As(err, &transport) {
		err = awscli.Unreachable(transport.URL, transport.Err)
	}
	return &exitError{awscli.ExitCode(err), awscli.Plainly(err)}
}
