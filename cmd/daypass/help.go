package main

import (
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/daypass/daypass/internal/quote"
)

// usualColumns is the width of help that does not go to a terminal. widest is the longest line
// that is easy to read.
const (
	usualColumns = 80
	widest       = 100
)

// improveHelp makes help fit the terminal, and changes cobra's help command in two
// ways: an unknown topic is an error like any wrong command line, and "help redshift
// ..." prints the help in the AWS CLI's form, because cobra does not know the
// subcommands of redshift.
func improveHelp(root *cobra.Command, env environment) {
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { writeHelp(env.stdout, cmd, env.columns) })
	root.SetUsageFunc(func(cmd *cobra.Command) error { writeHelp(env.stderr, cmd, env.columns); return nil })
	root.InitDefaultHelpCmd()
	help, _, err := root.Find([]string{"help"})
	if err != nil {
		panic("internal error: " + err.Error())
	}
	help.Use, help.Short = "help [COMMAND]", "Print the help of a command"
	help.Long, help.Example = "Prints the help of a command, as --help does.", "  daypass help connect"
	help.Run = nil
	help.RunE = func(cmd *cobra.Command, args []string) error {
		about, rest, err := root.Find(args)
		switch {
		case err != nil:
			return noSuchCommand(root, args[0])
		case about.DisableFlagParsing:
			about.SetContext(cmd.Context())
			return about.RunE(about, append(rest, "help"))
		case len(rest) > 0:
			return noSuchCommand(about, rest[0])
		}
		about.InitDefaultHelpFlag()
		about.InitDefaultVersionFlag()
		return about.Help()
	}
}

func writeHelp(w io.Writer, cmd *cobra.Command, columns int) {
	if columns == 0 {
		columns = usualColumns
	}
	columns = min(columns, widest)
	about := cmd.Long
	if about == "" {
		about = cmd.Short
	}
	fmt.Fprintf(w, "%s\n\n%s\n", reflow(strings.TrimSpace(about), columns), paint(w, quote.Bold, "Usage:"))
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(w, "  %s COMMAND\n", cmd.CommandPath())
	}
	if cmd.Runnable() && (!cmd.HasAvailableSubCommands() || hasFlags(cmd)) {
		fmt.Fprintf(w, "%s\n", wrap("  "+cmd.UseLine(), columns))
	}
	if cmd.HasExample() {
		fmt.Fprintf(w, "\n%s\n%s\n", paint(w, quote.Bold, "Examples:"), strings.TrimRight(cmd.Example, "\n"))
	}
	if cmd.HasAvailableSubCommands() {
		rest := "Commands:"
		for _, group := range cmd.Groups() {
			writeCommands(w, cmd, group.Title, group.ID, columns)
			rest = "Other commands:"
		}
		writeCommands(w, cmd, rest, "", columns)
	}
	if cmd.HasAvailableLocalFlags() {
		fmt.Fprintf(w, "\n%s\n%s", paint(w, quote.Bold, "Flags:"), cmd.LocalFlags().FlagUsagesWrapped(columns))
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(w, "\n\"%s COMMAND --help\" describes a command.\n", cmd.CommandPath())
	}
}

// writeCommands lists the subcommands of one group.
func writeCommands(w io.Writer, cmd *cobra.Command, title, group string, columns int) {
	fmt.Fprintf(w, "\n%s\n", paint(w, quote.Bold, title))
	for _, child := range cmd.Commands() {
		if child.GroupID == group && (child.IsAvailableCommand() || child.Name() == "help") {
			name := fmt.Sprintf("  %-*s  ", child.NamePadding(), child.Name())
			fmt.Fprintln(w, hang(name, child.Short, columns))
		}
	}
}

// inColumns matches a line of a list: an indented head, two spaces or more, and a text.
var inColumns = regexp.MustCompile(`^( +\S+(?: \S+)*  +)(\S.*)$`)

// reflow fills the paragraphs of a text anew, so that the breaks in the source code do not matter.
// In a list, the lines below a text that begin in its column belong to it. Other indented lines,
// such as commands, stay lines of their own.
func reflow(text string, columns int) string {
	type item struct{ head, text string }
	var items []item
	column, open := 0, false // of the texts of a list; whether the next line may belong to the last item
	for line := range strings.SplitSeq(text, "\n") {
		bare := strings.TrimLeft(line, " ")
		indent := len(line) - len(bare)
		listed := inColumns.FindStringSubmatch(line)
		switch {
		case bare == "":
			items = append(items, item{})
			column, open = 0, false
			continue
		case open && indent == column:
			items[len(items)-1].text += " " + bare
		case listed != nil && indent != column:
			items = append(items, item{listed[1], listed[2]})
			column = utf8.RuneCountInString(listed[1])
		default:
			items = append(items, item{line[:indent], bare})
		}
		open = indent == column || listed != nil
	}
	lines := make([]string, len(items))
	for i, item := range items {
		lines[i] = hang(item.head, item.text, columns)
	}
	return strings.Join(lines, "\n")
}

// hasFlags reports whether a command has flags besides --help.
func hasFlags(cmd *cobra.Command) (has bool) {
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		has = has || !f.Hidden && f.Name != "help" && f.Name != "version"
	})
	return has
}
