package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker for a release. Builds without it say what the
// Go tool recorded.
var version = ""

func newVersionCommand(env environment) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this binary",
		Example: `  daypass version`,
		Args:    noWords,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(env.stdout, versionLine())
			return err
		},
	}
}

func versionLine() string {
	return fmt.Sprintf("daypass %s %s %s/%s", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
