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
		Long: `Reads the configuration file and every file it names as the server does, and
prints one line for each fault with file, line and key. Warnings are what is valid
and cannot have been meant, or is open to other accounts of this machine.

No server has to run and no cluster is asked: "daypass cluster check" does that.

The exit code is 0 when the server would take the file, 1 when it would not (with
--strict, also for warnings), and 2 when the file cannot be read.`,
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
			fmt.Fprintf(env.stdout, "%s: the server takes it: %s, %s\n", path, plural(len(c.Clusters), "cluster"), plural(len(c.Warnings), "warning"))
			if strict && len(c.Warnings) > 0 {
				return &exitError{code: 1}
			}
			return nil
		},
	}
	registerConfig(cmd.Flags(), &path)
	cmd.Flags().BoolVar(&strict, "strict", false, "exit with 1 on warnings too")
	cmd.Flags().BoolVar(&ignoreEnvironment, "ignore-environment", false, "take variables of the environment that are not set as if they were")
	return cmd
}

func newConfigSchemaCommand(env environment) *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON schema of the configuration file",
		Long: `Prints the JSON schema (draft 2020-12) of the configuration file. Editors that know
YAML complete and check keys by it, with this as the file's first line:

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
