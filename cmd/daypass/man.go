package main

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// newManCommand is for `make man` and for packagers.
func newManCommand(env environment) *cobra.Command {
	return &cobra.Command{
		Use:     "man DIRECTORY",
		Short:   "Write a manual page for each command",
		Long:    `Writes a manual page (section 1) for each command into the directory.`,
		Example: "  daypass man /usr/local/share/man/man1",
		Args:    words(1, 1, "want the directory to write to"),
		Hidden:  true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			root := newRootCommand(env)
			root.DisableAutoGenTag = true // without a date, so that the pages are reproducible
			return doc.GenManTree(root, &doc.GenManHeader{Title: "DAYPASS", Section: "1", Source: "Daypass " + buildVersion(), Manual: "Daypass"}, args[0])
		},
	}
}
