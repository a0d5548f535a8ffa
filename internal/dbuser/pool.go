package dbuser

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/keyring"
)

const (
	// maxWaiting bounds the calls that wait for a connection of one cluster, so
	// that a slow cluster costs a bounded number of goroutines.
	maxWaiting = 1000
	// connectTimeout bounds one attempt to connect; a logon has 10 s in all.
	connectTimeout = 4 * time.Second
	// After a failure to connect, calls fail at once for a while that doubles up
	// to circuitMax; then one of them tries (half-open) while the others still
	// fail. It is short enough for a logon to succeed within seconds of a
	// cluster's return.
	circuitMin = 100 * time.Millisecond
	circuitMax = time.Second
)

// conn is one standing connection of the administrative login.
type conn struct {
	*pgx.Conn
	meter   *meter
	version int  // server_version_num
	standby bool // it was in recovery when it was opened
	reused  bool // it was idle, so it may have died unnoticed
	opened  time.Time
	used    time.Time // when it was given back
}

// pool holds the standing connections of one cluster: at most max of them,
// those to other databases included, a bounded queue before them, and a circuit
// that turns an outage into quick failures.
type pool struct {
	cluster string
	config  *pgx.ConnConfig
	hosts   []*host // config, for each of its servers
	now     func() time.Time
	slots   chan struct{}   // one token for each connection in use or being opened
	base    context.Context // ends with close
	end     context.CancelFunc

	mu       sync.Mutex // guards what follows
	idle     []*conn
	waiting  int
	closed   bool
	failure  error         // the last failure to connect; nil while the circuit is closed
	failed   chan struct{} // closed at the next failure, to wake those who wait
	backoff  time.Duration
	retryAt  time.Time
	probing  bool
	lastHost int // index in hosts: where the primary was
	connects int // for tests and for the check
	reached  bool
}

func newPool(cluster string, config *pgx.ConnConfig, password func() (keyring.Secret, error), max int, now func() time.Time) *pool {
	c := config.Copy()
	if c.ConnectTimeout == 0 || c.ConnectTimeout > connectTimeout {
		c.ConnectTimeout = connectTimeout
	}
	c.StatementCacheCapacity = 0
	c.DescriptionCacheCapacity = 0
	c.DefaultQueryExecMode = pgx.QueryExecModeExec
	p := &pool{cluster: cluster, config: c, hosts: splitHosts(c, &loginPassword{current: c.Password, read: password}), now: now, slots: make(chan struct{}, max), failed: make(chan struct{})}
	p.base, p.end = context.WithCancel(context.Background())
	return p
}

// acquire returns a connection, to be given back with release.
func (p *pool) acquire(ctx context.Context) (*conn, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, p.unreachable(errClosed)
	}
	probe, err := p.admitLocked()
	if err != nil {
		p.mu.Unlock()
		return nil, err
	}
	if p.waiting >= maxWaiting {
		p.mu.Unlock()
		return nil, p.unreachable(errors.New("too many logons wait for the administrative connections"))
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
	for n := len(p.idle); n > 0 && !probe; n = len(p.idle) {
		c := p.idle[n-1]
		p.idle = p.idle[:n-1]
		if c.standby && len(p.hosts) > 1 && time.Since(c.opened) > staleStandby {
			defer closeConn(c)
			continue
		}
		p.mu.Unlock()
		c.reused = true
		return c, nil
	}
	p.mu.Unlock()
	return p.open(ctx)
}

// admitLocked applies the circuit: nobody while it is open, one prober when it
// is half open.
func (p *pool) admitLocked() (probe bool, err error) {
	if p.failure == nil || len(p.idle) > 0 {
		return false, nil
	}
	if p.probing || p.now().Before(p.retryAt) {
		return false, p.failure
	}
	p.probing = true
	return true, nil
}

func (p *pool) wait(ctx context.Context, failed <-chan struct{}) error {
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
		return p.unreachable(errors.New("connection failed"))
	case <-p.base.Done():
		return p.unreachable(errClosed)
	case <-ctx.Done():
		return p.unreachable(ctx.Err())
	}
}

// open connects in a slot that the caller holds, and tells the circuit. The
// attempt runs to its own deadline: that a caller goes away says nothing about
// the cluster, and the connection serves the next one.
func (p *pool) open(ctx context.Context) (*conn, error) {
	type result struct {
		c   *conn
		err error
	}
	ready := make(chan result)
	go func() {
		connecting, cancel := context.WithTimeout(context.Background(), connectTimeout)
		defer cancel()
		stop := context.AfterFunc(p.base, cancel)
		defer stop()
		c, err := p.connect(connecting, "")
		if err = p.opened(err); err != nil {
			if c != nil {
				closeConn(c)
			}
			c = nil
			<-p.slots
		}
		select {
		case ready <- result{c, err}:
		case <-ctx.Done():
			if c != nil {
				p.release(c)
			}
		}
	}()
	select {
	case r := <-ready:
		return r.c, r.err
	case <-ctx.Done():
		return nil, p.unreachable(ctx.Err())
	}
}

// opened tells the circuit how an attempt to connect ended, and returns what to
// tell the caller.
func (p *pool) opened(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.probing = false
	p.connects++
	if p.closed {
		return p.unreachable(errClosed)
	}
	if err == nil {
		p.failure, p.backoff, p.reached = nil, 0, true
		return nil
	}
	e := p.connectError(err)
	if isCode(err, "53300") && len(p.slots) > 1 {
		return e // no room for one more, while those that stand still serve
	}
	p.failure = e
	p.backoff = min(max(2*p.backoff, circuitMin), circuitMax)
	p.retryAt = p.now().Add(p.backoff)
	close(p.failed)
	p.failed = make(chan struct{})
	return e
}

// openDatabase connects to another database of the cluster for one errand. It
// takes a slot like a standing connection, and does not touch the circuit: a
// database that refuses connections says nothing about the cluster.
func (p *pool) openDatabase(ctx context.Context, database string) (*conn, error) {
	p.mu.Lock()
	failed := p.failed
	p.mu.Unlock()
	if err := p.wait(ctx, failed); err != nil {
		return nil, err
	}
	p.mu.Lock()
	var surplus *conn
	if n := len(p.idle); n > 0 && n+len(p.slots) > cap(p.slots) {
		surplus, p.idle = p.idle[0], p.idle[1:]
	}
	p.mu.Unlock()
	if surplus != nil {
		closeConn(surplus)
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	c, err := p.connect(ctx, database)
	if err != nil {
		<-p.slots
		return nil, err
	}
	return c, nil
}

// release gives a connection back; one that is broken, or in the middle of a
// transaction, is closed.
func (p *pool) release(c *conn) {
	p.mu.Lock()
	healthy := !c.IsClosed() && !c.PgConn().IsBusy() && c.PgConn().TxStatus() == 'I' && !c.meter.worn() && !p.closed
	if healthy {
		c.used = time.Now()
		p.idle = append(p.idle, c)
		// It answered, so the cluster is there: a failure to open one more that
		// is long past must not refuse the next logon that finds none idle.
		p.failure, p.backoff = nil, 0
	}
	p.mu.Unlock()
	if !healthy {
		closeConn(c)
	}
	<-p.slots
}

// discard closes a connection instead of giving it back.
func (p *pool) discard(c *conn) {
	closeConn(c)
	<-p.slots
}

// flush closes the idle connections: they lead to a server that is gone, or
// that has become a standby.
func (p *pool) flush() {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	for _, c := range idle {
		closeConn(c)
	}
}

func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.end()
	p.flush()
}

func closeConn(c *conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.Close(ctx) // the connection is gone either way
}

// setup asks what the connection leads to. An asynchronous commit that the
// database or the login is given as a setting would lose what was answered for;
// one that holds for the whole server is the operator's choice, and is waited for
// on this server only.
const setup = `
select set_config('synchronous_commit', case when source in ('database', 'user', 'database user') then 'on' else 'local' end, false)
from pg_settings where name = 'synchronous_commit' and (setting = 'off' or source in ('database', 'user', 'database user'));
select current_setting('server_version_num'), pg_backend_pid(), pg_is_in_recovery();`

// errPooler is the cause when something that is not PostgreSQL answers.
var errPooler = errors.New("a connection pooler answers in place of PostgreSQL; name the server itself")

func (c *conn) prepare(ctx context.Context) error {
	results, err := c.PgConn().Exec(ctx, setup).ReadAll()
	if err != nil {
		return err
	}
	var pid uint32
	if len(results) == 0 || len(results[len(results)-1].Rows) != 1 || len(results[len(results)-1].Rows[0]) != 3 {
		return errors.New("the server answers what it was not asked")
	}
	row := results[len(results)-1].Rows[0]
	if _, err := fmt.Sscan(string(row[0]), &c.version); err != nil {
		return fmt.Errorf("reading server_version_num: %w", err)
	}
	if _, err := fmt.Sscan(string(row[1]), &pid); err != nil {
		return fmt.Errorf("reading pg_backend_pid: %w", err)
	}
	c.standby = string(row[2]) == "t"
	// A pooler hands out keys of its own. Behind one, the next statement may
	// run on another backend, and roles may be logged on that are not ours.
	if told := c.PgConn().PID(); told != 0 && told != pid {
		return errPooler
	}
	_, err = c.Prepare(ctx, stateStatement, stateQuery(c.version))
	return err
}

func (p *pool) unreachable(cause error) *Error {
	e := &Error{Kind: ErrUnreachable, Message: fmt.Sprintf("cluster %q cannot be reached", p.cluster), Cause: cause}
	switch {
	case isCode(cause, "53300"):
		e.Kind, e.Message = ErrFull, fmt.Sprintf("cluster %q has no connection left", p.cluster)
	case isCode(cause, "57P01", "57P02", "57P03"):
		e.Kind, e.Message = ErrNotReady, fmt.Sprintf("cluster %q is starting up or shutting down", p.cluster)
	case errors.Is(cause, errRecovery):
		e.Kind, e.Message = ErrReadOnly, fmt.Sprintf("cluster %q has no primary that session roles could be made on", p.cluster)
	case errors.Is(cause, errPooler):
		e.Message = fmt.Sprintf("cluster %q is behind a connection pooler; its upstream has to name the PostgreSQL server itself", p.cluster)
	}
	return e
}

func (p *pool) connectError(err error) *Error {
	if errors.Is(err, errMethod) {
		return &Error{Kind: ErrRights, Cause: err,
			Message: fmt.Sprintf("cluster %q wants the administrative login to authenticate in an unsafe way; run `daypass cluster check %s`", p.cluster, p.cluster)}
	}
	if isCode(err, "28P01", "28000", "42501") {
		hint := ""
		if isCode(err, "28P01") {
			hint = " (28P01): check the password in upstream_password_file or upstream_password_env"
		}
		return &Error{Kind: ErrRights, Cause: err,
			Message: fmt.Sprintf("cluster %q refuses the administrative login%s; run `daypass cluster check %s`", p.cluster, hint, p.cluster)}
	}
	return p.unreachable(err)
}

// isCode reports whether err is the server's answer with one of the SQLSTATEs.
func isCode(err error, codes ...string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && slices.Contains(codes, pg.Code)
}
