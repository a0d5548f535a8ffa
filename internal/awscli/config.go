package awscli

import (
	"context"
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// LoadConfig finds access key, region and endpoint as Client does, for a client of
// another service. EndpointURL is not looked at: what comes back has the endpoint
// of the environment and the shared AWS configuration, if they have one. The error
// says what is missing; ExitCode knows it.
func LoadConfig(ctx context.Context, s Settings) (aws.Config, error) {
	if s.Getenv == nil {
		s.Getenv = os.Getenv
	}
	cfg, err := loadSDKConfig(ctx, s)
	switch {
	case err != nil:
		return aws.Config{}, err
	case cfg.Region == "":
		return aws.Config{}, fail(ExitConfiguration, `You must specify a region. You can also configure your region by running "aws configure".`)
	case !validRegion(cfg.Region):
		return aws.Config{}, fail(ExitConfiguration, "Provided region_name '%s' doesn't match a supported format.", cfg.Region)
	}
	return cfg, nil
}
