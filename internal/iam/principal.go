package iam

import (
	"errors"
	"slices"
	"strings"
)

// PrincipalType is what kind of caller a principal is. The first four are the
// values of aws:PrincipalType.
type PrincipalType string

const (
	// AccountPrincipal is the root user of an account.
	AccountPrincipal PrincipalType = "Account"
	// UserPrincipal is an IAM user, also in a session of GetSessionToken.
	UserPrincipal PrincipalType = "User"
	// RoleSessionPrincipal is a session of an IAM role.
	RoleSessionPrincipal PrincipalType = "AssumedRole"
	// FederatedUserPrincipal is a session of GetFederationToken.
	FederatedUserPrincipal PrincipalType = "FederatedUser"
	// WebIdentityPrincipal is a caller with a token of an OpenID Connect
	// provider. It has no identity-based policies.
	WebIdentityPrincipal PrincipalType = "WebIdentity"
	// SAMLPrincipal is a caller with an assertion of a SAML provider. It has
	// no identity-based policies.
	SAMLPrincipal PrincipalType = "SAML"
	// ServicePrincipal is an AWS service.
	ServicePrincipal PrincipalType = "Service"
)

// Principal is the caller of a request, as trust policies match it. The zero value matches only
// a Deny for everyone.
type Principal struct {
	Type PrincipalType
	// ARN is the ARN of the user, of the role session
	// (arn:P:sts::ACCOUNT:assumed-role/ROLE/SESSION) or of the identity provider. For a
	// service it is the service's name (redshift.amazonaws.com), and for a provider
	// that AWS knows without an ARN it may be its domain name (accounts.google.com).
	ARN string
	// Account is the twelve digits of the principal's account.
	Account string
	// RoleARN is the ARN, including the path, of a role session's IAM role.
	RoleARN string
}

// ErrNotAPrincipal is the error for an ARN that does not name a principal.
var ErrNotAPrincipal = errors.New("not the ARN of a user, role, role session, account or identity provider")

// PrincipalFromARN returns the principal of an ARN: an IAM user, a role session, a
// federated user, an account's root or an identity provider. The ARN of an IAM role
// stands for a session of it. The role of a session is assumed to have no path, because
// a session's ARN does not have it. Other ARNs are ErrNotAPrincipal.
func PrincipalFromARN(s string) (Principal, error) {
	arn, err := ParseARN(s)
	if err != nil || !isAccount(arn.Account) || arn.Region != "" {
		return Principal{}, ErrNotAPrincipal
	}
	p := Principal{ARN: s, Account: arn.Account}
	kind, name, _ := strings.Cut(arn.Resource, "/")
	switch {
	case arn.Service == "iam" && arn.Resource == "root":
		p.Type = AccountPrincipal
	case name == "":
		return Principal{}, ErrNotAPrincipal
	case arn.Service == "iam" && kind == "user":
		p.Type = UserPrincipal
	case arn.Service == "iam" && kind == "role":
		p.Type, p.RoleARN = RoleSessionPrincipal, s
	case arn.Service == "iam" && kind == "oidc-provider":
		p.Type = WebIdentityPrincipal
	case arn.Service == "iam" && kind == "saml-provider":
		p.Type = SAMLPrincipal
	case arn.Service == "sts" && kind == "federated-user":
		p.Type = FederatedUserPrincipal
	case arn.Service == "sts" && kind == "assumed-role":
		role, session, _ := strings.Cut(name, "/")
		if role == "" || session == "" || strings.Contains(session, "/") {
			return Principal{}, ErrNotAPrincipal
		}
		p.Type = RoleSessionPrincipal
		p.RoleARN = ARN{arn.Partition, "iam", "", arn.Account, "role/" + role}.String()
	default:
		return Principal{}, ErrNotAPrincipal
	}
	return p, nil
}

// inAccount reports whether the principal is an identity of an AWS account, as
// opposed to a federated caller or a service.
func (p *Principal) inAccount() bool {
	switch p.Type {
	case AccountPrincipal, UserPrincipal, RoleSessionPrincipal, FederatedUserPrincipal:
		return true
	}
	return false
}

// federated reports whether the trust policy is the only policy that decides.
func (p *Principal) federated() bool {
	return p.Type == WebIdentityPrincipal || p.Type == SAMLPrincipal || p.Type == ServicePrincipal
}

func isAccount(s string) bool { return len(s) == 12 && digits(s) }

// principals is a Principal or NotPrincipal element.
type principals struct {
	not       bool
	everyone  bool // "*" or {"AWS": "*"}
	accounts  []string
	users     []string // ARNs of users, federated users and role sessions: named themselves
	roles     []string // ARNs
	federated []string // ARNs, or domain names
	services  []string
	place
}

// grant is the effect of a trust policy that names a principal of its own account: which other
// policies must still allow (UG reference_policies_evaluation-logic, resource-based policies).
type grant uint8

const (
	grantNone grant = iota
	// grantAccount delegates to the account: the identity-based policies, the boundary and the
	// session policies must allow too.
	grantAccount
	// grantRole needs no identity-based policy. The boundary and the session policies must still
	// allow.
	grantRole
	// grantDirect needs no other policy.
	grantDirect
)

// match returns how the element names the principal, or grantNone.
func (e *principals) match(p *Principal, deny bool) grant {
	if e.not {
		return e.matchNot(p, deny)
	}
	switch {
	case e.everyone && (deny || p.inAccount()):
		// "*" stands for everyone, including identities without policies: "no other permissions
		// are required" (UG reference_policies_elements_principal). In an Allow it does not
		// include callers of identity providers.
		return grantDirect
	case p.inAccount() && contains(e.users, p.ARN):
		return grantDirect
	case p.Type == RoleSessionPrincipal && contains(e.roles, p.RoleARN):
		return grantRole
	case p.inAccount() && contains(e.accounts, p.Account):
		return grantAccount
	case (p.Type == WebIdentityPrincipal || p.Type == SAMLPrincipal) && e.names(p):
		return grantDirect
	case p.Type == ServicePrincipal && contains(e.services, p.ARN):
		return grantDirect
	}
	return grantNone
}

// matchNot evaluates NotPrincipal. A principal is a chain: account, then IAM role, then
// the user or session. A Deny exempts only a principal that it names at every link, as
// the guide warns (UG reference_policies_elements_notprincipal). An Allow excludes a
// principal that it names at any link, applies to identities only, and gives them no
// more than naming their account would.
func (e *principals) matchNot(p *Principal, deny bool) grant {
	var all, any bool
	switch {
	case p.inAccount() && e.everyone:
		any, all = true, true
	case p.inAccount():
		account := contains(e.accounts, p.Account)
		self := contains(e.users, p.ARN) || p.Type == AccountPrincipal && account
		role := p.Type == RoleSessionPrincipal && contains(e.roles, p.RoleARN)
		any = account || self || role
		// Naming the role exempts all its sessions.
		all = account && (self || role) && (p.Type != RoleSessionPrincipal || role)
	case p.Type == ServicePrincipal:
		any = contains(e.services, p.ARN)
		all = any
	default:
		any = e.names(p)
		all = any
	}
	if deny && !all {
		return grantDirect
	}
	if !deny && !any && p.inAccount() {
		return grantAccount
	}
	return grantNone
}

// names reports whether the element has an identity provider: its ARN, or the name at
// the end of the ARN. AWS knows four public providers by name only
// (accounts.google.com); here each is configured and has an ARN.
func (e *principals) names(p *Principal) bool {
	_, name, _ := strings.Cut(p.ARN, ":oidc-provider/")
	return contains(e.federated, p.ARN) || contains(e.federated, name)
}

func contains(list []string, s string) bool {
	return s != "" && slices.Contains(list, s)
}

// add puts one entry of the element in its place.
func (e *principals) add(kind, entry string) error {
	switch kind {
	case "AWS":
		return e.addAWS(entry)
	case "Service":
		if entry == "" || strings.ContainsAny(entry, "*?:/ ") || !strings.Contains(entry, ".") {
			return errors.New("not the name of a service, as in redshift.amazonaws.com")
		}
		e.services = append(e.services, entry)
	case "Federated":
		arn, err := ParseARN(entry)
		provider := err == nil && arn.Service == "iam" && arn.Region == "" && isAccount(arn.Account) &&
			(strings.HasPrefix(arn.Resource, "oidc-provider/") || strings.HasPrefix(arn.Resource, "saml-provider/"))
		domain := err != nil && strings.Contains(entry, ".") && !strings.Contains(entry, ":")
		if strings.ContainsAny(entry, "*? ") || !provider && !domain {
			return errors.New("not the ARN of an identity provider (arn:aws:iam::ACCOUNT:oidc-provider/HOST) or its domain name")
		}
		e.federated = append(e.federated, entry)
	case "CanonicalUser":
		return errors.New("canonical users are for Amazon S3")
	default:
		return errors.New("unknown kind of principal; there are AWS, Federated and Service")
	}
	return nil
}

func (e *principals) addAWS(entry string) error {
	if entry == "*" {
		e.everyone = true
		return nil
	}
	if strings.ContainsAny(entry, "*?") {
		return errors.New("a wildcard stands for everybody, alone; it cannot match part of a principal")
	}
	if isAccount(entry) {
		e.accounts = append(e.accounts, entry)
		return nil
	}
	p, err := PrincipalFromARN(entry)
	if err != nil || p.federated() {
		return errors.New("not an account or the ARN of a user, role or role session")
	}
	switch {
	case p.Type == AccountPrincipal:
		e.accounts = append(e.accounts, p.Account)
	case p.RoleARN == entry:
		e.roles = append(e.roles, entry)
	default:
		e.users = append(e.users, entry)
	}
	return nil
}
