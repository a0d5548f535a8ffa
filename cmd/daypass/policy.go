package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/daypass/daypass/internal/iam"
)

func newPolicyCommand(env environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Check IAM policies, and try out what they decide",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newPolicyLintCommand(env), newPolicySimulateCommand(env))
	return cmd
}

func newPolicyLintCommand(env environment) *cobra.Command {
	var kind string
	var strict bool
	cmd := &cobra.Command{
		Use:   "lint FILE...",
		Short: "Say what is wrong with policies, and what cannot have been meant",
		Long: `Lint reads policy documents in JSON or YAML, or all the policies of a Daypass
configuration file, and prints one line for each finding with file, line and
element. "-" is the standard input. A document with principals is taken for a
role trust policy, unless --kind says what it is.

Errors are what AWS refuses too; the exit code is then 1, and 2 when a file cannot
be read. Warnings are what is
valid and cannot have been meant, such as a restriction of databases that a caller
walks around by naming none.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, files []string) error {
			switch kind {
			case "auto", "identity", "trust":
			default:
				return usageErrorf("--kind is %q, want auto, identity or trust", kind)
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
	cmd.Flags().StringVar(&kind, "kind", "auto", "what the documents are: `KIND` is auto, identity or trust")
	cmd.Flags().BoolVar(&strict, "strict", false, "exit with 1 on warnings too")
	return cmd
}

// linter goes through files and prints what it finds.
type linter struct {
	env              environment
	kind             string
	errors, warnings int
	// configured are the policies of a configuration file, by their nodes.
	configured      map[*yaml.Node]*iam.Policy
	account, region string // of the configuration file; empty: unknown
}

// file lints one file; the error is that it cannot be read.
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

// kindOf tells a trust policy by its principals. A document that is not JSON has
// no principals: parsing will say so.
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
	fmt.Fprintf(l.env.stdout, "error: %v\n", err)
}

func (l *linter) warn(warnings ...iam.Warning) {
	for _, w := range warnings {
		l.warnings++
		fmt.Fprintf(l.env.stdout, "warning: %v\n", w)
	}
}

// yaml lints a policy document in YAML, or the policies of a configuration file.
func (l *linter) yaml(name string, data []byte) {
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		l.error(syntaxError(name, data, err))
		return
	}
	if len(root.Content) == 0 {
		l.error(fmt.Errorf("%s:1: the file is empty", name))
		return
	}
	top := root.Content[0]
	f := &yamlFile{path: name, dir: filepath.Dir(name), getenv: os.LookupEnv}
	if !f.checkAliases(top) {
		l.error(f.err())
		return
	}
	if mappingValue(top, "iam") == nil {
		document := jsonOf(top)
		l.document(name, document, l.kindOf(document))
		return
	}
	if account, region := mappingValue(top, "account"), mappingValue(top, "region"); account != nil && region != nil {
		l.account, l.region = account.Value, region.Value
	}
	l.configured = map[*yaml.Node]*iam.Policy{}
	l.configuration(f, mappingValue(top, "iam"), "iam")
	l.principals(mappingValue(top, "iam"))
	for _, err := range f.errs {
		l.error(err)
	}
}

// configuration finds the policies of a configuration file wherever a key says
// that there is one. The rest of the file is the server's business.
func (l *linter) configuration(f *yamlFile, node *yaml.Node, path string) {
	node = dealias(node)
	switch node.Kind {
	case yaml.SequenceNode:
		for i, item := range node.Content {
			l.configuration(f, item, fmt.Sprintf("%s[%d]", path, i))
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			key, value := node.Content[i].Value, dealias(node.Content[i+1])
			at := path + "." + key
			switch {
			case key == "trust_policy":
				l.policy(f, value, iam.TrustPolicy, at)
			case key == "permissions_boundary", key == "document":
				l.policy(f, value, iam.IdentityPolicy, at)
			case key == "policies" && path != "iam" && value.Kind == yaml.SequenceNode:
				for j, item := range value.Content {
					l.policy(f, dealias(item), iam.IdentityPolicy, fmt.Sprintf("%s[%d]", at, j))
				}
			default:
				l.configuration(f, value, at)
			}
		}
	}
}

func (l *linter) policy(f *yamlFile, node *yaml.Node, kind iam.Kind, path string) {
	if policy := f.policy(node, kind, path); policy != nil {
		l.configured[node] = policy
		l.warn(policy.Warnings()...)
		if l.account != "" {
			l.warn(policy.Elsewhere(l.region, l.account)...)
		}
	}
}

// principals warns of what shows only over all the policies of a group, an IAM user
// or an IAM role. Policies that are not there, or refused, are the server's business
// or have been told.
func (l *linter) principals(section *yaml.Node) {
	named := map[string]*iam.Policy{}
	for _, node := range elements(mappingValue(section, "policies")) {
		if name := mappingValue(node, "name"); name != nil {
			named[name.Value] = l.configured[mappingValue(node, "document")]
		}
	}
	own := func(node *yaml.Node) (list []*iam.Policy) {
		for _, item := range elements(mappingValue(node, "policies")) {
			list = append(list, l.configured[item])
		}
		for _, item := range elements(mappingValue(node, "attached_policies")) {
			list = append(list, named[item.Value])
		}
		return slices.DeleteFunc(list, func(p *iam.Policy) bool { return p == nil })
	}
	groups := map[string][]*iam.Policy{}
	told := map[iam.Warning]bool{}
	for _, kind := range []string{"groups", "users", "roles"} {
		for _, node := range elements(mappingValue(section, kind)) {
			p := iam.Policies{Identity: own(node), Boundary: l.configured[mappingValue(node, "permissions_boundary")]}
			for _, group := range elements(mappingValue(node, "groups")) {
				p.Identity = append(p.Identity, groups[group.Value]...)
			}
			if name := mappingValue(node, "name"); name != nil && kind == "groups" {
				groups[name.Value] = p.Identity
			}
			for _, w := range p.Warnings() {
				if !told[w] {
					l.warn(w)
				}
				told[w] = true
			}
		}
	}
}

// elements are those of a list; there are none of anything else.
func elements(node *yaml.Node) []*yaml.Node {
	if node == nil || node.Kind != yaml.SequenceNode {
		return nil
	}
	list := make([]*yaml.Node, len(node.Content))
	for i, item := range node.Content {
		list[i] = dealias(item)
	}
	return list
}

func mappingValue(node *yaml.Node, key string) *yaml.Node {
	if node.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value == key {
			return dealias(node.Content[i+1])
		}
	}
	return nil
}

func newPolicySimulateCommand(env environment) *cobra.Command {
	var input string
	cmd := &cobra.Command{
		Use:   "simulate [FILE]",
		Short: "Decide requests by given policies, as iam simulate-custom-policy does",
		Long: `Simulate reads the request of IAM's SimulateCustomPolicy as JSON from a file or the
standard input, decides each action on each resource, and prints the answer. It
needs no server and no AWS account. The members are those of the AWS CLI's
--cli-input-json; CallerArn may also be a role session or an identity provider,
ResourcePolicy is the trust policy of an IAM role, and SessionPolicyInputList
holds session policies:

    {"PolicyInputList": ["{\"Version\": \"2012-10-17\", \"Statement\": …}"],
     "ActionNames": ["redshift:JoinGroup"],
     "ResourceArns": ["arn:aws:redshift:us-east-1:123456789012:dbgroup:examplecluster/analysts"],
     "ContextEntries": [{"ContextKeyName": "aws:username", "ContextKeyType": "string",
                         "ContextKeyValues": ["ana"]}]}`,
		Args: cobra.MaximumNArgs(1),
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
		return nil, usageErrorf("FILE and --cli-input-json exclude one another")
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
	if err := decoder.Decode(&in); err != nil {
		return fmt.Errorf("reading the request: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("reading the request: something follows it")
	}
	out, err := iam.Simulate(ctx, &in, nil)
	var bad *iam.InputError
	switch {
	case errors.As(err, &bad):
		return fmt.Errorf("InvalidInput: %w", err)
	case err != nil:
		return err
	}
	encoder := json.NewEncoder(env.stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "    ")
	return encoder.Encode(out)
}

// readInput reads a file, or the standard input for "-".
func readInput(env environment, path string) (data []byte, name string, err error) {
	if path == "-" {
		data, err = io.ReadAll(env.stdin)
		return data, "standard input", err
	}
	data, err = os.ReadFile(path)
	return data, path, err
}
