// Package seats counts the sessions of a cluster, and those of each of its users, over all
// servers that share a registry, so that a limit holds for all servers together.
//
// Each server has a record of how many sessions it has in a place:
//
//	seats/examplecluster//db1-k3v9           400
//	seats/examplecluster/alice/db1-k3v9      20
//
// The records of a place may never add up to more than its limit. A server that needs more seats
// writes its record on the condition that no record of the place has changed since it read them
// (registry.Leased). If two servers want the last seat, one succeeds, and the other reads again.
// Logons that arrive while a write is under way share the next one.
//
// If few seats are free, a server gives back the seat of a session as soon as it ends. Otherwise
// it keeps the seat for about a second, and a logon in that time takes it without a call to the
// registry. So a client that opens and closes sessions in a loop causes few writes.
//
// The records are under the server's lease. A server that crashes, freezes, or is cut off for
// longer than the lease loses its records, and admits no session until it has written them again.
// Sessions that it still has by then are counted, even if that exceeds the limit.
package seats

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/daypass/daypass/internal/registry"
)

// Prefix begins the keys of all records.
const Prefix = "seats/"

const (
	// patience is how long a logon waits for the registry.
	patience = 2 * time.Second
	// kept is how long seats of ended sessions are kept, if enough others are free.
	kept = time.Second
	// tick is how often Run looks for records that have to change.
	tick = 500 * time.Millisecond
	// tidied is the time between two searches for records of this server that it does not know
	// of: a write that timed out may still have been carried out.
	tidied = time.Minute
	// mostAtOnce bounds the places whose records are written at the same time.
	mostAtOnce = 64
)

// Place is a cluster, or a user in a cluster. It can have a limit.
type Place struct{ Cluster, User string } // no User: the whole cluster

func (p Place) prefix() string {
	return Prefix + url.PathEscape(p.Cluster) + "/" + url.PathEscape(p.User) + "/"
}

// Full is the error of a session that may not begin because all servers together have reached the
// place's limit.
type Full struct {
	Place Place
	Limit int
}

func (f *Full) Error() string {
	if f.Place.User == "" {
		return fmt.Sprintf("all servers together have %d sessions of cluster %q", f.Limit, f.Place.Cluster)
	}
	return fmt.Sprintf("all servers together have %d sessions of user %q in cluster %q", f.Limit, f.Place.User, f.Place.Cluster)
}

// Config configures Seats. All fields are required.
type Config struct {
	Store registry.Leased
	Self  string // the name of this server; no other process may have it
	// Limit returns the limit of a place over all servers, or 0 if it has none. It is called
	// often, must not block, and may change its answer at any time.
	Limit func(Place) int
}

// Seats counts one server's sessions by place. Safe for concurrent use.
type Seats struct {
	config Config
	slots  chan struct{}
	work   sync.WaitGroup

	mu     sync.Mutex // guards the fields below, and every seat
	places map[Place]*seat
	closed bool
}

// seat is what this server knows about one place.
type seat struct {
	used    int       // sessions and logons of this server, including those that wait
	waiting []*waiter // for the record to be written, the earliest first
	working bool      // a goroutine is settling the place

	claimed    int           // the sessions in this server's record, or the most that it may say
	generation uint64        // of the record's lease; 0: the record's content is uncertain
	others     int           // the sum of the other servers' records
	since      registry.Mark // of the last successful call
	sinceIn    uint64        // the lease's generation at since; since is useless under another lease
	at         time.Time     // when that call ended, by this machine's clock
	calls      int           // number of calls to the registry that were begun
	read       int           // number of the last call that succeeded
}

// waiter is a logon that waits for the record to be written.
type waiter struct {
	done  chan error
	calls int // seat.calls when the logon came
}

// New returns Seats. Run keeps the records up to date.
func New(config Config) *Seats {
	return &Seats{config: config, slots: make(chan struct{}, mostAtOnce), places: map[Place]*seat{}}
}

// Take counts a session that is about to begin. It returns nil if all servers count it already.
// Otherwise the caller has to call wait, once. wait returns nil when all servers count the
// session. If it returns an error, the session may not begin and no longer counts: the error is a
// *Full, or explains why the other servers' sessions are not known. likely reports whether there
// was enough room when the other servers' records were last read.
func (s *Seats) Take(p Place) (wait func(context.Context) error, likely bool) {
	limit := s.config.Limit(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.places[p] == nil {
		s.places[p] = &seat{}
	}
	seat := s.places[p]
	seat.used++
	room := seat.used+seat.others <= limit // claimed may be too high if the limit was lowered
	if limit == 0 || room && len(seat.waiting) == 0 && seat.claimed >= seat.used && s.covers(seat) {
		return nil, true
	}
	likely = !seat.scarce(limit)
	w := &waiter{done: make(chan error, 1), calls: seat.calls}
	seat.waiting = append(seat.waiting, w)
	s.settleLocked(p, seat)
	return func(ctx context.Context) error {
		limited, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		select {
		case err := <-w.done:
			return err
		case <-limited.Done():
			return s.giveUp(seat, w)
		}
	}, likely
}

// giveUp removes a logon that has waited too long from the line, unless it just got its answer.
func (s *Seats) giveUp(seat *seat, w *waiter) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := slices.Index(seat.waiting, w); at >= 0 {
		seat.waiting = slices.Delete(seat.waiting, at, at+1)
		seat.used--
		return errors.New("the registry did not answer in time")
	}
	return <-w.done
}

// Leave undoes a Take, once the session has ended or will not begin after all.
func (s *Seats) Leave(p Place) {
	limit := s.config.Limit(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	seat := s.places[p]
	seat.used--
	if seat.claimed > seat.used && seat.scarce(limit) {
		s.settleLocked(p, seat)
	}
	s.forgetLocked(p, seat)
}

// Held reports whether it is certain that all servers count this server's sessions in the place
// now.
func (s *Seats) Held(p Place) bool {
	if s.config.Limit(p) == 0 {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	seat := s.places[p]
	return seat != nil && seat.claimed >= seat.granted() && s.covers(seat)
}

// granted returns the number of this server's sessions and logons, without the logons that wait.
func (seat *seat) granted() int { return seat.used - len(seat.waiting) }

// scarce reports whether so few seats are free that one is given back as soon as its session
// ends.
func (seat *seat) scarce(limit int) bool { return limit-seat.others-seat.claimed < max(limit/4, 1) }

// covers reports whether it is certain that the record says seat.claimed.
func (s *Seats) covers(seat *seat) bool {
	generation, ok := s.config.Store.Held()
	return ok && seat.generation == generation
}

func (s *Seats) forgetLocked(p Place, seat *seat) {
	if seat.used == 0 && seat.claimed == 0 && !seat.working {
		delete(s.places, p)
	}
}

// settleLocked starts the goroutine that settles the place, unless it is running.
func (s *Seats) settleLocked(p Place, seat *seat) {
	if seat.working || s.closed {
		return
	}
	seat.working = true
	s.work.Go(func() {
		s.slots <- struct{}{}
		defer func() { <-s.slots }()
		for s.settle(p, seat) {
		}
	})
}

// settle makes one call to the registry if the place needs one, and answers the logons that wait.
// It returns false when there is nothing more to do.
func (s *Seats) settle(p Place, seat *seat) (again bool) {
	c, needed := s.prepare(p, seat)
	if !needed {
		return false
	}
	seen, err := s.ask(p, c)
	var own, others int
	if err == nil && !seen.Written {
		own, others, err = s.count(p, seen.Records)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		seat.claimed, seat.generation = max(c.before, c.want), 0
		seat.answer(len(seat.waiting), err)
		seat.working = false
		return false // Run tries again
	}
	seat.read, seat.since, seat.sinceIn, seat.at = c.number, seen.At, c.generation, time.Now()
	if seen.Written {
		seat.claimed, seat.generation = c.want, seen.Generation
		return true
	}
	seat.others = others
	if own != c.before || seen.Pending {
		seat.generation = 0
	}
	seat.claimed = own
	return true
}

// call is one call to the registry about a place.
type call struct {
	number       int    // among the calls about the place
	want, before int    // what the record should say, and what it said before
	certain      bool   // it says so already: the call only looks
	generation   uint64 // of the lease before the call
	since        registry.Mark
}

// prepare answers the logons for which no call is needed. If others wait, or the record has to be
// written, it returns the next call.
func (s *Seats) prepare(p Place, seat *seat) (c call, needed bool) {
	limit := s.config.Limit(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	c.want = seat.want(limit)
	c.certain = seat.claimed == c.want && (c.want == 0 || s.covers(seat))
	if c.certain {
		seat.answer(c.want-seat.granted(), nil)
		// The logons that are left do not fit, according to a call that began after they came.
		for len(seat.waiting) > 0 && seat.waiting[0].calls < seat.read {
			seat.answer(1, &Full{p, limit})
		}
		if len(seat.waiting) == 0 {
			seat.working = false
			s.forgetLocked(p, seat)
			return call{}, false
		}
	}
	c.generation, _ = s.config.Store.Held()
	if c.generation != seat.sinceIn {
		seat.since = registry.Mark{}
	}
	seat.calls++
	c.number, c.before, c.since = seat.calls, seat.claimed, seat.since
	seat.claimed = min(c.before, c.want) // seats that are being given back are not for new logons
	return c, true
}

// ask makes a call.
func (s *Seats) ask(p Place, c call) (registry.Sight, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	own := p.prefix() + s.config.Self
	switch {
	case c.certain:
		return s.config.Store.Look(ctx, p.prefix())
	case c.want == 0:
		return s.config.Store.Swap(ctx, p.prefix(), own, nil, c.since)
	}
	return s.config.Store.Swap(ctx, p.prefix(), own, strconv.AppendInt(nil, int64(c.want), 10), c.since)
}

// want returns what the record should say. Sessions that exist count, even beyond the limit. If the
// place no longer has a limit, the logons that wait are let in.
func (seat *seat) want(limit int) int {
	if limit == 0 {
		seat.answer(len(seat.waiting), nil)
		return 0
	}
	want := max(seat.granted(), min(seat.used, limit-seat.others))
	if want < seat.claimed && seat.generation != 0 && !seat.scarce(limit) && time.Since(seat.at) < kept {
		return seat.claimed // keep the seats for the next logons
	}
	return want
}

// answer answers the first n logons that wait, or all if there are fewer. Those that get an error no
// longer count.
func (seat *seat) answer(n int, err error) {
	for ; n > 0 && len(seat.waiting) > 0; n-- {
		if err != nil {
			seat.used--
		}
		seat.waiting[0].done <- err
		seat.waiting = seat.waiting[1:]
	}
}

// mostSessions is more than any server has: a record with a larger number is not from this
// program.
const mostSessions = 10_000_000

// count adds up the records of a place. A later release may write more after a space.
func (s *Seats) count(p Place, records []registry.Record) (own, others int, err error) {
	for _, r := range records {
		text, _, _ := strings.Cut(string(r.Value), " ")
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n > mostSessions {
			return 0, 0, fmt.Errorf("record %s of the registry is not what this program writes there: delete it", r.Key)
		}
		if r.Key == p.prefix()+s.config.Self {
			own = n
		} else {
			others += n
		}
	}
	return own, others, nil
}

// Run keeps the records up to date until ctx is done. It returns when its last call has ended.
func (s *Seats) Run(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	swept := time.Now()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-ticker.C:
			s.look()
			if time.Since(swept) > tidied {
				swept = time.Now()
				s.tidy(ctx)
			}
		}
	}
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.work.Wait()
}

// look settles the places whose records are out of date: after an error, under a new lease, when
// a limit was set or removed, or when sessions have ended.
func (s *Seats) look() {
	if _, ok := s.config.Store.Held(); !ok {
		return // nothing can be written
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, seat := range s.places {
		if want := seat.want(s.config.Limit(p)); want != seat.claimed || want != 0 && !s.covers(seat) {
			s.settleLocked(p, seat)
		}
	}
}

// tidy deletes the records of this server for places where it has no session. Errors do not matter:
// the next call tries again.
func (s *Seats) tidy(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	seen, err := s.config.Store.Look(limited, Prefix)
	if err != nil {
		return
	}
	s.mu.Lock()
	known := map[string]bool{}
	for p := range s.places {
		known[p.prefix()] = true
	}
	s.mu.Unlock()
	for _, r := range seen.Records {
		if prefix, mine := strings.CutSuffix(r.Key, "/"+s.config.Self); mine && !known[prefix+"/"] {
			_, _ = s.config.Store.Swap(limited, prefix+"/", r.Key, nil, seen.At)
		}
	}
}
