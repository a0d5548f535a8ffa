package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/server"
)

// serveOptions are the options of the serve command.
type serveOptions struct {
	config       string
	drain, delay duration
	verbose      bool
	logFormat    string
}

func newServeCommand(env environment) *cobra.Command {
	o := serveOptions{drain: duration(15 * time.Second)}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the API and the gateway",
		Example: `  daypass serve
  daypass serve --config /etc/daypass/daypass.yaml`,
		Long: `Runs the AWS-compatible API and the PostgreSQL gateway in one process, with the
configuration file (docs/configuration.md has every key, "daypass init" writes a
first file).

Changes of the file, and of the files that it names, take effect within seconds, and
on SIGHUP at once. A faulty file changes nothing, and the log has the reason.

On SIGTERM or Ctrl-C readiness fails at once, the listeners close after
--shutdown-delay, and sessions may continue for the time of --drain. Then they end
with 57P01, and running queries are cancelled. A second signal ends them at once, a
third one kills the process.`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), env) },
	}
	registerConfig(cmd.Flags(), &o.config)
	cmd.Flags().Var(&o.drain, "drain", "how long sessions may continue after SIGTERM, once the listeners are closed")
	cmd.Flags().Var(&o.delay, "shutdown-delay", "how long after SIGTERM the listeners stay open, for load balancers to notice that /readyz fails")
	cmd.Flags().StringVar(&o.logFormat, "log-format", "text", "`FORMAT` of the log on standard error: text or json")
	completeWith(cmd, "log-format", "text", "json")
	cmd.Flags().BoolVar(&o.verbose, "verbose", false, "log more details")
	return cmd
}

// run runs the server until ctx ends.
func (o *serveOptions) run(ctx context.Context, env environment) error {
	if o.logFormat != "text" && o.logFormat != "json" {
		return usageErrorf("--log-format %s: must be text or json", o.logFormat)
	}
	level := slog.LevelInfo
	if o.verbose {
		level = slog.LevelDebug
	}
	log := server.NewLog(env.stderr, server.LogOptions{Level: level, JSON: o.logFormat == "json", Journal: env.journal})
	cfg, err := loadConfig(o.config)
	if err != nil {
		return err
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	hurry, quiet := secondSignal()
	defer quiet()
	drain, delay := time.Duration(o.drain), time.Duration(o.delay)
	patience := max(drain, 0) + delay + stopGrace
	defer context.AfterFunc(ctx, func() {
		tellServiceManager(log, daemon.SdNotifyStopping, fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", patience.Microseconds()))
	})()
	if drain == 0 {
		drain = -1 // no drain, because 0 means the default
	}
	ready, status := make(chan struct{}), ""
	return server.Run(ctx, cfg, server.Options{
		Version: buildVersion(),
		Log:     log,
		Now:     env.now,
		Drain:   drain,

		TidyMemory:    true,
		Lease:         env.lease,
		ShutdownDelay: delay,
		Hurry:         hurry,
		Hangup:        hangup,
		Load:          func() (*config.Config, error) { return config.Load(o.config) },
		Ready: func(where server.Running) {
			status = fmt.Sprintf("STATUS=API %s, gateway %s", where.API, where.Gateway)
			close(ready)
			tellServiceManager(log, daemon.SdNotifyReady, status)
		},
		Reloaded: func(err error) {
			<-ready // status may be read from here on
			if err == nil {
				tellServiceManager(log, status)
				return
			}
			reason, _, _ := strings.Cut(keyring.Redact(err.Error()), "\n")
			tellServiceManager(log, "STATUS=A changed configuration was refused: "+reason)
		},
	})
}

// stopGrace is how long the server needs at most to end sessions and to close its files, after the
// drain.
const stopGrace = 15 * time.Second

// secondSignal returns a channel that is closed when the process gets a second signal to end. A
// third signal kills the process. stop restores the usual handling.
func secondSignal() (again <-chan struct{}, stop func()) {
	signals, closed, stopped := make(chan os.Signal, 2), make(chan struct{}), make(chan struct{})
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		for range 2 {
			select {
			case <-signals:
			case <-stopped:
				return
			}
		}
		signal.Reset(os.Interrupt, syscall.SIGTERM)
		close(closed)
	}()
	return closed, func() {
		signal.Stop(signals)
		close(stopped)
	}
}
