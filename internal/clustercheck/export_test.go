package clustercheck

import (
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// HBALines are the lines of pg_hba.conf for an administrative login at host.
func HBALines(host, login, gateway string) []string {
	k := checker{config: &pgx.ConnConfig{Config: pgconn.Config{Host: host, User: login}}}
	return k.hbaLines(gateway)
}
