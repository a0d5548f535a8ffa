package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/daypass/daypass/internal/awscli"
	"github.com/daypass/daypass/internal/quote"
)

// newEnvironment is the process's own. What goes to a terminal cannot command it:
// names and messages are from servers, databases and files of other people. What goes
// to a pipe or a file is exact.
func newEnvironment() environment {
	return environment{stdin: os.Stdin, stdout: console(os.Stdout), stderr: console(os.Stderr), columns: awscli.TerminalWidth(os.Stdout)}
}

func console(file *os.File) io.Writer {
	if awscli.TerminalWidth(file) == 0 {
		return file
	}
	return quote.NewWriter(file)
}

// warn tells the caller what they should know of a command that goes on.
func (env *environment) warn(format string, args ...any) {
	fmt.Fprintf(env.stderr, "daypass: warning: %s\n", quote.TerminalText(fmt.Sprintf(format, args...)))
}

// report is where a report in the given format goes. Text that people read is written
// as quote.TerminalText has it, into a pipe too, which may end at a terminal.
func (env *environment) report(format string) io.Writer {
	if format == "json" {
		return env.stdout
	}
	return quote.NewWriter(env.stdout)
}

// shellLine is a command line for a shell. The words are of this process's command
// line or its own, which have no NUL bytes.
func shellLine(words ...string) string {
	line, err := quote.Shell(words...)
	if err != nil {
		panic("internal error: " + err.Error())
	}
	return line
}

// table is text in columns. Cells are quoted: none reaches out of its place.
type table struct {
	rows [][]string
	gap  int // between columns; 2 when zero
}

func (t *table) add(cells ...string) {
	for i := range cells {
		cells[i] = quote.Terminal(cells[i])
	}
	t.rows = append(t.rows, cells)
}

func (t *table) write(w io.Writer) error {
	var widths []int
	for _, row := range t.rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	gap := t.gap
	if gap == 0 {
		gap = 2
	}
	var b strings.Builder
	for _, row := range t.rows {
		for i, cell := range row {
			b.WriteString(cell)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+gap))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}
