// Package proxy serves `daypass proxy`: ports and Unix sockets on a person's machine, for
// PostgreSQL clients that cannot get a credential themselves.
//
//	client → proxy      SSLRequest, GSSENCRequest: declined; start-up message, any user
//	proxy  → API        request for a new credential, by Map.Open; it may wait for a sign-in
//	proxy  → gateway    TLS, the client's start-up message with the credential's user and
//	                    database, the password
//	gateway → client    the gateway's answers, except its request for the password
//	both ways           bytes, by package session
//
// A client proves nothing, so only the machine protects a port. The listeners are on loopback
// addresses or in a private directory, and where the system can tell which user made a connection
// (CheckTCP, CheckUnix), only the user of this process may connect.
//
// Connections share nothing. Each has its own credential and its own connection to the gateway,
// so after a machine has been asleep, the next connection works.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/daypass/daypass/internal/pgwire"
	"github.com/daypass/daypass/internal/session"
	"github.com/daypass/daypass/internal/throttle"
)

const (
	// startTime is how long a client may take for its start-up message.
	startTime = 10 * time.Second
	// openTime is how long Map.Open may take. It includes the time in which a person signs in.
	openTime = 60 * time.Second
	// logonTime is how long the gateway may take, from the connection to ReadyForQuery. A gateway
	// that cannot reach its cluster takes up to 10 seconds to say so.
	logonTime = 20 * time.Second
	// cancelTime is how long a cancel request may take.
	cancelTime = 10 * time.Second
	// halfCloseTime is how long the gateway may be silent after the client has closed its
	// sending side.
	halfCloseTime = 30 * time.Second
	// maxConnections bounds the permitted user's connections, of all ports and in all states.
	maxConnections = 1000
)

// perStranger limits the log lines about connections of other users, who could fill the disk with
// them.
var perStranger = throttle.Limit{Rate: 1.0 / 6, Burst: 20}

// Map is a port or a Unix socket, and where its sessions go.
type Map struct {
	// Name is for messages: "warehouse/dev as alice".
	Name string
	// Port is the TCP port on the loopback addresses. With Directory it is the number in the
	// name of the Unix socket.
	Port int
	// Directory is the directory of the Unix socket. Empty: TCP.
	Directory string
	// Database is the only database. Empty: the client names one.
	Database string
	// Open gets a credential for a database. Its error may be a *Refusal.
	Open func(ctx context.Context, database string) (*Logon, error)
}

// Logon is a gateway, and a credential for it.
type Logon struct {
	Gateway
	User, Database, Password string
}

// Gateway is the address of a gateway, and how to check its certificate.
type Gateway struct {
	Host string
	Port int
	TLS  *TLS
	// Direct starts TLS at once, without an SSLRequest.
	Direct bool
}

// Refusal is an error for the client.
type Refusal struct {
	SQLState, Message, Detail, Hint string
}

func (r *Refusal) Error() string { return r.Message }

func refuse(state, format string, args ...any) *Refusal {
	return &Refusal{SQLState: state, Message: fmt.Sprintf(format, args...)}
}

// Proxy accepts connections. Make it with New; safe for concurrent use.
type Proxy struct {
	log   *slog.Logger
	owner int // the user that may connect

	ctx    context.Context // ends when the proxy stops opening sessions
	cancel context.CancelFunc
	wg     sync.WaitGroup // connections

	connections atomic.Int64 // of the permitted user
	strangers   *throttle.Lines

	mu       sync.Mutex // guards the fields below
	ports    map[string]*port
	sessions map[*session.Session]bool
	closed   bool
}

// port is one Map with its listeners and the sessions that came through it.
type port struct {
	address   string
	listeners []net.Listener
	to        atomic.Pointer[Map]

	mu   sync.Mutex              // guards live
	live map[string]*liveSession // by the body of their BackendKeyData
}

// liveSession is what a cancel request for a session needs.
type liveSession struct {
	gateway Gateway
	key     []byte
}

// New returns a Proxy without ports.
func New(log *slog.Logger) *Proxy {
	p := &Proxy{log: log, owner: currentUser(), strangers: throttle.NewLines(perStranger, perStranger), ports: map[string]*port{}, sessions: map[*session.Session]bool{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// Apply replaces the maps. Sessions continue, and a port or socket that is also in the new maps
// stays open. If a new one cannot be opened, nothing changes, and the error names every such map.
func (p *Proxy) Apply(maps []*Map) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errors.New("the proxy is stopping")
	}
	next := map[string]*port{}
	var fresh []*port
	var errs []error
	for _, m := range maps {
		address := m.address()
		switch old := p.ports[address]; {
		case next[address] != nil:
			errs = append(errs, fmt.Errorf("%s: %s is taken by another map, of %s: choose another port", m.Name, address, next[address].to.Load().Name))
		case old != nil:
			next[address] = old
		default:
			listeners, err := listen(m)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", m.Name, err))
				continue
			}
			one := &port{address: address, listeners: listeners, live: map[string]*liveSession{}}
			one.to.Store(m)
			next[address] = one
			fresh = append(fresh, one)
		}
	}
	if len(errs) > 0 {
		for _, one := range fresh {
			one.close()
		}
		return errors.Join(errs...)
	}
	for _, m := range maps {
		next[m.address()].to.Store(m)
	}
	for address, old := range p.ports {
		if next[address] == nil {
			old.close()
		}
	}
	p.ports = next
	for _, one := range fresh {
		for _, l := range one.listeners {
			go p.accept(one, l)
		}
	}
	return nil
}

func (o *port) close() {
	for _, l := range o.listeners {
		l.Close()
	}
}

func (p *Proxy) accept(o *port, l net.Listener) {
	pause := time.Millisecond
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			p.log.Warn("cannot accept a connection", "port", o.address, "err", err)
			time.Sleep(pause) // out of descriptors, most likely
			pause = min(2*pause, time.Second)
			continue
		}
		pause = time.Millisecond
		if !p.enter() {
			conn.Close()
			return
		}
		go func() {
			defer p.wg.Done()
			p.serve(o, conn)
		}()
	}
}

// enter makes Close wait for a connection. It returns false once the proxy is stopping.
func (p *Proxy) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.wg.Add(1)
	return true
}

// stopped is the cause with which sessions end when the proxy stops.
var stopped = session.Cause{Reason: "proxy stopped", SQLState: pgwire.StateAdminShutdown, Message: "terminating connection because daypass proxy is stopping", Imposed: true}

// Close closes the ports. Idle sessions end at once, with 57P01. Busy ones may finish until ctx
// ends; then their queries are cancelled. Close returns when all connections have ended.
func (p *Proxy) Close(ctx context.Context) {
	p.mu.Lock()
	p.closed = true
	for _, o := range p.ports {
		o.close()
	}
	p.mu.Unlock()
	p.cancel()
	over := make(chan struct{})
	go func() {
		p.wg.Wait()
		close(over)
	}()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for patient := true; ; {
		for _, s := range p.open() {
			switch {
			case !patient:
				s.CancelAndEnd(stopped)
			case s.Status() == pgwire.StatusIdle:
				s.End(stopped)
			}
		}
		select {
		case <-over:
			return
		case <-tick.C:
			patient = ctx.Err() == nil
		}
	}
}

func (p *Proxy) open() []*session.Session {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.sessions))
}
