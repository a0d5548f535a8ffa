package main

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func TestHelp(t *testing.T) {
	for _, test := range []struct {
		line         string
		code         int
		stdout, errs string
	}{
		{"help", 0, "Run a server:", ""},
		{"help keys", 0, "Commands:", ""},
		{"help connect", 0, "--print", ""},
		{"help sessions kill", 0, "daypass sessions kill SESSION...", ""},
		{"help redshift", 0, "SUBCOMMANDS", ""},
		{"help redshift get-cluster-credentials", 0, "--db-user", ""},
		{"help redshift bogus", 252, "", "Invalid choice"},
		{"help bogus", 2, "", "bogus: is not a command of daypass\nSee \"daypass --help\".\n"},
		{"help cluster bogus", 2, "", "bogus: is not a command of daypass cluster"},
		{"--version", 0, "daypass " + buildVersion() + " go", ""},
		{"version", 0, "daypass " + buildVersion() + " go", ""},
	} {
		stdout, stderr, code := runDaypass(t, strings.Fields(test.line)...)
		if code != test.code || !strings.Contains(stdout, test.stdout) || !strings.Contains(stderr, test.errs) || (test.errs == "") != (stderr == "") {
			t.Errorf("daypass %s = %d\n%s%s\nwant %d, %q and %q", test.line, code, stdout, stderr, test.code, test.stdout, test.errs)
		}
	}
}

// allCommands returns the commands that people call.
func allCommands(cmd *cobra.Command) []*cobra.Command {
	list := []*cobra.Command{cmd}
	for _, child := range cmd.Commands() {
		if !child.Hidden {
			list = append(list, allCommands(child)...)
		}
	}
	return list
}

// TestEveryCommandHasAnExample: every command has an example, and accepts each line of it.
func TestEveryCommandHasAnExample(t *testing.T) {
	for _, cmd := range allCommands(newRootCommand(environment{})) {
		if cmd.Example == "" && cmd.HasParent() {
			t.Errorf("%s has no example", cmd.CommandPath())
		}
		for line := range strings.SplitSeq(cmd.Example, "\n") {
			if !strings.HasPrefix(line, "  ") || strings.HasPrefix(line, "   ") {
				t.Errorf("%s: the example %q is not indented by two", cmd.CommandPath(), line)
			}
			i := strings.Index(line, "daypass ")
			if i < 0 {
				t.Errorf("%s: the example %q does not call daypass", cmd.CommandPath(), line)
				continue
			}
			line, _, _ = strings.Cut(line[i:], " | ")
			line, _, _ = strings.Cut(line, " < ")
			checkCommandLine(t, strings.Fields(strings.TrimRight(line, `")'`))[1:])
		}
	}
}

// checkCommandLine reports arguments and flags that a command does not accept.
func checkCommandLine(t *testing.T, args []string) {
	t.Helper()
	root := newRootCommand(environment{})
	cmd, rest, err := root.Find(spread(root, args))
	if err != nil || cmd == root && len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		t.Errorf("daypass %s: no such command", strings.Join(args, " "))
		return
	}
	if cmd.DisableFlagParsing {
		return
	}
	if err := cmd.ParseFlags(rest); err != nil && err != pflag.ErrHelp {
		t.Errorf("daypass %s: %v", strings.Join(args, " "), err)
	} else if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil && cmd.Name() != "connect" {
		t.Errorf("daypass %s: %v", strings.Join(args, " "), err)
	}
}

// TestHelpFits: no line of help is wider than the terminal, except for examples and single long
// words.
func TestHelpFits(t *testing.T) {
	for _, columns := range []int{60, 80, 200} {
		for _, cmd := range allCommands(newRootCommand(environment{})) {
			if cmd.DisableFlagParsing {
				continue
			}
			var out strings.Builder
			cmd.InitDefaultHelpFlag()
			writeHelp(&out, cmd, columns)
			examples := strings.Split(cmd.Example, "\n")
			for line := range strings.SplitSeq(out.String(), "\n") {
				if utf8.RuneCountInString(line) > min(columns, widest) && !slices.Contains(examples, line) && strings.Contains(strings.TrimSpace(line), " ") && columns > 60 {
					t.Errorf("%s --help in %d columns has\n%s", cmd.CommandPath(), columns, line)
				}
			}
			if columns < 80 {
				continue
			}
			for _, one := range []string{"Usage:", "Flags:"} {
				if !strings.Contains(out.String(), one) {
					t.Errorf("%s --help has no %s", cmd.CommandPath(), one)
				}
			}
		}
	}
}

// TestHelpIsFilled: the text of every command is filled to the width at hand. No line ends early, no
// word is lost, and commands and JSON, which are indented, are not broken at the usual width.
func TestHelpIsFilled(t *testing.T) {
	for _, columns := range []int{40, usualColumns, widest} {
		for _, cmd := range allCommands(newRootCommand(environment{})) {
			text := reflow(strings.TrimSpace(cmd.Long), columns)
			if got, want := strings.Fields(text), strings.Fields(cmd.Long); !slices.Equal(got, want) {
				t.Errorf("%s --help in %d columns has the words %q, want %q", cmd.CommandPath(), columns, got, want)
			}
			lines := strings.Split(text, "\n")
			for i, line := range lines[1:] {
				before := lines[i]
				if before == "" || line == "" || before[0] == ' ' || line[0] == ' ' {
					continue
				}
				next, _, _ := strings.Cut(line, " ")
				if utf8.RuneCountInString(before+" "+next) <= columns {
					t.Errorf("%s --help in %d columns: %q has room for %q", cmd.CommandPath(), columns, before, next)
				}
			}
			for line := range strings.SplitSeq(cmd.Long, "\n") {
				code := strings.HasPrefix(line, "    ") && !strings.HasPrefix(line, "         ") && !inColumns.MatchString(line)
				if columns >= usualColumns && code && !slices.Contains(lines, line) {
					t.Errorf("%s --help in %d columns has no line %q", cmd.CommandPath(), columns, line)
				}
			}
		}
	}
}

// TestReflow: paragraphs and the texts of a list are filled; other indented lines stay as they are.
func TestReflow(t *testing.T) {
	const text = `One two
three four five
six.

  head   text of the
         head
  a long head
         its text
         goes on
  other  text

    command --flag
    second`
	for columns, want := range map[int]string{
		100: "One two three four five six.\n\n  head   text of the head\n  a long head\n         its text goes on\n  other  text\n\n    command --flag\n    second",
		18:  "One two three four\nfive six.\n\n  head   text of\n         the head\n  a long head\n         its text\n         goes on\n  other  text\n\n    command --flag\n    second",
	} {
		if got := reflow(text, columns); got != want {
			t.Errorf("reflow in %d columns = %q, want %q", columns, got, want)
		}
	}
}

// TestOneWayOfEach: a flag has the same meaning in every command.
func TestOneWayOfEach(t *testing.T) {
	shorthands := map[string]string{}
	for _, cmd := range allCommands(newRootCommand(environment{})) {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Hidden {
				return
			}
			if f.Value.Type() == "stringSlice" || f.Value.Type() == "duration" {
				t.Errorf("%s --%s is a %s: there are groupList and duration", cmd.CommandPath(), f.Name, f.Value.Type())
			}
			if f.Name == "config" && f.Shorthand != "c" || f.Name == "groups" && f.Shorthand != "g" {
				t.Errorf("%s --%s has the shorthand %q", cmd.CommandPath(), f.Name, f.Shorthand)
			}
			if other := shorthands[f.Shorthand]; f.Shorthand != "" && other != "" && other != f.Name {
				t.Errorf("-%s is --%s and --%s", f.Shorthand, other, f.Name)
			}
			shorthands[f.Shorthand] = f.Name
		})
	}
}
