package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/daypass/daypass/internal/awsconfig"
	"github.com/daypass/daypass/internal/quote"
)

// exitCodes holds the exit codes of a command that fails; docs/operations.md has the table. A
// command whose answer is "no" exits with 1.
type exitCodes struct {
	usage   int // the command line is wrong
	failure int // any other error without a code of its own
}

var (
	likeAWS   = exitCodes{usage: awsconfig.ExitUsage, failure: awsconfig.ExitGeneral}
	questions = exitCodes{usage: 2, failure: 2}
	others    = exitCodes{usage: 2, failure: 1}
)

// exitCodesOf lists commands that do not use the default codes. An entry includes subcommands.
var exitCodesOf = map[string]exitCodes{
	"daypass connect":            likeAWS,
	"daypass credential-process": likeAWS,
	"daypass login":              likeAWS,
	"daypass logout":             likeAWS,
	"daypass whoami":             likeAWS,
	"daypass proxy":              likeAWS,
	"daypass redshift":           likeAWS,
	"daypass revoke":             likeAWS,
	"daypass sessions":           likeAWS,
	"daypass cluster check":      questions,
	"daypass cluster clean":      questions,
	"daypass config check":       questions,
	"daypass credential inspect": questions,
	"daypass doctor":             questions,
	"daypass explain":            questions,
	"daypass policy lint":        questions,
	"daypass user drop":          questions,
}

func codesOf(cmd *cobra.Command) exitCodes {
	for ; cmd != nil; cmd = cmd.Parent() {
		if codes, ok := exitCodesOf[cmd.CommandPath()]; ok {
			return codes
		}
	}
	return others
}

// exitError ends the process with its code. With a nil err nothing is printed, because the
// command has already reported the problem.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usageError is an error in the command line.
type usageError struct{ error }

func usageErrorf(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// maxError bounds the printed part of an error, in bytes, since a server may send
// megabytes.
const maxError = 8 << 10

// journalError begins a line that the journal files as an error: sd-daemon(3).
const journalError = "<3>"

// explainEnd prints the error of a command and returns the exit code.
func explainEnd(env environment, cmd *cobra.Command, err error) int {
	say := func(text, more string) {
		if len(text) > maxError {
			text = strings.ToValidUTF8(text[:maxError], "") + "…"
		}
		text = quote.TerminalText(strings.TrimRight(text, "\n"))
		text = paint(env.stderr, quote.Red, "daypass:") + " " + strings.TrimPrefix(wrap("daypass: "+text, env.errColumns), "daypass: ") + more
		if env.journal {
			text = journalError + strings.ReplaceAll(text, "\n", "\n"+journalError)
		}
		fmt.Fprintln(env.stderr, text)
	}
	if exit, ok := errors.AsType[*exitError](err); ok {
		if exit.err != nil {
			say(exit.err.Error(), "")
		}
		return exit.code
	}
	codes := codesOf(cmd)
	// The root command does nothing by itself, so an error of it means that the command is
	// missing.
	if _, ok := errors.AsType[*usageError](err); ok || !cmd.HasParent() {
		if cmd.Name() == "help" {
			cmd = cmd.Parent()
		}
		say(err.Error(), fmt.Sprintf("\nSee %q.", cmd.CommandPath()+" --help"))
		return codes.usage
	}
	say(err.Error(), "")
	return codes.failure
}
