package main

import (
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/server"
)

func newServeCommand(env environment) *cobra.Command {
	var path string
	drain := duration(30 * time.Second)
	var verbose bool
	var logFormat string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the API and the gateway",
		Example: `  daypass serve
  daypass serve --config /etc/daypass/daypass.yaml`,
		Long: `Runs the AWS-compatible API and the PostgreSQL gateway in one process, as the
configuration file says (docs/configuration.md has every key, "daypass init"
writes a file to begin with).

The file and every file it names are noticed within seconds when they change, and
on SIGHUP at once; a faulty one changes nothing and the log says why.
SIGTERM and Ctrl-C take no new logons, let running sessions finish for the time
of --drain and then end the idle ones.`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if logFormat != "text" && logFormat != "json" {
				return usageErrorf("--log-format %s: want text or json", logFormat)
			}
			level := slog.LevelInfo
			if verbose {
				level = slog.LevelDebug
			}
			log := server.NewLog(env.stderr, level, logFormat == "json")
			cfg, err := loadConfig(path)
			if err != nil {
				return err
			}
			hangup := make(chan os.Signal, 1)
			signal.Notify(hangup, syscall.SIGHUP)
			defer signal.Stop(hangup)
			go server.TidyMemory(cmd.Context())
			return server.Run(cmd.Context(), cfg, server.Options{
				Version: buildVersion(),
				Log:     log,
				Now:     env.now,
				Drain:   time.Duration(drain),
				Hangup:  hangup,
				Load:    func() (*config.Config, error) { return config.Load(path) },
			})
		},
	}
	registerConfig(cmd.Flags(), &path)
	cmd.Flags().Var(&drain, "drain", "how long sessions may go on after SIGTERM")
	cmd.Flags().StringVar(&logFormat, "log-format", "text", "`FORMAT` of the log on standard error: text or json")
	completeWith(cmd, "log-format", "text", "json")
	cmd.Flags().BoolVar(&verbose, "verbose", false, "log what is usually left out")
	return cmd
}
