// Command daypass issues short-lived database logons for PostgreSQL through Amazon
// Redshift's API, and opens the sessions for them.
//
// This package has the flags and the exit codes, one file per command, and the output
// that commands share. internal/server runs the server, internal/config reads its file.
// ARCHITECTURE.md has a glossary.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

func main() { execute(newEnvironment()) }

func execute(env environment) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	env.now = time.Now
	code := run(ctx, os.Args[1:], env)
	stop()
	os.Exit(code)
}

// environment has the parts of the process that a command may use. Commands get it as an
// argument, so that tests can run several in parallel.
type environment struct {
	stdin          io.Reader
	stdout, stderr io.Writer // quoted if they are terminals
	exact          io.Writer // stdout without quoting; nil: same as stdout
	// columns and errColumns are the widths of the terminals of stdout and stderr, or 0 if they
	// are not terminals.
	columns, errColumns int
	now                 func() time.Time
	lease               time.Duration // of servers in etcd; 0: the default
}

// run executes one command line and returns the exit code of the process.
func run(ctx context.Context, args []string, env environment) int {
	if env.exact == nil {
		env.exact = env.stdout
	}
	root := newRootCommand(env)
	root.SetArgs(spread(root, args))
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil {
		return explainEnd(env, cmd, err)
	}
	return 0
}

func newRootCommand(env environment) *cobra.Command {
	root := &cobra.Command{
		Use:   "daypass",
		Short: "Short-lived database logons for PostgreSQL, through the Amazon Redshift API",
		Long: `Daypass answers GetClusterCredentials as Amazon Redshift does, and opens the
PostgreSQL sessions that its passwords are good for. "daypass dev" tries everything on
this machine; "daypass serve" runs it in front of your own clusters.`,
		Example: `  daypass dev
  daypass connect examplecluster --user alice
  daypass serve --config daypass.yaml`,
		Version:       versionLine(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return noSuchCommand(cmd, args[0])
			}
			return cmd.Help()
		},
	}
	root.SetFlagErrorFunc(flagError)
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetIn(env.stdin)
	root.SetOut(env.stdout)
	root.SetErr(env.stderr)
	root.AddCommand(newDevCommand(env))
	root.AddCommand(newInitCommand(env))
	root.AddCommand(newServeCommand(env))
	root.AddCommand(newConfigCommand(env))
	root.AddCommand(newDoctorCommand(env))
	root.AddCommand(newExplainCommand(env))
	root.AddCommand(newVersionCommand(env))
	root.AddCommand(newClusterCommand(env))
	root.AddCommand(newUserCommand(env))
	root.AddCommand(newKeysCommand(env))
	root.AddCommand(newCredentialCommand(env))
	root.AddCommand(newLoginCommand(env))
	root.AddCommand(newLogoutCommand(env))
	root.AddCommand(newWhoamiCommand(env))
	root.AddCommand(newCredentialProcessCommand(env))
	root.AddCommand(newConnectCommand(env))
	root.AddCommand(newProxyCommand(env))
	root.AddCommand(newRedshiftCommand(env))
	root.AddCommand(newPolicyCommand(env))
	root.AddCommand(newRevokeCommand(env))
	root.AddCommand(newSessionsCommand(env))
	root.AddCommand(newServersCommand(env))
	root.AddCommand(newCompletionCommand(env))
	root.AddCommand(newManCommand(env))
	improveHelp(root, env)
	return root
}
