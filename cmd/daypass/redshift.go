package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/daypass/daypass/internal/awscli"
)

// newRedshiftCommand makes the command that works like "aws redshift". Package awscli parses its
// arguments instead of cobra, because the AWS CLI has its own rules for options and its own
// help.
func newRedshiftCommand(env environment) *cobra.Command {
	return &cobra.Command{
		Use:   "redshift",
		Short: "Call the Amazon Redshift API like the AWS CLI: get-cluster-credentials, describe-clusters",
		Example: `  daypass redshift get-cluster-credentials --cluster-identifier examplecluster --db-user alice
  daypass redshift get-cluster-credentials help`,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			code := awscli.Run(cmd.Context(), awscli.Env{
				Stdout:  env.exact,
				Stderr:  env.stderr,
				Getenv:  os.Getenv,
				MFACode: env.mfaCode,
				SignIn:  env.signInAfter,
				Program: "daypass",
				Version: versionLine(),
				Width:   env.columns,
			}, args)
			if code != 0 {
				return &exitError{code: code}
			}
			return nil
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			words, files := awscli.Complete(args, word)
			if files {
				return nil, cobra.ShellCompDirectiveDefault
			}
			return words, cobra.ShellCompDirectiveNoFileComp
		},
	}
}
