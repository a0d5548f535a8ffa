package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// canonical calls put for each key of a table that has change c, with its value in a normal
// form, so that files with the same meaning give the same values. s is nil for an absent
// section, whose keys have their defaults. Secrets, and files that are read once, are
// represented by a hash of their content.
//
// The table says for each key what it takes to put a change in force, so a reload needs no second
// list of keys.
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

// canonical returns the value of one key. For a section it only shows that the section exists.
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

// hidden is the prefix of values that are not shown.
const hidden = "sha256:"

// normal returns the normal form of a value that can be written in several ways.
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

// flatten writes a node's content without its layout.
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

// fingerprint returns a hash of the section's keys with one of these changes.
func (s *section) fingerprint(changes ...change) hash.Hash {
	h := sha256.New()
	for _, c := range changes {
		canonical(s.table, s, "", c, func(key, value string) { fmt.Fprintf(h, "%q=%q\n", key, value) })
	}
	return h
}

// ownKeys are the keys that may differ between the servers of one installation: addresses,
// paths and certificates.
var ownKeys = []string{"data", "api.listen", "api.tls", "gateway.listen", "gateway.tls", "gateway.advertise", "admin", "metrics", "tracing", "registry", "root_key", "peers"}

// filesPart is the part of the configuration that is in the JSON documents that the file names.
const filesPart = "files"

// common returns a hash of all keys but ownKeys, and hashes of the parts that the file sets, by
// the names that part returns. A file counts by its content, not its path.
func common(top *section) (all [sha256.Size]byte, parts map[string][sha256.Size]byte) {
	lines := map[string][]string{} // by part
	for _, c := range []change{live, reconnect, restart} {
		canonical(top.table, top, "", c, func(name, value string) {
			for _, own := range ownKeys {
				if name == own || strings.HasPrefix(name, own+".") {
					return
				}
			}
			if _, sum, ok := strings.Cut(value, " "+hidden); ok {
				value = sum
			}
			of := part(name)
			lines[of] = append(lines[of], fmt.Sprintf("%q=%q", name, value))
		})
	}
	given := map[string]bool{filesPart: true}
	for name := range top.values {
		given[name] = true
	}
	for _, cluster := range top.items["clusters"] {
		for name := range cluster.values {
			given["clusters."+name] = true
		}
	}
	for path, read := range top.file.files {
		if strings.HasSuffix(path, ".json") { // a policy document, or keys of an identity provider
			lines[filesPart] = append(lines[filesPart], hex.EncodeToString(read.file.Sum[:]))
		}
	}
	var whole []string
	parts = map[string][sha256.Size]byte{}
	for name, some := range lines {
		whole = append(whole, some...)
		slices.Sort(some)
		if given[name] {
			parts[name] = sha256.Sum256([]byte(strings.Join(some, "\n")))
		}
	}
	slices.Sort(whole)
	return sha256.Sum256([]byte(strings.Join(whole, "\n"))), parts
}

// part returns the part of the configuration that a key is in: the key at the top of the file, and
// for clusters the key of the cluster too, such as clusters.session_limits.
func part(name string) string {
	first := func(name string) string {
		if i := strings.IndexAny(name, ".["); i >= 0 {
			return name[:i]
		}
		return name
	}
	if top, rest, found := strings.Cut(name, "]."); found && strings.HasPrefix(top, "clusters[") {
		return "clusters." + first(rest)
	}
	return first(name)
}

// Quote writes a text as a value of the configuration file: in single quotes, with single
// quotes inside doubled. Line breaks are not preserved.
func Quote(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
