package api

import "github.com/daypass/daypass/internal/awsquery"

// service is one of the AWS services that the listener answers for.
type service struct {
	name      string // as in the credential scope
	version   string // of its Query API
	namespace string // of its XML
	maxBody   int64  // of a request
}

var (
	redshiftService = &service{"redshift", "2012-12-01", "http://redshift.amazonaws.com/doc/2012-12-01/", 64 << 10}
	stsService      = &service{"sts", "2011-06-15", "https://sts.amazonaws.com/doc/2011-06-15/", 64 << 10}
)

// serviceByName finds a service by the name that a credential scope has.
func serviceByName(name string) (*service, bool) {
	switch name {
	case redshiftService.name:
		return redshiftService, true
	case stsService.name:
		return stsService, true
	}
	return nil, false
}

type actionKey struct {
	service *service
	name    string
}

// action is one row of the table: all there is to say about one operation.
type action struct {
	service  *service
	name     string
	readOnly bool // as CloudTrail has it
	run      func(*call) (awsquery.Result, error)
}

// actions is the whole API. A row cannot be written without the function that
// says what the caller has to be allowed: see operation.
func actions() []action {
	return []action{
		{redshiftService, "GetClusterCredentials", false,
			operation(readGetClusterCredentials, (*getClusterCredentials).needs, (*getClusterCredentials).act)},
		{redshiftService, "DescribeClusters", true,
			operation(readDescribeClusters, (*describeClusters).needs, (*describeClusters).act)},
		{redshiftService, "DescribeCustomDomainAssociations", true,
			operation(readDescribeCustomDomains, (*describeCustomDomains).needs, (*describeCustomDomains).act)},
		{stsService, "GetCallerIdentity", true,
			operation(readGetCallerIdentity, anyCaller, (*getCallerIdentity).act)},
	}
}

// operation puts an action together from the parameters it reads, the
// permissions they need and what it does, in this order.
//
// read refuses only what leaves nothing to authorise: a parameter that has to be
// there and is not, a list where a plain value belongs. Values are judged in act,
// so that a caller without rights learns nothing from the answer.
func operation[P any](
	read func(*reader) *P,
	needs func(*P, *call) []check,
	act func(*P, *call) (awsquery.Result, error),
) func(*call) (awsquery.Result, error) {
	return func(c *call) (awsquery.Result, error) {
		r := reader{call: c}
		p := read(&r)
		if r.err != nil {
			return nil, r.err
		}
		if err := c.authorize(needs(p, c)); err != nil {
			return nil, err
		}
		return act(p, c)
	}
}

// anyCaller needs no permission: who is authenticated may always ask, even where
// a policy denies it (STS API Reference, GetCallerIdentity).
func anyCaller[P any](*P, *call) []check { return nil }
