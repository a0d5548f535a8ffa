package gateway

import (
	"sync"
	"time"

	"github.com/daypass/daypass/internal/dbuser"
)

// endParked ends a parked session that was taken out, waits until the server has closed
// it, and has its session role cleaned up. It does not wait long for a slow server.
func (s *Server) endParked(p *parked, revoked bool) { s.parted(p, s.parked.part(p), revoked) }

func (s *Server) parted(p *parked, over <-chan struct{}, revoked bool) {
	backend := &dbuser.Backend{PID: p.up.pid, Address: p.up.RemoteAddr().String()}
	select {
	case <-over:
	case <-time.After(spareParting):
	}
	s.spares.sessionEnded(p.origin.key.admin, p.origin.key.role)
	admin := s.adminOf(p.cluster)
	if revoked {
		admin.SessionRevoked(p.origin.key.role, backend)
	} else {
		admin.SessionEnded(p.origin.key.role, backend)
	}
	s.log.Info("parked session ended", "parked", p.id, "cluster", p.cluster.Identifier, "role", p.origin.key.role, "revoked", revoked)
}

// part ends a session. The channel is closed when the server has closed it.
func (l *lot) part(p *parked) <-chan struct{} {
	over := make(chan struct{})
	l.mu.Lock()
	l.leaving[over] = p.origin.key.admin
	l.mu.Unlock()
	go func() {
		p.up.leave(sparePatience) // a logon may wait for it
		l.mu.Lock()
		delete(l.leaving, over)
		l.mu.Unlock()
		close(over)
	}()
	return over
}

// endParkedWhere ends the parked sessions that match, waits for their end and returns
// their number. Those that match and are being reset end after that.
func (s *Server) endParkedWhere(match func(*parked) bool) int {
	s.parked.unwant(match)
	out := s.parked.take(match)
	var group sync.WaitGroup
	for _, p := range out {
		group.Go(func() { s.endParked(p, false) })
	}
	group.Wait()
	return len(out)
}

// leavingFrom returns a channel for each session of a cluster that was ended and that the server has not
// closed.
func (l *lot) leavingFrom(admin Admin) (going []<-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for over, of := range l.leaving {
		if of == admin {
			going = append(going, over)
		}
	}
	return going
}

// makeRoom ends the cluster's parked sessions, waits until the server has closed them and those that ended
// shortly before, and returns their number. It waits no longer than patience.
func (s *Server) makeRoom(admin Admin, patience time.Duration) int {
	late := time.After(patience)
	ofCluster := func(p *parked) bool { return p.origin.key.admin == admin }
	s.parked.unwant(ofCluster)
	going := s.parked.leavingFrom(admin)
	for _, p := range s.parked.take(ofCluster) {
		over := s.parked.part(p)
		going = append(going, over)
		go s.parted(p, over, false)
	}
	for _, over := range going {
		select {
		case <-over:
		case <-late:
			return len(going)
		}
	}
	return len(going)
}
