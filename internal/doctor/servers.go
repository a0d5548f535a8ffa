package doctor

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/fleet"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/server"
)

// sharedKeys checks the keys that several servers share, and the servers.
func (o *Operator) sharedKeys(ctx context.Context, r *Report, cfg *config.Config) {
	const about, do = "keys", "look at root_key and registry.etcd, and run etcdctl endpoint health (docs/several-servers.md)"
	shared, err := server.OpenKeys(ctx, cfg, o.Now)
	if err != nil {
		r.fail(about, do, "%v", err)
		return
	}
	defer shared.Close()
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	keys, err := shared.Keys(limited)
	switch {
	case errors.Is(err, fleet.ErrNoKeys):
		r.warn(about, "start a server, or run daypass keys move to take a keyring file's keys along", "etcd has no keys yet")
		return
	case err != nil:
		r.fail(about, do, "%s", plainly(err))
		return
	}
	infos := make([]keyring.Info, len(keys))
	for i, key := range keys {
		infos[i] = key.Info
	}
	o.servers(ctx, r, shared, infos)
}

// servers checks the servers that are alive. That none is alive is only worth a warning.
func (o *Operator) servers(ctx context.Context, r *Report, shared *server.Keys, keys []keyring.Info) {
	const about = "servers"
	ctx, cancel := context.WithTimeout(ctx, 3*patience) // until each has announced itself again
	defer cancel()
	servers, err := shared.Servers(ctx)
	if err != nil {
		r.fail(about, "run daypass servers", "which servers there are is not known: %s", plainly(err))
		return
	}
	if len(servers) == 0 {
		r.warn(about, "start one, unless all are meant to be down", "none is running")
		return
	}
	o.ages(r, keys)
	behind := 0
	for i := range servers {
		r.mask.Host(servers[i].ID)
		if servers[i].Behind {
			behind++
		}
	}
	r.ok(about, "%d are running", len(servers))
	if behind > 0 {
		r.warn(about, "look at the connection of those that daypass servers shows as behind to etcd", "%d have not read the latest keys", behind)
	}
	differences := fleet.Differences(servers)
	for _, subject := range slices.Sorted(maps.Keys(differences)) {
		r.warn(about, "run daypass servers; docs/several-servers.md has what to do", "they differ in %s: %s", subject, differences[subject])
	}
}
