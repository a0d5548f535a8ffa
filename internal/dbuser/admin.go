package dbuser

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/daypass/daypass/internal/adminconn"
)

const (
	defaultTimeout = 8 * time.Second
	// skipFor is how long a setting that could not be copied is left alone.
	skipFor = 10 * time.Minute
	// maxRefreshing bounds the changes that run in the background after logons.
	maxRefreshing = 64
)

// Admin makes and keeps the session roles of one cluster. Make it with New; safe for
// concurrent use.
type Admin struct {
	Pool *adminconn.Pool // the connections of the administrative login

	cfg    Config
	asking chan struct{} // one token: for reading the server's search_path
	base   context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup // what runs behind the callers
	turns  turns
	most   int // session roles of one user

	mu         sync.Mutex // guards what follows
	pending    map[string]*pendingChange
	refreshing int
	skips      map[string]time.Time // settings that may not be copied and warnings that are not repeated, until when
	closed     bool
	openings   openings
	path       serverPath
	// outlastingBackends are backends that keep running although they were terminated, with the
	// OIDs of their session roles. They do not count as sessions.
	outlastingBackends map[Backend]uint32
}

// New does no I/O; the first Ensure connects.
func New(cfg Config) *Admin {
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	a := &Admin{
		Pool: adminconn.New(adminconn.Config{Cluster: cfg.Cluster, Conn: cfg.Conn, Password: cfg.Password, TargetSessionAttrs: cfg.TargetSessionAttrs,
			State: stateQuery, MaxConns: cfg.MaxConns, Now: cfg.Now, Log: cfg.Log}),
		cfg: cfg, most: maxRoles, asking: make(chan struct{}, 1), pending: map[string]*pendingChange{}, skips: map[string]time.Time{},
		openings:           openings{logons: map[string][]*opening{}, stripping: map[string]chan struct{}{}, opened: map[string]Need{}},
		outlastingBackends: map[Backend]uint32{},
	}
	a.base, a.cancel = context.WithCancel(context.Background())
	return a
}

// Close closes the standing connections and waits for the statements that run on them. Calls in
// progress fail.
func (a *Admin) Close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.cancel()
	a.Pool.Close()
	a.work.Wait()
}

// purpose is what a change is made for.
type purpose int

const (
	toCorrect purpose = iota // something is wrong with the session role; logons wait
	toHeal                   // the upstream has refused the password; a logon waits
	toRefresh                // VALID UNTIL has to move forward; no logon waits
)

// pendingChange is one change that several logons wait for.
type pendingChange struct {
	done chan struct{}
	// The following fields may be read after done is closed.
	looked time.Time // when the change last read the state; zero: it failed before
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
	case len(p.steps) == 0 && !p.foreign:
		role.Seen, role.Sources = st.seen, st.sourcesOf(st.role(role.Name), n.Database)
	case p.canWait && st.Recovery: // there is no primary to refresh it on
	case p.canWait:
		a.refresh(n, s)
	default:
		return a.join(ctx, n, s, toCorrect)
	}
	return role, nil
}

func (a *Admin) sessionRole(name string, n Need, st *state) SessionRole {
	role := SessionRole{Name: name, Password: upstreamPassword(a.cfg.Key, a.Pool.Cluster, name), ServerVersion: st.version,
		LoginTrigger: st.Database != nil && st.Database.LoginTrigger, Superuser: st.anySuperuser()}
	if len(n.Groups) == 0 {
		role.User = n.User
	}
	return role
}

// look reads the state over a standing connection.
func (a *Admin) look(ctx context.Context, n Need, s sessionNames) (st *state, err error) {
	err = a.Pool.Read(ctx, func(ctx context.Context, c *adminconn.Conn) error {
		st, err = readState(ctx, c, n, s)
		return err
	})
	if err != nil {
		return nil, a.changeError(err, n)
	}
	return st, nil
}

// join waits for the change that this need calls for, and starts it if it is not running. The
// change runs to its own deadline: the logon that started it may go away while two hundred
// others wait.
//
// A change in progress may have read the state before something that the caller saw, such as a
// setting that the holder has changed since. In that case join starts another change.
func (a *Admin) join(ctx context.Context, n Need, s sessionNames, why purpose) (SessionRole, error) {
	found := time.Now()
	for {
		c, err := a.start(n, s, why)
		if err != nil {
			return SessionRole{}, err
		}
		select {
		case <-c.done:
		case <-ctx.Done():
			return SessionRole{}, a.Pool.Unreachable(ctx.Err())
		}
		if c.err != nil || !c.looked.Before(found) {
			return c.role, c.err
		}
	}
}

// refresh starts a change in the background.
func (a *Admin) refresh(n Need, s sessionNames) {
	_, _ = a.start(n, s, toRefresh) // too busy or closed: the next logon asks again
}

var errClosed = errors.New("shutting down")

// start starts a change, unless the same change is running already. A change that is running to
// refresh a session role also corrects it.
func (a *Admin) start(n Need, s sessionNames, why purpose) (*pendingChange, error) {
	key := pendingKey(n, s, why)
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.pending[key]; c != nil {
		return c, nil
	}
	if a.closed {
		return nil, a.Pool.Unreachable(errClosed)
	}
	if why == toRefresh {
		if a.refreshing >= maxRefreshing {
			return nil, a.Pool.Unreachable(errors.New("busy"))
		}
		a.refreshing++
	}
	c := &pendingChange{done: make(chan struct{})}
	a.pending[key] = c
	a.work.Go(func() {
		ctx, cancel := context.WithTimeout(a.base, a.cfg.Timeout)
		defer cancel()
		began := time.Now()
		c.role, c.err = a.change(ctx, n, s, why, &c.looked)
		if c.err == nil && why != toRefresh {
			if c.err = a.Pool.AwaitReplay(ctx); c.err != nil {
				c.role = SessionRole{}
			}
		}
		a.observe(Change, began, c.err)
		a.mu.Lock()
		delete(a.pending, key)
		if why == toRefresh {
			a.refreshing--
		}
		a.mu.Unlock()
		close(c.done)
		if why == toRefresh && c.err != nil {
			a.Pool.Log.Warn("session role not refreshed", "cluster", a.Pool.Cluster, "role", s.preferred, "err", c.err)
		}
	})
	return c, nil
}

func pendingKey(n Need, s sessionNames, why purpose) string {
	var flags strings.Builder
	for _, set := range []bool{n.AutoCreate, n.Identity, why == toHeal} {
		if set {
			flags.WriteByte('1')
		} else {
			flags.WriteByte('0')
		}
	}
	// The fallback name is a hash over user and groups. Settings are corrected for one database.
	return flags.String() + s.fallback + "\x00" + n.Database
}

// skip remembers that a setting may not be copied, and logs it once.
func (a *Admin) skip(s step, cause error) {
	a.once(s.setting, "setting left out of a session role", "setting", s.name, "err", cause)
}

// once logs a warning, unless it has lately logged one with the same key.
func (a *Admin) once(key, message string, attributes ...any) {
	a.mu.Lock()
	now := a.Pool.Now()
	for key, until := range a.skips {
		if !until.After(now) {
			delete(a.skips, key)
		}
	}
	_, known := a.skips[key]
	a.skips[key] = now.Add(skipFor)
	a.mu.Unlock()
	if !known {
		a.Pool.Log.Warn(message, append([]any{"cluster", a.Pool.Cluster}, attributes...)...)
	}
}

func (a *Admin) isSkipped(key string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	until, ok := a.skips[key]
	return ok && until.After(a.Pool.Now())
}
