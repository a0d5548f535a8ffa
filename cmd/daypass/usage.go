package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/daypass/daypass/internal/config"
)

// What is wrong with a command line is said in one way: the word, what is wrong with
// it, what to do. cobra and pflag have words of their own.

// words bounds the arguments of a command that are no flags. wanted says what they are.
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
		return usageErrorf("%s: is one word too many: %s", args[most], wanted)
	}
}

// noWords are words for a command that takes flags only.
var noWords = words(0, 0, "there are flags only")

// noSuchCommand says so of a word where a command should be.
func noSuchCommand(parent *cobra.Command, word string) error {
	text := fmt.Sprintf("%s: is not a command of %s", word, parent.CommandPath())
	parent.SuggestionsMinimumDistance = 2 // cobra's, where it suggests by itself
	if near := parent.SuggestionsFor(word); len(near) > 0 {
		text += "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return usageErrorf("%s", text)
}

// flagError says what pflag found wrong.
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

// nearFlag is the flag that may have been meant by a name.
func nearFlag(cmd *cobra.Command, name string) (near string) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden && len(name) > 2 && (strings.HasPrefix(f.Name, name) || strings.HasPrefix(name, f.Name) || strings.HasSuffix(f.Name, "-"+name)) {
			near = f.Name
		}
	})
	return near
}

// loadConfig reads the configuration for a command that needs the secrets in it.
func loadConfig(path string) (*config.Config, error) {
	cfg, err := config.Load(path)
	return cfg, noSuchConfig(path, err)
}

// noSuchConfig says what to do where there is no configuration at all.
func noSuchConfig(path string, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, missing := os.Stat(path); missing == nil {
		return err // a file that the configuration names
	}
	return fmt.Errorf("%s: does not exist: name the configuration with --config FILE (`daypass init` writes one to begin with; `daypass dev` needs none)", path)
}

// registerConfig is the flag of all commands that read the configuration.
func registerConfig(flags *pflag.FlagSet, path *string) {
	flags.StringVarP(path, "config", "c", defaultConfigFile, "the configuration `FILE`")
}

// groupList is the value of --groups: A,B; also given more than once, or as words,
// which spreadGroups makes of "--groups A B".
type groupList []string

func (g *groupList) String() string { return strings.Join(*g, ",") }
func (g *groupList) Type() string   { return "A,B" }

func (g *groupList) Set(text string) error {
	for _, name := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		if !slices.Contains(*g, name) {
			*g = append(*g, name)
		}
	}
	if len(*g) == 0 {
		return errors.New("names no group: A,B")
	}
	return nil
}

// registerGroups is the flag of all commands that take database groups. The AWS CLI's
// name for it works too.
func registerGroups(flags *pflag.FlagSet, groups *groupList, help string) {
	flags.VarP(groups, "groups", "g", help)
	alias(flags, "db-groups", groups)
}

// alias makes another name for a value, which help does not list.
func alias(flags *pflag.FlagSet, name string, value pflag.Value) {
	flags.Var(value, name, "")
	flags.Lookup(name).Hidden = true
}

// wordsBefore is the annotation of a command that has other uses for its first words
// than as groups.
const wordsBefore = "words before groups"

// spread is spreadGroups for a whole command line.
func spread(root *cobra.Command, args []string) []string {
	cmd, rest, err := root.Find(args)
	if err != nil || cmd.DisableFlagParsing || cmd.Flags().Lookup("groups") == nil {
		return args
	}
	taken, _ := strconv.Atoi(cmd.Annotations[wordsBefore])
	return append(strings.Fields(cmd.CommandPath())[1:], spreadGroups(cmd.Flags(), taken, rest)...)
}

// spreadGroups rewrites "--groups a b", as the AWS CLI has lists, to "--groups a
// --groups b", in the arguments of one command. Words are groups only where they can
// be nothing else: after taken of them, which the command has other uses for.
func spreadGroups(flags *pflag.FlagSet, taken int, args []string) []string {
	var all []string
	seen := 0
	for i := 0; i < len(args); i++ {
		word := args[i]
		all = append(all, word)
		if word == "--" {
			return append(all, args[i+1:]...)
		}
		if !strings.HasPrefix(word, "-") || word == "-" {
			seen++
			continue
		}
		name, _, joined := strings.Cut(strings.TrimLeft(word, "-"), "=")
		var flag *pflag.Flag
		if strings.HasPrefix(word, "--") {
			flag = flags.Lookup(name)
		} else if flag = flags.ShorthandLookup(name[:1]); len(name) > 1 {
			joined = true
		}
		if flag == nil || flag.NoOptDefVal != "" {
			continue
		}
		if !joined && i+1 < len(args) {
			i++
			all = append(all, args[i])
		}
		if _, groups := flag.Value.(*groupList); !groups || seen < taken {
			continue
		}
		for i+1 < len(args) && !strings.HasPrefix(args[i+1], "-") {
			i++
			all = append(all, "--groups", args[i])
		}
	}
	return all
}

// duration is the value of all flags that are a time: 90s, 15m, 1h, 2d, or a number of
// seconds, as the AWS CLI has them.
type duration time.Duration

func (d *duration) Type() string { return "DURATION" }

func (d *duration) String() string {
	text := time.Duration(*d).String()
	for _, zero := range []string{"m0s", "h0m"} { // 1h0m0s
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}

func (d *duration) Set(text string) error {
	value, err := parseDuration(text)
	*d = duration(value)
	return err
}

func parseDuration(text string) (time.Duration, error) {
	if seconds, err := strconv.ParseInt(text, 10, 32); err == nil {
		return time.Duration(seconds) * time.Second, nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseInt(days, 10, 16); err == nil {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, errors.New("is not a time such as 90s, 15m, 1h or 2d")
	}
	return d, nil
}
