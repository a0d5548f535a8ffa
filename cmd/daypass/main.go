// Command daypass hands out short-lived database logons for PostgreSQL through
// the API that Amazon Redshift made for it, and opens the sessions they are
// good for.
//
// This package holds the flags and the exit codes, and nothing else: one file per
// command. What runs is in internal/server, the file it reads in internal/config.
// What the words mean is in ARCHITECTURE.md.
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

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	env := newEnvironment()
	env.now = time.Now
	code := run(ctx, os.Args[1:], env)
	stop()
	os.Exit(code)
}

// environment is what a command may touch of the process it runs in. The
// commands take it as a value, so that a test runs several side by side.
type environment struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	columns        int // of the terminal that stdout is; 0: it is none
	now            func() time.Time
}

// run executes one command line and returns the exit code of the process.
func run(ctx context.Context, args []string, env environment) int {
	root := newRootCommand(env)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil {
		return explainEnd(env.stderr, cmd, err)
	}
	return 0
}

func newRootCommand(env environment) *cobra.Command {
	root := &cobra.Command{
		Use:   "daypass",
		Short: "Short-lived database logons for PostgreSQL, through the Amazon Redshift API",
		Long: `Daypass answers GetClusterCredentials as Amazon Redshift does, and opens the
PostgreSQL sessions that its passwords are good for.

Try it, with nothing but PostgreSQL installed (or nothing at all):

    daypass dev

Run it in front of your own clusters:

    daypass serve --config daypass.yaml`,
		Version:       versionLine(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetIn(env.stdin)
	root.SetOut(env.stdout)
	root.SetErr(env.stderr)
	root.AddCommand(newDevCommand(env))
	root.AddCommand(newServeCommand(env))
	root.AddCommand(newExplainCommand(env))
	root.AddCommand(newVersionCommand(env))
	root.AddCommand(newClusterCommand(env))
	root.AddCommand(newUserCommand(env))
	root.AddCommand(newKeysCommand(env))
	root.AddCommand(newCredentialCommand(env))
	root.AddCommand(newConnectCommand(env))
	root.AddCommand(newRedshiftCommand(env))
	root.AddCommand(newPolicyCommand(env))
	root.AddCommand(newRevokeCommand(env))
	root.AddCommand(newSessionsCommand(env))
	root.AddCommand(newCompletionCommand(env))
	improveHelp(root)
	usageErrors(root)
	return root
}
