package iam

// PrincipalType is what kind of caller a principal is. The first four are the
// values of aws:PrincipalType.
type PrincipalType string

const (
	AccountPrincipal       PrincipalType = "Account" // the account's root user
	UserPrincipal          PrincipalType = "User"
	RoleSessionPrincipal   PrincipalType = "AssumedRole"
	FederatedUserPrincipal PrincipalType = "FederatedUser"
	// WebIdentityPrincipal and SAMLPrincipal are callers with a token of an
	// identity provider. They have no identity-based policies.
	WebIdentityPrincipal PrincipalType = "WebIdentity"
	SAMLPrincipal        PrincipalType = "SAML"
	ServicePrincipal     PrincipalType = "Service"
)

// Principal is who makes a request, as trust policies match it.
type Principal struct {
	Type PrincipalType
	// ARN of the user, the role session (arn:P:sts::ACCOUNT:assumed-role/ROLE/SESSION)
	// or the identity provider; a service's name (redshift.amazonaws.com) for ServicePrincipal.
	ARN string
	// Account is the twelve digits of the principal's account.
	Account string
	// RoleARN is the ARN, path included, of the IAM role that a role session is of.
	RoleARN string
}
