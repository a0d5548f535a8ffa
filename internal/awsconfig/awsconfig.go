// Package awsconfig finds the endpoint, region, access key and CA certificates for calls of an
// AWS API, in the same places as the AWS CLI. It reports failed calls with the AWS CLI's exit
// codes, and either in the AWS CLI's words or in plainer ones.
//
// It reads the options of a command, the environment and the shared AWS configuration. The AWS
// SDK for Go does most of this; the package adds what only the AWS CLI does. It never falls back
// to an endpoint of Amazon's: the endpoint must be configured.
package awsconfig

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// Settings are the options of a call. The values of empty ones come from the environment and the
// shared AWS configuration, as in every AWS client.
type Settings struct {
	Profile     string
	Region      string
	EndpointURL string
	CABundle    string // a file of CA certificates for the endpoint
	// NoVerifySSL leaves the endpoint's certificate unchecked.
	NoVerifySSL bool
	// NoSignRequest sends requests without a signature.
	NoSignRequest bool
	// ConnectTimeout and ReadTimeout limit the two parts of a call; 0 means no limit.
	ConnectTimeout, ReadTimeout time.Duration
	// OneShot gives each call a connection of its own. A process that lives for days would
	// otherwise send a call into a connection that died while the machine was asleep.
	OneShot bool
	// MFACode prompts for a code of the MFA device that a profile names as mfa_serial. Optional:
	// without it such a profile is an error.
	MFACode func(ctx context.Context, serial string) (string, error)
	// Getenv looks up an environment variable. Optional.
	Getenv func(string) string
	// Debug, if not nil, gets requests and answers without secrets.
	Debug io.Writer
}

// Found has what a client needs to call an API.
type Found struct {
	SDK      aws.Config
	Endpoint string // URL
	Profile  Profile
}

// noEndpoint is the error if no endpoint is configured. The AWS CLI would call Amazon then, but
// the request is meant for a Daypass server.
const noEndpoint = `%s Daypass server is named. Name one in the profile %q of ~/.aws/config:

    endpoint_url = https://daypass.example.com:8440
    region = us-east-1

or by AWS_ENDPOINT_URL, or --endpoint-url. A private CA goes into ca_bundle of the profile.`

// Load finds the endpoint, region and access key for the API. services are lower-case service
// names, as used in environment variables and in the services section of a profile; the first of
// them with an endpoint is used. A missing endpoint is an error. Errors of Load, and of
// retrieving the credentials, are a *Failure.
func Load(ctx context.Context, s Settings, services ...string) (Found, error) {
	if s.Getenv == nil {
		s.Getenv = os.Getenv
	}
	if s.EndpointURL != "" {
		if err := CheckScheme(s.EndpointURL); err != nil {
			return Found{}, err
		}
	}
	p, err := loadProfile(s.Profile, s.Getenv)
	if err != nil {
		return Found{}, err
	}
	cfg, err := loadSDKConfig(ctx, s, p)
	if err != nil {
		return Found{}, err
	}
	endpoint := s.EndpointURL
	if endpoint == "" {
		if endpoint, err = findEndpoint(ctx, cfg, s.Getenv, services...); err != nil {
			return Found{}, err
		}
		if endpoint == "" {
			return Found{}, &Failure{Code: ExitConfiguration, Message: fmt.Sprintf(noEndpoint, "No", p.Name), Plain: fmt.Sprintf(noEndpoint, "no", p.Name)}
		}
	}
	if cfg.Region == "" {
		return Found{}, &Failure{Code: ExitConfiguration, Message: `You must specify a region. You can also configure your region by running "aws configure".`,
			Plain: fmt.Sprintf("no region is configured: set region in the profile %q, AWS_REGION or --region", p.Name)}
	}
	if !validRegion(cfg.Region) {
		return Found{}, fail(ExitConfiguration, "Provided region_name '%s' doesn't match a supported format.", cfg.Region)
	}
	if _, err := parseEndpoint(endpoint); err != nil && s.EndpointURL != "" {
		return Found{}, fail(ExitUsage, "%v", err)
	} else if err != nil {
		return Found{}, err
	}
	if cfg.Credentials != nil {
		cfg.Credentials = explainedCredentials{cfg.Credentials}
	}
	return Found{SDK: cfg, Endpoint: endpoint, Profile: p}, nil
}

// explainedCredentials reports errors with the AWS CLI's words and exit codes.
type explainedCredentials struct{ aws.CredentialsProvider }

func (c explainedCredentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	found, err := c.CredentialsProvider.Retrieve(ctx)
	if err != nil {
		err = credentialsError(ctx, err)
	}
	return found, err
}
