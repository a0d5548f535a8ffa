package dbuser

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	defaultMaxConns = 3
	// minMaxConns leaves one connection for logons while the lane holds another.
	minMaxConns    = 2
	defaultTimeout = 8 * time.Second
	// skipFor is how long a setting that could not be copied is left alone.
	skipFor = 10 * time.Minute
	// reusedAnswers is how long a connection that has stood idle may take to show
	// that it is alive. After a failover the old server may not even say no.
	reusedAnswers = time.Second
	// maxRefreshing bounds the changes that run behind logons.
	maxRefreshing = 64
)

// Admin administers one cluster. Make it with New; safe for concurrent use.
type Admin struct {
	cfg     Config
	pool    *pool
	replica replica
	lane    chan struct{} // one token: the transaction of this process that may hold the lock
	// laneless is until when the lock is not waited for. Who has the token of
	// lane may use it.
	laneless time.Time
	errand   chan struct{} // one token: the connection to another database
	asking   chan struct{} // one token: who asks for the server's search_path
	base     context.Context
	cancel   context.CancelFunc
	work     sync.WaitGroup // what runs behind the callers

	mu         sync.Mutex // guards what follows
	flights    map[string]*flight
	refreshing int
	skips      map[string]time.Time // settings that may not be copied and warnings that are not repeated, until when
	closed     bool
	ended      endedQueue
	openings   openings
	refusals   map[string]refusal // databases that do not let the login in
	retries    map[string]*retry  // session roles that could not be cleared
	path       serverPath

	// testOnlyBefore runs before each statement that changes something, which is
	// then sent by itself.
	testOnlyBefore func(sql string, c *pgconn.PgConn)
}

// New does no I/O; the first Ensure connects.
func New(cfg Config) *Admin {
	if cfg.MaxConns == 0 {
		cfg.MaxConns = defaultMaxConns
	}
	cfg.MaxConns = max(cfg.MaxConns, minMaxConns)
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	a := &Admin{
		cfg: cfg, pool: newPool(cfg.Cluster, cfg.Conn, cfg.Password, cfg.MaxConns, cfg.Now), lane: make(chan struct{}, 1), errand: make(chan struct{}, 1), asking: make(chan struct{}, 1),
		flights: map[string]*flight{}, skips: map[string]time.Time{}, retries: map[string]*retry{}, refusals: map[string]refusal{},
		ended:    endedQueue{until: map[string]time.Time{}, left: map[string][]leftBackend{}, revoked: map[string]*revocation{}, outlasting: map[Backend]uint32{}},
		openings: openings{logons: map[string][]*opening{}, stripping: map[string]chan struct{}{}, opened: map[string]Need{}},
	}
	a.replica.turn = make(chan struct{}, 1)
	a.base, a.cancel = context.WithCancel(context.Background())
	return a
}

// Close ends the standing connections and waits for what runs on them. Calls
// in progress fail.
func (a *Admin) Close() {
	a.mu.Lock()
	a.closed = true
	left := a.ended.left
	a.ended.left = map[string][]leftBackend{}
	a.mu.Unlock()
	ctx, cancel := context.WithTimeout(a.base, closeFor)
	a.endBackends(ctx, left)
	cancel()
	a.cancel()
	a.pool.close()
	a.work.Wait()
	a.closeReplica()
}

// flight is one change that several logons wait for.
type flight struct {
	done chan struct{}
	// What follows is read after done.
	looked time.Time // when the change last looked what is there; zero: it failed before
	role   SessionRole
	err    error
}

func (a *Admin) ensure(ctx context.Context, n Need, s sessionNames) (SessionRole, error) {
	began := time.Now()
	st, err := a.look(ctx, n, s)
	a.observe(Look, began, err)
	if err != nil {
		return SessionRole{}, err
	}
	if len(n.Groups) > 0 {
		a.learnPath(ctx)
	}
	p, err := a.planFor(st, &request{need: n, names: s})
	if err != nil {
		return SessionRole{}, err
	}
	role := a.sessionRole(p.role, n, st)
	switch {
	case len(p.steps) == 0 && !p.stuck:
		role.Seen = st.seen
	case p.late && st.Recovery: // there is no primary to refresh it on
	case p.late:
		a.refresh(n, s)
	default:
		return a.join(ctx, n, s, false)
	}
	return role, nil
}

func (a *Admin) sessionRole(name string, n Need, st *state) SessionRole {
	role := SessionRole{Name: name, Password: upstreamPassword(a.cfg.Key, a.cfg.Cluster, name), ServerVersion: st.version,
		LoginTrigger: st.Database != nil && st.Database.LoginTrigger}
	if len(n.Groups) == 0 {
		role.User = n.User
	}
	return role
}

// look reads the state on a standing connection, once more on a new one when
// the connection turns out to be dead: the server was restarted in between.
func (a *Admin) look(ctx context.Context, n Need, s sessionNames) (*state, error) {
	for {
		c, err := a.pool.acquire(ctx)
		if err != nil {
			return nil, err
		}
		// The query runs on when the caller goes away: breaking it off would
		// cost the connection, and it takes less than a millisecond.
		deadline, _ := ctx.Deadline()
		if soon := time.Now().Add(reusedAnswers); c.reused && soon.Before(deadline) {
			deadline = soon
		}
		query, cancel := context.WithDeadline(a.base, deadline)
		st, err := readState(query, c, n, s)
		cancel()
		reused := c.reused
		if err != nil && (connectionLost(err) || reused && c.IsClosed() && a.base.Err() == nil) {
			a.pool.discard(c)
			if reused {
				a.pool.flush()
				continue
			}
			return nil, a.pool.unreachable(err)
		}
		a.pool.release(c)
		if err != nil {
			return nil, a.changeError(err, n)
		}
		return st, nil
	}
}

// join waits for the change this need asks for, and starts it if nobody has.
// The change runs to its own deadline: the first to want it may go away while
// two hundred others wait.
//
// A change that is under way may have looked before what the caller has found
// was there, such as a setting that the holder has changed since. Then there is
// one more change, which looks again.
func (a *Admin) join(ctx context.Context, n Need, s sessionNames, heal bool) (SessionRole, error) {
	found := time.Now()
	for {
		f, err := a.start(n, s, heal, false)
		if err != nil {
			return SessionRole{}, err
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return SessionRole{}, a.pool.unreachable(ctx.Err())
		}
		if f.err != nil || !f.looked.Before(found) {
			return f.role, f.err
		}
	}
}

// refresh starts a change that nobody waits for.
func (a *Admin) refresh(n Need, s sessionNames) {
	_, _ = a.start(n, s, false, true) // too busy or closed: the next logon asks again
}

var errClosed = errors.New("shutting down")

func (a *Admin) start(n Need, s sessionNames, heal, behind bool) (*flight, error) {
	key := flightKey(n, s, heal)
	a.mu.Lock()
	defer a.mu.Unlock()
	if f := a.flights[key]; f != nil {
		return f, nil
	}
	if a.closed {
		return nil, a.pool.unreachable(errClosed)
	}
	if behind {
		if a.refreshing >= maxRefreshing {
			return nil, a.pool.unreachable(errors.New("busy"))
		}
		a.refreshing++
	}
	f := &flight{done: make(chan struct{})}
	a.flights[key] = f
	a.work.Add(1)
	go func() {
		defer a.work.Done()
		ctx, cancel := context.WithTimeout(a.base, a.cfg.Timeout)
		defer cancel()
		began := time.Now()
		f.role, f.err = a.change(ctx, n, s, heal || behind, &f.looked)
		if f.err == nil && !behind {
			if f.err = a.awaitReplay(ctx); f.err != nil {
				f.role = SessionRole{}
			}
		}
		a.observe(Change, began, f.err)
		a.mu.Lock()
		delete(a.flights, key)
		if behind {
			a.refreshing--
		}
		a.mu.Unlock()
		close(f.done)
		if behind && f.err != nil {
			a.cfg.Log.Warn("session role not refreshed", "cluster", a.cfg.Cluster, "role", s.preferred, "err", f.err)
		}
	}()
	return f, nil
}

func flightKey(n Need, s sessionNames, heal bool) string {
	var flags strings.Builder
	for _, set := range []bool{n.AutoCreate, n.Identity, heal} {
		if set {
			flags.WriteByte('1')
		} else {
			flags.WriteByte('0')
		}
	}
	return flags.String() + s.fallback // the fallback name is a hash over user and groups
}

// skip remembers that a setting may not be copied, and says so once.
func (a *Admin) skip(s step, cause error) {
	a.once(s.setting, "setting left out of a session role", "setting", s.name, "err", cause)
}

// once logs a warning, unless it has lately logged one with the same key.
func (a *Admin) once(key, message string, attributes ...any) {
	a.mu.Lock()
	now := a.cfg.Now()
	for key, until := range a.skips {
		if !until.After(now) {
			delete(a.skips, key)
		}
	}
	_, known := a.skips[key]
	a.skips[key] = now.Add(skipFor)
	a.mu.Unlock()
	if !known {
		a.cfg.Log.Warn(message, append([]any{"cluster", a.cfg.Cluster}, attributes...)...)
	}
}

func (a *Admin) isSkipped(key string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	until, ok := a.skips[key]
	return ok && until.After(a.cfg.Now())
}
