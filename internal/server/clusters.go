package server

import (
	"reflect"

	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/reaper"
)

// clusters are the targets of one configuration, each with its administrative
// connections. It is not changed once it is made.
type clusters struct {
	byID     map[string]*cluster
	sweepers map[string]reaper.Sweeper
}

// cluster is one target at work.
type cluster struct {
	settings clusterSettings
	gateway  gateway.Cluster
	admin    *dbuser.Admin
}

// clusterSettings are all that a cluster's connections depend on.
type clusterSettings struct {
	config config.Cluster
	key    [32]byte
}

// newClusters makes the targets of cfg. What before has with the same settings is
// taken over as it is; before may be nil.
func newClusters(before *clusters, cfg *config.Config, keys *keyring.Keyring, opts Options) *clusters {
	c := &clusters{
		byID:     make(map[string]*cluster, len(cfg.Clusters)),
		sweepers: make(map[string]reaper.Sweeper, len(cfg.Clusters)),
	}
	for _, cc := range cfg.Clusters {
		settings := clusterSettings{config: cc, key: keys.Derive("session role", cc.Identifier)}
		if before != nil {
			if old := before.byID[cc.Identifier]; old != nil && old.settings.equal(settings) {
				c.byID[cc.Identifier] = old.limited(settings)
			}
		}
		if c.byID[cc.Identifier] == nil {
			c.byID[cc.Identifier] = newCluster(settings, opts)
		}
		c.sweepers[cc.Identifier] = c.byID[cc.Identifier].admin
	}
	return c
}

func (s clusterSettings) equal(other clusterSettings) bool {
	a, b := s.config.Upstream, other.config.Upstream
	same := s.key == other.key &&
		s.config.Database == other.config.Database &&
		s.config.TargetSessionAttrs == other.config.TargetSessionAttrs &&
		s.config.AllowSuperusers == other.config.AllowSuperusers &&
		s.config.AllowPredefinedRoles == other.config.AllowPredefinedRoles
	return same && a.ConnString() == b.ConnString() && a.Password == b.Password && reflect.DeepEqual(a.RuntimeParams, b.RuntimeParams)
}

// limited is the cluster with the session limits of settings, on the same
// administrative connections.
func (c *cluster) limited(settings clusterSettings) *cluster {
	limits, prewarm := settings.config.Sessions, settings.config.Prewarm
	if limits == c.settings.config.Sessions && prewarm == c.settings.config.Prewarm {
		return c
	}
	next := &cluster{settings: settings, admin: c.admin, gateway: c.gateway}
	next.gateway.MaxSessions, next.gateway.MaxSessionsPerUser, next.gateway.Ends = limits.Max, limits.PerUser, limits.Ends
	next.gateway.Prewarm = prewarm
	return next
}

func newCluster(settings clusterSettings, opts Options) *cluster {
	cc := settings.config
	admin := dbuser.New(dbuser.Config{
		Cluster:              cc.Identifier,
		Conn:                 cc.Upstream.Copy(),
		Key:                  settings.key,
		TargetSessionAttrs:   cc.TargetSessionAttrs,
		AllowSuperusers:      cc.AllowSuperusers,
		AllowPredefinedRoles: cc.AllowPredefinedRoles,
		Timeout:              opts.Patience * 4 / 5,
		Now:                  opts.Now,
		Log:                  opts.Log, // each line names the cluster by itself
		Observe:              opts.watch.admin(cc.Identifier),
	})
	return &cluster{
		settings: settings,
		admin:    admin,
		gateway: gateway.Cluster{
			Identifier:         cc.Identifier,
			Database:           cc.Database,
			Admin:              admin,
			Upstream:           &cc.Upstream.Config,
			TargetSessionAttrs: cc.TargetSessionAttrs,
			MaxSessions:        cc.Sessions.Max,
			MaxSessionsPerUser: cc.Sessions.PerUser,
			Ends:               cc.Sessions.Ends,
			Prewarm:            cc.Prewarm,
		},
	}
}

func (c *clusters) find(id string) (*gateway.Cluster, bool) {
	found, ok := c.byID[id]
	if !ok {
		return nil, false
	}
	return &found.gateway, true
}

// close ends the connections of the clusters that kept does not have; kept may be
// nil. Sessions that are open go on.
func (c *clusters) close(kept *clusters) {
	for id, cluster := range c.byID {
		if kept != nil && kept.byID[id] != nil && kept.byID[id].admin == cluster.admin {
			continue
		}
		cluster.admin.Close()
	}
}
