package server

import (
	"context"
	"errors"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/daypass/daypass/internal/gateway"
)

// defaultDrain leaves enough of the 30 s that Kubernetes allows for notifying every client
// and writing the audit log.
const defaultDrain = 15 * time.Second

// progressInterval is how often a shutdown logs how many sessions are left.
const progressInterval = 5 * time.Second

// shutdown ends the server in steps:
//
//	at once        /readyz fails
//	after a delay  both listeners close; sessions go on
//	after a while  sessions end with 57P01, queries are cancelled first
//
// Closing Hurry skips the remaining waits.
func (s *service) shutdown(health *health, httpServer *http.Server) error {
	drain := s.opts.Drain
	switch {
	case drain == 0:
		drain = defaultDrain
	case drain < 0:
		drain = 0
	}
	health.draining.Store(true)
	if s.member != nil {
		s.member.leaving.Store(true)
		s.member.Announce()
	}
	sessions, active := count(s.front)
	s.log.Info("shutting down", "listeners_close_in", s.opts.ShutdownDelay, "sessions", sessions, "active", active, "sessions_end_in", s.opts.ShutdownDelay+drain)
	if s.opts.ShutdownDelay > 0 {
		select {
		case <-time.After(s.opts.ShutdownDelay):
		case <-s.opts.Hurry:
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	over := make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-s.opts.Hurry:
			s.log.Warn("signalled again: sessions end now")
			cancel()
		case <-over:
		}
	}()
	go s.report(ctx)

	var group errgroup.Group
	group.Go(func() error {
		if err := httpServer.Shutdown(ctx); err != nil {
			return httpServer.Close()
		}
		return nil
	})
	group.Go(func() error {
		err := s.front.Shutdown(ctx)
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			s.log.Warn("remaining sessions were ended")
			return nil
		}
		return err
	})
	err := group.Wait()
	s.log.Info("shut down")
	return err
}

// report logs how many sessions are left, until ctx is done.
func (s *service) report(ctx context.Context) {
	ticker := time.NewTicker(progressInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			sessions, active := count(s.front)
			end, _ := ctx.Deadline()
			s.log.Info("waiting for sessions", "sessions", sessions, "active", active, "sessions_end_in", time.Until(end).Round(time.Second))
		}
	}
}

// count returns the number of sessions, and how many of them run a query.
func count(front *gateway.Server) (sessions, active int) {
	for _, c := range front.Sessions() {
		if sessions++; c.State == "active" {
			active++
		}
	}
	return sessions, active
}
