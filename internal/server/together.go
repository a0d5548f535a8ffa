package server

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/reaper"
	"github.com/daypass/daypass/internal/registry/etcdstore"
	"github.com/daypass/daypass/internal/seats"
)

// leaseLifetime is how long the other servers still count the sessions of a server that is gone,
// and do not sweep its clusters. It is at least as long as a logon may take. Otherwise a logon on a
// server that was frozen for a while could become a session that the others no longer count.
const leaseLifetime = 10 * time.Second

// together is what this server shares with the others while it runs. The zero value is for a server
// alone.
type together struct {
	seats *seats.Seats
	turns *reaper.Turns
	stop  func()
}

// settleTogether begins to keep a lease in etcd, if the servers share one.
func (s *service) settleTogether() together {
	store, ok := s.revoked.store.(*etcdstore.Store)
	if !ok {
		return together{stop: func() {}}
	}
	name := serverName()
	if s.member != nil {
		name = s.member.fixed.ID
	}
	lease := store.Lease(cmp.Or(s.opts.Lease, leaseLifetime))
	t := together{turns: reaper.NewTurns(lease, name), seats: seats.New(seats.Config{Store: lease, Self: name, Limit: s.limitOverAll})}
	running, cancel := context.WithCancel(context.Background())
	holding, release := context.WithCancel(context.Background())
	var counting, held sync.WaitGroup
	counting.Go(func() { t.seats.Run(running) })
	held.Go(func() { lease.Hold(holding) })
	t.stop = func() {
		cancel()
		counting.Wait()
		release()
		held.Wait()
	}
	return t
}

// limitOverAll returns the limit of a place over all servers. 0: none.
func (s *service) limitOverAll(p seats.Place) int {
	found, ok := s.live.Load().clusters.find(p.Cluster)
	switch {
	case !ok || !found.LimitsEverywhere:
		return 0
	case p.User == "":
		return found.MaxSessions
	}
	return found.MaxSessionsPerUser
}

// everywhere returns the count of the sessions of all servers, for the gateway. nil: there is none.
func (t together) everywhere() gateway.Everywhere {
	if t.seats == nil {
		return nil
	}
	return bothSeats{t.seats}
}

// bothSeats takes two seats for each session: one in its cluster and one as its user's.
type bothSeats struct{ seats *seats.Seats }

// Take implements gateway.Everywhere.
func (b bothSeats) Take(cluster, user string) (wait func(context.Context) error, likely bool) {
	all, own := seats.Place{Cluster: cluster}, seats.Place{Cluster: cluster, User: user}
	first, likely := b.seats.Take(all)
	second, alike := b.seats.Take(own)
	if first == nil && second == nil {
		return nil, true
	}
	return func(ctx context.Context) error {
		var errs [2]error
		if first != nil {
			errs[0] = first(ctx)
		}
		if second != nil {
			errs[1] = second(ctx)
		}
		switch {
		case errs[0] == nil && errs[1] == nil:
			return nil
		case errs[0] == nil:
			b.seats.Leave(all)
		case errs[1] == nil:
			b.seats.Leave(own)
		}
		var full *seats.Full
		switch err := errors.Join(errs[:]...); {
		case !errors.As(err, &full):
			return err
		case full.Place.User == "":
			return errors.Join(gateway.ErrClusterFull, err)
		default:
			return errors.Join(gateway.ErrUserFull, err)
		}
	}, likely && alike
}

// Held implements gateway.Everywhere.
func (b bothSeats) Held(cluster, user string) bool {
	return b.seats.Held(seats.Place{Cluster: cluster}) && b.seats.Held(seats.Place{Cluster: cluster, User: user})
}

// Leave implements gateway.Everywhere.
func (b bothSeats) Leave(cluster, user string) {
	b.seats.Leave(seats.Place{Cluster: cluster})
	b.seats.Leave(seats.Place{Cluster: cluster, User: user})
}
