package adminconn

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// nextHost is how long a host may take before the next one is asked too. A machine that
	// is gone does not answer at all.
	nextHost = 300 * time.Millisecond
	// primaryWithin is how long to wait for a primary once a standby has answered.
	primaryWithin = time.Second
)

// Connect opens a connection, outside of the pool, to a database of the primary; empty means
// the administrative one. It asks the host that was the primary last, and the others if that
// one is slow, fails or is a standby. If there is no primary, a standby will do for reading.
func (p *Pool) Connect(ctx context.Context, database string) (*Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := search{hosts: p.hosts, first: p.primary(), database: database, answers: make(chan answer)}
	defer s.abandon()
	timer := time.NewTimer(nextHost)
	defer timer.Stop()
	s.askNext(ctx)
	for s.running > 0 {
		select {
		case a := <-s.answers:
			s.running--
			switch {
			case a.err != nil:
				s.failures = append(s.failures, a.err)
			case !a.c.Standby:
				if s.standby != nil {
					s.standby.CloseNow()
				}
				p.setPrimary(a.host)
				return a.c, nil
			case s.standby == nil:
				s.standby = a.c
				timer.Reset(primaryWithin)
			default:
				a.c.CloseNow()
			}
			s.askNext(ctx)
		case <-timer.C:
			if s.askNext(ctx) {
				timer.Reset(nextHost)
			} else if s.standby != nil {
				return s.standby, nil
			}
		}
	}
	if s.standby != nil {
		return s.standby, nil
	}
	return nil, worst(s.failures)
}

// search asks the hosts of a cluster, each at most once. One goroutine uses it.
type search struct {
	hosts    []*host
	first    int // index of the host to ask first; the others follow in order
	database string

	answers  chan answer
	asked    int   // how many hosts were asked
	running  int   // how many of them have not answered
	standby  *Conn // the first standby that answered
	failures []error
}

// answer is the result of connecting to one host.
type answer struct {
	host int // its index
	c    *Conn
	err  error
}

// askNext starts to connect to the next host, and reports whether there was one.
func (s *search) askNext(ctx context.Context) bool {
	if s.asked == len(s.hosts) {
		return false
	}
	host := (s.first + s.asked) % len(s.hosts)
	s.asked++
	s.running++
	go func() {
		c, err := s.hosts[host].connect(ctx, s.database)
		s.answers <- answer{host, c, err}
	}()
	return true
}

// abandon closes the connections that arrive after the search has ended. It does not wait for them.
func (s *search) abandon() {
	go func() {
		for range s.running {
			if a := <-s.answers; a.c != nil {
				a.c.CloseNow()
			}
		}
	}()
}

// primary returns the index of the host that was the primary last.
func (p *Pool) primary() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lastPrimary
}

func (p *Pool) setPrimary(host int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastPrimary = host
}

// worst returns the most informative failure: the first error that PostgreSQL sent, if there
// is one.
func worst(failures []error) error {
	for _, err := range failures {
		if _, sent := errors.AsType[*pgconn.PgError](err); sent || errors.Is(err, ErrPooler) {
			return err
		}
	}
	return errors.Join(failures...)
}
