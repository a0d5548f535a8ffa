package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/daypass/daypass/internal/filemode"
	"github.com/daypass/daypass/internal/iam"
	"github.com/daypass/daypass/internal/keyring"
)

// section is one mapping of the file, checked against its table of keys. It holds only values
// that have the form the table asks for; the others were reported and count as absent. The
// getters accept only keys of the table.
type section struct {
	file    *yamlFile
	name    string // "clusters[0]", empty at the top
	node    *yaml.Node
	table   []key
	at      map[string]*yaml.Node // the keys that are in the file
	values  map[string]*yaml.Node // those with a valid value
	secrets map[string]keyring.Secret
	subs    map[string]*section
	items   map[string][]*section
}

// open checks a mapping and everything in it.
func (f *yamlFile) open(node *yaml.Node, name string, table []key) *section {
	s := &section{file: f, name: name, node: node, table: table,
		at: map[string]*yaml.Node{}, values: map[string]*yaml.Node{}, secrets: map[string]keyring.Secret{},
		subs: map[string]*section{}, items: map[string][]*section{}}
	if node.Kind != yaml.MappingNode {
		f.errorf(node, s.label(), "is %s, want a mapping of keys to values", kindOf(node))
		return s
	}
	s.readKeys()
	for i := range table {
		k := &table[i]
		if s.at[k.name] == nil {
			s.missing(k)
		} else if value := s.values[k.name]; !s.check(k, value) {
			delete(s.values, k.name)
		}
	}
	return s
}

// readKeys reads the keys of the table from the mapping and reports all others.
func (s *section) readKeys() {
	for i := 0; i+1 < len(s.node.Content); i += 2 {
		at, value := s.node.Content[i], dealias(s.node.Content[i+1])
		switch {
		case s.key(at.Value) == nil:
			s.file.errorf(at, s.path(at.Value), "is not a key of the configuration%s", s.suggest(at.Value))
		case s.at[at.Value] != nil:
			s.file.errorf(at, s.path(at.Value), "is duplicated")
		default:
			s.at[at.Value], s.values[at.Value] = at, value
			s.file.lines[s.path(at.Value)] = at.Line
		}
	}
}

// missing reports a missing key.
func (s *section) missing(k *key) {
	if !k.required {
		return
	}
	if k.oneOf == "" {
		s.errorf(k.name, "is required")
		return
	}
	var names []string
	for _, other := range s.table {
		if other.oneOf == k.oneOf {
			names = append(names, other.name)
		}
	}
	if k.name != names[0] { // reported once
		return
	}
	for _, name := range names {
		if s.at[name] != nil {
			return
		}
	}
	last := len(names) - 1
	s.errorf(k.oneOf, "one of %s and %s is required", strings.Join(names[:last], ", "), names[last])
}

// check returns whether a value has the form that the table asks for, and reports a fault if
// not. A key needs a value: a template whose variable is not set leaves null, "" or {}, and
// treating that as a key that was left out could remove a restriction.
func (s *section) check(k *key, node *yaml.Node) bool {
	if isNull(node) {
		s.errorf(k.name, "has no value: %s", k.mend("write one"))
		return false
	}
	if k.oneOf != "" {
		for _, other := range s.table {
			if other.oneOf == k.oneOf && other.name != k.name && s.at[other.name] != nil {
				if s.at[other.name].Line < s.at[k.name].Line || s.at[other.name].Line == s.at[k.name].Line && s.at[other.name].Column < s.at[k.name].Column {
					s.errorf(k.name, "only one of %s, %s may be given", other.name, k.name)
				}
				return false
			}
		}
	}
	switch k.value {
	case mapping:
		return s.checkSection(k, node)
	case mappings, texts, policies:
		return s.checkList(k, node)
	case tags:
		return s.checkTags(k, node)
	case policy:
		return s.checkPolicy(k, node)
	default:
		return s.checkScalar(k, node)
	}
}

func (s *section) checkSection(k *key, node *yaml.Node) bool {
	if node.Kind == yaml.MappingNode && len(node.Content) == 0 && !k.none {
		s.errorf(k.name, "is empty: %s", k.mend("write what belongs there"))
		return false
	}
	s.subs[k.name] = s.file.open(node, s.path(k.name), k.keys)
	return node.Kind == yaml.MappingNode
}

func (s *section) checkList(k *key, node *yaml.Node) bool {
	if node.Kind != yaml.SequenceNode {
		s.errorf(k.name, "is %s, want a list", kindOf(node))
		return false
	}
	if len(node.Content) == 0 && !k.none {
		s.errorf(k.name, "is required: the list is empty")
		return false
	}
	for i, item := range node.Content {
		item, name := dealias(item), fmt.Sprintf("%s[%d]", s.path(k.name), i)
		s.file.lines[name] = item.Line
		switch {
		case isNull(item):
			s.file.errorf(item, name, "has no value: write one, or leave the item out")
			s.file.faults[len(s.file.faults)-1].policy = k.value == policies
		case k.value == mappings:
			s.items[k.name] = append(s.items[k.name], s.file.open(item, name, k.keys))
		case k.value == texts && (item.Kind != yaml.ScalarNode || item.Value == ""):
			s.file.errorf(item, name, "is %s, want a text", kindOf(item))
		case k.value == texts && placeholder.MatchString(item.Value):
			s.file.errorf(item, name, "is %q, %s", item.Value, isPlaceholder)
		}
	}
	return true
}

// checkTags checks a mapping of texts to texts, with at most 50 entries as at AWS. An
// empty text has to be written as "".
func (s *section) checkTags(k *key, node *yaml.Node) bool {
	if node.Kind != yaml.MappingNode {
		s.errorf(k.name, "is %s, want a mapping of keys to values", kindOf(node))
		return false
	}
	spelled := map[string]string{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		at, value := node.Content[i], dealias(node.Content[i+1])
		name := s.path(k.name) + "." + at.Value
		other, known := spelled[iam.FoldKey(at.Value)]
		switch {
		case known && other == at.Value:
			s.file.errorf(at, name, "is duplicated")
		case known:
			s.file.errorf(at, name, "differs from tag %q in case only; condition keys ignore case", other)
		case isNull(value):
			s.file.errorf(at, name, `has no value: write one ("" for an empty one), or leave the tag out`)
		case value.Kind != yaml.ScalarNode:
			s.file.errorf(at, name, "is %s, want a text", kindOf(value))
		case len(at.Value) > 128 || len(value.Value) > 256:
			s.file.errorf(at, name, "a tag's key has at most 128 characters and its value 256")
		}
		spelled[iam.FoldKey(at.Value)] = at.Value
	}
	if n := len(node.Content) / 2; n > 50 {
		s.errorf(k.name, "has %d tags, at most 50 are allowed", n)
	}
	return true
}

// checkPolicy refuses an empty document. The content is checked when it is parsed.
func (s *section) checkPolicy(k *key, node *yaml.Node) bool {
	if node.Kind == yaml.MappingNode && len(node.Content) == 0 || node.Kind == yaml.ScalarNode && strings.TrimSpace(node.Value) == "" {
		s.errorf(k.name, "is empty: %s", k.mend("write a policy document or the path of one"))
		return false
	}
	return true
}

func (s *section) checkScalar(k *key, node *yaml.Node) bool {
	if node.Kind != yaml.ScalarNode {
		s.errorf(k.name, "is %s, want %s", kindOf(node), k.value.wanted())
		return false
	}
	switch k.value {
	case boolean:
		if _, ok := parseBoolean(node); !ok {
			s.errorf(k.name, "is %q, want true or false", node.Value)
			return false
		}
		return true
	case integer:
		if v, err := strconv.ParseInt(node.Value, 10, 64); err != nil || v < k.least || v > k.most {
			s.errorf(k.name, "is %q, want a whole number from %d to %d", node.Value, k.least, k.most)
			return false
		}
		return true
	case seconds:
		least, most := time.Duration(k.least)*time.Second, time.Duration(k.most)*time.Second
		if v, err := parseSeconds(node.Value); err != nil || v < least || v > most {
			s.errorf(k.name, "is %q, want %v to %v, in seconds or with a unit", node.Value, least, most)
			return false
		}
		return true
	}
	switch {
	case strings.TrimSpace(node.Value) == "":
		s.errorf(k.name, "is empty: %s", k.mend("write a value"))
		return false
	case (k.value == text || k.value == path) && placeholder.MatchString(node.Value):
		s.errorf(k.name, "is %q, %s", node.Value, isPlaceholder)
		return false
	case k.pattern != nil && !k.pattern.MatchString(node.Value):
		s.errorf(k.name, "is %q, want %s", node.Value, k.want)
		return false
	case k.value == secretText || k.value == secretEnv || k.value == secretFile:
		return s.soundSecret(k, node.Value)
	}
	return true
}

// soundSecret gets a secret from its environment variable or file, or from the value itself.
func (s *section) soundSecret(k *key, value string) bool {
	switch k.value {
	case secretText:
		s.holdsSecret(k.name)
	case secretEnv:
		found, ok := s.file.getenv(value)
		if !ok || strings.TrimSpace(found) == "" {
			s.errorf(k.name, "the environment variable %s is not set, or empty", value)
			return false
		}
		value = found
	case secretFile:
		path := s.file.resolve(value)
		data, err := s.file.read(path)
		if err != nil && s.file.anySecret {
			value = someSecret
			break
		}
		if err != nil {
			s.errorf(k.name, "%v", err)
			return false
		}
		s.file.judge(s.place(k.name), s.path(k.name), path, filemode.Private)
		found := secretOf(data)
		if strings.TrimSpace(found.Reveal()) == "" {
			s.errorf(k.name, "%s is empty", value)
			return false
		}
		value = found.Reveal()
	}
	if placeholder.MatchString(value) {
		s.errorf(k.name, "is a placeholder that no template has filled in, which anyone can guess: write the secret")
		return false
	}
	s.secrets[k.oneOf] = keyring.Secret(value)
	return true
}

// secretOf returns the secret in a file's content.
func secretOf(data []byte) keyring.Secret {
	return keyring.Secret(strings.TrimRight(string(data), "\r\n"))
}

// holdsSecret notes that a key has a secret written in the file itself.
func (s *section) holdsSecret(name string) {
	if s.file.inline == "" {
		s.file.inline = fmt.Sprintf("%s:%d: %s", s.file.path, s.place(name).Line, s.path(name))
	}
}

func parseBoolean(node *yaml.Node) (v, ok bool) {
	if node.Tag != "!!bool" {
		return false, false
	}
	v, err := strconv.ParseBool(strings.ToLower(node.Value))
	return v, err == nil
}

// parseSeconds reads a number of seconds, or a duration with a unit ("12h").
func parseSeconds(value string) (time.Duration, error) {
	if n, err := strconv.ParseInt(value, 10, 32); err == nil {
		return time.Duration(n) * time.Second, nil
	}
	return time.ParseDuration(value)
}

func (s *section) path(key string) string {
	if s.name == "" {
		return key
	}
	return s.name + "." + key
}

func (s *section) label() string {
	if s.name == "" {
		return "the file"
	}
	return s.name
}

// key returns a key's row in the table, or nil if the table does not have the key.
func (s *section) key(name string) *key {
	for i := range s.table {
		if s.table[i].name == name {
			return &s.table[i]
		}
	}
	return nil
}

// row returns the row of a key that the program reads.
func (s *section) row(name string, kinds ...kind) *key {
	k := s.key(name)
	if k == nil {
		panic("internal error: " + s.path(name) + " is not in the table of keys")
	}
	if slices.Contains(kinds, k.value) {
		s.file.asked[k] = true
		return k
	}
	panic("internal error: " + s.path(name) + " is read as something else than the table of keys says")
}

// has reports whether a key has a sound value.
func (s *section) has(name string) bool { return s.values[name] != nil }

// errorf reports a fault of a key: at the key, or at its section when it is absent.
func (s *section) errorf(name, format string, args ...any) {
	s.file.errorf(s.place(name), s.path(name), format, args...)
	if k := s.key(name); k != nil {
		s.file.faults[len(s.file.faults)-1].policy = k.value == policy || k.value == policies
	}
}

// warnf warns about a key that is valid but probably not intended.
func (s *section) warnf(name, format string, args ...any) {
	s.file.warn(s.place(name), s.path(name), format, args...)
}

func (s *section) place(name string) *yaml.Node {
	if node := s.at[name]; node != nil {
		return node
	}
	return s.node
}
