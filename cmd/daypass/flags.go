package main

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// registerConfig adds the flag of all commands that read the configuration.
func registerConfig(flags *pflag.FlagSet, path *string) {
	flags.StringVarP(path, "config", "c", defaultConfigFile, "the configuration `FILE`")
}

// groupList is the value of --groups: A,B. The flag may be repeated. spreadGroups turns
// "--groups A B" into repeated flags.
type groupList []string

func (g *groupList) String() string { return strings.Join(*g, ",") }

func (g *groupList) Type() string { return "A,B" }

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

// registerGroups adds the flag of all commands that take database groups, and an alias with the
// AWS CLI's name.
func registerGroups(flags *pflag.FlagSet, groups *groupList, help string) {
	flags.VarP(groups, "groups", "g", help)
	alias(flags, "db-groups", groups)
}

// alias adds a second flag name for a value. Help does not list it.
func alias(flags *pflag.FlagSet, name string, value pflag.Value) {
	flags.Var(value, name, "")
	flags.Lookup(name).Hidden = true
}

// wordsBefore is the annotation of a command whose first arguments are not groups. Its value is
// the number of these arguments.
const wordsBefore = "words before groups"

// spread applies spreadGroups to a whole command line.
func spread(root *cobra.Command, args []string) []string {
	cmd, rest, err := root.Find(args)
	if err != nil || cmd.DisableFlagParsing || cmd.Flags().Lookup("groups") == nil {
		return args
	}
	taken, _ := strconv.Atoi(cmd.Annotations[wordsBefore])
	return append(strings.Fields(cmd.CommandPath())[1:], spreadGroups(cmd.Flags(), taken, rest)...)
}

// spreadGroups rewrites "--groups a b", the AWS CLI's form, to "--groups a --groups b", in the
// arguments of one command. The first arguments, as many as taken says, are never groups,
// because the command has other uses for them.
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

// duration is the value of every flag that is a length of time: 90s, 15m, 1h, 2d, or a number of
// seconds, as in the AWS CLI.
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

// completeWith offers words as values of a flag.
func completeWith(cmd *cobra.Command, flag string, words ...string) {
	// It fails only if the flag does not exist or already has completions.
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic("internal error: " + err.Error())
	}
}

// checkOutput refuses a value of --output other than json and the command's own form for people.
func checkOutput(output, form string) error {
	if output != form && output != "json" {
		return usageErrorf("--output %s: must be %s or json", output, form)
	}
	return nil
}

// checkDBUser refuses a database user with groups appended, which is the form of a session
// role's name.
func checkDBUser(name string) error {
	kind, rest, found := strings.Cut(name, ":")
	plain := kind
	switch kind {
	case "IAM", "IAMA", "IAMR":
		if plain, _, found = strings.Cut(rest, ":"); kind != "IAMA" && found {
			plain = kind + ":" + plain
		}
	}
	if !found {
		return nil
	}
	return usageErrorf("--db-user is %q: groups do not belong to it; give --db-user %s, which takes in all sets of groups", name, plain)
}
