package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/filemode"
	"github.com/daypass/daypass/internal/iam"
)

// policies reads a list of policy documents.
func (s *section) policies(name string) []*iam.Policy {
	s.row(name, policies)
	var list []*iam.Policy
	for i, item := range s.list(name) {
		if isNull(item) {
			continue // reported
		}
		if p := s.file.policy(item, iam.IdentityPolicy, fmt.Sprintf("%s[%d]", s.path(name), i)); p != nil {
			list = append(list, p)
		}
	}
	return list
}

// policy reads one policy document under a key. It returns nil if the key is absent or the
// document is refused.
func (s *section) policy(name string, kind iam.Kind) *iam.Policy {
	s.row(name, policy)
	node := s.values[name]
	if node == nil {
		return nil
	}
	return s.file.policy(node, kind, s.path(name))
}

// policyErrorf reports a fault of a policy.
func (f *yamlFile) policyErrorf(node *yaml.Node, key, format string, args ...any) {
	f.errorf(node, key, format, args...)
	f.faults[len(f.faults)-1].policy = true
}

// policy reads a policy document: written out as YAML, as JSON text in a string, or the
// path of a .json file. Decisions name it by its file and key.
func (f *yamlFile) policy(node *yaml.Node, kind iam.Kind, key string) *iam.Policy {
	file, line, name := f.path, node.Line, filepath.Base(f.path)+" "+key
	var document []byte
	switch text := strings.TrimSpace(node.Value); {
	case node.Kind == yaml.MappingNode:
		document = jsonOf(node)
		line = 0
	case node.Kind == yaml.ScalarNode && strings.HasPrefix(text, "{"):
		document = []byte(node.Value)
		if node.Style&(yaml.LiteralStyle|yaml.FoldedStyle) == 0 {
			line--
		}
	case node.Kind == yaml.ScalarNode && text != "":
		data, err := f.read(f.resolve(text))
		if err != nil {
			f.policyErrorf(node, key, "%v", err)
			return nil
		}
		f.judge(node, key, f.resolve(text), filemode.Public)
		document, file, line, name = data, text, 0, text
	default:
		f.policyErrorf(node, key, "is %s, want a policy document or the path of a .json file", kindOf(node))
		return nil
	}
	read, err := iam.ParsePolicy(kind, name, document)
	var refused *iam.PolicyError
	switch {
	case errors.As(err, &refused):
		where := key
		if refused.Path != "" {
			where += "." + refused.Path
		}
		at := node.Line
		if file == f.path {
			at = line + refused.Line
		}
		f.faults = append(f.faults, fault{line: at, policy: true, err: fmt.Errorf("%s:%d: %s: %s", file, line+refused.Line, where, refused.Reason)})
		return nil
	case err != nil:
		f.policyErrorf(node, key, "%v", err)
		return nil
	}
	return read
}

// jsonOf writes a YAML node as JSON, with each token on its line in the YAML file. So
// the policy parser's line numbers, in errors and in decisions, are those of the
// configuration file.
func jsonOf(node *yaml.Node) []byte {
	w := &jsonWriter{line: 1}
	w.value(node)
	return w.buf.Bytes()
}

type jsonWriter struct {
	buf  bytes.Buffer
	line int
}

func (w *jsonWriter) to(node *yaml.Node) {
	for ; w.line < node.Line; w.line++ {
		w.buf.WriteByte('\n')
	}
}

func (w *jsonWriter) value(node *yaml.Node) {
	node = dealias(node)
	w.to(node)
	switch node.Kind {
	case yaml.MappingNode:
		w.buf.WriteByte('{')
		for i := 0; i+1 < len(node.Content); i += 2 {
			if i > 0 {
				w.buf.WriteByte(',')
			}
			w.to(node.Content[i])
			w.text(node.Content[i].Value)
			w.buf.WriteByte(':')
			w.value(node.Content[i+1])
		}
		w.buf.WriteByte('}')
	case yaml.SequenceNode:
		w.buf.WriteByte('[')
		for i, item := range node.Content {
			if i > 0 {
				w.buf.WriteByte(',')
			}
			w.value(item)
		}
		w.buf.WriteByte(']')
	default:
		w.scalar(node)
	}
}

// scalar writes numbers and booleans unquoted, because IAM's conditions may use them.
// Everything else becomes a string, including an unquoted date like 2012-10-17, which YAML
// reads as a timestamp.
func (w *jsonWriter) scalar(node *yaml.Node) {
	switch node.Tag {
	case "!!bool":
		if v, err := strconv.ParseBool(strings.ToLower(node.Value)); err == nil {
			w.buf.WriteString(strconv.FormatBool(v))
			return
		}
	case "!!int", "!!float":
		if json.Valid([]byte(node.Value)) {
			w.buf.WriteString(node.Value)
			return
		}
	case "!!null":
		w.buf.WriteString("null")
		return
	}
	w.text(node.Value)
}

func (w *jsonWriter) text(value string) {
	encoder := json.NewEncoder(&w.buf)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		panic("internal error: a string has no JSON form: " + err.Error())
	}
	w.buf.Truncate(w.buf.Len() - 1) // removes the line feed that Encode adds
}

// policyWarnings returns warnings about valid policies. It also works on a configuration that
// has faults.
func policyWarnings(spec *directory.Spec) []iam.Warning {
	var warnings []iam.Warning
	warn := func(list []iam.Warning) {
		for _, w := range list {
			if !slices.Contains(warnings, w) { // users with the same policies have the same warnings
				warnings = append(warnings, w)
			}
		}
	}
	site := iam.Site{Partition: iam.PartitionOf(spec.Region), Region: spec.Region, Account: spec.Account, Clusters: []string{}, Principals: spec.Principals()}
	for _, c := range spec.Clusters {
		site.Clusters = append(site.Clusters, c.Identifier)
	}
	add := func(policies ...*iam.Policy) {
		for _, p := range policies {
			if p != nil {
				warn(p.Warnings())
				if spec.Region != "" && spec.Account != "" {
					warn(p.Elsewhere(site))
				}
			}
		}
	}
	named := map[string]*iam.Policy{}
	for _, p := range spec.Policies {
		add(p.Policy)
		named[p.Name] = p.Policy
	}
	identity := func(inline []*iam.Policy, attached []string) []*iam.Policy {
		list := slices.Clone(inline)
		for _, name := range attached {
			if p := named[name]; p != nil {
				list = append(list, p)
			}
		}
		return list
	}
	groups := map[string][]*iam.Policy{}
	for _, g := range spec.Groups {
		add(g.Inline...)
		groups[g.Name] = identity(g.Inline, g.Attached)
		warn((&iam.Policies{Identity: groups[g.Name]}).Warnings())
	}
	for _, u := range spec.Users {
		add(u.Inline...)
		add(u.Boundary)
		held := iam.Policies{Identity: identity(u.Inline, u.Attached), Boundary: u.Boundary}
		for _, group := range u.Groups {
			held.Identity = append(held.Identity, groups[group]...)
		}
		warn(held.Warnings())
	}
	for _, r := range spec.Roles {
		add(r.Inline...)
		add(r.Boundary, r.Trust)
		held := iam.Policies{Identity: identity(r.Inline, r.Attached), Boundary: r.Boundary}
		warn(held.Warnings())
	}
	return warnings
}

// located returns the text of a warning in the same form as other warnings, with file, line and
// key.
func located(w iam.Warning) string {
	file, key, _ := strings.Cut(w.Policy, " ")
	return fmt.Sprintf("%s:%d: %s: %s", file, w.Line, strings.Trim(key+"."+w.Path, "."), w.Reason)
}

func mappingValue(node *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value == key {
			return dealias(node.Content[i+1])
		}
	}
	return nil
}
