package clustercheck

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/adminconn"
)

// Host is one of several hosts of a cluster.
type Host struct {
	Address string    `json:"address"`
	State   HostState `json:"state"`
	// Problem tells why a host is down or unusable, and Do what to do about it. Neither names a role.
	Problem string `json:"problem,omitempty"`
	Do      string `json:"do,omitempty"`
}

// HostState is what the administrative login finds at a host.
type HostState string

// The states of a host.
const (
	Primary  HostState = "primary"
	Standby  HostState = "standby"
	Down     HostState = "down"     // it does not answer
	Unusable HostState = "unusable" // it answers, and the administrative login gets no session
)

// hosts asks each host of a cluster that has several. Sessions use the first that answers and fits
// target_session_attrs; administration needs the primary.
func (k *checker) hosts(ctx context.Context) {
	if !k.a.Pool.SeveralHosts() {
		return
	}
	answers := k.a.Pool.Ask(ctx)
	primaries := map[time.Time]string{} // one address of each server
	for _, a := range answers {
		if a.Err == nil && !a.Standby {
			primaries[a.Started] = a.Address
		}
	}
	for _, a := range answers {
		h := Host{Address: a.Address, State: Primary}
		switch {
		case a.Err != nil:
			h.State, h.Problem, h.Do = hostProblem(a.Err)
			k.add(Warning, "host", "host %s is %s: %s: %s, or take it out of upstream", h.Address, h.State, h.Problem, h.Do)
		case a.Standby:
			h.State = Standby
			k.add(OK, "host", "host %s answers and is a standby", h.Address)
		default:
			k.add(OK, "host", "host %s answers and is the primary", h.Address)
		}
		k.report.Hosts = append(k.report.Hosts, h)
	}
	if len(primaries) > 1 {
		k.add(Broken, "primaries", "%s are all primaries, so sessions may work on different data: find out which one is right, and take the others out of upstream",
			strings.Join(slices.Sorted(maps.Values(primaries)), " and "))
	}
}

// hostProblem returns why the administrative login cannot log on at a host, and what to do.
func hostProblem(err error) (state HostState, problem, do string) {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pg.Code[:min(2, len(pg.Code))] {
		case "28":
			return Unusable, fmt.Sprintf("it refuses the administrative login (%s)", pg.Code), "check its pg_hba.conf and the login's password there"
		case "53":
			return Unusable, fmt.Sprintf("it has no connection left (%s)", pg.Code), "raise max_connections there, or end sessions"
		case "57":
			return Unusable, fmt.Sprintf("it is starting up or shutting down, or is a standby without hot_standby (%s)", pg.Code), "wait, or look at its log"
		}
		return Unusable, fmt.Sprintf("it refuses the administrative login's connection (%s)", pg.Code), "look at its log"
	}
	dns, isDNS := errors.AsType[*net.DNSError](err)
	switch {
	case adminconn.CertificateFault(err) != nil:
		return Unusable, "its certificate is not accepted", "give it one that sslrootcert verifies"
	case errors.Is(err, adminconn.ErrPooler):
		return Unusable, "a pooler answers there", "name the server itself in upstream"
	case errors.Is(err, adminconn.ErrMethod):
		return Unusable, "it asks for a password in a way that is not allowed", "set password_encryption to scram-sha-256 there, or require_auth in upstream"
	case isDNS && dns.IsNotFound:
		return Down, "its name does not exist", "correct the name in upstream, or in DNS"
	case errors.Is(err, syscall.ECONNREFUSED):
		return Down, "nothing listens there", "start PostgreSQL there, and check its port and listen_addresses"
	case errors.Is(err, os.ErrNotExist):
		return Down, "there is no socket", "start PostgreSQL there, and check unix_socket_directories"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return Down, fmt.Sprintf("no answer within %v", adminconn.ConnectTimeout), "start the machine, and check the network and firewalls in between"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return Down, "there is no way to it", "check the network in between"
	}
	return Unusable, "the connection breaks off", "look at its log"
}
