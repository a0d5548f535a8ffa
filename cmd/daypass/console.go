package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"

	"github.com/daypass/daypass/internal/quote"
)

// newEnvironment returns the process's own streams. Text for a terminal is quoted,
// because names and messages come from servers, databases and other people's files, and
// escape sequences in them would command the terminal. A pipe or a file gets the exact
// bytes.
func newEnvironment() environment {
	return environment{stdin: os.Stdin, stdout: console(os.Stdout), stderr: console(os.Stderr), exact: os.Stdout,
		columns: terminalWidth(os.Stdout), errColumns: terminalWidth(os.Stderr)}
}

// terminalWidth returns the number of columns of a terminal, or 0 for other files.
func terminalWidth(file *os.File) int {
	width, _, err := term.GetSize(int(file.Fd()))
	if err == nil && width == 0 {
		return 80 // a terminal that does not know its size
	}
	return width
}

// console returns a writer to a file. To a terminal it quotes, and paints unless
// NO_COLOR (https://no-color.org) is set or TERM is dumb.
func console(file *os.File) io.Writer {
	switch {
	case terminalWidth(file) == 0:
		return file
	case os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb":
		return quote.NewWriter(file)
	}
	return quote.NewPainter(file)
}

// paint quotes a text, and puts it in a style where w shows styles.
func paint(w io.Writer, style quote.Style, text string) string {
	if w, ok := w.(*quote.Writer); ok {
		return w.Paint(style, text)
	}
	return quote.Terminal(text)
}

// warn prints a warning. The command goes on.
func (env *environment) warn(format string, args ...any) {
	fmt.Fprintf(env.stderr, "daypass: %s %s\n", paint(env.stderr, quote.Yellow, "warning:"), quote.TerminalText(fmt.Sprintf(format, args...)))
}

// report returns the writer for a report in the given format. Text for people is quoted
// in a pipe too, since the pipe may end at a terminal.
func (env *environment) report(format string) io.Writer {
	if _, terminal := env.stdout.(*quote.Writer); terminal || format == "json" {
		return env.stdout
	}
	return quote.NewWriter(env.stdout)
}
