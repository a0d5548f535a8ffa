package iam_test

import (
	"testing"

	"github.com/daypass/daypass/internal/iam"
)

// The rows have one region for each pattern in the AWS SDK's partitions.
func TestPartitionOf(t *testing.T) {
	for region, want := range map[string]string{
		"us-east-1": "aws", "eu-central-1": "aws", "il-central-1": "aws", "mx-central-1": "aws", "local": "aws", "": "aws",
		"aws-global": "aws", "us-isolated-1": "aws", "cnx-north-1": "aws", "us-government-1": "aws",
		"cn-north-1": "aws-cn", "cn-northwest-1": "aws-cn", "us-gov-east-1": "aws-us-gov", "us-gov-west-1": "aws-us-gov",
		"us-iso-east-1": "aws-iso", "us-iso-west-1": "aws-iso", "us-isob-east-1": "aws-iso-b",
		"eu-isoe-west-1": "aws-iso-e", "us-isof-south-1": "aws-iso-f", "us-isof-east-1": "aws-iso-f", "eusc-de-east-1": "aws-eusc",
	} {
		if got := iam.PartitionOf(region); got != want {
			t.Errorf("PartitionOf(%q) = %q, want %q", region, got, want)
		}
	}
}

// GlobalRegion returns the region for which botocore's endpoints sign calls of IAM.
func TestGlobalRegion(t *testing.T) {
	for region, want := range map[string]string{
		"eu-central-1": "us-east-1", "local": "us-east-1", "cn-northwest-1": "cn-north-1", "us-gov-east-1": "us-gov-west-1", "us-iso-west-1": "us-iso-east-1",
		"us-isob-east-1": "us-isob-east-1", "us-isof-east-1": "us-isof-south-1",
	} {
		if got := iam.GlobalRegion(region); got != want {
			t.Errorf("GlobalRegion(%q) = %q, want %q", region, got, want)
		}
	}
}
