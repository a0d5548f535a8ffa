package config

import (
	"crypto/sha256"
	"fmt"
	"net"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/session"
)

// Cluster is one PostgreSQL target.
type Cluster struct {
	Identifier string
	Database   string
	Upstream   *pgx.ConnConfig
	// ReadPassword reads upstream_password_file again. It is nil if there is no such file.
	ReadPassword func() (keyring.Secret, error)
	// TargetSessionAttrs is libpq's setting in the upstream connection string.
	TargetSessionAttrs string
	AllowSuperusers    bool
	// AllowPredefinedRoles lets credentials name pg_* roles as groups.
	AllowPredefinedRoles bool
	// NeverLend lists roles that cannot be a DbUser or a DbGroup; * matches any characters.
	NeverLend []string
	// RemovePasswords selects the database users whose own passwords are made invalid.
	RemovePasswords dbuser.PasswordRemoval
	Sessions        SessionLimits
	Prewarm         int // the most sessions that are started ahead
	Parking         session.Parking

	// Connection is a hash of the settings whose change needs new administrative connections,
	// and Settings is a hash of all settings.
	Connection, Settings [sha256.Size]byte

	servers []server // of Upstream
}

// SessionLimits bound the sessions of a cluster. The zero value sets no limits.
type SessionLimits struct {
	Max, PerUser int
	Everywhere   bool // Max and PerUser hold over all servers together
	session.Limits
}

// Administration returns the cluster's settings for package dbuser. It leaves out the key for
// the passwords of session roles, which only a server has.
func (c *Cluster) Administration() dbuser.Config {
	return dbuser.Config{
		Cluster:              c.Identifier,
		Conn:                 c.Upstream.Copy(),
		Password:             c.ReadPassword,
		TargetSessionAttrs:   c.TargetSessionAttrs,
		AllowSuperusers:      c.AllowSuperusers,
		AllowPredefinedRoles: c.AllowPredefinedRoles,
		RemovePasswords:      c.RemovePasswords,
		NeverLend:            c.NeverLend,
	}
}

// ClustersNamed returns the clusters with these names, or all clusters if names is empty.
func (c *Config) ClustersNamed(names []string) ([]Cluster, error) {
	if len(names) == 0 {
		return c.Clusters, nil
	}
	var found []Cluster
	for _, name := range names {
		known := len(found)
		for _, cluster := range c.Clusters {
			if cluster.Identifier == name {
				found = append(found, cluster)
			}
		}
		if len(found) == known {
			return nil, fmt.Errorf("%s has no cluster %q: %s", c.Path, name, c.named())
		}
	}
	return found, nil
}

// named says which clusters there are.
func (c *Config) named() string {
	const most = 10
	var names []string
	for i, cluster := range c.Clusters {
		if i == most {
			names = append(names, fmt.Sprintf("… (%d in all)", len(c.Clusters)))
			break
		}
		names = append(names, cluster.Identifier)
	}
	if len(names) == 0 {
		return "add one under clusters"
	}
	return "it has " + strings.Join(names, ", ")
}

func (c *Config) readCluster(s *section, only bool, spec *directory.Spec, seen map[string]bool) {
	id := s.text("identifier")
	if id != "" && seen["cluster "+id] {
		s.errorf("identifier", "%q is duplicated", id)
	}
	seen["cluster "+id] = true

	domains := s.texts("custom_domains")
	for _, domain := range domains {
		if !isHostName(domain) {
			s.errorf("custom_domains", "%q is not a host name", domain)
		}
		name := "domain " + strings.ToLower(strings.TrimSuffix(domain, "."))
		if seen[name] {
			s.errorf("custom_domains", "%q is duplicated", domain)
		}
		seen[name] = true
	}
	cluster := Cluster{
		Identifier:           id,
		Database:             s.text("database"),
		AllowSuperusers:      s.boolean("allow_superusers"),
		AllowPredefinedRoles: s.boolean("allow_predefined_roles"),
		NeverLend:            s.texts("never_lend"),
		RemovePasswords:      passwordRemovals[s.text("remove_passwords")],
		Sessions:             s.sessionLimits("session_limits", c.Registry.Etcd != nil),
	}
	if prewarm := s.sub("prewarm"); prewarm != nil {
		cluster.Prewarm = prewarm.integer("max")
	}
	if parked := s.sub("parked_sessions"); parked != nil {
		cluster.Parking = session.Parking{Max: parked.integer("max"), Idle: parked.seconds("idle"), Age: parked.seconds("age")}
	}
	cluster.readUpstream(s, only)
	c.Clusters = append(c.Clusters, cluster)
	listenHost, _, _ := net.SplitHostPort(c.Gateway.Listen)
	entry := directory.Cluster{
		Identifier:      id,
		Database:        cluster.Database,
		CustomDomains:   domains,
		Host:            c.Gateway.Advertise.Host,
		ListenHost:      listenHost,
		Port:            c.Gateway.Advertise.Port,
		AllowSuperusers: cluster.AllowSuperusers,
		Tags:            s.tags("tags"),
	}
	if cluster.Upstream != nil {
		entry.MasterUsername = cluster.Upstream.User
	}
	spec.Clusters = append(spec.Clusters, entry)
}

// passwordRemovals are the values of remove_passwords.
var passwordRemovals = map[string]dbuser.PasswordRemoval{
	"autocreated": dbuser.RemoveAutoCreated,
	"all":         dbuser.RemoveAllPasswords,
	"none":        dbuser.RemoveNoPasswords,
}

// sessionLimits reads the limits of a cluster's sessions. shared reports whether this server is one
// of several.
func (s *section) sessionLimits(name string, shared bool) SessionLimits {
	sub := s.sub(name)
	if sub == nil {
		return SessionLimits{}
	}
	limits := SessionLimits{
		Max:        sub.integer("max"),
		PerUser:    sub.integer("per_user"),
		Everywhere: sub.text("scope") == "all",
		Limits: session.Limits{
			Idle:     sub.seconds("idle"),
			Total:    sub.seconds("total"),
			AtExpiry: sub.boolean("end_at_expiry"),
			Notice:   sub.seconds("notice"),
		},
	}
	if limits.Everywhere && !shared {
		sub.errorf("scope", "all needs registry.etcd, where the servers count their sessions: name it, or leave scope out")
	}
	if limits.Everywhere && limits.Max == 0 && limits.PerUser == 0 {
		sub.errorf("scope", "has nothing to hold over all servers without max or per_user")
	}
	if sub.has("notice") && limits.Total == 0 && !limits.AtExpiry {
		sub.errorf("notice", "has nothing to tell without total or end_at_expiry")
	}
	return limits
}
