package main

import (
	"cmp"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"
)

// version is set by the linker if Go does not record a version in the build.
var version = ""

func newVersionCommand(env environment) *cobra.Command {
	var modules bool
	var output string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print what this binary was built from",
		Long: `Prints the version of this binary, the version of Go and the platform it was built
for, and the commit with its date. With --modules or --output json also every module
in it, with the checksum that go.sum has.`,
		Example: `  daypass version
  daypass version --modules
  daypass version --output json`,
		Args: noWords,
		RunE: func(*cobra.Command, []string) error {
			if err := checkOutput(output, "text"); err != nil {
				return err
			}
			b := readBuild()
			if output == "json" {
				return writeIndented(env.stdout, b)
			}
			return b.print(env.stdout, modules)
		},
	}
	cmd.Flags().BoolVar(&modules, "modules", false, "list the modules in the binary too")
	cmd.Flags().StringVar(&output, "output", "text", "text or json")
	return cmd
}

// buildRecord is what Go recorded about the build of this binary.
type buildRecord struct {
	Version string `json:"version"`
	// Commit and Date are empty if the source was not a checkout.
	Commit string     `json:"commit,omitempty"`
	Date   *time.Time `json:"date,omitempty"`
	// Modified reports that the source had uncommitted changes.
	Modified bool          `json:"modified"`
	Go       string        `json:"go"`
	Platform string        `json:"platform"`
	Modules  []buildModule `json:"modules"`
}

type buildModule struct {
	Path    string `json:"path"`
	Version string `json:"version"`
	Sum     string `json:"sum,omitempty"`
}

func readBuild() buildRecord {
	b := buildRecord{Version: buildVersion(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Modules: []buildModule{}}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	for _, setting := range info.Settings {
		switch setting.Key {
		case "vcs.revision":
			b.Commit = setting.Value
		case "vcs.time":
			if at, err := time.Parse(time.RFC3339, setting.Value); err == nil {
				b.Date = &at
			}
		case "vcs.modified":
			b.Modified = setting.Value == "true"
		}
	}
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		b.Modules = append(b.Modules, buildModule{module.Path, module.Version, module.Sum})
	}
	return b
}

func (b buildRecord) print(w io.Writer, modules bool) error {
	text := versionLine() + "\n"
	if b.Commit != "" {
		text += "commit " + b.Commit
		if b.Date != nil {
			text += " of " + b.Date.UTC().Format(time.RFC3339)
		}
		if b.Modified {
			text += ", with changes that are in no commit"
		}
		text += "\n"
	}
	if modules {
		for _, m := range b.Modules {
			text += fmt.Sprintf("module %s %s %s\n", m.Path, m.Version, cmp.Or(m.Sum, "-"))
		}
	}
	_, err := io.WriteString(w, text)
	return err
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
