package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/daypass/daypass/internal/awsconfig"
	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/proxy"
	"github.com/daypass/daypass/internal/server"
)

// proxyOptions are the options of the proxy command.
type proxyOptions struct {
	maps      []string
	file      string
	socketDir string
	noBrowser bool
	list      bool
	common    connectOptions // settings for maps that have none of their own
	direct    bool
}

func newProxyCommand(env environment) *cobra.Command {
	var o proxyOptions
	negotiation := ""
	cmd := &cobra.Command{
		Use:   "proxy [--map PORT=CLUSTER/DATABASE,user=USER[,...]]... [flags]",
		Short: "Open ports on this machine for psql, DBeaver, pgAdmin and others, without a password",
		Long: `Proxy listens on ports of this machine. Every connection gets a credential of its
own, with the keys of your sign-in, and TLS to the gateway with the certificate
checked. Clients connect to 127.0.0.1 with sslmode=disable (or prefer, the default of
most), any user name and no password.

A map is PORT=CLUSTER/DATABASE and settings, separated by commas; --map may be repeated:

    user=USER            the database user (or with-iam: that of your IAM identity)
    groups=A,B           database groups to join
    auto-create          create the database user if it does not exist
    duration=15m         how long the password works, which matters where sessions end
                         with it
    profile=NAME         the profile of the AWS configuration, for another identity
    host=, port=         the gateway, if you may not call DescribeClusters
    sslmode=, sslrootcert=   how the gateway's certificate is checked, as for connect
    unix-socket=DIR      a Unix socket in a directory, instead of a TCP port

CLUSTER/* lets the client name the database. Without --map the maps are those of
--config, by default ~/.config/daypass/proxy.yaml (on macOS in ~/Library/Application
Support, on Windows in %AppData%); SIGHUP reads it again. "daypass proxy service"
runs the proxy whenever you are logged on.

When the sign-in has ended, the next connection opens the browser and waits up to a
minute. Other connections wait for the same sign-in. If no one signs in, clients get an
error that says so; the connection after "daypass login" works.

Only your own user may connect. Linux tells whose a connection is. macOS tells it for
Unix sockets only, Windows not at all: there any program of this machine that reaches
127.0.0.1 can use the ports while the proxy runs.

Ctrl-C ends idle sessions at once and waits 10 seconds for running queries. A second
Ctrl-C cancels them.`,
		Example: `  daypass proxy --map 15432=warehouse/dev,user=alice,groups=analysts
  daypass proxy --map 15432=warehouse/dev,user=alice --map '15433=sales/*,user=report,profile=sales'
  daypass proxy --unix-socket ~/.daypass-sockets --map 5432=warehouse/dev,user=alice
  daypass proxy --list`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch negotiation {
			case "", "postgres":
			case "direct":
				o.direct = true
			default:
				return usageErrorf("--sslnegotiation %s: must be postgres or direct", negotiation)
			}
			return o.run(cmd.Context(), env)
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&o.maps, "map", "m", nil, "a `MAP` as described above: PORT=CLUSTER/DATABASE,user=USER[,...]; may be repeated")
	flags.StringVarP(&o.file, "config", "c", "", "`FILE` of maps (default proxy.yaml in your configuration directory)")
	flags.StringVar(&o.socketDir, "unix-socket", "", "listen on Unix sockets in a directory `DIR` of your own, instead of TCP ports")
	flags.BoolVar(&o.list, "list", false, "print how to connect through each map, and end")
	flags.BoolVar(&o.noBrowser, "no-browser", false, "never open the browser: connections fail when the sign-in has ended")
	flags.StringVar(&o.common.sslMode, "sslmode", "", "how gateways' certificates are checked: verify-full, verify-ca or require (default verify-full)")
	flags.StringVar(&o.common.sslRootCert, "sslrootcert", "", `file of the CA that signed the gateways' certificates, or "system"`)
	flags.StringVar(&negotiation, "sslnegotiation", os.Getenv("PGSSLNEGOTIATION"), "how TLS with gateways begins: postgres, or direct for a balancer that looks at TLS (default postgres)")
	o.common.api.register(flags, redshiftEndpoint)
	completeWith(cmd, "sslmode", "verify-full", "verify-ca", "require")
	completeWith(cmd, "sslnegotiation", "postgres", "direct")
	cmd.AddCommand(newProxyServiceCommand(env))
	return cmd
}

// proxyFile returns the default file of maps.
func proxyFile() (string, error) {
	dir, err := os.UserConfigDir()
	return filepath.Join(dir, "daypass", "proxy.yaml"), err
}

// load reads the maps, from the flags or the file.
func (o *proxyOptions) load() ([]*proxyMap, error) {
	var maps []*proxyMap
	if len(o.maps) > 0 {
		if o.file != "" {
			return nil, usageErrorf("--map and --config: give one of them")
		}
		for _, text := range o.maps {
			m, err := parseProxyMap(text)
			if err != nil {
				return nil, usageErrorf("--map %s: %w", text, err)
			}
			maps = append(maps, m)
		}
	} else {
		path, err := o.file, error(nil)
		if path == "" {
			if path, err = proxyFile(); err != nil {
				return nil, err
			}
		}
		found, err := config.LoadProxyMaps(path)
		if errors.Is(err, fs.ErrNotExist) && o.file == "" {
			return nil, usageErrorf("no maps: give --map PORT=CLUSTER/DATABASE,user=USER, or write them into %s", path)
		}
		if err != nil {
			return nil, &exitError{awsconfig.ExitConfiguration, err}
		}
		for _, one := range found {
			maps = append(maps, proxyMapOf(one))
		}
	}
	var errs []error
	for _, m := range maps {
		if err := m.complete(o); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.where, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, &exitError{awsconfig.ExitConfiguration, err}
	}
	return maps, nil
}

func (o *proxyOptions) run(ctx context.Context, env environment) error {
	maps, err := o.load()
	if err != nil {
		return err
	}
	if o.list {
		return listMaps(env.stdout, maps)
	}
	log := server.NewLog(env.stderr, server.LogOptions{Journal: env.journal})
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	access := newProxyAccess(ctx, env, !o.noBrowser)
	p := proxy.New(log)
	if err := p.Apply(o.targets(access, maps)); err != nil {
		p.Close(ctx)
		return err
	}
	if err := listMaps(env.stdout, maps); err != nil {
		return err
	}
	for _, m := range maps {
		// Not an error: "daypass login" makes the profile while the proxy runs.
		if _, err := awsconfig.ReadProfile(m.to.api.profile, os.Getenv); err != nil {
			env.warn("%s: %v", m.name(), awsconfig.Plainly(err))
		}
	}
	fmt.Fprintf(env.stdout, "Ready, without a password. %s\n", protection(maps))
	tellServiceManager(log, daemon.SdNotifyReady)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	hurry, quiet := secondSignal()
	defer quiet()
	o.followMaps(ctx, hangup, log, func(maps []*proxyMap) error { return p.Apply(o.targets(access, maps)) })
	tellServiceManager(log, daemon.SdNotifyStopping)
	patience, done := context.WithTimeout(context.Background(), 10*time.Second)
	defer done()
	go func() {
		select {
		case <-hurry:
			done()
		case <-patience.Done():
		}
	}()
	p.Close(patience)
	return nil
}

// followMaps reads the maps again and applies them at each hangup, until ctx ends. Maps with a fault
// change nothing.
func (o *proxyOptions) followMaps(ctx context.Context, hangup <-chan os.Signal, log *slog.Logger, apply func([]*proxyMap) error) {
	for {
		select {
		case <-hangup:
		case <-ctx.Done():
			return
		}
		maps, err := o.load()
		if err == nil {
			err = apply(maps)
		}
		if err != nil {
			log.Error("nothing is changed", "err", err)
			continue
		}
		log.Info("the maps are in force", "maps", len(maps))
	}
}

func (o *proxyOptions) targets(access *proxyAccess, maps []*proxyMap) []*proxy.Map {
	all := make([]*proxy.Map, len(maps))
	for i, m := range maps {
		all[i] = &proxy.Map{Name: m.name(), Port: m.listen, Directory: m.socketDir, Open: func(ctx context.Context, database string) (*proxy.Logon, error) {
			return access.open(ctx, m.to, database)
		}}
		if m.to.database != anyDatabase {
			all[i].Database = m.to.database
		}
	}
	return all
}

// listMaps prints how to connect.
func listMaps(out io.Writer, maps []*proxyMap) error {
	for _, m := range maps {
		uri, err := m.uri()
		if err == nil {
			_, err = fmt.Fprintf(out, "%s:\n    psql '%s'\n", m.name(), uri)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// protection describes, in a sentence, who may connect.
func protection(maps []*proxyMap) string {
	for _, m := range maps {
		if m.socketDir == "" && !proxy.CheckTCP {
			text := "This system does not tell whose a connection is: every program of this machine that reaches 127.0.0.1 can use these ports."
			if proxy.CheckUnix {
				text += " A Unix socket (--unix-socket) is for your user alone."
			}
			return text
		}
	}
	return "Only your own user may connect."
}
