package main

import (
	"fmt"
	"io"
	"os"

	"github.com/daypass/daypass/internal/awscli"
	"github.com/daypass/daypass/internal/quote"
)

// newEnvironment is the process's own. What goes to a terminal cannot command it:
// names and messages are from servers, databases and files of other people. What goes
// to a pipe or a file is exact.
func newEnvironment() environment {
	return environment{stdin: os.Stdin, stdout: console(os.Stdout), stderr: console(os.Stderr), exact: os.Stdout,
		columns: awscli.TerminalWidth(os.Stdout), errColumns: awscli.TerminalWidth(os.Stderr)}
}

// console is a file that may be a terminal, with colours unless NO_COLOR
// (https://no-color.org) or a dumb terminal speaks against them.
func console(file *os.File) io.Writer {
	switch {
	case awscli.TerminalWidth(file) == 0:
		return file
	case os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb":
		return quote.NewWriter(file)
	}
	return quote.NewPainter(file)
}

// paint is a text in a style, where w shows styles.
func paint(w io.Writer, style quote.Style, text string) string {
	if w, ok := w.(*quote.Writer); ok {
		return w.Paint(style, text)
	}
	return quote.Terminal(text)
}

// warn tells the caller what they should know of a command that goes on.
func (env *environment) warn(format string, args ...any) {
	fmt.Fprintf(env.stderr, "daypass: %s %s\n", paint(env.stderr, quote.Yellow, "warning:"), quote.TerminalText(fmt.Sprintf(format, args...)))
}

// report is where a report in the given format goes. Text that people read is written
// as quote.TerminalText has it, into a pipe too, which may end at a terminal.
func (env *environment) report(format string) io.Writer {
	if _, terminal := env.stdout.(*quote.Writer); terminal || format == "json" {
		return env.stdout
	}
	return quote.NewWriter(env.stdout)
}
