package awscli

import (
	"context"
	"fmt"
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// LoadConfig finds access key, region and endpoint as Client does, for a client of
// other services: their names are those of the environment variables and of a
// services section, in small letters, the first that has an endpoint of its own
// first. That none is configured is an error: Amazon is never asked by default. The
// error says what is missing; ExitCode knows it, and those of the access key.
func LoadConfig(ctx context.Context, s Settings, services ...string) (cfg aws.Config, endpoint string, err error) {
	_, cfg, endpoint, err = load(ctx, s, services)
	if err == nil && cfg.Credentials != nil {
		cfg.Credentials = explainedCredentials{cfg.Credentials}
	}
	return cfg, endpoint, err
}

// noEndpoint is said in place of asking Amazon, as the AWS CLI would: it would be told
// what was meant for a Daypass server.
const noEndpoint = `%s Daypass server is named. Name one in the profile %q of ~/.aws/config:

    endpoint_url = https://daypass.example.com:8440
    region = us-east-1

or by AWS_ENDPOINT_URL, or --endpoint-url. A private CA goes into ca_bundle of the profile.`

// load reads what there is to know before anything is sent.
func load(ctx context.Context, s Settings, services []string) (p profile, cfg aws.Config, endpoint string, err error) {
	if s.Getenv == nil {
		s.Getenv = os.Getenv
	}
	if s.EndpointURL != "" {
		if err := checkEndpoint(s.EndpointURL); err != nil {
			return p, cfg, "", err
		}
	}
	if p, err = loadProfile(s.Profile, s.Getenv); err != nil {
		return p, cfg, "", err
	}
	if cfg, err = loadSDKConfig(ctx, s, p); err != nil {
		return p, cfg, "", err
	}
	endpoint = s.EndpointURL
	if endpoint == "" {
		if endpoint, err = findEndpoint(ctx, cfg, s.Getenv, services...); err != nil {
			return p, cfg, "", err
		}
		if endpoint == "" {
			return p, cfg, "", &failure{code: ExitConfiguration, message: fmt.Sprintf(noEndpoint, "No", p.name), plain: fmt.Sprintf(noEndpoint, "no", p.name)}
		}
	}
	if cfg.Region == "" {
		return p, cfg, "", &failure{code: ExitConfiguration, message: `You must specify a region. You can also configure your region by running "aws configure".`,
			plain: fmt.Sprintf("no region is configured: set region in the profile %q, AWS_REGION or --region", p.name)}
	}
	if !validRegion(cfg.Region) {
		return p, cfg, "", fail(ExitConfiguration, "Provided region_name '%s' doesn't match a supported format.", cfg.Region)
	}
	if _, err := parseEndpoint(endpoint); err != nil && s.EndpointURL != "" {
		return p, cfg, "", fail(ExitUsage, "%v", err)
	} else if err != nil {
		return p, cfg, "", err
	}
	return p, cfg, endpoint, nil
}

// explainedCredentials fail with the words and the exit code of the AWS CLI.
type explainedCredentials struct{ aws.CredentialsProvider }

func (c explainedCredentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	found, err := c.CredentialsProvider.Retrieve(ctx)
	if err != nil {
		err = credentialsError(ctx, err)
	}
	return found, err
}
