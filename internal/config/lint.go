package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/daypass/daypass/internal/iam"
)

// LintPolicies looks at a policy document in YAML, or at all the policies of a
// configuration file. kindOf tells the kind of a single document, given as JSON.
func LintPolicies(name string, data []byte, kindOf func([]byte) iam.Kind) ([]iam.Warning, []error) {
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		return nil, []error{syntaxError(name, data, err)}
	}
	if len(root.Content) == 0 {
		return nil, []error{fmt.Errorf("%s:1: the file is empty", name)}
	}
	top := root.Content[0]
	f := &yamlFile{path: name, dir: filepath.Dir(name), getenv: os.LookupEnv}
	if !f.checkAliases(top) {
		return nil, f.errs
	}
	if mappingValue(top, "iam") == nil {
		document := jsonOf(top)
		policy, err := iam.ParsePolicy(kindOf(document), name, document)
		if err != nil {
			return nil, []error{err}
		}
		return policy.Warnings(), nil
	}
	l := linter{configured: map[*yaml.Node]*iam.Policy{}}
	if account, region := mappingValue(top, "account"), mappingValue(top, "region"); account != nil && region != nil {
		l.account, l.region = account.Value, region.Value
	}
	l.configuration(f, mappingValue(top, "iam"), "iam")
	l.principals(mappingValue(top, "iam"))
	return l.warnings, f.errs
}

// linter goes through the iam section of a configuration file.
type linter struct {
	// configured are the policies of the file, by their nodes.
	configured      map[*yaml.Node]*iam.Policy
	account, region string // of the file; empty: unknown
	warnings        []iam.Warning
}

func (l *linter) warn(warnings ...iam.Warning) { l.warnings = append(l.warnings, warnings...) }

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
