package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/spf13/pflag"

	"github.com/daypass/daypass/internal/awsconfig"
	"github.com/daypass/daypass/internal/client"
)

// The environment variables that configure the endpoint of the two APIs.
const (
	redshiftEndpoint = "AWS_ENDPOINT_URL_REDSHIFT, AWS_ENDPOINT_URL"
	daypassEndpoint  = "AWS_ENDPOINT_URL_DAYPASS, " + redshiftEndpoint
)

// callerFlags configure how a command calls the API. Settings without a flag come from the
// environment and the AWS configuration, as for every AWS client.
type callerFlags struct {
	endpointURL, region, profile, caBundle string
	noVerifySSL, allowHTTP                 bool
	oneShot                                bool // each call has a connection of its own
}

// register adds the flags to a command. variables are the environment variables that set its
// endpoint, for the help text.
func (f *callerFlags) register(flags *pflag.FlagSet, variables string) {
	flags.StringVar(&f.endpointURL, "endpoint-url", "", "URL of the API (default "+variables+" or the AWS configuration)")
	flags.StringVar(&f.region, "region", "", "region of the API (default AWS_REGION, AWS_DEFAULT_REGION or the AWS configuration)")
	flags.StringVar(&f.profile, "profile", "", "profile of the AWS configuration to use")
	flags.StringVar(&f.caBundle, "ca-bundle", "", "file of CA certificates to check the API's certificate with (default AWS_CA_BUNDLE)")
	flags.BoolVar(&f.noVerifySSL, "no-verify-ssl", false, "do not check the API's certificate")
	flags.BoolVar(&f.allowHTTP, "allow-http", false, allowHTTPHelp)
}

// find finds endpoint, region and access key for the API, using the first of services that has
// an endpoint. If the access key comes from a sign-in that has ended, the person signs in again.
func (f *callerFlags) find(ctx context.Context, env environment, services ...string) (awsconfig.Found, error) {
	found, err := f.load(ctx, env, services...)
	if err != nil {
		return found, err
	}
	if again, err := env.signInIfNeeded(ctx, found); !again || err != nil {
		return found, err
	}
	return f.load(ctx, env, services...)
}

// call is find, and then do. If the server has ended the sign-in from which the access key came,
// the person signs in again and do runs once more.
func (f *callerFlags) call(ctx context.Context, env environment, service string, do func(awsconfig.Found) error) error {
	found, err := f.find(ctx, env, service)
	if err != nil {
		return err
	}
	err = do(found)
	again, failed := env.signInAfter(ctx, found, err)
	if failed == nil && again {
		if found, failed = f.load(ctx, env, service); failed == nil {
			err = do(found)
		}
	}
	if failed != nil {
		return failed
	}
	return callFailed(err)
}

// load is find without the sign-in.
func (f *callerFlags) load(ctx context.Context, env environment, services ...string) (awsconfig.Found, error) {
	const timeout = 30 * time.Second
	found, err := awsconfig.Load(ctx, awsconfig.Settings{
		Profile: f.profile, Region: f.region, EndpointURL: f.endpointURL, CABundle: f.caBundle, NoVerifySSL: f.noVerifySSL,
		ConnectTimeout: timeout, ReadTimeout: timeout, MFACode: env.mfaCode, OneShot: f.oneShot,
	}, services...)
	if err != nil {
		return found, callFailed(err)
	}
	if f.noVerifySSL {
		env.warn("the certificate of the API is not checked (--no-verify-ssl)")
	}
	return found, checkEndpoint(found.Endpoint, f.allowHTTP)
}

func (f *callerFlags) client(ctx context.Context, env environment) (*client.Client, error) {
	// One listener serves all services, so Redshift's endpoint is used if no endpoint is
	// configured for Daypass's own service.
	services := []string{"daypass", "redshift"}
	found, err := f.find(ctx, env, services...)
	if err != nil {
		return nil, err
	}
	c, err := client.New(client.Config{
		Endpoint: found.Endpoint, Region: found.SDK.Region, Credentials: found.SDK.Credentials, HTTP: found.SDK.HTTPClient, Now: env.now,
		UserAgent: fmt.Sprintf("daypass/%s %s %s/%s", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH),
		Renew: func(ctx context.Context, err error) (aws.CredentialsProvider, error) {
			again, err := env.signInAfter(ctx, found, err)
			if !again || err != nil {
				return nil, err
			}
			renewed, err := f.load(ctx, env, services...)
			return renewed.SDK.Credentials, err
		},
	})
	if err != nil {
		return nil, &exitError{awsconfig.ExitConfiguration, err}
	}
	return c, nil
}

const allowHTTPHelp = "accept an http:// URL of another machine: anyone in between can read and change the answers"

// checkEndpoint refuses a plain HTTP URL of another machine. The AWS CLI accepts one, and so
// does "daypass redshift", with a warning. But this API's answers contain a password, and the
// address to send it to, in clear text, and an attacker on the network could fake the answer
// "revoked". A Daypass server uses plain HTTP only on loopback addresses, so the URL is a
// mistake or belongs to a misplaced proxy.
func checkEndpoint(endpoint string, allowHTTP bool) error {
	if !awsconfig.Plaintext(endpoint) || allowHTTP {
		return nil
	}
	return &exitError{awsconfig.ExitConfiguration, fmt.Errorf("the endpoint %.200s is on another machine and has no TLS: passwords would cross the network in clear text. "+
		"Use its https:// URL (--endpoint-url, AWS_ENDPOINT_URL or endpoint_url of the profile), or accept that with --allow-http", endpoint)}
}

// clusterNotFound is the code for a cluster that the server does not have.
const clusterNotFound = "ClusterNotFound"

// callFailed attaches the AWS CLI's exit code to the error of a call that has none yet.
func callFailed(err error) error {
	var refused *client.Error
	var failed *exitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &failed):
		return err
	case errors.As(err, &refused):
		if refused.Code == clusterNotFound {
			err = fmt.Errorf("%w\nCheck --cluster: \"daypass redshift describe-clusters\" lists the clusters that you may see", err)
		}
		return &exitError{awsconfig.ExitService, err}
	case errors.Is(err, context.Canceled):
		return &exitError{awsconfig.ExitInterrupted, errors.New("interrupted")}
	}
	return &exitError{awsconfig.ExitCode(err), awsconfig.Plainly(err)}
}
