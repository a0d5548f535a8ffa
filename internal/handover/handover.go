package handover

import (
	"context"
	"errors"
	"time"

	"github.com/daypass/daypass/internal/adminconn"
)

// Ownership is what a session role owns in one database. An empty Database
// means what belongs to the whole cluster, such as a database.
type Ownership struct {
	Role     string `json:"role"`
	User     string `json:"user"`
	Database string `json:"database,omitempty"`
}

// KeptRole is a session role that could not be handed over or dropped, and why.
type KeptRole struct {
	Role   string `json:"role"`
	Reason string `json:"reason"`
	// Database is set if the reason is that this database does not let the administrative login
	// in. The reason is then the same for every role that owns something there.
	Database string `json:"database,omitempty"`
}

// errMore is returned if the time of a hand-over ran out and it has to be continued.
var errMore = errors.New("there is more to hand over")

// handOver makes the user the owner of what a session role without a session owns in one
// database. It uses one statement, or goes object by object if that fails or would be too much.
// It returns errMore soon after limit, unless limit is zero, and errInUse if the role has a
// session.
func (a *Admin) handOver(ctx context.Context, role, database string, limit time.Duration) (user string, err error) {
	until := time.Time{}
	if limit > 0 {
		until = time.Now().Add(limit)
	}
	err = a.Pool.OnDatabase(ctx, database, func(do adminconn.Transaction) error {
		h := handingOver{a: a, role: role, until: until, do: do, grants: func(ctx context.Context, lane, c *adminconn.Conn) (t tempGrants, err error) {
			live, err := a.LiveAmong(ctx, lane, []string{role})
			if err == nil && len(live) > 0 {
				err = errInUse
			}
			if err != nil {
				return t, err
			}
			if user, err = a.UserOf(ctx, lane, role); err != nil {
				return t, err
			}
			return a.tempGrantsToGive(ctx, lane, c, role, user)
		}}
		if database != "" {
			if err := h.surplus(); err != nil {
				return err
			}
		}
		whole := h.whole()
		if database == "" || !aboutObjects(whole) {
			return whole
		}
		if _, err := h.pieces(whole); err != nil {
			return err
		}
		return h.whole() // the rest: ALTER cannot change the owner of an extension
	})
	return user, err
}
