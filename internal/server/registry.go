package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/registry"
	"github.com/daypass/daypass/internal/registry/boltstore"
	"github.com/daypass/daypass/internal/registry/etcdstore"
)

// revocations are the registry of one running server.
type revocations struct {
	*registry.Registry
	store   registryStore
	changed chan struct{} // holds one element after a change
	stop    func()
}

// registryStore is a registry.Store that has to be closed.
type registryStore interface {
	registry.Store
	Close() error
}

// openStore opens the store that the configuration names.
func openStore(cfg *config.Config, data *dataDir) (registryStore, error) {
	if etcd := cfg.Registry.Etcd; etcd != nil {
		return etcdstore.Open(etcdConfig(etcd))
	}
	return boltstore.Open(data.join("registry.db"))
}

// lacksRevocations reports whether there are keys that may have signed credentials, and no file that
// tells which of these were revoked: it was not in the backup, or was moved away.
func (d *dataDir) lacksRevocations(cfg *config.Config) bool {
	if cfg.Registry.Etcd != nil || legacyKeyring(cfg) == "" {
		return false
	}
	_, err := os.Stat(d.join("registry.db"))
	return errors.Is(err, fs.ErrNotExist)
}

// lacksKeys reports whether there is a file that tells what was revoked, and no keys: they were not in the
// backup, or were moved away. A new server makes its keys first.
func (d *dataDir) lacksKeys(cfg *config.Config) bool {
	if cfg.RootKey != nil || cfg.Registry.Etcd != nil || legacyKeyring(cfg) != "" {
		return false
	}
	_, err := os.Stat(d.join("registry.db"))
	return err == nil
}

func etcdConfig(e *config.Etcd) etcdstore.Config {
	return etcdstore.Config{Endpoints: e.Endpoints, Prefix: e.Prefix, TLS: e.TLS, Authorities: e.CAPEM, Username: e.Username, Password: e.Password}
}

// renew passes a changed password and changed authorities to etcd's client.
func (r *revocations) renew(cfg *config.Config, log *slog.Logger) {
	if store, ok := r.store.(*etcdstore.Store); ok && cfg.Registry.Etcd != nil {
		store.Renew(etcdConfig(cfg.Registry.Etcd), func(err error) {
			log.Warn("etcd does not accept the changed password or authorities yet; the earlier connection stays, and they are tried every second", "err", err)
		})
	}
}

// openRevocations opens the registry and returns once it has been read. It is kept up to
// date until close, also during the drain.
func openRevocations(cfg *config.Config, data *dataDir, now func() time.Time, log *slog.Logger) (*revocations, error) {
	r, err := tryRevocations(cfg, data, now, log)
	if etcd := cfg.Registry.Etcd; err != nil && etcd != nil {
		err = cfg.Fault("registry.etcd", fmt.Errorf("%w (a server starts only once it has read the revocations; check etcd: `etcdctl --endpoints=%s endpoint health`)",
			err, strings.Join(etcd.Endpoints, ",")))
	}
	return r, err
}

func tryRevocations(cfg *config.Config, data *dataDir, now func() time.Time, log *slog.Logger) (*revocations, error) {
	store, err := openStore(cfg, data)
	if err != nil {
		return nil, err
	}
	r := &revocations{store: store, changed: make(chan struct{}, 1)}
	changed := func() {
		select {
		case r.changed <- struct{}{}:
		default: // a change is pending already
		}
	}
	r.Registry = registry.New(registry.Config{
		Store:   store,
		Now:     now,
		Changed: changed,
		Problem: func(err error) {
			if err != nil {
				log.Error("logons are refused: the revocations are not known", "err", err)
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
		_ = r.Run(ctx) // Run always returns nil
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
	_ = r.store.Close() // all writes are synced already
}

// follow calls recheck after each change, until stop is called.
func (r *revocations) follow(recheck func()) (stop func()) {
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-end:
				return
			case <-r.changed:
				recheck()
			}
		}
	}()
	return func() { close(end); <-done }
}

// revoked reports whether a credential is revoked.
func (r *revocations) revoked(g *credential.Grant) (bool, error) {
	return r.Revoked(registry.Credential{ID: g.ID, Principal: g.Principal, Cluster: g.Cluster, DBUser: g.DBUser, IssuedAt: g.IssuedAt})
}
