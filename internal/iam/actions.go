package iam

import "strings"

// action is a row of the Service Authorization Reference, for an action that Daypass serves.
type action struct {
	name string
	// resources are the resource types. They are empty for an action that has only "*".
	resources []string
	// keys are the service's own condition keys; the aws: keys are not listed. A key that ends
	// in / is a prefix.
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
	// Daypass's own actions, docs/api.md.
	{"daypass:RevokeCredentials", []string{"credential", "principal", "dbuser", "cluster"}, nil},
	{"daypass:ListRevocations", []string{"cluster"}, nil},
	{"daypass:ListSessions", []string{"cluster"}, []string{"daypass:session-owner-iam-userid"}},
	{"daypass:TerminateSession", []string{"session"}, []string{"daypass:session-owner-iam-userid"}},
}

// knownAction returns the index of an action's row, or -1 if the table does not have the action.
func knownAction(name string) int {
	for i := range actions {
		if known := actions[i].name; len(known) == len(name) && equalFold(known, name) {
			return i
		}
	}
	return -1
}

// typedService reports whether the last part of a service's ARNs begins with a resource type.
func typedService(service string) bool {
	switch service {
	case "redshift", "sts", "iam", "daypass":
		return true
	}
	return false
}

// served reports whether the table has the actions of a service, in any case. Those are the
// services of typedService.
func served(service string) bool {
	return typedService(strings.ToLower(service))
}
