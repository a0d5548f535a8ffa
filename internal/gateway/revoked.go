package gateway

import (
	"errors"
	"fmt"
	"time"

	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/pgwire"
	"github.com/daypass/daypass/internal/session"
)

// A session outlives its credential. Two things end it earlier: a revocation, and the
// limits that a cluster may have. Neither costs the relay anything: a sweep over the
// sessions looks at both, once a second and whenever Recheck is called.
//
// Every end that is imposed on a session cancels its query and ends its backend,
// whatever the session seems to be doing.

// sweepInterval is the time between two sweeps, so limits are exact to within it.
const sweepInterval = time.Second

var (
	errRevoked = errors.New("the credential was revoked")
	errUnknown = errors.New("revocations cannot be read")
)

// ErrKeysUnknown is the error of Config.Check when the current keys cannot be read, so that a
// revoked key might be accepted. The logon is refused in the same way as when revocations cannot
// be read.
var ErrKeysUnknown = errors.New("the keys in force cannot be read")

func refuseKeysUnknown(err error) *refusal {
	return &refusal{reason: ReasonUnknown, state: pgwire.StateCannotConnectNow, cause: err,
		message: "logons are refused while the keys that the servers share cannot be read",
		hint:    "Try again; an operator finds the cause in the log."}
}

// refuseRevoked refuses a valid credential that was revoked, and every credential
// while revocations cannot be read.
func (s *Server) refuseRevoked(grant *credential.Grant) *refusal {
	revoked, err := s.isRevoked(grant)
	switch {
	case err != nil:
		return &refusal{reason: ReasonUnknown, state: pgwire.StateCannotConnectNow, cause: fmt.Errorf("%w: %w", errUnknown, err),
			message: "logons are refused while the registry of revocations cannot be read",
			hint:    "Try again; an operator finds the cause in the log."}
	case revoked:
		return &refusal{reason: ReasonRevoked, state: pgwire.StateInvalidAuthorization, cause: errRevoked, message: "IAM Authentication token has been revoked",
			hint: "Ask for a new one with GetClusterCredentials."}
	}
	return nil
}

func (s *Server) isRevoked(grant *credential.Grant) (bool, error) {
	if s.revoked == nil {
		return false, nil
	}
	return s.revoked(grant)
}

// endIfRevoked ends a session whose credential was revoked, and reports whether it
// was. While revocations cannot be read, running sessions go on: only logons fail
// closed.
//
// grant is memory that the caller reuses for each call. Allocating a grant for each session every
// second would keep an idle server from returning memory.
func (s *Server) endIfRevoked(e *entry, grant *credential.Grant) bool {
	info := &e.info
	*grant = credential.Grant{ID: info.CredentialID, Cluster: info.Cluster, DBUser: info.DBUser,
		Principal: info.Principal, IssuedAt: info.IssuedAt, NotAfter: info.NotAfter}
	revoked, err := s.isRevoked(grant)
	if err != nil || !revoked {
		return false
	}
	e.CancelAndEnd(imposed(reasonRevoked, "terminating connection: the credential was revoked"))
	return true
}

// Recheck has Config.Revoked called for every session soon. It returns at once.
func (s *Server) Recheck() {
	select {
	case s.recheck <- struct{}{}:
	default: // a sweep is due that has not begun
	}
}

// watchSessions sweeps until Shutdown has ended.
func (s *Server) watchSessions() {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-ticker.C:
		case <-s.recheck:
		}
		s.sweep(s.now())
	}
}

// sweep looks at every session once.
func (s *Server) sweep(now time.Time) {
	s.sweeping.Lock()
	defer s.sweeping.Unlock()
	s.sweepPool(now)
	limits := map[string]session.Limits{} // a cluster that was removed has none
	var grant credential.Grant
	for _, e := range s.sessions.all() {
		if e.Ending() || s.endIfRevoked(e, &grant) {
			continue
		}
		of, known := limits[e.info.Cluster]
		if !known {
			if cluster, ok := s.cluster(e.info.Cluster); ok {
				of = cluster.SessionLimits
			}
			limits[e.info.Cluster] = of
		}
		e.Apply(of, e.info.Started, e.info.NotAfter, now)
	}
}
