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
	journal             bool          // stderr is systemd's journal, which wants priorities
	// wait waits between the requests of `login --device`. Nil: for the time that the server says.
	wait func(context.Context, time.Duration) error
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
	addGroup(root, "Log on to databases:",
		newConnectCommand(env), newCredentialProcessCommand(env), newLoginCommand(env), newLogoutCommand(env),
		newProxyCommand(env), newRedshiftCommand(env), newWhoamiCommand(env))
	addGroup(root, "Run a server:",
		newClusterCommand(env), newConfigCommand(env), newDevCommand(env), newDoctorCommand(env), newInitCommand(env),
		newKeysCommand(env), newServeCommand(env), newServersCommand(env), newUserCommand(env))
	addGroup(root, "Control access:",
		newCredentialCommand(env), newExplainCommand(env), newPolicyCommand(env), newRevokeCommand(env), newSessionsCommand(env))
	root.AddCommand(newCompletionCommand(env), newManCommand(env), newVersionCommand(env))
	improveHelp(root, env)
	return root
}

// addGroup adds commands that help lists under a title of their own.
func addGroup(root *cobra.Command, title string, commands ...*cobra.Command) {
	root.AddGroup(&cobra.Group{ID: title, Title: title})
	for _, cmd := range commands {
		cmd.GroupID = title
	}
	root.AddCommand(commands...)
}
