package iam

import "strings"

// partitions are AWS's partitions, with the prefixes of their regions and the region
// that requests to their global endpoints are signed for. Regions that match none
// belong to the first, "aws".
var partitions = [...]struct{ name, regions, global string }{
	{"aws", "", "us-east-1"},
	{"aws-cn", "cn-", "cn-north-1"},
	{"aws-us-gov", "us-gov-", "us-gov-west-1"},
	{"aws-iso", "us-iso-", "us-iso-east-1"},
	{"aws-iso-b", "us-isob-", "us-isob-east-1"},
	{"aws-iso-e", "eu-isoe-", "eu-isoe-west-1"},
	{"aws-iso-f", "us-isof-", "us-isof-south-1"},
	{"aws-eusc", "eusc-", "eusc-de-east-1"},
}

// PartitionOf returns the partition of a region, which is the second part of every ARN
// there. It is "aws" for a region that AWS does not have.
func PartitionOf(region string) string {
	for _, p := range partitions[1:] {
		if strings.HasPrefix(region, p.regions) {
			return p.name
		}
	}
	return partitions[0].name
}

// GlobalRegion returns the region that clients sign for at a global endpoint, such as IAM's, of
// a region's partition.
func GlobalRegion(region string) string {
	for _, p := range partitions[1:] {
		if strings.HasPrefix(region, p.regions) {
			return p.global
		}
	}
	return partitions[0].global
}

func isPartition(name string) bool {
	for _, p := range partitions {
		if p.name == name {
			return true
		}
	}
	return false
}
