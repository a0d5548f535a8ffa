package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/daypass/daypass/internal/admission"
	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/pgwire"
	"github.com/daypass/daypass/internal/session"
	"github.com/daypass/daypass/internal/throttle"
)

// Server accepts logons and carries sessions. Make it with New; safe for
// concurrent use.
type Server struct {
	cluster func(string) (*Cluster, bool)
	proxies func(netip.Addr) bool
	check   func(string) (credential.Grant, error)
	limits  Limits
	now     func() time.Time
	log     *slog.Logger
	tls     *tls.Config

	observer func(LogonEvent) // nil: there is none
	cancels  cancelCounts

	revoked    func(*credential.Grant) (bool, error) // nil: nothing is revoked
	mark       func(key []byte) bool                 // nil: every cancel key will do
	elsewhere  func(request []byte) bool             // nil: there are no other servers
	everywhere Everywhere                            // nil: limits hold for this server alone
	recheck    chan struct{}                         // wakes watchSessions
	cancelling chan struct{}                         // bounds the cancels of sessions that have to end
	sweeping   sync.Mutex                            // held by the one sweep that runs
	watching   sync.Once                             // starts watchSessions
	over       sync.Once                             // closes done
	done       chan struct{}                         // closed at the end of Shutdown

	checked checkedServers // upstream servers whose sessions work as their user

	waiting  *admission.Room        // connections without a password that was found valid
	openings *throttle.Keys[string] // logons after that, by principalKey
	opening  atomic.Int64           // the same, in all
	failures *admission.Failures    // addresses that failed to log on
	record   *recorder
	silent   silentHosts // upstream hosts that do not answer
	pool     *pool       // upstream sessions without a client
	stuck    unfinished  // upstream connections of logons that were given up
	starting *starting   // upstream sessions that servers are starting
	sessions *table
	draining atomic.Bool  // logons are refused
	ending   atomic.Bool  // sessions are ended
	warned   atomic.Int64 // second of the last line about a refused connection

	mu        sync.Mutex
	listeners map[net.Listener]bool // guarded by mu
}

// New returns a Server; it does nothing before Serve.
func New(config Config) (*Server, error) {
	if err := config.check(); err != nil {
		return nil, err
	}
	s := &Server{
		cluster: config.Cluster, check: config.Check,
		limits: config.Limits.withDefaults(), now: config.Now, log: config.Log, observer: config.Observe,
		revoked: config.Revoked, mark: config.Mark, elsewhere: config.Elsewhere, everywhere: config.Everywhere, recheck: make(chan struct{}, 1), cancelling: make(chan struct{}, 32), done: make(chan struct{}),
		listeners: map[net.Listener]bool{},
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.proxies = config.Proxies
	if s.proxies == nil {
		s.proxies = func(netip.Addr) bool { return false }
	}
	s.tls = config.TLS.Clone()
	s.tls.NextProtos = []string{pgwire.ALPN}
	s.tls.GetConfigForClient = nil // it could return a configuration without the settings below
	s.tls.MinVersion = max(s.tls.MinVersion, tls.VersionTLS12)
	// libpq and the drivers do not resume sessions, and PostgreSQL sends no
	// tickets either.
	s.tls.SessionTicketsDisabled = true
	// Dynamic record sizes are for browsers: they would cut each of the first
	// results into records, and writes, of one segment.
	s.tls.DynamicRecordSizingDisabled = true
	s.waiting = admission.NewRoom(s.limits.HalfOpen, s.limits.HalfOpenPerAddress)
	s.openings = throttle.NewKeys[string](throttle.Limit{Concurrent: s.limits.OpeningPerPrincipal}, maxPrincipals)
	s.failures = admission.NewFailures(s.limits.FailureDelay, s.limits.FailureDelayMax)
	s.record = newRecorder(config.Audit, s.now)
	s.sessions = newTable(s.limits.MaxSessions)
	s.starting = newStarting(maxStarting)
	s.pool = newPool()
	return s, nil
}

// Serve accepts connections from l until ctx is done or Shutdown begins, and
// then returns nil. It closes l. Sessions go on after ctx is done; Shutdown ends
// them. Serve returns the errors of l, except temporary ones such as a lack of
// descriptors or an aborted connection.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	s.mu.Lock()
	s.listeners[l] = true
	s.mu.Unlock()
	if s.draining.Load() {
		l.Close() // Shutdown may have closed the listeners before this one was added
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	s.watching.Do(func() { go s.watchSessions() })
	defer func() {
		stop()
		l.Close()
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
	}()

	var pause time.Duration
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			s.admit(ctx, conn)
		case errors.Is(err, net.ErrClosed):
			return nil
		case passing(err):
			// The connection stays in the kernel's queue. Closing the peer that has kept us
			// waiting longest frees a descriptor.
			s.waiting.Evict()
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.log.Warn("accept failed", "err", err, "retry_in", pause)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		default:
			return err
		}
	}
}

// passing reports whether calling Accept again may succeed after this error.
func passing(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EINTR} {
		if errors.Is(err, e) {
			return true
		}
	}
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

// admit starts a logon as soon as there is room for it. Until then the accept loop waits
// here, and new connections stay in the kernel's queue.
func (s *Server) admit(ctx context.Context, conn net.Conn) {
	peer := session.Peer(conn.RemoteAddr()).Addr()
	v := admission.NewVisitor(peer, func() { conn.Close() })
	v.Exempt = peer.IsValid() && s.proxies(peer)
	proxied := v.Exempt
	err := s.waiting.Admit(ctx, v)
	if err == nil {
		s.tune(conn)
		go s.receive(conn, v, proxied)
		return
	}
	conn.Close()
	if errors.Is(err, admission.ErrShare) {
		s.warn("connection refused: too many half-open from its address", "client", conn.RemoteAddr())
	}
}

// warn writes a line about a connection that is refused, once a second at most.
func (s *Server) warn(message string, attributes ...any) {
	if now, last := time.Now().Unix(), s.warned.Load(); now != last && s.warned.CompareAndSwap(last, now) {
		s.log.Warn(message, attributes...)
	}
}

// tune makes TCP notice that a peer has gone.
func (s *Server) tune(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	// Errors do not matter: the connection works without these options.
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: s.limits.KeepAlive, Interval: 15 * time.Second, Count: 4})
	if s.limits.UserTimeout > 0 {
		setUserTimeout(tcp, s.limits.UserTimeout)
	}
}

// Shutdown ends the Server: it closes the listeners, and refuses logons that are under
// way with 57P03. Sessions go on until ctx is done, and revocations and limits still apply
// to them. Then they end with 57P01, at once or, if a query is running, after it has been
// cancelled. Shutdown returns when the last session has ended and been recorded: nil if
// that was before ctx was done, else ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.draining.Store(true)
	s.mu.Lock()
	for l := range s.listeners {
		l.Close()
	}
	s.mu.Unlock()
	s.closePool()
	s.stuck.close()
	err := s.sessions.wait(ctx)
	if err != nil {
		s.endAll()
	}
	s.waiting.Close()
	s.over.Do(func() { close(s.done) })
	return err
}
