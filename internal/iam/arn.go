package iam

import (
	"errors"
	"strings"
)

// ARN is an Amazon Resource Name in its six parts,
// arn:partition:service:region:account:resource. The resource keeps its colons
// and slashes.
type ARN struct {
	Partition, Service, Region, Account, Resource string
}

// arnParts is the number of parts of an ARN, "arn" among them.
const arnParts = 6

// ErrBadARN is the error for a text that is not an ARN.
var ErrBadARN = errors.New("not an ARN (arn:partition:service:region:account:resource)")

// ParseARN splits an ARN. Region and account may be empty, the other parts may not. It returns
// ErrBadARN for anything else.
func ParseARN(s string) (ARN, error) {
	parts := strings.SplitN(s, ":", arnParts)
	if len(parts) != arnParts || parts[0] != "arn" || parts[1] == "" || parts[2] == "" || parts[5] == "" {
		return ARN{}, ErrBadARN
	}
	return ARN{parts[1], parts[2], parts[3], parts[4], parts[5]}, nil
}

// String joins the parts. ParseARN(a.String()) returns a.
func (a ARN) String() string {
	return "arn:" + a.Partition + ":" + a.Service + ":" + a.Region + ":" + a.Account + ":" + a.Resource
}
