package server

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/daypass/daypass/internal/api"
	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/registry"
	"github.com/daypass/daypass/internal/registry/boltstore"
	"github.com/daypass/daypass/internal/registry/etcdstore"
)

// revocations are the registry of one running server.
type revocations struct {
	*registry.Registry
	store   registryStore
	changed atomic.Pointer[func()] // whom to tell of changes
	stop    func()
}

// registryStore is a registry.Store that its opener closes.
type registryStore interface {
	registry.Store
	Close() error
}

// openStore opens the registry where the configuration has it.
func openStore(cfg *config.Config, data *dataDir) (registryStore, error) {
	if etcd := cfg.Registry.Etcd; etcd != nil {
		return etcdstore.Open(etcdConfig(etcd))
	}
	return boltstore.Open(data.join("registry.db"))
}

func etcdConfig(e *config.Etcd) etcdstore.Config {
	return etcdstore.Config{Endpoints: e.Endpoints, Prefix: e.Prefix, TLS: e.TLS, Authorities: e.CAPEM, Username: e.Username, Password: e.Password}
}

// renew hands a password and authorities that have changed to etcd's client.
func (r *revocations) renew(cfg *config.Config, log *slog.Logger) {
	if store, ok := r.store.(*etcdstore.Store); ok && cfg.Registry.Etcd != nil {
		store.Renew(etcdConfig(cfg.Registry.Etcd), func(err error) {
			log.Warn("etcd does not take the changed password or authorities yet; the connection with those before goes on, and they are tried every second", "error", err)
		})
	}
}

// openRevocations opens the registry, and returns when it is known what is
// revoked. It is kept up to date until close, through the drain as well.
func openRevocations(cfg *config.Config, data *dataDir, now func() time.Time, log *slog.Logger) (*revocations, error) {
	r, err := tryRevocations(cfg, data, now, log)
	if etcd := cfg.Registry.Etcd; err != nil && etcd != nil {
		err = cfg.Fault("registry.etcd", fmt.Errorf("%w (a server starts only when it knows what is revoked; `etcdctl --endpoints=%s endpoint health` says more)",
			err, strings.Join(etcd.Endpoints, ",")))
	}
	return r, err
}

func tryRevocations(cfg *config.Config, data *dataDir, now func() time.Time, log *slog.Logger) (*revocations, error) {
	store, err := openStore(cfg, data)
	if err != nil {
		return nil, err
	}
	r := &revocations{store: store}
	changed := func() {
		if tell := r.changed.Load(); tell != nil {
			(*tell)()
		}
	}
	r.Registry = registry.New(registry.Config{
		Store:   store,
		Now:     now,
		Changed: changed,
		Problem: func(err error) {
			if err != nil {
				log.Error("logons are refused: nobody can tell what is revoked", "error", err)
			} else {
				log.Info("the registry can be read again")
			}
		},
	})
	if _, err := r.Revocations(context.Background()); err != nil {
		store.Close()
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.Run(ctx) // it returns nil
	}()
	r.stop = func() { cancel(); <-done }
	first, over := context.WithTimeout(ctx, 10*time.Second)
	defer over()
	if err := r.Wait(first); err != nil {
		err = fmt.Errorf("reading the registry: %w", r.Err())
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *revocations) close() {
	r.stop()
	_ = r.store.Close() // what was written is synced
}

// revoked is the gateway's question.
func (r *revocations) revoked(g *credential.Grant) (bool, error) {
	return r.Revoked(registry.Credential{ID: g.ID, Principal: g.Principal, Cluster: g.Cluster, DBUser: g.DBUser, IssuedAt: g.IssuedAt})
}

// gatewaySessions are the gateway's sessions in the words of the API. The server is
// made after the API is.
type gatewaySessions struct{ server *gateway.Server }

func (g *gatewaySessions) List() []*api.Session {
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

func (g *gatewaySessions) Kill(id string) bool { return g.server.Kill(id) }
