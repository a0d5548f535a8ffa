package iam

import "strings"

// action is one row of the Service Authorization Reference, of the actions that
// Daypass serves.
type action struct {
	name string
	// resources are the resource types. They are empty for an action that has only "*".
	resources []string
	// keys are the service's own condition keys; aws: keys come on top. A key
	// that ends in / is a prefix.
	keys []string
}

// actions is a constant: SAR list_amazonredshift,
// list_awssecuritytokenservice, list_awsidentityandaccessmanagementiam. There are
// at most 64, so that a statement can keep a bit for each.
var actions = [...]action{
	{"redshift:GetClusterCredentials", []string{"dbuser", "dbname"}, []string{"redshift:DbName", "redshift:DbUser", "redshift:DurationSeconds"}},
	{"redshift:GetClusterCredentialsWithIAM", []string{"dbname"}, []string{"redshift:DbName", "redshift:DurationSeconds"}},
	{"redshift:CreateClusterUser", []string{"dbuser"}, []string{"redshift:DbUser"}},
	{"redshift:JoinGroup", []string{"dbgroup"}, nil},
	{"redshift:DescribeClusters", []string{"cluster"}, nil},
	{"redshift:DescribeCustomDomainAssociations", nil, nil},
	{"redshift:DescribeLoggingStatus", []string{"cluster"}, nil},
	{"sts:AssumeRole", []string{"role"}, []string{"sts:ExternalId", "sts:RoleSessionName", "sts:SourceIdentity", "sts:TransitiveTagKeys"}},
	{"sts:AssumeRoleWithWebIdentity", []string{"role"}, []string{"sts:RoleSessionName", "sts:SourceIdentity", "sts:TransitiveTagKeys"}},
	{"sts:AssumeRoleWithSAML", []string{"role"}, []string{"sts:RoleSessionName", "sts:SourceIdentity", "sts:TransitiveTagKeys"}},
	{"sts:TagSession", []string{"role", "user"}, []string{"sts:TransitiveTagKeys", "sts:SAML/"}},
	{"sts:SetSourceIdentity", []string{"role", "user"}, []string{"sts:SourceIdentity"}},
	{"sts:GetCallerIdentity", nil, nil},
	{"sts:GetAccessKeyInfo", nil, nil},
	{"sts:GetSessionToken", nil, nil},
	{"sts:DecodeAuthorizationMessage", nil, nil},
	{"iam:SimulateCustomPolicy", nil, nil},
	{"iam:SimulatePrincipalPolicy", []string{"group", "role", "user"}, nil},
	{"iam:GetContextKeysForCustomPolicy", nil, nil},
	{"iam:GetContextKeysForPrincipalPolicy", []string{"group", "role", "user"}, nil},
	// Our own, docs/api.md.
	{"daypass:RevokeCredentials", []string{"credential", "principal", "dbuser", "cluster"}, nil},
	{"daypass:ListRevocations", []string{"cluster"}, nil},
	{"daypass:ListSessions", []string{"cluster"}, nil},
	{"daypass:TerminateSession", []string{"session"}, nil},
}

// knownAction is the row of an action, -1 when the table does not have it.
func knownAction(name string) int {
	for i := range actions {
		if known := actions[i].name; len(known) == len(name) && equalFold(known, name) {
			return i
		}
	}
	return -1
}

// typedService reports whether ARNs of a service begin their last part with a
// resource type.
func typedService(service string) bool {
	switch service {
	case "redshift", "sts", "iam", "daypass":
		return true
	}
	return false
}

// served reports whether the table says what actions a service has.
func served(service string) bool {
	switch strings.ToLower(service) {
	case "redshift", "sts", "iam", "daypass":
		return true
	}
	return false
}
