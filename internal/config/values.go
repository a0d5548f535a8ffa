package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// canonical hands over every key of a table whose change takes what c says, with
// its value in one form: two files that mean the same have the same values. s is nil
// for a section that is absent, whose keys have their defaults. Secrets, and files
// that are read once, count with what is in them, as a hash.
//
// That a reload compares is not written down twice: what a new key takes is in the
// table, and there is no other list.
func canonical(table []key, s *section, prefix string, c change, put func(key, value string)) {
	for i := range table {
		k := &table[i]
		name := prefix + k.name
		if k.change == c && k.value != mappings {
			put(name, s.canonical(k))
		}
		switch {
		case k.value == mapping && s != nil:
			canonical(k.keys, s.subs[k.name], name+".", c, put)
		case k.value == mapping:
			canonical(k.keys, nil, name+".", c, put)
		case k.value == mappings && s != nil:
			for i, item := range s.items[k.name] {
				canonical(k.keys, item, fmt.Sprintf("%s[%d].", name, i), c, put)
			}
		}
	}
}

// canonical is one value. That of a section only says that it is there.
func (s *section) canonical(k *key) string {
	if s == nil || s.values[k.name] == nil {
		return normal(k, k.absent)
	}
	node := s.values[k.name]
	switch k.value {
	case mapping:
		return "given"
	case secretText, secretEnv, secretFile:
		sum := sha256.Sum256([]byte(s.secrets[k.oneOf]))
		return hidden + hex.EncodeToString(sum[:])
	case path:
		file := s.file.resolve(node.Value)
		if k.reread {
			return file
		}
		sum := s.file.sum(file)
		return file + " " + hidden + hex.EncodeToString(sum[:])
	case texts, tags, policy, policies:
		var b strings.Builder
		flatten(&b, node)
		return b.String()
	default:
		return normal(k, node.Value)
	}
}

// hidden begins what is no value to show.
const hidden = "sha256:"

// normal writes a value that can be spelled in several ways in one of them.
func normal(k *key, value string) string {
	switch k.value {
	case boolean:
		return strings.ToLower(value)
	case integer:
		if n, err := strconv.ParseInt(value, 10, 64); err == nil {
			return strconv.FormatInt(n, 10)
		}
	case seconds:
		if d, err := parseSeconds(value); err == nil {
			return d.String()
		}
	}
	return value
}

// flatten writes a node without its layout.
func flatten(b *strings.Builder, node *yaml.Node) {
	node = dealias(node)
	if node.Kind == yaml.ScalarNode {
		b.WriteString(strconv.Quote(node.Value))
		return
	}
	b.WriteByte('[')
	for i, child := range node.Content {
		if i > 0 {
			b.WriteByte(' ')
		}
		flatten(b, child)
	}
	b.WriteByte(']')
}

// fingerprint is a hash of the keys of a section whose change takes one of these.
func (s *section) fingerprint(changes ...change) hash.Hash {
	h := sha256.New()
	for _, c := range changes {
		canonical(s.table, s, "", c, func(key, value string) { fmt.Fprintf(h, "%q=%q\n", key, value) })
	}
	return h
}

// Quote writes a text as a value of the configuration file: in single quotes, which are
// doubled inside. A line break does not survive it.
func Quote(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
