package gateway

import (
	"context"
	"errors"
	"fmt"

	"github.com/daypass/daypass/internal/pgwire"
)

// Everywhere counts the sessions of all servers, for clusters whose limits hold over all. Safe for
// concurrent use.
type Everywhere interface {
	// Take counts a session that is about to begin, in its cluster and for its user. wait is nil
	// if all servers count the session already. Otherwise wait must be called once, and returns
	// nil when all servers count the session. If it returns an error, the session may not begin
	// and no longer counts. The error wraps ErrClusterFull or ErrUserFull, or explains why the
	// other servers' sessions are not known. likely reports that the session will probably be
	// allowed.
	Take(cluster, user string) (wait func(context.Context) error, likely bool)
	// Held reports whether the sessions of this server are certain to be counted still.
	Held(cluster, user string) bool
	// Leave undoes Take.
	Leave(cluster, user string)
}

// The limit that is reached.
var (
	ErrClusterFull = errors.New("the servers together have as many sessions of the cluster as it may have")
	ErrUserFull    = errors.New("the servers together have as many sessions of the user as it may have")
)

var errNotHeld = errors.New("the servers do not count the sessions of this one at the moment")

// refuseFull refuses a logon beyond the limit of its user or, if user is empty, of its cluster.
func refuseFull(cluster *Cluster, user string) *refusal {
	r := &refusal{reason: ReasonLimit, state: pgwire.StateTooManyConnections,
		message: fmt.Sprintf("too many sessions for cluster \"%s\"", cluster.Identifier)}
	key, limit := "max", cluster.MaxSessions
	if user != "" {
		r.message = fmt.Sprintf("too many sessions for user \"%s\"", user)
		key, limit = "per_user", cluster.MaxSessionsPerUser
	}
	if cluster.LimitsEverywhere {
		r.detail = fmt.Sprintf("The limit, session_limits.%s of cluster \"%s\", is %d over all servers.", key, cluster.Identifier, limit)
	}
	return r
}

func (l *logon) refuseEverywhere(cluster *Cluster, err error) *refusal {
	switch {
	case errors.Is(err, ErrClusterFull):
		return refuseFull(cluster, "")
	case errors.Is(err, ErrUserFull):
		return refuseFull(cluster, l.grant.DBUser)
	}
	return &refusal{reason: ReasonUnknown, state: pgwire.StateCannotConnectNow, cause: err,
		message: fmt.Sprintf("logons to cluster \"%s\" are refused while the sessions of all servers cannot be counted", cluster.Identifier),
		hint:    "Try again; an operator finds the cause in the log."}
}

// reserve counts the logon here and on all servers, before it causes the cluster any work. If the
// limit probably allows the session, reserve does not wait until all servers count it: the session
// is opened meanwhile, and the caller then calls wait. wait is nil if there is nothing to wait for.
func (l *logon) reserve(cluster *Cluster) (wait func(context.Context) error, r *refusal) {
	s, user := l.server, l.grant.DBUser
	if r := s.sessions.reserve(cluster, user); r != nil || s.everywhere == nil {
		return nil, r
	}
	wait, likely := s.everywhere.Take(cluster.Identifier, user)
	if wait == nil || likely {
		return wait, nil
	}
	ctx, cancel := context.WithDeadline(context.Background(), l.deadline.Add(-answerMargin))
	defer cancel()
	if r := l.awaitCount(ctx, cluster, wait); r != nil {
		s.sessions.release(cluster.Identifier, user)
		return nil, r
	}
	return nil, nil
}

// awaitCount waits until all servers count the session. wait is nil if they already do.
func (l *logon) awaitCount(ctx context.Context, cluster *Cluster, wait func(context.Context) error) *refusal {
	if wait == nil {
		return nil
	}
	err := wait(ctx)
	if err == nil {
		return nil
	}
	l.uncounted = true
	return l.refuseEverywhere(cluster, err)
}

// release undoes reserve.
func (s *Server) release(cluster, user string) {
	s.sessions.release(cluster, user)
	if s.everywhere != nil {
		s.everywhere.Leave(cluster, user)
	}
}
