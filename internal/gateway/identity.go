package gateway

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/pgwire"
)

// A session without groups works as its user because of a setting of the session role
// (ALTER ROLE … SET role). Some minor versions of PostgreSQL do not apply the setting at
// logon, and others drop it at DISCARD ALL and SET SESSION AUTHORIZATION DEFAULT
// (dbuser.MinorFaults). Then current_user is the session role, and row security that
// compares it with a user's name shows too much or too little. So the gateway checks
// the first session at each server before it gives it to a client: a session that does
// not work as its user is refused, and a setting that can be dropped is logged as a
// warning.
//
// This depends on the server's version alone, so one check is enough for an address
// and a reported version. It is repeated after identityValid, in case another server has
// taken over the address.

const (
	identityValid = 10 * time.Minute
	// maxServers bounds the number of remembered servers, in case addresses never repeat.
	maxServers = 1000
)

// checkedServers remembers the servers that were checked and passed. The zero value remembers
// none. Safe for concurrent use.
type checkedServers struct {
	mu        sync.Mutex
	byAddress map[string]checkedServer // guarded by mu
}

type checkedServer struct {
	version string
	until   time.Time
	dropped bool // the setting can be dropped, and a warning was logged
}

// known reports whether the server at an address was checked lately, and whether a warning was
// logged for it. With another version it counts as another server.
func (c *checkedServers) known(address, version string) (known, warned bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	server, ok := c.byAddress[address]
	if !ok || server.version != version {
		return false, false
	}
	return time.Now().Before(server.until), server.dropped
}

func (c *checkedServers) note(address, version string, dropped bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byAddress == nil || len(c.byAddress) >= maxServers {
		c.byAddress = map[string]checkedServer{}
	}
	c.byAddress[address] = checkedServer{version: version, until: time.Now().Add(identityValid), dropped: dropped}
}

// identityError means that a session does not work as its user.
type identityError struct {
	address, version string
	user, got        string
}

func (e *identityError) Error() string {
	text := fmt.Sprintf("%s: a session for user %q works as %q", e.address, e.user, e.got)
	if fault := dbuser.MinorFault(e.version); fault != "" {
		text += ": PostgreSQL " + pgwire.BareVersion(e.version) + " " + fault
	}
	return text
}

// identityQuery asks for the session's current_user, at once and after the command
// that pools run between two users. It leaves the session as it was.
const identityQuery = "BEGIN; SELECT current_user; SET SESSION AUTHORIZATION DEFAULT; SELECT current_user; ROLLBACK"

// identify verifies that a session works as its user.
func (s *Server) identify(c *Cluster, up *upstream, role dbuser.SessionRole) error {
	if role.User == "" {
		return nil // the session role itself
	}
	address, version := up.RemoteAddr().String(), up.status["server_version"]
	known, warned := s.checked.known(address, version)
	if known {
		return nil
	}
	answers, err := up.ask(identityQuery)
	if err != nil {
		return &connectError{reached: true, answered: true, address: address, err: fmt.Errorf("asking who the session works as: %w", err)}
	}
	if len(answers) != 2 || answers[0] != role.User {
		return &identityError{address: address, version: version, user: role.User, got: strings.Join(slices.Compact(answers), ", ")}
	}
	dropped := answers[1] != role.User
	if dropped && !warned {
		s.log.Warn("DISCARD ALL and SET SESSION AUTHORIZATION DEFAULT make a session work as its session role: connection pools lose the database user",
			"cluster", c.Identifier, "server", address, "version", version, "remedy", "update PostgreSQL: "+dbuser.MinimumMinors)
	}
	s.checked.note(address, version, dropped)
	return nil
}
