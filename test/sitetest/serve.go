package sitetest

import (
	"context"
	"fmt"
	"io"
	"syscall"
	"time"
)

// Serve serves until ctx ends and then returns nil. It calls ready once, when it starts to serve.
type Serve func(ctx context.Context, ready func()) error

// Life is one run of a Serve.
type Life struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when serve has returned
	err    error         // the result of serve; read it only after done
}

// Start runs serve in the background. It returns when serve is ready, or with the error if it
// fails.
func Start(serve Serve) (*Life, error) {
	ctx, cancel := context.WithCancel(context.Background())
	l := &Life{cancel: cancel, done: make(chan struct{})}
	ready := make(chan struct{})
	go func() {
		l.err = serve(ctx, func() { close(ready) })
		close(l.done)
	}()
	select {
	case <-ready:
		return l, nil
	case <-l.done:
		cancel()
		if l.err == nil {
			return nil, fmt.Errorf("it ended before it was ready")
		}
		return nil, l.err
	}
}

// Stop asks serve to end, waits for it, and returns its result.
func (l *Life) Stop() error {
	l.cancel()
	<-l.done
	return l.err
}

// Program returns a Serve that runs a program and is ready when something listens at every address.
// It ends the program with SIGTERM.
func Program(log io.Writer, addresses []string, program string, args ...string) Serve {
	return func(ctx context.Context, ready func()) error {
		p, err := Run(log, nil, program, args...)
		if err != nil {
			return err
		}
		if err := p.Reachable(ctx, addresses...); err != nil {
			p.End(syscall.SIGTERM, time.Minute)
			return err
		}
		ready()
		select {
		case <-ctx.Done():
			if p.End(syscall.SIGTERM, time.Minute) {
				return fmt.Errorf("%s was still there a minute after SIGTERM", program)
			}
			return p.Err()
		case <-p.Done():
			return fmt.Errorf("%s ended by itself: %v", program, p.Err())
		}
	}
}
