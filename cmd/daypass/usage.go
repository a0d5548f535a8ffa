package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// All errors in a command line have one form: the word, the problem, the next step. They replace
// the messages of cobra and pflag.

// words bounds the number of arguments of a command. wanted describes them.
func words(least, most int, wanted string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usageErrorf("%s: %s", strings.TrimPrefix(cmd.CommandPath(), "daypass "), wanted)
		case most < 0 || len(args) <= most:
			return nil
		case cmd.HasSubCommands():
			return noSuchCommand(cmd, args[0])
		}
		return usageErrorf("%s: is one argument too many: %s", args[most], wanted)
	}
}

// noWords is for a command that takes only flags.
var noWords = words(0, 0, "the command takes flags only")

// noSuchCommand returns the error for a word that is not a command.
func noSuchCommand(parent *cobra.Command, word string) error {
	text := fmt.Sprintf("%s: is not a command of %s", word, parent.CommandPath())
	// At a distance of two, four letters such as "serv" would also suggest "dev" and "user".
	parent.SuggestionsMinimumDistance = max(1, len(word)/3)
	if near := parent.SuggestionsFor(word); len(near) > 0 {
		text += "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return usageErrorf("%s", text)
}

// flagError rewords an error of pflag.
func flagError(cmd *cobra.Command, err error) error {
	var missing *pflag.NotExistError
	var valueless *pflag.ValueRequiredError
	var invalid *pflag.InvalidValueError
	var syntax *pflag.InvalidSyntaxError
	switch {
	case errors.As(err, &missing):
		name := "--" + missing.GetSpecifiedName()
		if missing.GetSpecifiedShortnames() != "" {
			name = "-" + missing.GetSpecifiedName()
		}
		text := fmt.Sprintf("%s: is not a flag of %s", name, cmd.CommandPath())
		if near := nearFlag(cmd, missing.GetSpecifiedName()); near != "" {
			text += "; did you mean --" + near + "?"
		}
		return usageErrorf("%s", text)
	case errors.As(err, &valueless):
		flag := valueless.GetFlag()
		kind, _ := pflag.UnquoteUsage(flag)
		return usageErrorf("--%s: needs a value: --%[1]s %s", flag.Name, strings.ToUpper(kind))
	case errors.As(err, &invalid):
		return usageErrorf("--%s %s: %s", invalid.GetFlag().Name, invalid.GetValue(), wrongValue(invalid))
	case errors.As(err, &syntax):
		return usageErrorf("%s: is not a flag", syntax.GetSpecifiedFlag())
	}
	return &usageError{err}
}

func wrongValue(invalid *pflag.InvalidValueError) string {
	switch invalid.GetFlag().Value.Type() {
	case "int":
		return "is not a whole number"
	case "bool":
		return "is neither true nor false"
	}
	return errors.Unwrap(invalid).Error()
}

// nearFlag returns the flag whose name is similar to an unknown one.
func nearFlag(cmd *cobra.Command, name string) (near string) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden && len(name) > 2 && (strings.HasPrefix(f.Name, name) || strings.HasPrefix(name, f.Name) || strings.HasSuffix(f.Name, "-"+name)) {
			near = f.Name
		}
	})
	return near
}
