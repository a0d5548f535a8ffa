package adminconn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// maxWaiting bounds the calls that wait for a connection of one cluster, so
	// that a slow cluster costs a bounded number of goroutines.
	maxWaiting = 1000
	// ConnectTimeout bounds one attempt to connect; a whole logon has 10 s.
	ConnectTimeout = 4 * time.Second
	// After a failure to connect, calls fail at once for a while that doubles up to
	// circuitMax. Then one call tries (half-open) while the others still fail. circuitMax is
	// short enough for logons to succeed within seconds of the cluster's return.
	circuitMin = 100 * time.Millisecond
	circuitMax = time.Second
)

// Conn is one standing connection of the administrative login.
type Conn struct {
	*pgx.Conn
	meter   *meter
	Version int  // server_version_num
	Standby bool // it was in recovery when it was opened
	Reused  bool // it was idle, so it may be dead
	opened  time.Time
	used    time.Time // when it was released
}

// Pool holds at most MaxConns connections to one cluster, including those to other databases.
// A bounded queue waits for them, and a circuit turns an outage into quick failures. Make it
// with New; safe for concurrent use.
type Pool struct {
	Cluster string           // identifier, for errors and logs
	Log     *slog.Logger     // never nil
	Now     func() time.Time // never nil

	config       *pgx.ConnConfig
	hosts        []*host // config, split by server
	sessionAttrs string
	replica      replica
	lane         chan struct{} // one token: the transaction of this process that may hold the lock
	// laneless is the time until which calls do not wait for the advisory lock. Guarded by
	// lane's token.
	laneless  time.Time
	elsewhere chan struct{}   // one token: the connection to another database
	slots     chan struct{}   // one token for each connection in use or being opened
	base      context.Context // ends with Close
	end       context.CancelFunc

	mu          sync.Mutex // guards the following fields
	idle        []*Conn
	waiting     int
	closed      bool
	failure     error         // the last failure to connect; nil while the circuit is closed
	failed      chan struct{} // closed at the next failure, to wake waiting calls
	backoff     time.Duration
	retryAt     time.Time
	probing     bool
	lastPrimary int // index in hosts of the host that was the primary last
	connects    int // for tests and for the check
	reached     bool
	refusals    map[string]refusal // databases that refuse the login

	// TestOnlyBefore runs before each statement of a change, which is then sent by itself.
	TestOnlyBefore func(sql string, c *pgconn.PgConn)
}

// New does no I/O; the first Acquire connects.
func New(cfg Config) *Pool {
	if cfg.MaxConns == 0 {
		cfg.MaxConns = defaultMaxConns
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := cfg.Conn.Copy()
	if c.ConnectTimeout == 0 || c.ConnectTimeout > ConnectTimeout {
		c.ConnectTimeout = ConnectTimeout
	}
	c.StatementCacheCapacity = 0
	c.DescriptionCacheCapacity = 0
	c.DefaultQueryExecMode = pgx.QueryExecModeExec
	p := &Pool{Cluster: cfg.Cluster, Log: cfg.Log, Now: cfg.Now, config: c,
		hosts: splitHosts(c, &loginPassword{current: c.Password, read: cfg.Password}, cfg.State), sessionAttrs: cfg.TargetSessionAttrs,
		lane: make(chan struct{}, 1), elsewhere: make(chan struct{}, 1), slots: make(chan struct{}, max(cfg.MaxConns, minMaxConns)),
		failed: make(chan struct{}), refusals: map[string]refusal{}}
	p.replica.turn = make(chan struct{}, 1)
	p.base, p.end = context.WithCancel(context.Background())
	return p
}

// Config returns the connection string of the administrative login; do not modify it.
func (p *Pool) Config() *pgx.ConnConfig { return p.config }

// Acquire returns a connection. Give it back with Release.
func (p *Pool) Acquire(ctx context.Context) (*Conn, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, p.Unreachable(errClosed)
	}
	probe, err := p.admitLocked()
	if err != nil {
		p.mu.Unlock()
		return nil, err
	}
	if p.waiting >= maxWaiting {
		p.mu.Unlock()
		return nil, p.Unreachable(errors.New("too many logons wait for the administrative connections"))
	}
	p.waiting++
	failed := p.failed
	p.mu.Unlock()

	err = p.wait(ctx, failed)
	p.mu.Lock()
	p.waiting--
	if err != nil {
		if probe {
			p.probing = false
		}
		p.mu.Unlock()
		return nil, err
	}
	var c *Conn
	var stale []*Conn
	if !probe {
		c, stale = p.takeIdleLocked()
	}
	p.mu.Unlock()
	for _, s := range stale {
		s.CloseNow()
	}
	if c == nil {
		return p.open(ctx)
	}
	c.Reused = true
	return c, nil
}

// takeIdleLocked removes the idle connection that was used last from the pool, and those to a standby
// that are too old to be used. c is nil if there is none.
func (p *Pool) takeIdleLocked() (c *Conn, stale []*Conn) {
	for n := len(p.idle); n > 0; n = len(p.idle) {
		c := p.idle[n-1]
		p.idle = p.idle[:n-1]
		if !c.Standby || len(p.hosts) == 1 || time.Since(c.opened) <= staleStandby {
			return c, stale
		}
		stale = append(stale, c)
	}
	return nil, stale
}

// admitLocked applies the circuit: it admits no call while the circuit is open and one
// while it is half open.
func (p *Pool) admitLocked() (probe bool, err error) {
	if p.failure == nil || len(p.idle) > 0 {
		return false, nil
	}
	if p.probing || p.Now().Before(p.retryAt) {
		return false, p.failure
	}
	p.probing = true
	return true, nil
}

func (p *Pool) wait(ctx context.Context, failed <-chan struct{}) error {
	select {
	case p.slots <- struct{}{}:
		return nil
	default:
	}
	select {
	case p.slots <- struct{}{}:
		return nil
	case <-failed:
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.failure != nil {
			return p.failure
		}
		return p.Unreachable(errors.New("connection failed"))
	case <-p.base.Done():
		return p.Unreachable(errClosed)
	case <-ctx.Done():
		return p.Unreachable(ctx.Err())
	}
}

// open connects in a slot that the caller holds, and updates the circuit. The attempt runs to
// its own deadline: a caller that gives up is not the cluster's fault, and the next caller
// gets the connection.
func (p *Pool) open(ctx context.Context) (*Conn, error) {
	type result struct {
		c   *Conn
		err error
	}
	ready := make(chan result)
	go func() {
		connecting, cancel := context.WithTimeout(context.Background(), ConnectTimeout)
		defer cancel()
		stop := context.AfterFunc(p.base, cancel)
		defer stop()
		c, err := p.Connect(connecting, "")
		if err = p.opened(err); err != nil {
			if c != nil {
				c.CloseNow()
			}
			c = nil
			<-p.slots
		}
		select {
		case ready <- result{c, err}:
		case <-ctx.Done():
			if c != nil {
				p.Release(c)
			}
		}
	}()
	select {
	case r := <-ready:
		return r.c, r.err
	case <-ctx.Done():
		return nil, p.Unreachable(ctx.Err())
	}
}

// opened updates the circuit after an attempt to connect, and returns the error for the
// caller.
func (p *Pool) opened(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.probing = false
	p.connects++
	if p.closed {
		return p.Unreachable(errClosed)
	}
	if err == nil {
		p.failure, p.backoff, p.reached = nil, 0, true
		return nil
	}
	e := p.connectError(err)
	if IsCode(err, pgerrcode.TooManyConnections) && len(p.slots) > 1 {
		return e // no room for one more, but the existing connections still work
	}
	p.failure = e
	p.backoff = min(max(2*p.backoff, circuitMin), circuitMax)
	p.retryAt = p.Now().Add(p.backoff)
	close(p.failed)
	p.failed = make(chan struct{})
	return e
}

// OpenDatabase connects to another database of the cluster for one task. It takes a slot like
// a standing connection and does not affect the circuit, because a database that refuses
// connections is not the cluster's fault.
func (p *Pool) OpenDatabase(ctx context.Context, database string) (*Conn, error) {
	p.mu.Lock()
	failed := p.failed
	p.mu.Unlock()
	if err := p.wait(ctx, failed); err != nil {
		return nil, err
	}
	p.mu.Lock()
	var surplus *Conn
	if n := len(p.idle); n > 0 && n+len(p.slots) > cap(p.slots) {
		surplus, p.idle = p.idle[0], p.idle[1:]
	}
	p.mu.Unlock()
	if surplus != nil {
		surplus.CloseNow()
	}
	ctx, cancel := context.WithTimeout(ctx, ConnectTimeout)
	defer cancel()
	c, err := p.Connect(ctx, database)
	if err != nil {
		<-p.slots
		return nil, err
	}
	return c, nil
}

// Release gives a connection back. A connection that is broken, or in the middle of a
// transaction, is closed.
func (p *Pool) Release(c *Conn) {
	p.mu.Lock()
	healthy := !c.IsClosed() && !c.PgConn().IsBusy() && c.PgConn().TxStatus() == 'I' && !c.meter.worn() && !p.closed
	if healthy {
		c.used = time.Now()
		p.idle = append(p.idle, c)
		// The connection worked, so the cluster is up. An old failure to open one more must
		// not refuse the next logon that finds no idle connection.
		p.failure, p.backoff = nil, 0
	}
	p.mu.Unlock()
	if !healthy {
		c.CloseNow()
	}
	<-p.slots
}

// Discard closes a connection instead of giving it back.
func (p *Pool) Discard(c *Conn) {
	c.CloseNow()
	<-p.slots
}

// Flush closes the idle connections, because their server is gone or has become a standby.
func (p *Pool) Flush() {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	for _, c := range idle {
		c.CloseNow()
	}
}

// Close ends the standing connections. Calls in progress fail.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.end()
	p.Flush()
	p.closeReplica()
}

// CloseNow closes the connection, without waiting long for the server.
func (c *Conn) CloseNow() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.Close(ctx) // the connection is gone either way
}

// setup finds out where the connection leads. It also makes commits wait if asynchronous
// commit is set for the database or the login, since that could lose a change that was
// reported as done. If asynchronous commit is set for the whole server, it is the operator's
// choice; then commits wait for this server only. A database in SQL_ASCII may have names in any
// encoding: there, nothing is converted or checked.
//
// It turns off two settings that any user can set and that not every build knows: with trace_sort
// the server writes the whole statement to its log four times for each sort, which takes seconds
// for a few thousand session roles.
const setup = `
select set_config(name, case when name <> 'synchronous_commit' then 'off' when source in ('database', 'user', 'database user') then 'on' else 'local' end, false)
from pg_settings where name = 'synchronous_commit' and (setting = 'off' or source in ('database', 'user', 'database user'))
	or name in ('trace_sort', 'trace_notify') and setting = 'on';
select set_config('client_encoding', 'SQL_ASCII', false) where current_setting('server_encoding') = 'SQL_ASCII';
select current_setting('server_version_num'), pg_backend_pid(), pg_is_in_recovery();`

func (c *Conn) prepare(ctx context.Context, state func(version int) string) error {
	results, err := c.PgConn().Exec(ctx, setup).ReadAll()
	if err != nil {
		return err
	}
	var pid uint32
	if len(results) == 0 || len(results[len(results)-1].Rows) != 1 || len(results[len(results)-1].Rows[0]) != 3 {
		return errors.New("the server sent an unexpected answer")
	}
	row := results[len(results)-1].Rows[0]
	if _, err := fmt.Sscan(string(row[0]), &c.Version); err != nil {
		return fmt.Errorf("reading server_version_num: %w", err)
	}
	if _, err := fmt.Sscan(string(row[1]), &pid); err != nil {
		return fmt.Errorf("reading pg_backend_pid: %w", err)
	}
	c.Standby = string(row[2]) == "t"
	// A pooler gives out cancel keys of its own. Behind a pooler, the next statement may run
	// on another backend, and logged-on roles may not be ours.
	if told := c.PgConn().PID(); told != 0 && told != pid {
		return ErrPooler
	}
	if state == nil {
		return nil
	}
	_, err = c.Prepare(ctx, StateStatement, state(c.Version))
	return err
}

// Unreachable returns the error for a cluster that cannot be administered now. The cause decides of
// which kind it is.
func (p *Pool) Unreachable(cause error) *Error {
	e := &Error{Kind: ErrUnreachable, Message: fmt.Sprintf("cluster %q cannot be reached", p.Cluster), Cause: cause}
	switch {
	case IsCode(cause, pgerrcode.TooManyConnections):
		e.Kind, e.Message = ErrFull, fmt.Sprintf("cluster %q has no connection left", p.Cluster)
	case IsCode(cause, pgerrcode.AdminShutdown, pgerrcode.CrashShutdown, pgerrcode.CannotConnectNow):
		e.Kind, e.Message = ErrNotReady, fmt.Sprintf("cluster %q is starting up or shutting down", p.Cluster)
	case errors.Is(cause, ErrRecovery):
		e.Kind, e.Message = ErrReadOnly, fmt.Sprintf("cluster %q has no primary that session roles could be made on", p.Cluster)
	case errors.Is(cause, ErrPooler):
		e.Message = fmt.Sprintf("cluster %q is behind a connection pooler; its upstream has to name the PostgreSQL server itself", p.Cluster)
	}
	return e
}

func (p *Pool) connectError(err error) *Error {
	if errors.Is(err, ErrMethod) {
		return &Error{Kind: ErrRights, Cause: err,
			Message: fmt.Sprintf("cluster %q wants the administrative login to authenticate in an unsafe way; run `daypass cluster check %s`", p.Cluster, p.Cluster)}
	}
	if IsCode(err, pgerrcode.InvalidPassword, pgerrcode.InvalidAuthorizationSpecification, pgerrcode.InsufficientPrivilege) {
		hint := ""
		if IsCode(err, pgerrcode.InvalidPassword) {
			hint = " (28P01): check the password in upstream_password_file or upstream_password_env"
		}
		return &Error{Kind: ErrRights, Cause: err,
			Message: fmt.Sprintf("cluster %q refuses the administrative login%s; run `daypass cluster check %s`", p.Cluster, hint, p.Cluster)}
	}
	if CertificateFault(err) != nil {
		return &Error{Kind: ErrUnreachable, Cause: err,
			Message: fmt.Sprintf("cluster %q cannot be reached: the certificate of its server is not accepted; run `daypass cluster check %s`", p.Cluster, p.Cluster)}
	}
	return p.Unreachable(err)
}
