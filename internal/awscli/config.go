package awscli

import (
	"context"
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// LoadConfig finds access key, region and endpoint as Client does, for a client of
// other services: their names are those of the environment variables and of a
// services section, in small letters, the first that has an endpoint of its own
// first. The endpoint is "" when none is configured. The error says what is
// missing; ExitCode knows it, and those of the access key.
func LoadConfig(ctx context.Context, s Settings, services ...string) (cfg aws.Config, endpoint string, err error) {
	_, cfg, endpoint, err = load(ctx, s, services)
	if err == nil && cfg.Credentials != nil {
		cfg.Credentials = explainedCredentials{cfg.Credentials}
	}
	return cfg, endpoint, err
}

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
	if cfg.Region == "" {
		return p, cfg, "", fail(ExitConfiguration, `You must specify a region. You can also configure your region by running "aws configure".`)
	}
	if !validRegion(cfg.Region) {
		return p, cfg, "", fail(ExitConfiguration, "Provided region_name '%s' doesn't match a supported format.", cfg.Region)
	}
	if s.EndpointURL != "" {
		if _, err := parseEndpoint(s.EndpointURL); err != nil {
			return p, cfg, "", fail(ExitUsage, "%v", err)
		}
		return p, cfg, s.EndpointURL, nil
	}
	endpoint, err = findEndpoint(ctx, cfg, s.Getenv, services...)
	if err == nil && endpoint != "" {
		_, err = parseEndpoint(endpoint)
	}
	return p, cfg, endpoint, err
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
