// Package server runs Daypass: it builds everything that a configuration asks for,
// from the keyring up to the listeners, keeps it running through reloads, and takes
// it down again.
package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/daypass/daypass/internal/api"
	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/ca"
	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/reaper"
)

// Options are Run's parameters apart from the configuration.
type Options struct {
	Log     *slog.Logger
	Now     func() time.Time
	Version string // of this binary, for metrics and traces
	// Drain is how long sessions may continue once ctx has ended. Zero means 15 s, a
	// negative value means not at all.
	Drain time.Duration
	// ShutdownDelay is how long the server accepts connections after ctx has ended,
	// while /readyz fails, so that load balancers notice. Optional.
	ShutdownDelay time.Duration
	// Hurry ends delay and drain when it is closed. Optional.
	Hurry <-chan struct{}
	// Hangup asks the server to read the configuration again with Load. Both are optional.
	Hangup <-chan os.Signal
	Load   func() (*config.Config, error)
	// API, Gateway, Admin and Metrics replace the addresses of the configuration.
	// Optional; Run closes them.
	API, Gateway, Admin, Metrics net.Listener
	// Lease is how long the other servers still count the sessions of a server that is gone, and do not
	// sweep its clusters. Whole seconds. Optional: 10 s.
	Lease time.Duration
	// StartPatience is how long a start waits until the other servers have seen this one's key.
	// Optional: 40 s, because a frozen server counts as live for up to 15 s.
	StartPatience time.Duration
	// TidyMemory lets the server set GOGC and return memory to the system. It is for a process that
	// does nothing else. Optional.
	TidyMemory bool
	// Patience is how long a logon may take. Optional: 10 s.
	Patience time.Duration
	// Ready is called once both listeners serve. Optional.
	Ready func(Running)
	// Reloaded is called after each attempt to put changed files in force, with nil or with the
	// reason why the earlier configuration stays in force. Optional.
	Reloaded func(error)
}

// Running is where a server can be reached.
type Running struct {
	API     string // URL
	Gateway net.Addr
	Admin   string // host and port of the operator's listener; empty: none
	Metrics string // host and port of the listener for metrics only; empty: none
	CACert  string // path of the PEM file for sslrootcert; empty if the operator provides the certificate
}

// Run runs API, gateway and reaper until ctx ends, then drains and returns nil. It
// returns an error if it cannot start or has to stop.
func Run(ctx context.Context, cfg *config.Config, opts Options) error {
	// Nothing is made, least of all new keys in place of those of a directory that was moved away,
	// before the addresses are known to be free. But the lock of a directory that is there tells more
	// of a second server than an address that is in use.
	_, err := os.Stat(cfg.Data)
	missing := errors.Is(err, fs.ErrNotExist)
	if missing {
		if err := tryAddresses(cfg, opts); err != nil {
			return err
		}
	}
	data, err := openDataDir(cfg.Data, opts.Log)
	if err != nil {
		return cfg.Fault("data", err)
	}
	defer data.close()
	if !missing {
		if err := tryAddresses(cfg, opts); err != nil {
			return err
		}
	}
	lost, lostKeys := data.lacksRevocations(cfg), data.lacksKeys(cfg)
	var file *keyring.File
	if cfg.RootKey == nil {
		if file, err = openKeysFile(cfg, opts.Now()); err != nil {
			return err
		}
	}
	record, err := audit.Open(data.join("audit"), opts.Now)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w; %s", err, data.giveBack())
		}
		return cfg.Fault("data", fmt.Errorf("opening the audit log: %w", err))
	}
	defer record.Close()
	record.SetOrigin(cfg.Account, cfg.Region)
	observe, err := newObservers(ctx, cfg, opts)
	if err != nil {
		return err
	}
	defer observe.close(opts.Log)
	revoked, err := openRevocations(cfg, data, opts.Now, opts.Log)
	if err != nil {
		return err
	}
	defer revoked.close()
	if lost {
		opts.Log.Warn("registry.db was missing, although there are keys, and was made anew: what was revoked before is not known here; unless nothing was, "+
			"run `daypass revoke --all`", "file", data.join("registry.db"))
	}
	if lostKeys {
		opts.Log.Warn("the keyring was missing, although there is a registry.db, and was made anew: database passwords and session tokens from before "+
			"are refused, and revocations stay in force; restore the keyring from a backup, or have callers ask for new ones", "file", cfg.Keyring)
	}

	s := &service{opts: opts, log: opts.Log, data: data, keysFile: file, keys: file, audit: record, observers: observe, revoked: revoked}
	if cfg.RootKey != nil {
		if s.member, err = joinFleet(ctx, cfg, revoked, opts); err != nil {
			return err
		}
		defer s.member.leave()
		s.keys = s.member
		if s.peers = s.member.peers; s.peers != nil {
			defer s.peers.listener.Close()
		}
	}
	s.configRead.Store(opts.Now().Unix())
	s.live.Store(&snapshot{cfg: cfg, clusters: newClusters(nil, cfg, s.keys.Current(), opts, observe)})
	s.ending = make(chan struct{})
	defer func() {
		close(s.ending)
		s.live.Load().clusters.close(nil)
		s.retiring.Wait()
	}()
	for _, warning := range cfg.Warnings {
		s.log.Warn("configuration", "warning", warning)
	}
	if err := s.loadCertificates(cfg); err != nil {
		return err
	}
	return s.run(ctx)
}

// service is one running server.
type service struct {
	opts      Options
	log       *slog.Logger
	data      *dataDir
	keys      keySource
	keysFile  *keyring.File // keys, if this server shares none; else nil
	member    *member       // keys, if this is one of several servers; else nil
	peers     *peers        // nil: none are configured
	audit     *audit.Writer
	observers observers
	revoked   *revocations
	front     *gateway.Server
	api       *api.Handler

	live       atomic.Pointer[snapshot]
	apiTLS     certificates // unset: plain HTTP, on loopback
	gatewayTLS certificates
	metricsTLS certificates                 // unset: plain HTTP
	authority  atomic.Pointer[ca.Authority] // nil if the operator provides the gateway's certificate
	expiry     expiry
	files      fileWatch
	configRead atomic.Int64          // when the configuration in force was read, Unix time
	refused    atomic.Pointer[error] // why the configuration file was refused; nil: it is in force

	retiring sync.WaitGroup // clusters that were replaced, and still have connections
	ending   chan struct{}  // closed when the server has ended all sessions
}

// snapshot is the part of a service that a reload replaces as a whole.
type snapshot struct {
	cfg      *config.Config
	clusters *clusters
}

func (s *service) run(ctx context.Context) error {
	cfg := s.live.Load().cfg
	apiListener, err := listen(s.opts.API, cfg.API.Listen)
	if err != nil {
		return cfg.Fault("api.listen", err)
	}
	defer apiListener.Close()
	gatewayListener, err := listen(s.opts.Gateway, cfg.Gateway.Listen)
	if err != nil {
		return cfg.Fault("gateway.listen", err)
	}
	defer gatewayListener.Close()

	connections := api.NewConnections(cfg.API.Limits.Connections, cfg.API.Limits.PerAddress, within(s.trustedProxies))
	connections.ProxyProtocol(within(func() []netip.Prefix { return s.live.Load().cfg.API.ProxyProtocol }),
		withoutHeader(s.log, "api.proxy_protocol.from"))
	scheme := "http://"
	if s.apiTLS.given() {
		scheme = "https://"
		apiListener = connections.SecureListener(apiListener, &tls.Config{
			MinVersion:     tls.VersionTLS12,
			GetCertificate: s.apiTLS.GetCertificate,
			NextProtos:     []string{"http/1.1"},
		})
	} else {
		apiListener = connections.Listener(apiListener)
	}
	shared := s.settleTogether()
	defer shared.stop()
	if s.front, err = s.newGateway(shared); err != nil {
		return err
	}
	s.api = s.newAPI()
	if s.member != nil {
		s.member.describe(s.announced)
	}
	health := &health{
		audit: s.audit.Err, registry: s.revoked.Err, keys: s.keysErr, warnings: s.warnings,
		live: func() *clusters { return s.live.Load().clusters }, instance: s.data.instance,
	}
	httpServer := s.newHTTPServer(health, connections)
	s.setLimits(cfg)
	s.measure(connections)
	adminAddress, stopAdmin, err := s.startAdmin(cfg.Admin, health)
	if err != nil {
		return err
	}
	defer stopAdmin()
	metricsAddress, stopMetrics, err := s.startMetrics(cfg.Metrics)
	if err != nil {
		return err
	}
	defer stopMetrics()
	defer s.revoked.follow(s.front.Recheck)()

	group, serving := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := httpServer.Serve(apiListener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving the API: %w", err)
		}
		return nil
	})
	if s.opts.TidyMemory {
		go tidyMemory(serving, s.front.Shrink)
	}
	// Serving does not end with ctx: Shutdown closes the listener.
	group.Go(func() error { return s.front.Serve(context.WithoutCancel(ctx), gatewayListener) })
	group.Go(func() error { return s.followChanges(serving) })
	if s.peers != nil {
		defer s.answerPeers(context.WithoutCancel(ctx))()
	}
	group.Go(func() error { return s.reap(serving, shared) })
	group.Go(func() error {
		<-serving.Done()
		return s.shutdown(health, httpServer)
	})
	where := Running{API: scheme + apiListener.Addr().String(), Gateway: gatewayListener.Addr(), Admin: adminAddress, Metrics: metricsAddress}
	if authority := s.authority.Load(); authority != nil {
		where.CACert = authority.CertificateFile()
	}
	s.log.Info("serving", "api", where.API, "gateway", where.Gateway.String(), "ca", where.CACert, "data", s.data.path)
	if s.opts.Ready != nil {
		s.opts.Ready(where)
	}
	return group.Wait()
}

func (s *service) trustedProxies() []netip.Prefix { return s.live.Load().cfg.API.TrustedProxies }

func (s *service) newGateway(shared together) (*gateway.Server, error) {
	var elsewhere func([]byte) bool
	var mark func([]byte) bool
	if s.peers != nil {
		elsewhere, mark = s.peers.cancelElsewhere, s.peers.is
	}
	return gateway.New(gateway.Config{
		Mark: mark, Elsewhere: elsewhere, Everywhere: shared.everywhere(),
		Limits:  gateway.Limits{LogonTimeout: cmp.Or(s.opts.Patience, logonTimeout)},
		TLS:     &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.gatewayTLS.GetCertificate},
		Cluster: func(id string) (*gateway.Cluster, bool) { return s.live.Load().clusters.find(id) },
		Check:   s.check,
		Proxies: within(func() []netip.Prefix { return s.live.Load().cfg.Gateway.ProxyProtocol }),
		Revoked: s.revoked.revoked,
		Audit:   s.audit,
		Observe: s.observers.logon(),
		Log:     s.log,
		Now:     s.opts.Now,
	})
}

// newAPI makes the API. The gateway exists already, because the API lists and ends its sessions.
func (s *service) newAPI() *api.Handler {
	return api.New(api.Config{
		Directory:      func() *directory.Directory { return s.live.Load().cfg.Directory },
		Keyring:        s.keys.Current,
		Audit:          s.audit,
		Revocations:    s.revoked,
		Sessions:       gatewaySessions{s.front, s.member, s.peers},
		TrustedProxies: s.trustedProxies,
		ForSignIn:      s.forSignIn,
		Observe:        s.observers.call(),
		Log:            s.log,
		Now:            s.opts.Now,
	})
}

// newHTTPServer makes the server of the API's listener, which also answers probes and serves the
// sign-in and the console.
func (s *service) newHTTPServer(health *health, connections *api.Connections) *http.Server {
	signIn := s.newSignIn()
	return &http.Server{
		Handler:           closeAfterChunks(health.probes(signIn.Before(s.newConsole(signIn).Before(s.api)))),
		ConnState:         connections.Track,
		ConnContext:       connections.Context,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// maxHeader is how many bytes a request's header may have, give or take 4 KiB. A session token has
// some kilobytes. Strangers can send a header on each of thousands of connections.
const maxHeader = 32 << 10

// answerPeers answers the other servers until the returned function is called. They are answered
// during the drain too: this server's sessions are listed until they end.
func (s *service) answerPeers(ctx context.Context) (stop func()) {
	answering, cancel := context.WithCancel(ctx)
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := s.peers.serve(answering, s.front); err != nil {
			s.log.Error("the other servers are not answered any more", "err", err)
		}
	}()
	return func() { cancel(); <-served }
}

// reap cleans up after sessions until ctx ends.
func (s *service) reap(ctx context.Context, shared together) error {
	err := reaper.Run(ctx, reaper.Config{
		Clusters: func() map[string]reaper.Sweeper { return s.live.Load().clusters.sweepers },
		Turns:    shared.turns,
		Log:      s.log,
		Observe:  s.observers.sweep(),
		Passed:   s.observers.passed(),
	})
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("cleaning up: %w", err)
}

// tryAddresses listens at every address of the configuration for a moment. The server cannot listen
// for good before it can answer.
func tryAddresses(cfg *config.Config, opts Options) error {
	peers := ""
	if cfg.Peers != nil {
		peers = cfg.Peers.Listen
	}
	for _, at := range []struct {
		key, address string
		given        net.Listener
	}{
		{"api.listen", cfg.API.Listen, opts.API},
		{"gateway.listen", cfg.Gateway.Listen, opts.Gateway},
		{"admin.listen", cfg.Admin.Listen, opts.Admin},
		{"metrics.listen", cfg.Metrics.Listen, opts.Metrics},
		{"peers.listen", peers, nil},
	} {
		if at.given != nil || at.address == "" {
			continue
		}
		l, err := net.Listen("tcp", at.address)
		if err != nil {
			return cfg.Fault(at.key, err)
		}
		defer l.Close() // at the end, so that two equal addresses are found
	}
	return nil
}

func listen(given net.Listener, address string) (net.Listener, error) {
	if given != nil {
		return given, nil
	}
	return net.Listen("tcp", address)
}
