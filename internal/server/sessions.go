package server

import (
	"github.com/daypass/daypass/internal/api"
	"github.com/daypass/daypass/internal/gateway"
)

// gatewaySessions gives the API the gateway's sessions.
type gatewaySessions struct{ server *gateway.Server }

func (g gatewaySessions) List() []*api.Session {
	sessions := g.server.Sessions()
	list := make([]*api.Session, 0, len(sessions))
	for i := range sessions {
		s := &sessions[i]
		list = append(list, &api.Session{
			ID: s.ID, CredentialID: s.CredentialID, Principal: s.Principal, Cluster: s.Cluster, Database: s.Database,
			DBUser: s.DBUser, DBGroups: s.DBGroups, SessionRole: s.SessionRole, Application: s.Application,
			Client: s.Client, TLS: s.TLS, PID: s.PID, Started: s.Started, IssuedAt: s.IssuedAt, NotAfter: s.NotAfter,
			State: s.State, BytesFromClient: s.BytesFromClient, BytesToClient: s.BytesToClient,
		})
	}
	return list
}

func (g gatewaySessions) Kill(id string) bool { return g.server.Kill(id) }
