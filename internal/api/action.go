package api

import "github.com/daypass/daypass/internal/awsquery"

// service is one of the AWS services that the listener answers for.
type service struct {
	name      string // as in the credential scope
	version   string // of its Query API
	namespace string // of its XML
	maxBody   int64  // of a request
	// source is CloudTrail's eventSource.
	source string
}

var (
	redshiftService = &service{"redshift", "2012-12-01", "http://redshift.amazonaws.com/doc/2012-12-01/", 64 << 10, "redshift.amazonaws.com"}
	stsService      = &service{"sts", "2011-06-15", "https://sts.amazonaws.com/doc/2011-06-15/", 128 << 10, "sts.amazonaws.com"}
	iamService      = &service{"iam", "2010-05-08", "https://iam.amazonaws.com/doc/2010-05-08/", 1 << 20, "iam.amazonaws.com"}
	// signinService is the sign-in service. Package signin makes its calls, so the table
	// has no rows for it.
	signinService = &service{"signin", "2023-01-01", "", 64 << 10, "signin.amazonaws.com"}
	// ssoService is the portal of IAM Identity Center, also of package signin.
	ssoService = &service{"sso", "2019-06-10", "", 64 << 10, "sso.amazonaws.com"}
	// daypassService has our own actions, which AWS does not have.
	daypassService = &service{"daypass", "2026-11-01", "https://daypass.dev/doc/2026-11-01/", 64 << 10, "daypass.dev"}
)

// serviceByName finds a service by the name that a credential scope has.
func serviceByName(name string) (*service, bool) {
	for _, s := range [...]*service{redshiftService, stsService, iamService, daypassService} {
		if s.name == name {
			return s, true
		}
	}
	return nil, false
}

type actionKey struct {
	service *service
	name    string
}

// action is one row of the table: everything that the API has to know about one operation.
type action struct {
	service  *service
	name     string
	readOnly bool // CloudTrail's readOnly
	unsigned bool // the caller proves who they are with a parameter, not a signature
	run      func(*call) (awsquery.Result, error)
}

// actions returns the table of all operations. Every row is made by operation, so no row
// lacks the permissions that the caller needs.
func actions() []action {
	return []action{
		{service: redshiftService, name: "GetClusterCredentials",
			run: operation(readGetClusterCredentials, (*getClusterCredentials).needs, (*getClusterCredentials).act)},
		{service: redshiftService, name: "GetClusterCredentialsWithIAM",
			run: operation(readWithIAM, (*withIAM).needs, (*withIAM).act)},
		{service: redshiftService, name: "DescribeClusters", readOnly: true,
			run: operation(readDescribeClusters, (*describeClusters).needs, (*describeClusters).act)},
		{service: redshiftService, name: "DescribeCustomDomainAssociations", readOnly: true,
			run: operation(readDescribeCustomDomains, (*describeCustomDomains).needs, (*describeCustomDomains).act)},
		{service: redshiftService, name: "DescribeLoggingStatus", readOnly: true,
			run: operation(readLoggingStatus, (*loggingStatus).needs, (*loggingStatus).act)},
		{service: stsService, name: "GetCallerIdentity", readOnly: true,
			run: operation(readGetCallerIdentity, anyCaller, (*getCallerIdentity).act)},
		{service: stsService, name: "AssumeRole", readOnly: true,
			run: operation(readAssumeRole, (*assumeRole).needs, (*assumeRole).act)},
		{service: stsService, name: "AssumeRoleWithWebIdentity", readOnly: true, unsigned: true,
			run: operation(readWebIdentity, (*webIdentity).needs, (*webIdentity).act)},
		{service: stsService, name: "GetSessionToken", readOnly: true,
			run: operation(readGetSessionToken, anyCaller, (*getSessionToken).act)},
		{service: stsService, name: "GetAccessKeyInfo", readOnly: true,
			run: operation(readGetAccessKeyInfo, (*getAccessKeyInfo).needs, (*getAccessKeyInfo).act)},
		{service: stsService, name: "DecodeAuthorizationMessage", readOnly: true,
			run: operation(readDecodeMessage, (*decodeMessage).needs, (*decodeMessage).act)},
		{service: iamService, name: "SimulateCustomPolicy", readOnly: true,
			run: operation(readSimulateCustom, (*simulation).needs, (*simulation).act)},
		{service: iamService, name: "SimulatePrincipalPolicy", readOnly: true,
			run: operation(readSimulatePrincipal, (*simulation).needs, (*simulation).act)},
		{service: daypassService, name: "RevokeCredentials",
			run: operation(readRevokeCredentials, (*revokeCredentials).needs, (*revokeCredentials).act)},
		{service: daypassService, name: "ListRevocations", readOnly: true,
			run: operation(readListRevocations, (*listRevocations).needs, (*listRevocations).act)},
		{service: daypassService, name: "ListSessions", readOnly: true,
			run: operation(readListSessions, (*listSessions).needs, (*listSessions).act)},
		{service: daypassService, name: "TerminateSession",
			run: operation(readTerminateSession, (*terminateSession).needs, (*terminateSession).act)},
	}
}

// operation makes an action of three functions: read reads the parameters, needs lists
// the permissions that they require, act does the work.
//
// read fails only if there is nothing to authorise: a required parameter is missing, or
// a list was sent as a plain value. All other checks of values are in act, so that a
// caller without permission learns nothing from the error.
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

// anyCaller requires no permission. Every authenticated caller may use the action, even
// where a policy denies it (STS API Reference, GetCallerIdentity and GetSessionToken).
func anyCaller[P any](*P, *call) []check { return nil }
