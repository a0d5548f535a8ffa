package gateway

import (
	"net"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
)

// adminOf returns the Admin that is told of the end of a cluster's sessions: the current one, or the
// one from the logon if the cluster is gone or leads to other servers now.
func (s *Server) adminOf(was *Cluster) Admin {
	if c, ok := s.cluster(was.Identifier); ok && sameServers(c.Upstream, was.Upstream) {
		return c.Admin // a reload may have closed the other one
	}
	return was.Admin
}

// sameServers reports whether two clusters have a host in common.
func sameServers(a, b *pgconn.Config) bool {
	if a == nil || b == nil {
		return a == b
	}
	hosts := map[string]bool{address(a.Host, a.Port): true}
	for _, f := range a.Fallbacks {
		hosts[address(f.Host, f.Port)] = true
	}
	return hosts[address(b.Host, b.Port)] || slices.ContainsFunc(b.Fallbacks, func(f *pgconn.FallbackConfig) bool { return hosts[address(f.Host, f.Port)] })
}

func address(host string, port uint16) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// Left returns how many sessions admin will be told the end of although their cluster has another
// Admin by now, or is gone. As long as there are any, admin must not be closed.
func (s *Server) Left(admin Admin) (sessions int) {
	count := func(c *Cluster) {
		if c.Admin == admin && s.adminOf(c) == admin {
			sessions++
		}
	}
	for _, e := range s.sessions.all() {
		count(e.cluster)
	}
	for _, one := range s.pool.all() {
		if one.origin != nil {
			count(one.cluster)
		}
	}
	return sessions
}
