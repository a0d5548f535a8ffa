package dbuser

import (
	"context"
	"slices"
	"sync"
	"time"
)

// askElsewhere bounds how long the other hosts are asked for sessions.
const askElsewhere = 2 * time.Second

// markElsewhere marks the roles as live that have a session at another host of the
// cluster: pg_stat_activity of the primary does not show the sessions of standbys.
// Only roles are asked for that something would happen to; where there are none, or
// one host, nobody is asked. A host that does not answer has no say: rights do not
// last because it is gone.
func (a *Admin) markElsewhere(ctx context.Context, all []owner, unused time.Duration) {
	if len(a.pool.hosts) < 2 {
		return
	}
	var roles []string
	for _, o := range all {
		if !o.Live && (o.mustStrip(a.wasRevoked(o.Role)) || len(o.Databases) > 0 || o.Mentioned || unused > 0 && o.unusedFor(unused)) {
			roles = append(roles, o.Role)
		}
	}
	live := a.liveElsewhere(ctx, roles)
	for i := range all {
		all[i].Live = all[i].Live || slices.Contains(live, all[i].Role)
	}
}

// liveElsewhere names the roles that have a session at another host.
func (a *Admin) liveElsewhere(ctx context.Context, roles []string) (live []string) {
	if len(roles) == 0 || len(a.pool.hosts) < 2 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askElsewhere)
	defer cancel()
	var mu sync.Mutex
	var group sync.WaitGroup
	for i, h := range a.pool.hosts {
		if i == a.pool.primary() {
			continue
		}
		group.Go(func() {
			c, err := h.connect(ctx, "")
			if err != nil {
				return
			}
			defer closeConn(c)
			found, err := a.liveAmong(ctx, c, roles)
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			live = append(live, found...)
		})
	}
	group.Wait()
	return live
}
