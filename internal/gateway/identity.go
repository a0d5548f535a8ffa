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
// and a reported version. It is repeated after lookAgain, in case another server has
// taken over the address.

const (
	lookAgain = 10 * time.Minute
	// mostServers bounds the number of remembered servers, in case addresses never repeat.
	mostServers = 1000
)

// looks remembers the servers that were checked and passed. The zero value remembers
// none. Safe for concurrent use.
type looks struct {
	mu   sync.Mutex
	seen map[string]look // by address
}

type look struct {
	version string
	until   time.Time
	dropped bool // a warning was logged
}

func (l *looks) known(address, version string) (known, warned bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.seen[address]
	return one.version == version && time.Now().Before(one.until), one.version == version && one.dropped
}

func (l *looks) note(address, version string, dropped bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen == nil || len(l.seen) >= mostServers {
		l.seen = map[string]look{}
	}
	l.seen[address] = look{version: version, until: time.Now().Add(lookAgain), dropped: dropped}
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

// lookAtIdentity asks for the session's current_user, at once and after the command
// that pools run between two users. It leaves the session as it was.
const lookAtIdentity = "BEGIN; SELECT current_user; SET SESSION AUTHORIZATION DEFAULT; SELECT current_user; ROLLBACK"

// identify verifies that a session works as its user.
func (s *Server) identify(c *Cluster, up *upstream, role dbuser.SessionRole) error {
	if role.User == "" {
		return nil // the session role itself
	}
	address, version := up.RemoteAddr().String(), up.status["server_version"]
	known, warned := s.looks.known(address, version)
	if known {
		return nil
	}
	answers, err := up.ask(lookAtIdentity)
	if err != nil {
		return &connectError{reached: true, address: address, err: fmt.Errorf("asking who the session works as: %w", err)}
	}
	if len(answers) != 2 || answers[0] != role.User {
		return &identityError{address: address, version: version, user: role.User, got: strings.Join(slices.Compact(answers), ", ")}
	}
	dropped := answers[1] != role.User
	if dropped && !warned {
		s.log.Warn("DISCARD ALL and SET SESSION AUTHORIZATION DEFAULT make a session work as its session role: connection pools lose the database user",
			"cluster", c.Identifier, "server", address, "version", version, "remedy", "update PostgreSQL: "+dbuser.MinimumMinors)
	}
	s.looks.note(address, version, dropped)
	return nil
}
