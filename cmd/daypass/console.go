package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/coreos/go-systemd/v22/journal"
	"golang.org/x/term"

	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/quote"
)

// newEnvironment returns the process's own streams. Text for a terminal is quoted, because names
// and messages come from servers, databases and other people's files, and the terminal would
// obey escape sequences in them. A pipe or a file gets the exact bytes.
func newEnvironment() environment {
	toJournal, _ := journal.StderrIsJournalStream() // false if that cannot be found out
	return environment{journal: toJournal, stdin: os.Stdin, stdout: console(os.Stdout), stderr: console(os.Stderr), exact: os.Stdout,
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

// console returns a writer to a file. If the file is a terminal, the writer quotes text, and
// uses colors unless NO_COLOR (https://no-color.org) is set or TERM is dumb.
func console(file *os.File) io.Writer {
	switch {
	case terminalWidth(file) == 0:
		return file
	case os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb":
		return quote.NewWriter(file)
	}
	return quote.NewPainter(file)
}

// paint quotes a text, and applies a style if w supports styles.
func paint(w io.Writer, style quote.Style, text string) string {
	if w, ok := w.(*quote.Writer); ok {
		return w.Paint(style, text)
	}
	return quote.Terminal(text)
}

// warn prints a warning. The command continues.
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

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

func isAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

func writeIndented(out io.Writer, v any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "    ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

// wrap breaks long lines between words. It keeps the indentation of a line. If columns is 0, the
// width is unlimited.
func wrap(text string, columns int) string {
	if columns <= 0 {
		return text
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if utf8.RuneCountInString(line) > columns {
			indent := line[:len(line)-len(strings.TrimLeft(line, " "))]
			lines[i] = hang(indent, strings.TrimLeft(line, " "), columns)
		}
	}
	return strings.Join(lines, "\n")
}

// hang writes text after a head, wrapped and indented by the head's width. A word that
// is longer than a line gets its own line.
func hang(head, text string, columns int) string {
	var b strings.Builder
	b.WriteString(head)
	indent := utf8.RuneCountInString(head)
	column := indent
	for i, word := range strings.Split(text, " ") {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case column+1+n > columns:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			column = indent
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	return b.String()
}

// readPassword reads the password from the argument or from in, which may also be the
// JSON that get-cluster-credentials prints.
func readPassword(in io.Reader, args []string) (keyring.Secret, error) {
	text := "-"
	if len(args) > 0 {
		text = args[0]
	}
	if text == "-" {
		const limit = 64 << 10
		data, err := io.ReadAll(io.LimitReader(in, limit+1))
		if err != nil {
			return "", fmt.Errorf("reading standard input: %w", err)
		}
		if len(data) > limit {
			return "", errors.New("standard input is too long for a password")
		}
		text = string(data)
	}
	if trimmed := strings.TrimSpace(text); strings.HasPrefix(trimmed, "{") {
		var answer struct{ DbPassword string }
		// The decoder's errors could quote the input, which is a secret.
		if json.Unmarshal([]byte(trimmed), &answer) != nil || answer.DbPassword == "" {
			return "", errors.New("the input begins like JSON, but is not an object with a DbPassword")
		}
		return keyring.Secret(answer.DbPassword), nil
	}
	text = strings.TrimSuffix(text, "\n")
	text = strings.TrimSuffix(text, "\r")
	if text == "" {
		return "", errors.New("standard input is empty: give a password, or pipe the output of get-cluster-credentials in")
	}
	return keyring.Secret(text), nil
}

// readInput reads a file, or the standard input for "-".
func readInput(env environment, path string) (data []byte, name string, err error) {
	if path == "-" {
		data, err = io.ReadAll(env.stdin)
		return data, "standard input", err
	}
	data, err = os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%s: does not exist: check the path, or give - to read standard input", path)
	}
	return data, path, err
}
