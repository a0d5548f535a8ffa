package adminconn

import "github.com/jackc/pgx/v5"

// BelieveMajor makes a Pool assume that its hosts run a major version.
func (p *Pool) BelieveMajor(major int) {
	for _, h := range p.hosts {
		h.major.Store(int32(major))
	}
}

// RequiredAuth returns the authentication methods that the driver accepts from config's first
// server.
func RequiredAuth(config *pgx.ConnConfig) string {
	return splitHosts(config, nil, nil)[0].config.RequireAuth
}
