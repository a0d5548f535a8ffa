package clustercheck

import (
	"context"
	"slices"
	"strings"

	"github.com/daypass/daypass/internal/dbuser"
)

// hosted is a provider of PostgreSQL as a service, where customers get no superuser and
// cannot edit pg_hba.conf.
type hosted struct {
	role string // a role that every server of the provider has
	name string
	wall string // what stands in for pg_hba.conf
}

// providers are recognised by a role of their own. More than one may match; the
// first does.
var providers = []hosted{
	{"rdsadmin", "Amazon RDS or Aurora", "a security group that admits the gateway's alone"},
	{"alloydbsuperuser", "Google AlloyDB", "private IP and a firewall rule for the gateway"},
	{"cloudsqlsuperuser", "Google Cloud SQL", "authorized networks, or private IP, for the gateway alone"},
	{"azure_pg_admin", "Azure Database for PostgreSQL", "firewall rules, or private access, for the gateway alone"},
}

// provider recognises the provider of the server. It returns nil if it is unknown.
func (k *checker) provider(ctx context.Context) (*hosted, error) {
	var roles []string
	for _, p := range providers {
		roles = append(roles, p.role)
	}
	var there []string
	err := k.c.QueryRow(ctx, "select coalesce(array_agg(rolname::text), '{}') from pg_roles where rolname = any ($1::text[]::name[])", roles).Scan(&there)
	if err != nil {
		return nil, err
	}
	for _, p := range providers {
		if slices.Contains(there, p.role) {
			return &p, nil
		}
	}
	return nil, nil
}

// minor looks at the server's minor version.
func (k *checker) minor() {
	fault := dbuser.MinorFault(k.report.ServerVersion)
	version, _, _ := strings.Cut(k.report.ServerVersion, " ")
	switch {
	case fault == "":
	case dbuser.LosesRoleAtLogon(k.report.ServerVersion):
		k.add(Broken, "minor-version", "PostgreSQL %s %s. Logons without groups are refused until then", version, fault)
	default:
		k.add(Warning, "minor-version", "PostgreSQL %s %s. Until then connection pools that send it work as the session role, "+
			"which row security that compares current_user does not know", version, fault)
	}
}
