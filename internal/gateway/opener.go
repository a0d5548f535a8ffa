package gateway

import (
	"context"
	"crypto/sha256"
	"errors"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/pgwire"
)

// checkInterval is how often a running query checks whether the gateway is still
// connected, on servers that can (PostgreSQL 14 on).
const checkInterval = "5s"

// opener opens a new upstream session for a logon, as the logon's session role. If the server
// refuses it for a reason that the gateway can remove, open removes it and tries again, once for
// each reason.
type opener struct {
	*logon
	cluster *Cluster
	need    dbuser.Need
	params  []pgwire.Param // the start-up parameters that were sent last
	healed  bool           // the session role's password was set again
}

func (o *opener) open(ctx context.Context) (*upstream, error) {
	up, err := o.openChecked(ctx)
	ofCluster := func(one *pooled) bool { return one.key.admin == o.cluster.Admin }
	if refusedWith(err, pgwire.StateTooManyConnections) && o.server.makeRoom(closePatience, ofCluster) {
		up, err = o.try(ctx)
	}
	if passwordRefused(err) {
		up, err = o.heal(ctx)
	}
	if said, ok := errors.AsType[*serverError](err); ok && (said.state == pgwire.StateInvalidAuthorization && !said.late || said.state == pgwire.StateInsufficientRights) {
		return o.lendAgain(ctx, err)
	}
	return up, err
}

func (o *opener) try(ctx context.Context) (*upstream, error) {
	up, left, err := o.server.connect(ctx, &wanted{cluster: o.cluster, role: o.role, database: o.database, principal: o.grant.Principal, params: o.params})
	o.unfinished = append(o.unfinished, left...)
	return up, err
}

// openChecked asks the server to check during queries whether the gateway is still connected. It
// tries without that if the server refuses a parameter: not every operating system can tell that a
// peer has gone. If the refused parameter was one of the client's own, the server refuses it again.
func (o *opener) openChecked(ctx context.Context) (*upstream, error) {
	o.params = o.asked.Params
	if o.role.ServerVersion < 140000 || o.asked.Has("client_connection_check_interval") {
		return o.try(ctx)
	}
	asked := o.params
	o.params = append(asked[:len(asked):len(asked)], pgwire.Param{Name: "client_connection_check_interval", Value: checkInterval})
	up, err := o.try(ctx)
	if refusedWith(err, pgwire.StateInvalidParameter) {
		o.params = asked
		up, err = o.try(ctx)
	}
	return up, err
}

// heal sets the session role's password again: a holder can change the password of their session
// role.
func (o *opener) heal(ctx context.Context) (*upstream, error) {
	s, admin, name := o.server, o.cluster.Admin, o.role.Name
	s.makeRoom(closeTime, func(one *pooled) bool { return one.key.of(admin, name) })
	role, err := admin.Heal(ctx, o.need)
	if err != nil {
		return nil, err
	}
	s.log.Warn("session role's password set again after the server had refused it", "session", o.id, "cluster", o.cluster.Identifier, "role", role.Name)
	o.role, o.healed = role, true
	return o.try(ctx)
}

// lendAgain makes the session role ready once more. Another gateway may just have taken the role's
// rights away, after the role's last session had ended there. If nothing has changed since, it
// returns the server's refusal.
func (o *opener) lendAgain(ctx context.Context, refused error) (*upstream, error) {
	role, err := o.cluster.Admin.Ensure(ctx, o.need)
	if err != nil {
		return nil, err
	}
	defer o.cluster.Admin.Opened(role.Name)
	if role.Seen != [sha256.Size]byte{} && role.Seen == o.role.Seen {
		return nil, refused
	}
	o.role = role
	return o.try(ctx)
}

// refusedWith reports whether the server has refused a session with an SQLSTATE.
func refusedWith(err error, state string) bool {
	said, ok := errors.AsType[*serverError](err)
	return ok && said.state == state
}
