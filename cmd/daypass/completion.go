package main

import (
	"slices"

	"github.com/spf13/cobra"
)

// newCompletionCommand makes the command that prints a shell's completion script.
func newCompletionCommand(env environment) *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print the completion script for a shell",
		Long: `Print the completion script for a shell. It completes commands, options and, for
"daypass redshift", the options and values of the AWS CLI.

bash, for this session, or for every one (needs the bash-completion package):

    source <(daypass completion bash)
    daypass completion bash > ~/.local/share/bash-completion/completions/daypass

zsh, in a directory of your $fpath:

    daypass completion zsh > "${fpath[1]}/_daypass"

fish:

    daypass completion fish > ~/.config/fish/completions/daypass.fish`,
		Example:               `  source <(daypass completion bash)`,
		ValidArgs:             []string{"bash", "zsh", "fish"},
		Args:                  completionShell,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(env.stdout, true)
			case "zsh":
				return root.GenZshCompletion(env.stdout)
			default:
				return root.GenFishCompletion(env.stdout, true)
			}
		},
	}
}

// completionShell requires the name of one shell.
func completionShell(cmd *cobra.Command, args []string) error {
	const wanted = "name a shell: bash, zsh or fish"
	if err := words(1, 1, wanted)(cmd, args); err != nil {
		return err
	}
	if !slices.Contains(cmd.ValidArgs, args[0]) {
		return usageErrorf("%s: is not a supported shell: %s", args[0], wanted)
	}
	return nil
}
