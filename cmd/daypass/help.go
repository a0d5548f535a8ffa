package main

import (
	"github.com/spf13/cobra"
)

// improveHelp mends cobra's help command: one that does not know its topic ends as
// every wrong command line does, and "help redshift ..." is the help of the AWS
// CLI's kind, since cobra knows nothing of what is below that command.
func improveHelp(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	help, _, err := root.Find([]string{"help"})
	if err != nil {
		panic("internal error: " + err.Error())
	}
	help.Run = nil
	help.RunE = func(cmd *cobra.Command, args []string) error {
		about, rest, err := root.Find(args)
		switch {
		case err != nil:
			return &usageError{err}
		case about.DisableFlagParsing:
			about.SetContext(cmd.Context())
			return about.RunE(about, append(rest, "help"))
		case len(rest) > 0:
			return usageErrorf("unknown command %q for %q", rest[0], about.CommandPath())
		}
		about.InitDefaultHelpFlag()
		about.InitDefaultVersionFlag()
		return about.Help()
	}
}
