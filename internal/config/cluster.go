package config

import (
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/gateway"
)

type Cluster struct {
	Identifier string
	Database   string
	Upstream   *pgx.ConnConfig
	// TargetSessionAttrs is libpq's setting in the upstream connection string.
	TargetSessionAttrs string
	AllowSuperusers    bool
	// AllowPredefinedRoles lets pg_* roles be named as groups.
	AllowPredefinedRoles bool
	Sessions             SessionLimits
	Prewarm              int // sessions started ahead at most
}

// SessionLimits bound the sessions of a cluster. The zero value is no limit.
type SessionLimits struct {
	Max, PerUser int
	Ends         gateway.Ends
}

// defaultUpstream is the administrative login of a cluster that names none.
const defaultUpstream = "postgres://daypass@127.0.0.1:5432/postgres?sslmode=disable"

// ClustersNamed returns the named clusters, or all for no names.
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
			return nil, fmt.Errorf("%s has no cluster %q", c.Path, name)
		}
	}
	return found, nil
}

func (c *Config) readCluster(s *section, spec *directory.Spec, seen map[string]bool) {
	id := s.required("identifier")
	if id != "" && !identifierPattern.MatchString(id) {
		s.errorf("identifier", "is %q, want 1 to 63 letters, digits, hyphens, dots or underscores, beginning with a letter or a digit", id)
	}
	if seen["cluster "+id] {
		s.errorf("identifier", "%q is there twice", id)
	}
	seen["cluster "+id] = true

	domains := s.texts("custom_domains")
	for _, domain := range domains {
		if !isHostName(domain) {
			s.errorf("custom_domains", "%q is not a host name", domain)
		}
		name := "domain " + strings.ToLower(strings.TrimSuffix(domain, "."))
		if seen[name] {
			s.errorf("custom_domains", "%q is there twice", domain)
		}
		seen[name] = true
	}
	upstream, attrs := s.upstream()
	database := s.text("database", "dev")
	cluster := Cluster{
		Identifier:           id,
		Database:             database,
		Upstream:             upstream,
		TargetSessionAttrs:   attrs,
		AllowSuperusers:      s.boolean("allow_superusers"),
		AllowPredefinedRoles: s.boolean("allow_predefined_roles"),
		Sessions:             s.sessionLimits("session_limits"),
		Prewarm:              s.prewarm("prewarm"),
	}
	c.Clusters = append(c.Clusters, cluster)
	listenHost, _, _ := net.SplitHostPort(c.Gateway.Listen)
	entry := directory.Cluster{
		Identifier:      id,
		Database:        database,
		CustomDomains:   domains,
		Host:            c.Gateway.Advertise.Host,
		ListenHost:      listenHost,
		Port:            c.Gateway.Advertise.Port,
		AllowSuperusers: cluster.AllowSuperusers,
		Tags:            s.tags("tags"),
	}
	if upstream != nil {
		entry.MasterUsername = upstream.User
	}
	spec.Clusters = append(spec.Clusters, entry)
}

// prewarm reads how many sessions of a cluster may be started ahead.
func (s *section) prewarm(key string) int {
	sub := s.sub(key)
	if sub == nil {
		return 0
	}
	defer sub.done()
	if !sub.has("max") {
		s.errorf(key, "needs max")
	}
	return sub.integer("max", 0, 0, 1000)
}

// sessionLimits reads the limits of a cluster's sessions.
func (s *section) sessionLimits(key string) SessionLimits {
	sub := s.sub(key)
	if sub == nil {
		return SessionLimits{}
	}
	defer sub.done()
	const most, year = 1_000_000, 365 * 24 * time.Hour
	limits := SessionLimits{
		Max:     sub.integer("max", 0, 1, most),
		PerUser: sub.integer("per_user", 0, 1, most),
		Ends: gateway.Ends{
			Idle:     sub.seconds("idle", 0, time.Second, year),
			Total:    sub.seconds("total", 0, time.Second, year),
			AtExpiry: sub.boolean("end_at_expiry"),
			Notice:   sub.seconds("notice", 5*time.Minute, 0, 24*time.Hour),
		},
	}
	if sub.has("notice") && limits.Ends.Total == 0 && !limits.Ends.AtExpiry {
		sub.errorf("notice", "has nothing to tell without total or end_at_expiry")
	}
	return limits
}

// upstream parses the administrative login. A password in the connection string
// works; upstream_password_env and _file keep it out of a file that is copied,
// shown and committed. The second result is target_session_attrs, which the parsed
// form keeps as a function only.
func (s *section) upstream() (*pgx.ConnConfig, string) {
	text := s.text("upstream", defaultUpstream)
	s.known("upstream_password_env", "upstream_password_file")
	own := s.at["upstream_password_env"] != nil || s.at["upstream_password_file"] != nil
	within := passwordPattern.MatchString(text)
	if u, err := url.Parse(text); err == nil && u.User != nil {
		_, has := u.User.Password()
		within = within || has
	}
	if own && within {
		s.errorf("upstream", "has a password in it, and there is another key for one: leave it out of upstream")
		return nil, ""
	}
	parsed, err := pgx.ParseConfig(text)
	if err != nil {
		s.errorf("upstream", "is not a PostgreSQL connection string: %v", err)
		return nil, ""
	}
	attrs := "any"
	if match := sessionAttrsPattern.FindStringSubmatch(text); match != nil {
		attrs = match[1]
	}
	if !own {
		if value, ok := s.file.getenv("DAYPASS_UPSTREAM_PASSWORD"); ok && !within {
			parsed.Password = value
		}
		return parsed, attrs
	}
	if secret, ok := s.secret("upstream_password", "upstream_password_env", "upstream_password_file", false); ok {
		parsed.Password = secret.Reveal()
	}
	return parsed, attrs
}
