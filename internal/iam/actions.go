package iam

import "strings"

// action is one row of the Service Authorization Reference, of the actions that
// Daypass serves.
type action struct {
	name string
	// resources are the resource types, empty for an action that knows only "*".
	resources []string
	// keys are the service's own condition keys; aws: keys come on top. A key
	// that ends in / is a prefix.
	keys []string
}

// actions is the table of research and reference: SAR list_amazonredshift,
// list_awssecuritytokenservice, list_awsidentityandaccessmanagementiam.
func actions() []action {
	role := []string{"role"}
	return []action{
		{"redshift:GetClusterCredentials", []string{"dbuser", "dbname"}, []string{"redshift:DbName", "redshift:DbUser", "redshift:DurationSeconds"}},
		{"redshift:GetClusterCredentialsWithIAM", []string{"dbname"}, []string{"redshift:DbName", "redshift:DurationSeconds"}},
		{"redshift:CreateClusterUser", []string{"dbuser"}, []string{"redshift:DbUser"}},
		{"redshift:JoinGroup", []string{"dbgroup"}, nil},
		{"redshift:DescribeClusters", []string{"cluster"}, nil},
		{"redshift:DescribeCustomDomainAssociations", nil, nil},
		{"sts:AssumeRole", role, []string{"sts:ExternalId", "sts:RoleSessionName", "sts:SourceIdentity", "sts:TransitiveTagKeys"}},
		{"sts:AssumeRoleWithWebIdentity", role, []string{"sts:RoleSessionName", "sts:SourceIdentity", "sts:TransitiveTagKeys"}},
		{"sts:AssumeRoleWithSAML", role, []string{"sts:RoleSessionName", "sts:SourceIdentity", "sts:TransitiveTagKeys"}},
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
	}
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
	case "redshift", "sts", "iam":
		return true
	}
	return false
}
