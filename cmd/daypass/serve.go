package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/daypass/daypass/internal/api"
	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/ca"
	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/reaper"
	"github.com/daypass/daypass/internal/throttle"
)

func newServeCommand(env environment) *cobra.Command {
	var path string
	var drain time.Duration
	var verbose bool
	cmd := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Run the API and the gateway",
		Long: `Runs the AWS-compatible API and the PostgreSQL gateway in one process, as the
configuration file says (docs/daypass.yaml has every key).

SIGHUP reads the file again; a faulty one changes nothing and the log says why.
SIGTERM and Ctrl-C take no new logons, let running sessions finish for the time
of --drain and then end the idle ones.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if path == "" {
				return usageErrorf("serve needs --config FILE; `daypass dev` needs none")
			}
			level := slog.LevelInfo
			if verbose {
				level = slog.LevelDebug
			}
			log := newLog(env.stderr, level)
			cfg, err := loadConfig(path)
			if err != nil {
				return err
			}
			hangup := make(chan os.Signal, 1)
			signal.Notify(hangup, syscall.SIGHUP)
			defer signal.Stop(hangup)
			go tidyMemory(cmd.Context())
			return serve(cmd.Context(), cfg, serveOptions{
				log:    log,
				now:    env.now,
				drain:  drain,
				hangup: hangup,
				load:   func() (*config, error) { return loadConfig(path) },
			})
		},
	}
	cmd.Flags().StringVar(&path, "config", "", "the configuration file")
	cmd.Flags().DurationVar(&drain, "drain", 30*time.Second, "how long sessions may go on after SIGTERM")
	cmd.Flags().BoolVar(&verbose, "verbose", false, "log what is usually left out")
	return cmd
}

// serveOptions are what serve needs beside the configuration.
type serveOptions struct {
	log   *slog.Logger
	now   func() time.Time
	drain time.Duration // 30 s when zero
	// hangup asks for the configuration to be read again, with load. Both
	// optional.
	hangup <-chan os.Signal
	load   func() (*config, error)
	// api and gateway are listened on instead of the configuration's
	// addresses. Optional; serve closes them.
	api, gateway net.Listener
	admin        net.Listener // without one and an address: none
	// watch is who is told what happens; serve makes it.
	watch watchers
	// patience is how long a logon may take. Optional: 10 s.
	patience time.Duration
	// ready is called once both listeners are served. Optional.
	ready func(running)
}

// running says where a server can be reached.
type running struct {
	API     string // URL
	Gateway net.Addr
	Admin   string // host and port of the operator's listener; empty: none
	CACert  string // path of the PEM file for sslrootcert; empty when the operator gave the certificate
}

// keyringInterval is how often the keyring file is looked at.
const keyringInterval = time.Second

// serve runs API, gateway and clean-up until ctx ends, then drains and returns
// nil. An error is why it could not start or had to stop.
func serve(ctx context.Context, cfg *config, opts serveOptions) error {
	data, err := openDataDir(cfg.Data)
	if err != nil {
		return cfg.fault("data", err)
	}
	defer data.close()
	keys, err := keyring.OpenFile(data.join("keyring.json"), opts.now())
	if err != nil {
		return cfg.fault("data", fmt.Errorf("opening the keyring: %w", err))
	}
	record, err := audit.Open(data.join("audit"), opts.now)
	if err != nil {
		return cfg.fault("data", fmt.Errorf("opening the audit log: %w", err))
	}
	defer record.Close()
	record.SetOrigin(cfg.Account, cfg.Region)
	if opts.watch, err = newWatchers(ctx, cfg, opts); err != nil {
		return err
	}
	defer opts.watch.close(opts.log)
	revoked, err := openRevocations(cfg, data, opts.now, opts.log)
	if err != nil {
		return err
	}
	defer revoked.close()

	s := &service{opts: opts, log: opts.log, data: data, keys: keys, audit: record, revoked: revoked}
	s.watchers, s.health.service = opts.watch, s
	s.live.Store(&snapshot{cfg: cfg, clusters: newClusters(nil, cfg, keys.Current(), opts)})
	defer func() { s.live.Load().clusters.close(nil) }()
	for _, warning := range cfg.Warnings {
		s.log.Warn("policy", "warning", warning)
	}
	if err := s.loadCertificates(cfg); err != nil {
		return err
	}
	return s.run(ctx)
}

// service is one running server.
type service struct {
	opts  serveOptions
	log   *slog.Logger
	data  *dataDir
	keys  *keyring.File
	audit *audit.Writer
	watchers
	health health
	// revoked is what was taken back.
	revoked *revocations

	live       atomic.Pointer[snapshot]
	api        *api.Handler
	apiTLS     certificates // unset: plain HTTP, on loopback
	gatewayTLS certificates
	caCert     string
}

// certificates serve a listener's handshakes and may be exchanged while it
// listens.
type certificates struct {
	get atomic.Pointer[func(*tls.ClientHelloInfo) (*tls.Certificate, error)]
}

func (c *certificates) set(get func(*tls.ClientHelloInfo) (*tls.Certificate, error)) {
	c.get.Store(&get)
}

// load reads the pair.
func (f certificateFiles) load() (func(*tls.ClientHelloInfo) (*tls.Certificate, error), error) {
	cert, err := tls.LoadX509KeyPair(f.Certificate, f.Key)
	if err != nil {
		return nil, err
	}
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil }, nil
}

func (c *certificates) given() bool { return c.get.Load() != nil }

// GetCertificate has the form that tls.Config wants.
func (c *certificates) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return (*c.get.Load())(hello)
}

// snapshot is what a reload swaps as a whole.
type snapshot struct {
	cfg      *config
	clusters *clusters
}

func (s *service) run(ctx context.Context) error {
	cfg := s.live.Load().cfg
	apiListener, err := listen(s.opts.api, cfg.API.Listen)
	if err != nil {
		return cfg.fault("api.listen", err)
	}
	defer apiListener.Close()
	gatewayListener, err := listen(s.opts.gateway, cfg.Gateway.Listen)
	if err != nil {
		return cfg.fault("gateway.listen", err)
	}
	defer gatewayListener.Close()

	proxies := func() []netip.Prefix { return s.live.Load().cfg.API.TrustedProxies }
	connections := throttle.NewConnections(cfg.API.Limits.Connections, cfg.API.Limits.PerAddress, func(a netip.Addr) bool {
		return slices.ContainsFunc(proxies(), func(p netip.Prefix) bool { return p.Contains(a) })
	})
	apiListener = connections.Listener(apiListener)
	scheme := "http://"
	if s.apiTLS.given() {
		scheme = "https://"
		apiListener = tls.NewListener(apiListener, &tls.Config{
			MinVersion:     tls.VersionTLS12,
			GetCertificate: s.apiTLS.GetCertificate,
			NextProtos:     []string{"http/1.1"},
		})
	}
	sessions := &gatewaySessions{}
	s.api = api.New(api.Config{
		Directory:      func() *directory.Directory { return s.live.Load().cfg.Directory },
		Keyring:        s.keys.Current,
		Audit:          s.audit,
		Revocations:    s.revoked,
		Sessions:       sessions,
		TrustedProxies: proxies,
		Observe:        s.watchers.call(),
		Log:            s.log,
		Now:            s.opts.now,
	})
	s.api.SetLimits(cfg.API.Limits.limits())
	httpServer := &http.Server{
		Handler:           s.health.probes(s.api),
		ConnState:         connections.Track,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	front, err := gateway.New(gateway.Config{
		Limits:  gateway.Limits{LogonTimeout: s.opts.patience},
		TLS:     &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.gatewayTLS.GetCertificate},
		Cluster: func(id string) (*gateway.Cluster, bool) { return s.live.Load().clusters.find(id) },
		Check: func(password string) (credential.Grant, error) {
			return credential.Check(s.keys.Current().Verifier(), password, s.opts.now())
		},
		Revoked: s.revoked.revoked,
		Audit:   s.audit,
		Observe: s.watchers.logon(),
		Log:     s.log,
		Now:     s.opts.now,
	})
	if err != nil {
		return err
	}
	s.measure(front, connections)
	adminAddress, stopAdmin, err := s.startAdmin(cfg.Admin)
	if err != nil {
		return err
	}
	defer stopAdmin()
	sessions.server = front
	recheck := front.Recheck
	s.revoked.changed.Store(&recheck)

	group, serving := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := httpServer.Serve(apiListener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving the API: %w", err)
		}
		return nil
	})
	// Not serving: a logon during the shutdown is refused in so many words, and
	// Shutdown closes the listener.
	group.Go(func() error { return front.Serve(context.WithoutCancel(ctx), gatewayListener) })
	group.Go(func() error { return s.watch(serving) })
	group.Go(func() error {
		err := reaper.Run(serving, reaper.Config{
			Clusters: func() map[string]reaper.Sweeper { return s.live.Load().clusters.sweepers },
			Log:      s.log,
			Observe:  s.watchers.sweep(),
		})
		if serving.Err() != nil {
			return nil
		}
		return fmt.Errorf("cleaning up: %w", err)
	})
	group.Go(func() error {
		<-serving.Done()
		return s.shutdown(httpServer, front)
	})
	where := running{API: scheme + apiListener.Addr().String(), Gateway: gatewayListener.Addr(), Admin: adminAddress, CACert: s.caCert}
	s.log.Info("serving", "api", where.API, "gateway", where.Gateway.String(), "ca", where.CACert, "data", s.data.path)
	if s.opts.ready != nil {
		s.opts.ready(where)
	}
	return group.Wait()
}

// shutdown takes no new calls and logons, and gives those that run the drain
// time.
func (s *service) shutdown(httpServer *http.Server, front *gateway.Server) error {
	drain := s.opts.drain
	if drain == 0 {
		drain = 30 * time.Second
	}
	s.health.draining.Store(true)
	s.log.Info("shutting down", "drain", drain)
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	var group errgroup.Group
	group.Go(func() error {
		if err := httpServer.Shutdown(ctx); err != nil {
			return httpServer.Close()
		}
		return nil
	})
	group.Go(func() error {
		if err := front.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		s.log.Warn("sessions were ended at the drain limit")
		return nil
	})
	return group.Wait()
}

// watch reads what may change while the server runs: the configuration on
// SIGHUP, the keyring and the certificates every second.
func (s *service) watch(ctx context.Context) error {
	ticker := time.NewTicker(keyringInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.opts.hangup:
			s.reload()
		case <-ticker.C:
			s.reloadKeyring()
		}
	}
}

func (s *service) reloadKeyring() {
	switch changed, err := s.keys.Reload(); {
	case err != nil:
		s.log.Error("the keyring file is refused; the keys in force stay", "error", err)
	case changed:
		s.log.Info("keyring reloaded", "keys", s.keys.Current().String())
		live := s.live.Load()
		s.swap(live.cfg)
	}
}

// reload puts a changed configuration in force, whole or not at all.
func (s *service) reload() {
	s.reloadKeyring()
	if err := s.audit.Reopen(); err != nil {
		s.log.Error("reopening the audit log", "error", err)
	}
	if s.opts.load == nil {
		return
	}
	cfg, err := s.opts.load()
	if err == nil {
		err = s.live.Load().cfg.mayBecome(cfg)
	}
	if err == nil {
		err = s.loadCertificates(cfg)
	}
	if err != nil {
		s.watchers.reloaded(nil, s.opts.now())
		s.log.Error("the configuration is refused; the one in force stays", "error", err)
		return
	}
	s.swap(cfg)
	s.api.SetLimits(cfg.API.Limits.limits())
	s.watchers.reloaded(cfg, s.opts.now())
	for _, warning := range cfg.Warnings {
		s.log.Warn("policy", "warning", warning)
	}
	s.log.Info("configuration reloaded", "clusters", len(cfg.Clusters))
}

// swap puts a configuration in force. Clusters whose settings are the same keep
// their standing connections.
func (s *service) swap(cfg *config) {
	before := s.live.Load()
	after := &snapshot{cfg: cfg, clusters: newClusters(before.clusters, cfg, s.keys.Current(), s.opts)}
	s.live.Store(after)
	before.clusters.close(after.clusters)
}

// mayBecome says what of a new configuration cannot be put in force while the
// server runs.
func (c *config) mayBecome(next *config) error {
	for _, row := range []struct{ key, old, new string }{
		{"account", c.Account, next.Account},
		{"region", c.Region, next.Region},
		{"data", c.Data, next.Data},
		{"api.listen", c.API.Listen, next.API.Listen},
		{"gateway.listen", c.Gateway.Listen, next.Gateway.Listen},
		{"admin.listen", c.Admin.Listen, next.Admin.Listen},
		{"admin.pprof", strconv.FormatBool(c.Admin.Profiles), strconv.FormatBool(next.Admin.Profiles)},
		{"tracing.endpoint", c.Tracing.Endpoint, next.Tracing.Endpoint},
		{"registry", c.Registry.String(), next.Registry.String()},
		{"api.limits.connections", strconv.Itoa(c.API.Limits.Connections), strconv.Itoa(next.API.Limits.Connections)},
		{"api.limits.per_address", strconv.Itoa(c.API.Limits.PerAddress), strconv.Itoa(next.API.Limits.PerAddress)},
	} {
		if row.old != row.new {
			return next.fault(row.key, fmt.Errorf("cannot change from %q to %q while the server runs: restart it", row.old, row.new))
		}
	}
	if c.API.TLS.given() != next.API.TLS.given() {
		return next.fault("api.tls", errors.New("cannot be added or taken away while the server runs: restart it"))
	}
	if c.Registry.password() != next.Registry.password() {
		return next.fault("registry.etcd.username", errors.New("its password cannot change while the server runs: restart it"))
	}
	return nil
}

// loadCertificates reads or makes the certificates of both listeners, and puts
// them in force when none is at fault.
func (s *service) loadCertificates(cfg *config) error {
	type getter = func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	var api, gateway getter
	var err error
	if files := cfg.API.TLS; files.given() {
		if api, err = files.load(); err != nil {
			return cfg.fault("api.tls", err)
		}
	}
	caCert := ""
	if files := cfg.Gateway.TLS; files.given() {
		if gateway, err = files.load(); err != nil {
			return cfg.fault("gateway.tls", err)
		}
	} else {
		listenHost, _, _ := net.SplitHostPort(cfg.Gateway.Listen)
		authority, err := ca.Open(s.data.join("tls"), []string{cfg.Gateway.Advertise.Host, listenHost}, s.opts.now)
		if err != nil {
			return cfg.fault("gateway", fmt.Errorf("opening the gateway's certificate authority: %w", err))
		}
		gateway, caCert = authority.GetCertificate, authority.CertificateFile()
	}
	if api != nil {
		s.apiTLS.set(api)
	}
	s.gatewayTLS.set(gateway)
	s.caCert = caCert
	return nil
}

// newLog writes the log to w, without the database passwords that strangers put in
// the place of names.
func newLog(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Value.Kind() == slog.KindString {
			a.Value = slog.StringValue(keyring.Redact(a.Value.String()))
		} else if err, ok := a.Value.Any().(error); ok {
			a.Value = slog.StringValue(keyring.Redact(err.Error()))
		}
		return a
	}}))
}

func listen(given net.Listener, address string) (net.Listener, error) {
	if given != nil {
		return given, nil
	}
	return net.Listen("tcp", address)
}
