package server

import (
	"sync"

	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/reaper"
)

// clusters are the targets of one configuration, each with its administrative connections.
// They do not change after newClusters.
type clusters struct {
	byID     map[string]*cluster
	sweepers map[string]reaper.Sweeper
}

// cluster is one target with its connections.
type cluster struct {
	settings clusterSettings
	gateway  gateway.Cluster
	admin    *handover.Admin
}

// clusterSettings are everything that a cluster depends on.
type clusterSettings struct {
	config config.Cluster
	key    [32]byte
}

// newClusters makes the targets of cfg. It reuses a target of before, which may be nil, if
// its settings have not changed.
func newClusters(before *clusters, cfg *config.Config, keys *keyring.Keyring, opts Options, observe observers) *clusters {
	c := &clusters{
		byID:     make(map[string]*cluster, len(cfg.Clusters)),
		sweepers: make(map[string]reaper.Sweeper, len(cfg.Clusters)),
	}
	for _, cc := range cfg.Clusters {
		settings := clusterSettings{config: cc, key: keys.Derive("session role", cc.Identifier)}
		var old *cluster
		if before != nil {
			old = before.byID[cc.Identifier]
		}
		c.byID[cc.Identifier] = newCluster(old, settings, opts, observe)
		c.sweepers[cc.Identifier] = c.byID[cc.Identifier].admin
	}
	return c
}

// newCluster makes a cluster. old is the cluster in force with the same name, or nil. If no
// setting has changed, newCluster returns old. If only settings have changed that do not
// affect administrative connections, the new cluster keeps old's.
func newCluster(old *cluster, settings clusterSettings, opts Options, observe observers) *cluster {
	cc := settings.config
	same := old != nil && old.settings.key == settings.key && old.settings.config.Connection == cc.Connection
	if same && old.settings.config.Settings == cc.Settings {
		return old
	}
	next := &cluster{settings: settings}
	upstream := &cc.Upstream.Config
	if same {
		next.admin, upstream = old.admin, old.gateway.Upstream // prewarmed and parked sessions stay
	} else {
		next.admin = newAdmin(settings, opts, observe)
	}
	next.gateway = gateway.Cluster{
		Identifier:         cc.Identifier,
		Database:           cc.Database,
		Admin:              next.admin,
		Upstream:           upstream,
		TargetSessionAttrs: cc.TargetSessionAttrs,
		MaxSessions:        cc.Sessions.Max,
		MaxSessionsPerUser: cc.Sessions.PerUser,
		LimitsEverywhere:   cc.Sessions.Everywhere,
		SessionLimits:      cc.Sessions.Limits,
		Prewarm:            cc.Prewarm,
		Parking:            cc.Parking,
	}
	return next
}

func newAdmin(settings clusterSettings, opts Options, observe observers) *handover.Admin {
	c := settings.config.Administration()
	c.Key = settings.key
	c.Timeout = opts.Patience * 4 / 5
	c.Now = opts.Now
	c.Log = opts.Log // its log lines name the cluster already
	c.Observe = observe.admin(c.Cluster)
	return handover.New(c)
}

func (c *clusters) find(id string) (*gateway.Cluster, bool) {
	found, ok := c.byID[id]
	if !ok {
		return nil, false
	}
	return &found.gateway, true
}

// close closes the administrative connections of the clusters that are not in kept, which may
// be nil. Open sessions continue.
func (c *clusters) close(kept *clusters) {
	var all sync.WaitGroup
	for id, cluster := range c.byID {
		if kept != nil && kept.byID[id] != nil && kept.byID[id].admin == cluster.admin {
			continue
		}
		all.Go(cluster.admin.Close) // may wait for a cluster that does not answer
	}
	all.Wait()
}
