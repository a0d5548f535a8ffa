package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/daypass/daypass/internal/iam"
	"github.com/daypass/daypass/internal/keyring"
)

// yamlFile reads one YAML document strictly: a key that nobody asked for, a key
// that is there twice, or a value of the wrong form is an error with file, line
// and key. It goes on after an error, so that one run names all of them.
type yamlFile struct {
	path   string // as given, for messages
	dir    string // what relative paths in the file start from
	getenv func(string) (string, bool)
	errs   []error
}

func (f *yamlFile) errorf(node *yaml.Node, key, format string, args ...any) {
	f.errs = append(f.errs, fmt.Errorf("%s:%d: %s: %s", f.path, node.Line, key, fmt.Sprintf(format, args...)))
}

func (f *yamlFile) err() error { return errors.Join(f.errs...) }

// resolve makes a path of the file absolute: relative ones start at the file's
// own directory, so that a configuration means the same wherever the server was
// started.
func (f *yamlFile) resolve(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(f.dir, path)
}

// section is one mapping of the file. Every getter marks its key as known;
// done reports the others.
type section struct {
	file *yamlFile
	name string // "clusters[0]", empty at the top
	node *yaml.Node
	keys map[string]*yaml.Node // the values
	at   map[string]*yaml.Node // the keys themselves
	used map[string]bool
}

func (f *yamlFile) section(node *yaml.Node, name string) *section {
	s := &section{file: f, name: name, node: node, keys: map[string]*yaml.Node{}, at: map[string]*yaml.Node{}, used: map[string]bool{}}
	if node.Kind != yaml.MappingNode {
		f.errorf(node, s.label(), "is %s, want a mapping of keys to values", kindOf(node))
		return s
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], dealias(node.Content[i+1])
		if _, twice := s.keys[key.Value]; twice {
			f.errorf(key, s.path(key.Value), "is there twice")
			continue
		}
		s.keys[key.Value], s.at[key.Value] = value, key
	}
	return s
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

// get is the value of a key; absent and null are both nil.
func (s *section) get(key string) *yaml.Node {
	s.used[key] = true
	node := s.keys[key]
	if node == nil || node.Kind == yaml.ScalarNode && node.Tag == "!!null" {
		return nil
	}
	return node
}

func (s *section) has(key string) bool { return s.get(key) != nil }

func (s *section) errorf(key, format string, args ...any) {
	node := s.at[key]
	if node == nil {
		node = s.node
	}
	s.file.errorf(node, s.path(key), format, args...)
}

func (s *section) text(key, absent string) string {
	node := s.get(key)
	if node == nil {
		return absent
	}
	if node.Kind != yaml.ScalarNode {
		s.errorf(key, "is %s, want a text", kindOf(node))
		return absent
	}
	return node.Value
}

// required is text that must be there and not be empty.
func (s *section) required(key string) string {
	value := s.text(key, "")
	if value == "" && (s.at[key] == nil || s.get(key) == nil || s.get(key).Kind == yaml.ScalarNode) {
		s.errorf(key, "is required")
	}
	return value
}

// missing reports a section that must be there: one that is empty lacks the key
// without which it is none.
func (s *section) missing(section, key string) {
	if s.at[section] != nil {
		s.file.errorf(s.at[section], s.path(section)+"."+key, "is required")
	} else {
		s.errorf(section, "is required")
	}
}

// first is the first of the keys that is there.
func (s *section) first(keys ...string) string {
	for _, key := range keys {
		if s.at[key] != nil {
			return key
		}
	}
	return keys[0]
}

func (s *section) boolean(key string) bool {
	node := s.get(key)
	if node == nil {
		return false
	}
	if node.Kind == yaml.ScalarNode && node.Tag == "!!bool" {
		if v, err := strconv.ParseBool(strings.ToLower(node.Value)); err == nil {
			return v
		}
	}
	s.errorf(key, "is %q, want true or false", node.Value)
	return false
}

func (s *section) integer(key string, absent, least, most int) int {
	node := s.get(key)
	if node == nil {
		return absent
	}
	v, err := strconv.Atoi(node.Value)
	if node.Kind != yaml.ScalarNode || err != nil || v < least || v > most {
		s.errorf(key, "is %q, want a whole number from %d to %d", node.Value, least, most)
		return absent
	}
	return v
}

// seconds is a duration written as a number of seconds or with a unit ("12h").
func (s *section) seconds(key string, absent, least, most time.Duration) time.Duration {
	node := s.get(key)
	if node == nil {
		return absent
	}
	v, err := time.ParseDuration(node.Value)
	if n, atoiErr := strconv.Atoi(node.Value); atoiErr == nil {
		v, err = time.Duration(n)*time.Second, nil
	}
	if node.Kind != yaml.ScalarNode || err != nil || v < least || v > most {
		s.errorf(key, "is %q, want %v to %v, in seconds or with a unit", node.Value, least, most)
		return absent
	}
	return v
}

// list is the items of a sequence; a key that is absent has none.
func (s *section) list(key string) []*yaml.Node {
	node := s.get(key)
	if node == nil {
		return nil
	}
	if node.Kind != yaml.SequenceNode {
		s.errorf(key, "is %s, want a list", kindOf(node))
		return nil
	}
	items := make([]*yaml.Node, len(node.Content))
	for i, item := range node.Content {
		items[i] = dealias(item)
	}
	return items
}

func (s *section) texts(key string) []string {
	var values []string
	for i, item := range s.list(key) {
		if item.Kind != yaml.ScalarNode || item.Value == "" {
			s.file.errorf(item, fmt.Sprintf("%s[%d]", s.path(key), i), "is %s, want a text", kindOf(item))
			continue
		}
		values = append(values, item.Value)
	}
	return values
}

// sections are the mappings of a list.
func (s *section) sections(key string) []*section {
	var list []*section
	for i, item := range s.list(key) {
		list = append(list, s.file.section(item, fmt.Sprintf("%s[%d]", s.path(key), i)))
	}
	return list
}

// sub is the mapping under a key, nil when the key is absent.
func (s *section) sub(key string) *section {
	node := s.get(key)
	if node == nil {
		return nil
	}
	return s.file.section(node, s.path(key))
}

// tags is a mapping of texts to texts, at most 50 as at AWS.
func (s *section) tags(key string) map[string]string {
	sub := s.sub(key)
	if sub == nil {
		return nil
	}
	tags := make(map[string]string, len(sub.keys))
	spelled := make(map[string]string, len(sub.keys))
	for name := range sub.keys {
		value := sub.text(name, "")
		if len(name) > 128 || len(value) > 256 {
			sub.errorf(name, "a tag's key has at most 128 characters and its value 256")
		}
		if other, ok := spelled[iam.FoldKey(name)]; ok {
			sub.errorf(name, "differs from tag %q in case only; condition keys ignore case", other)
		}
		tags[name], spelled[iam.FoldKey(name)] = value, name
	}
	if len(tags) > 50 {
		s.errorf(key, "has %d tags, at most 50 are allowed", len(tags))
	}
	return tags
}

// secret reads KEY_env, KEY_file or, where inline allows it, KEY itself. At
// most one of them may be there.
func (s *section) secret(key, envKey, fileKey string, inline bool) (keyring.Secret, bool) {
	var given []string
	for _, k := range []string{envKey, fileKey, key} {
		if s.at[k] != nil && (k != key || inline) {
			given = append(given, k)
		}
	}
	s.known(given...)
	if len(given) > 1 {
		s.errorf(given[1], "only one of %s may be given", strings.Join(given, ", "))
		return "", false
	}
	if name := s.text(envKey, ""); name != "" {
		value, ok := s.file.getenv(name)
		if !ok || value == "" {
			s.errorf(envKey, "the environment variable %s is not set", name)
			return "", false
		}
		return keyring.Secret(value), true
	}
	if path := s.text(fileKey, ""); path != "" {
		data, err := os.ReadFile(s.file.resolve(path))
		if err != nil {
			s.errorf(fileKey, "%v", err)
			return "", false
		}
		value := strings.TrimRight(string(data), "\r\n")
		if value == "" {
			s.errorf(fileKey, "%s is empty", path)
			return "", false
		}
		return keyring.Secret(value), true
	}
	if inline {
		if value := s.text(key, ""); value != "" {
			return keyring.Secret(value), true
		}
	}
	return "", false
}

// known marks keys that are not read because of a fault elsewhere.
func (s *section) known(keys ...string) {
	for _, key := range keys {
		s.used[key] = true
	}
}

// done reports the keys that nothing asked for.
func (s *section) done() {
	if s.node.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(s.node.Content); i += 2 {
		key := s.node.Content[i]
		if !s.used[key.Value] {
			s.file.errorf(key, s.path(key.Value), "is not a key of the configuration%s", s.suggest(key.Value))
		}
	}
}

// suggest names the known key that was probably meant.
func (s *section) suggest(key string) string {
	plain := func(k string) string { return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(k)) }
	for known := range s.used {
		if a, b := plain(known), plain(key); a == b || a+"s" == b || a == b+"s" {
			return fmt.Sprintf("; did you mean %s?", known)
		}
	}
	return ""
}

func dealias(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

func kindOf(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		if node.Tag == "!!null" {
			return "empty"
		}
		return "a single value"
	default:
		return "something else"
	}
}

// readable reports a file that cannot be opened.
func (s *section) readable(key, path string) bool {
	file, err := os.Open(path)
	if err != nil {
		s.errorf(key, "%v", err)
		return false
	}
	file.Close()
	return true
}
