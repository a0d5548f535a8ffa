package server

import (
	"context"

	"github.com/daypass/daypass/internal/api"
	"github.com/daypass/daypass/internal/gateway"
)

// gatewaySessions gives the API access to the gateway's sessions and those of other servers.
type gatewaySessions struct {
	server *gateway.Server
	member *member // nil: this is the only server
	peers  *peers  // nil: none are configured
}

func (g gatewaySessions) List() []*api.Session {
	sessions := g.server.Sessions()
	name := ""
	if g.member != nil {
		name = g.member.fixed.ID
	}
	list := make([]*api.Session, 0, len(sessions))
	for i := range sessions {
		s := &sessions[i]
		list = append(list, &api.Session{
			ID: s.ID, CredentialID: s.CredentialID, Principal: s.Principal, Cluster: s.Cluster, Database: s.Database,
			DBUser: s.DBUser, DBGroups: s.DBGroups, SessionRole: s.SessionRole, Application: s.Application,
			Client: s.Client, TLS: s.TLS, PID: s.PID, Started: s.Started, IssuedAt: s.IssuedAt, NotAfter: s.NotAfter,
			Server: name, State: s.State, BytesFromClient: s.BytesFromClient, BytesToClient: s.BytesToClient,
		})
	}
	return list
}

func (g gatewaySessions) Elsewhere(ctx context.Context, id string) ([]*api.Session, []string) {
	switch {
	case g.peers != nil:
		return g.peers.sessions(ctx, id)
	case g.member != nil:
		return nil, g.member.others()
	}
	return nil, nil
}

func (g gatewaySessions) Kill(id string) bool {
	return g.server.Kill(id) || g.peers != nil && g.peers.client.Kill(context.Background(), id)
}
