package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/daypass/daypass/internal/config"
)

func newConfigCommand(env environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check the configuration file, and describe it to editors",
		Example: `  daypass config check
  daypass config schema`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newConfigCheckCommand(env), newConfigSchemaCommand(env), newConfigReferenceCommand(env))
	return cmd
}

func newConfigCheckCommand(env environment) *cobra.Command {
	var path string
	var strict, ignoreEnvironment bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Find the faults of a configuration file",
		Long: `Reads the configuration file and every file that it names as the server does, and
prints one line for each fault, with file, line and key. Warnings are about settings
that are valid but probably not intended, and about files that other accounts can
access.

No server has to run. The clusters are not contacted; "daypass cluster check" checks
them.

The exit code is 0 if the server would accept the file, 1 if it would not (with
--strict, also for warnings), and 2 if the file cannot be read.`,
		Example: `  daypass config check --config /etc/daypass/daypass.yaml
  daypass config check --ignore-environment --strict`,
		Args: noWords,
		RunE: func(*cobra.Command, []string) error {
			getenv := os.LookupEnv
			if ignoreEnvironment {
				getenv = config.SomeSecret
			}
			c, err := config.LoadEnv(path, getenv)
			if errors.Is(err, config.ErrUnreadable) {
				return noSuchConfig(path, err)
			}
			if err != nil {
				for line := range strings.Lines(err.Error()) {
					fmt.Fprintf(env.stdout, "error: %s\n", strings.TrimRight(line, "\n"))
				}
				return &exitError{code: 1}
			}
			for _, warning := range c.Warnings {
				fmt.Fprintf(env.stdout, "warning: %s\n", warning)
			}
			fmt.Fprintf(env.stdout, "%s: is valid: %s, %s\n", path, plural(len(c.Clusters), "cluster"), plural(len(c.Warnings), "warning"))
			if strict && len(c.Warnings) > 0 {
				return &exitError{code: 1}
			}
			return nil
		},
	}
	registerConfig(cmd.Flags(), &path)
	cmd.Flags().BoolVar(&strict, "strict", false, "exit with 1 on warnings too")
	cmd.Flags().BoolVar(&ignoreEnvironment, "ignore-environment", false, "assume values for environment variables that are not set")
	return cmd
}

func newConfigSchemaCommand(env environment) *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON schema of the configuration file",
		Long: `Prints the JSON schema (draft 2020-12) of the configuration file. YAML editors use
it to complete and check keys if this is the first line of the configuration:

    # yaml-language-server: $schema=daypass.schema.json`,
		Example: "  daypass config schema | tee daypass.schema.json",
		Args:    noWords,
		RunE: func(*cobra.Command, []string) error {
			_, err := env.stdout.Write(config.Schema())
			return err
		},
	}
}

// newConfigReferenceCommand is for `make docs`.
func newConfigReferenceCommand(env environment) *cobra.Command {
	return &cobra.Command{
		Use:    "reference",
		Short:  "Print docs/configuration.md",
		Args:   noWords,
		Hidden: true,
		RunE: func(*cobra.Command, []string) error {
			_, err := env.stdout.Write(config.Reference())
			return err
		},
	}
}
