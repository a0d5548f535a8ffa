package clustercheck

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/jackc/pgerrcode"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/pgsql"
)

// hbaRule is one line of pg_hba.conf as the server understood it.
type hbaRule struct {
	Line             int
	Type             string
	Databases, Users []string
	Address, Netmask string
	Method           string
}

// hba finds out which addresses besides the gateway's may reach the database. Only the
// gateway should log on with session roles: that is the last defence against passwords
// that a holder sets.
func (k *checker) hba(ctx context.Context) error {
	var gateway string
	if err := k.c.QueryRow(ctx, "select coalesce(host(inet_client_addr()), '')").Scan(&gateway); err != nil {
		return err
	}
	rows, err := k.c.Query(ctx, `select line_number, type, database, user_name, coalesce(address, ''), coalesce(netmask, ''), auth_method
		from pg_hba_file_rules where error is null order by line_number`)
	var rules []hbaRule
	if err == nil {
		defer rows.Close()
		for rows.Next() {
			var r hbaRule
			if err := rows.Scan(&r.Line, &r.Type, &r.Databases, &r.Users, &r.Address, &r.Netmask, &r.Method); err != nil {
				return err
			}
			rules = append(rules, r)
		}
		err = rows.Err()
	}
	if adminconn.IsCode(err, pgerrcode.InsufficientPrivilege) {
		k.cannotReadHBA(gateway)
		return nil
	}
	if err != nil {
		return err
	}
	k.judgeHBA(rules, gateway)
	return nil
}

// cannotReadHBA reports what to do where only superusers can read pg_hba.conf.
func (k *checker) cannotReadHBA(gateway string) {
	if k.host != nil {
		k.add(Notice, "pg_hba", "%s: pg_hba.conf cannot be edited here. Let only the gateway reach the server: %s (docs/managed-postgresql.md)", k.host.name, k.host.wall)
		return
	}
	f := k.add(Notice, "pg_hba", "the administrative login may not read pg_hba.conf: make sure that only the gateway reaches the database")
	f.HBA = k.hbaLines(gateway)
	f.SQL = []string{"grant select on pg_catalog.pg_hba_file_rules to " + pgsql.Ident(k.admin),
		"grant execute on function pg_catalog.pg_hba_file_rules() to " + pgsql.Ident(k.admin)}
	f.Database = k.config.Database
}

// judgeHBA applies the rules to logons that should and should not be possible. The rules
// are those of the file; a server that was not reloaded still follows older ones.
func (k *checker) judgeHBA(rules []hbaRule, gateway string) {
	const session, anybody = "+" + dbuser.MarkerRole, ""
	from := gateway
	if from == "" {
		from = "local"
	}
	tls := k.config.TLSConfig != nil
	open := func(user string) string {
		var open []string
		for _, address := range []string{"203.0.113.77", "2001:db8::77", "127.0.0.1", "::1", "local"} {
			if address == from {
				continue
			}
			if r, ok := firstHBA(rules, user, address, tls); ok && r.Method != "reject" {
				open = append(open, fmt.Sprintf("%s (line %d, %s)", address, r.Line, r.Method))
			}
		}
		return strings.Join(open, ", ")
	}
	before := len(k.report.Findings)
	switch r, ok := firstHBA(rules, session, from, tls); {
	case !ok || r.Method == "reject":
		k.add(Broken, "pg_hba", "pg_hba.conf does not let session roles in from the gateway (%s)", from)
	case r.Method == "trust" && !adminconn.IsLoopback(k.config.Host) && !adminconn.Verifies(k.config.TLSConfig):
		k.add(Broken, "pg_hba", "pg_hba.conf, line %d: session roles log on without a password, and the server's certificate is not verified: "+
			"the gateway takes no such session; set scram-sha-256 there", r.Line)
	case r.Method == "trust":
		k.add(Warning, "pg_hba", "pg_hba.conf, line %d: session roles log on without a password from the gateway's address", r.Line)
	case !slices.Contains([]string{"scram-sha-256", "md5"}, r.Method): // md5 asks for SCRAM where the password is stored for it
		k.add(Broken, "pg_hba", "pg_hba.conf, line %d: session roles cannot log on with %s, only with scram-sha-256", r.Line, r.Method)
	}
	if where := open(session); where != "" {
		k.add(Warning, "pg_hba", "pg_hba.conf lets session roles in from other addresses than the gateway's, such as %s: "+
			"a holder who sets a password for the session role can come back without a credential for some minutes", where)
	}
	if len(k.report.Findings) > before {
		k.report.Findings[len(k.report.Findings)-1].HBA = k.hbaLines(gateway)
	} else {
		k.add(OK, "pg_hba", "session roles log on from the gateway's address (%s) only", from)
	}
	switch where := open(anybody); {
	case where == "":
		k.add(OK, "pg_hba", "only the gateway's address (%s) reaches the database", from)
	case len(k.open) == 0:
		k.add(OK, "pg_hba", "pg_hba.conf lets users in from other addresses, such as %s; no user that is lent has a valid password", where)
	default:
		k.add(Notice, "pg_hba", "pg_hba.conf lets users in from other addresses, such as %s; see which may have a password above", where)
	}
}

// hbaLines returns lines for the beginning of pg_hba.conf. With them, session roles and
// the administrative login can log on only from the gateway. They restrict no other
// user, because the operator decides which users have to go through the gateway.
func (k *checker) hbaLines(gateway string) []string {
	kind, address := "host", gateway+"/32"
	if k.config.TLSConfig != nil {
		kind = "hostssl"
	}
	if a, err := netip.ParseAddr(gateway); err == nil && a.Is6() {
		address = gateway + "/128"
	}
	line := func(kind, user, address, method string) string {
		return fmt.Sprintf("%-8s all  %-26s %-18s %s", kind, user, address, method)
	}
	admin, session := pgsql.Ident(k.config.User), "+"+dbuser.MarkerRole
	lines := []string{"# the gateway"}
	switch {
	case strings.HasPrefix(k.config.Host, "/"):
		lines = append(lines, line("local", admin, "", "scram-sha-256"), line("local", session, "", "scram-sha-256"),
			"# no one else as these")
	default:
		if gateway == "" {
			address = "GATEWAY-ADDRESS/32"
		}
		lines = append(lines, line(kind, admin, address, "scram-sha-256"), line(kind, session, address, "scram-sha-256"),
			"# no one else as these", line("local", session, "", "reject"))
	}
	return append(lines, line("host", admin, "all", "reject"), line("host", session, "all", "reject"),
		"# a user who is to come through the gateway only, such as alice",
		"# "+line("host", "alice", "all", "reject"))
}

// firstHBA returns the first rule that matches a logon, as the server picks it. user
// is "+marker" for a session role, empty for a user that no rule names. Rules
// that depend on a database or on a host name are taken to match: better one
// warning too many.
func firstHBA(rules []hbaRule, user, address string, tls bool) (hbaRule, bool) {
	for _, r := range rules {
		if slices.Equal(r.Databases, []string{"replication"}) {
			continue
		}
		if slices.Contains(r.Users, "all") || user != "" && slices.Contains(r.Users, user) {
			if r.matchesAddress(address, tls) {
				return r, true
			}
		}
	}
	return hbaRule{}, false
}

func (r hbaRule) matchesAddress(address string, tls bool) bool {
	if address == "local" || r.Type == "local" {
		return address == r.Type
	}
	switch r.Type {
	case "hostssl", "hostgssenc":
		if !tls {
			return false
		}
	}
	switch r.Address {
	case "all":
		return true
	case "samehost", "samenet":
		a, err := netip.ParseAddr(address)
		return err == nil && a.IsLoopback()
	}
	a, err := netip.ParseAddr(address)
	if err != nil {
		return false
	}
	network, mask := netip.Addr{}, netip.Addr{}
	if network, err = netip.ParseAddr(r.Address); err != nil {
		return !a.IsLoopback() // a host name
	}
	if mask, err = netip.ParseAddr(r.Netmask); err != nil || network.Is4() != a.Is4() {
		return false
	}
	x, y, m := a.AsSlice(), network.AsSlice(), mask.AsSlice()
	for i := range x {
		if i >= len(m) || x[i]&m[i] != y[i]&m[i] {
			return false
		}
	}
	return true
}
