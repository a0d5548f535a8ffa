package config

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Reference is docs/configuration.md: every key, section by section.
func Reference() []byte {
	var b bytes.Buffer
	b.WriteString(`# The configuration file

Made by ` + "`make docs`" + ` from the table that the server reads the file by; do not edit it. [daypass.yaml](daypass.yaml) is a
whole file with comments, ` + "`daypass init`" + ` writes one to begin with, ` + "`daypass config check`" + ` finds the faults of one, and
` + "`daypass config schema`" + ` prints a JSON schema for editors:

` + "```yaml" + `
# yaml-language-server: $schema=daypass.schema.json
` + "```" + `

A key that is there needs a value: null and ` + "`\"\"`" + ` are errors, and so is an empty list or section, except where "may be empty"
stands. A duration is a number of seconds or has units (` + "`90s`, `12h`, `1h30m`" + `). Relative paths start at the file's directory.
Each key says what it takes to put a change in force: nothing but the change of the file (at once), new administrative
connections (at once too; sessions go on), or a restart: a reload that changes such a key is refused.

`)
	writeSection(&b, "", fileKeys)
	return b.Bytes()
}

func writeSection(b *bytes.Buffer, path string, table []key) {
	if path == "" {
		b.WriteString("## The file\n\n")
	} else {
		fmt.Fprintf(b, "## `%s`\n\n", path)
	}
	b.WriteString("| key | value | left out | a change | |\n| --- | --- | --- | --- | --- |\n")
	for i := range table {
		k := &table[i]
		fmt.Fprintf(b, "| `%s` | %s | %s | %s | %s |\n", k.name, k.valueText(), k.leftOut(), k.changeText(), strings.ReplaceAll(k.doc, "|", `\|`))
	}
	b.WriteByte('\n')
	for i := range table {
		switch k := &table[i]; k.value {
		case mapping:
			writeSection(b, under(path, k.name), k.keys)
		case mappings:
			writeSection(b, under(path, k.name)+"[]", k.keys)
		}
	}
}

func under(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// Paths returns the path of every key as messages write it, such as "api.tls.certificate". The
// elements of a list have no index: "clusters.identifier".
func Paths() []string {
	var paths []string
	var walk func(above string, table []key)
	walk = func(above string, table []key) {
		for i := range table {
			path := under(above, table[i].name)
			paths = append(paths, path)
			walk(path, table[i].keys)
		}
	}
	walk("", fileKeys)
	return paths
}

// valueText describes the value.
func (k *key) valueText() string {
	empty := ""
	if k.none {
		empty = ", may be empty"
	}
	switch k.value {
	case boolean:
		return "`true` or `false`"
	case integer:
		return grouped(k.least) + " to " + grouped(k.most)
	case seconds:
		return fmt.Sprintf("%s to %s", duration(k.least), duration(k.most))
	case path, secretFile:
		return "path"
	case secretEnv:
		return "name of a variable"
	case secretText:
		return "secret"
	case policy:
		return "policy"
	case texts:
		return "list of texts" + empty
	case policies:
		return "list of policies" + empty
	case tags:
		return "texts by name" + empty
	case mapping:
		return "section" + empty
	case mappings:
		return "list of sections" + empty
	}
	if k.want != "" && k.pattern != nil && len(k.want) < 60 {
		return k.want
	}
	return "text"
}

// grouped writes a number with commas.
func grouped(n int64) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func duration(n int64) string {
	if n == inSeconds(year) {
		return "a year"
	}
	return strings.TrimSuffix(strings.TrimSuffix((time.Duration(n)*time.Second).String(), "0s"), "0m")
}

func (k *key) leftOut() string {
	switch {
	case k.oneOf != "" && k.required:
		return "one of these is required"
	case k.required:
		return "**required**"
	case k.absent != "":
		return "`" + k.absent + "`"
	case k.unset != "":
		return k.unset
	case k.value == mapping:
		return "as if its keys were left out"
	default:
		return "none"
	}
}

func (k *key) changeText() string {
	switch k.change {
	case live:
		return "at once"
	case reconnect:
		return "reconnects"
	default:
		return "**restart**"
	}
}
