package iam

import "strings"

// partitions are AWS's, with what the names of their regions begin with. Every other
// region is of the first, "aws".
var partitions = [...]struct{ name, regions string }{
	{"aws", ""},
	{"aws-cn", "cn-"},
	{"aws-us-gov", "us-gov-"},
	{"aws-iso", "us-iso-"},
	{"aws-iso-b", "us-isob-"},
	{"aws-iso-e", "eu-isoe-"},
	{"aws-iso-f", "us-isof-"},
	{"aws-eusc", "eusc-"},
}

// PartitionOf is the partition of a region: the second part of every ARN there. A
// region that AWS does not have is of "aws".
func PartitionOf(region string) string {
	for _, p := range partitions[1:] {
		if strings.HasPrefix(region, p.regions) {
			return p.name
		}
	}
	return partitions[0].name
}

func isPartition(name string) bool {
	for _, p := range partitions {
		if p.name == name {
			return true
		}
	}
	return false
}
