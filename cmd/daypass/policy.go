package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/iam"
	"github.com/daypass/daypass/internal/quote"
)

func newPolicyCommand(env environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Check IAM policies, and simulate decisions",
		Example: `  daypass policy lint daypass.yaml
  daypass policy simulate request.json`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newPolicyLintCommand(env), newPolicySimulateCommand(env))
	return cmd
}

func newPolicyLintCommand(env environment) *cobra.Command {
	var kind string
	var strict bool
	cmd := &cobra.Command{
		Use:   "lint FILE...",
		Short: "Find errors and probable mistakes in policies",
		Example: `  daypass policy lint daypass.yaml
  daypass policy lint --strict --kind trust trust.json`,
		Long: `Lint reads policy documents in JSON or YAML, or all the policies of a Daypass
configuration file, and prints one line for each finding with file, line and
element. "-" is the standard input. A document with principals counts as a
role trust policy, unless --kind says otherwise.

Errors are what the server does not accept; AWS refuses almost all of them too
(docs/divergences.md). The exit code is then 1, and 2 if a file cannot be read. Warnings are about valid policies that are probably not intended, such as a
restriction of databases that a caller gets around by naming none, or a Deny that can
never match.`,
		Args: words(1, -1, "name files, or - for the standard input"),
		RunE: func(_ *cobra.Command, files []string) error {
			switch kind {
			case "auto", "identity", "trust":
			default:
				return usageErrorf("--kind %s: must be auto, identity or trust", kind)
			}
			l := linter{env: env, kind: kind}
			for _, file := range files {
				if err := l.file(file); err != nil {
					return err
				}
			}
			if l.errors > 0 || strict && l.warnings > 0 {
				return &exitError{code: 1}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&kind, "kind", "auto", "kind of the documents: `KIND` is auto, identity or trust")
	cmd.Flags().BoolVar(&strict, "strict", false, "exit with 1 on warnings too")
	return cmd
}

// linter checks files and prints its findings.
type linter struct {
	env              environment
	kind             string
	errors, warnings int
}

// file lints one file. It returns an error only if it cannot read the file.
func (l *linter) file(path string) error {
	data, name, err := readInput(l.env, path)
	if err != nil {
		return err
	}
	switch strings.ToLower(filepath.Ext(path)) {
	case ".yaml", ".yml":
		l.yaml(name, data)
	default:
		l.document(name, data, l.kindOf(data))
	}
	return nil
}

// kindOf recognizes a trust policy by its principals. If the document is not JSON, parsing
// reports the error later.
func (l *linter) kindOf(document []byte) iam.Kind {
	if l.kind == "trust" {
		return iam.TrustPolicy
	}
	var one struct{ Statement map[string]json.RawMessage }
	var list struct{ Statement []map[string]json.RawMessage }
	_ = json.Unmarshal(document, &one)
	_ = json.Unmarshal(document, &list)
	for _, statement := range append(list.Statement, one.Statement) {
		if statement["Principal"] != nil || statement["NotPrincipal"] != nil {
			if l.kind == "auto" {
				return iam.TrustPolicy
			}
		}
	}
	return iam.IdentityPolicy
}

func (l *linter) document(name string, document []byte, kind iam.Kind) {
	policy, err := iam.ParsePolicy(kind, name, document)
	if err != nil {
		l.error(err)
		return
	}
	l.warn(policy.Warnings()...)
}

func (l *linter) error(err error) {
	l.errors++
	fmt.Fprintf(l.env.stdout, "%s %s\n", paint(l.env.stdout, quote.Red, "error:"), quote.Terminal(err.Error()))
}

func (l *linter) warn(warnings ...iam.Warning) {
	for _, w := range warnings {
		l.warnings++
		fmt.Fprintf(l.env.stdout, "%s %s\n", paint(l.env.stdout, quote.Yellow, "warning:"), quote.Terminal(w.String()))
	}
}

// yaml lints a policy document in YAML, or the policies of a configuration file.
func (l *linter) yaml(name string, data []byte) {
	warnings, errs := config.LintPolicies(name, data, l.kindOf)
	l.warn(warnings...)
	for _, err := range errs {
		l.error(err)
	}
}

func newPolicySimulateCommand(env environment) *cobra.Command {
	var input string
	cmd := &cobra.Command{
		Use:   "simulate [FILE]",
		Short: "Decide requests with given policies, like iam simulate-custom-policy",
		Example: `  daypass policy simulate request.json
  daypass policy simulate --cli-input-json file://request.json`,
		Long: `Simulate reads the request of IAM's SimulateCustomPolicy as JSON from a file or the
standard input, decides each action on each resource, and prints the answer. It
needs no server and no AWS account. The members are those of the AWS CLI's
--cli-input-json; CallerArn may also be a role session or an identity provider,
ResourcePolicy is the trust policy of an IAM role, and SessionPolicyInputList
holds session policies:

    {"PolicyInputList": ["{\"Version\": \"2012-10-17\", \"Statement\": …}"],
     "ActionNames": ["redshift:JoinGroup"],
     "ResourceArns": [
       "arn:aws:redshift:us-east-1:123456789012:dbgroup:examplecluster/analysts"],
     "ContextEntries": [{"ContextKeyName": "aws:username",
       "ContextKeyType": "string", "ContextKeyValues": ["ana"]}]}`,
		Args: words(0, 1, "name one file, or - for the standard input"),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := simulationInput(env, args, input)
			if err != nil {
				return err
			}
			return simulate(cmd.Context(), env, data)
		},
	}
	cmd.Flags().StringVar(&input, "cli-input-json", "", "the request as `JSON`, or file://PATH")
	return cmd
}

func simulationInput(env environment, args []string, input string) ([]byte, error) {
	switch {
	case input != "" && len(args) > 0:
		return nil, usageErrorf("FILE and --cli-input-json exclude each other")
	case strings.HasPrefix(input, "file://"):
		args = []string{strings.TrimPrefix(input, "file://")}
	case input != "":
		return []byte(input), nil
	case len(args) == 0:
		args = []string{"-"}
	}
	data, _, err := readInput(env, args[0])
	return data, err
}

func simulate(ctx context.Context, env environment, data []byte) error {
	var in iam.SimulateInput
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	switch err := decoder.Decode(&in); {
	case errors.Is(err, io.EOF):
		return errors.New("reading the request: it is empty; see `daypass policy simulate --help` for an example")
	case err != nil:
		return fmt.Errorf("reading the request: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("reading the request: there is text after it")
	}
	out, err := iam.Simulate(ctx, &in, nil)
	var bad *iam.InputError
	switch {
	case errors.As(err, &bad):
		return fmt.Errorf("InvalidInput: %w", err)
	case err != nil:
		return err
	}
	return writeIndented(env.stdout, out)
}
