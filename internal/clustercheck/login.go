package clustercheck

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/pgsql"
)

// refused explains an invalid authorization (28000), which PostgreSQL answers for
// very different causes. Their texts depend on the server's language; the routine
// that raised them does not.
func (k *checker) refused(err error) {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		k.add(Broken, "logon", "the server refuses the administrative login: %v", err)
		return
	}
	login := pgsql.Ident(k.config.User)
	missing, locked := strings.Contains(pg.Message, "does not exist"), strings.Contains(pg.Message, "not permitted to log in")
	switch {
	case pg.Routine == "InitializeSessionUserId" && locked:
		k.add(Broken, "logon", "the administrative login %q exists and may not log in (NOLOGIN)", k.config.User).SQL =
			[]string{"alter role " + login + " login"}
	case pg.Routine == "InitializeSessionUserId" && missing:
		k.add(Broken, "logon", "the administrative login %q does not exist", k.config.User).SQL = []string{"create role " + login + " login createrole"}
	case pg.Routine == "InitializeSessionUserId": // another language
		k.add(Broken, "logon", "the administrative login %q does not exist or may not log in (%s): create it with LOGIN CREATEROLE, or give it LOGIN", k.config.User, pg.Message)
	case strings.Contains(pg.Message, "channel binding"), pg.Routine == "read_client_first_message", pg.Routine == "read_client_final_message":
		k.add(Broken, "channel-binding", "the server does not agree on the channel binding of SCRAM (%s): something between the gateway and the server "+
			"ends TLS with another certificate, or the certificate's signature has no hash (Ed25519). Name the server itself in upstream, give it a "+
			"certificate with an RSA or ECDSA signature, or set channel_binding=disable with sslmode=verify-full", pg.Message)
	case strings.HasPrefix(pg.Routine, "ClientAuthentication"):
		k.add(Broken, "logon", "pg_hba.conf does not let the administrative login in: %s", pg.Message).HBA = k.hbaLines("")
	default:
		k.add(Broken, "logon", "the server does not authenticate the administrative login %q: %s. Set scram-sha-256 for it in pg_hba.conf", k.config.User, pg.Message).HBA =
			k.hbaLines("")
	}
}

// Compare warns where one of the other reports is about the same server.
func (r *Report) Compare(others []Report) {
	for _, other := range others {
		if r.SystemIdentifier != "" && other.SystemIdentifier == r.SystemIdentifier && other.Cluster != r.Cluster {
			r.Findings = append(r.Findings, Finding{Severity: Warning, Code: "shared", Message: fmt.Sprintf("cluster %q leads to the same server: "+
				"both make session roles of the same names, and each takes the other's password away at every logon; "+
				"use one cluster, with custom_domains for a second name", other.Cluster)})
			return
		}
	}
}
