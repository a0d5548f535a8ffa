package config

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/daypass/daypass/internal/filemode"
	"github.com/daypass/daypass/internal/keyring"
)

// given returns the value of a text key, or its default.
func (s *section) given(k *key) string {
	if node := s.values[k.name]; node != nil {
		return node.Value
	}
	return k.absent
}

// text returns a text, or "" if the key is absent and has no default.
func (s *section) text(name string) string { return s.given(s.row(name, text)) }

// textOr is text for a key whose default the table cannot contain.
func (s *section) textOr(name, absent string) string {
	if value := s.text(name); value != "" {
		return value
	}
	return absent
}

func (s *section) boolean(name string) bool {
	s.row(name, boolean)
	if node := s.values[name]; node != nil {
		v, _ := parseBoolean(node)
		return v
	}
	return false
}

func (s *section) integer(name string) int {
	v, _ := strconv.Atoi(s.given(s.row(name, integer)))
	return v
}

func (s *section) integerOr(name string, absent int) int {
	if !s.has(name) {
		s.row(name, integer)
		return absent
	}
	return s.integer(name)
}

func (s *section) seconds(name string) time.Duration {
	v, _ := parseSeconds(s.given(s.row(name, seconds)))
	return v
}

// filePath returns the absolute path of a file, or "" if the key is absent.
func (s *section) filePath(name string) string {
	if value := s.given(s.row(name, path)); value != "" {
		return s.file.resolve(value)
	}
	return ""
}

// contents reads the file that a key names. It returns nil if the key is absent, or if the
// file cannot be read, which it reports.
func (s *section) contents(name string) []byte {
	file := s.filePath(name)
	if file == "" {
		return nil
	}
	if info, err := os.Stat(file); err == nil && !info.Mode().IsRegular() && (s.key(name).reread || s.key(name).regular) {
		s.errorf(name, "%s %v", file, filemode.ErrNotRegular)
		return nil
	}
	data, err := s.file.read(file)
	if err != nil {
		s.errorf(name, "%v", err)
		return nil
	}
	kind := filemode.Public
	if s.key(name).private {
		kind = filemode.Private
	}
	s.file.judge(s.place(name), s.path(name), file, kind)
	return data
}

func (s *section) texts(name string) []string {
	s.row(name, texts)
	var values []string
	for _, item := range s.list(name) {
		if item.Kind == yaml.ScalarNode && item.Value != "" && !isNull(item) {
			values = append(values, item.Value)
		}
	}
	return values
}

// list returns the items of a list.
func (s *section) list(name string) []*yaml.Node {
	node := s.values[name]
	if node == nil {
		return nil
	}
	items := make([]*yaml.Node, len(node.Content))
	for i, item := range node.Content {
		items[i] = dealias(item)
	}
	return items
}

// sections returns the mappings of a list.
func (s *section) sections(name string) []*section {
	s.row(name, mappings)
	return s.items[name]
}

// sub returns the mapping under a key, or nil if the key is absent.
func (s *section) sub(name string) *section {
	s.row(name, mapping)
	return s.subs[name]
}

// subOrDefaults is sub, but returns an empty section if the key is absent.
func (s *section) subOrDefaults(name string) *section {
	if sub := s.sub(name); sub != nil {
		return sub
	}
	return &section{file: s.file, name: s.path(name), node: s.node, table: s.key(name).keys}
}

func (s *section) tags(name string) map[string]string {
	s.row(name, tags)
	node := s.values[name]
	if node == nil {
		return nil
	}
	values := make(map[string]string, len(node.Content)/2)
	for i := 0; i+1 < len(node.Content); i += 2 {
		values[node.Content[i].Value] = dealias(node.Content[i+1]).Value
	}
	return values
}

// secret returns a secret, and which of its keys gave it.
func (s *section) secret(name string) (secret keyring.Secret, from string) {
	for i := range s.table {
		if k := &s.table[i]; k.oneOf == name {
			s.file.asked[k] = true
			if s.has(k.name) {
				from = k.name
			}
		}
	}
	return s.secrets[name], from
}

// suggest returns the key that was probably meant.
func (s *section) suggest(name string) string {
	plain := func(k string) string { return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(k)) }
	for _, k := range s.table {
		if a, b := plain(k.name), plain(name); a == b || a+"s" == b || a == b+"s" {
			return fmt.Sprintf("; did you mean %s?", k.name)
		}
	}
	return ""
}
