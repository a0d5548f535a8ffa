// Package pgsql writes parts of SQL statements: identifiers, strings, and the values
// of settings as PostgreSQL stores them. It is text in, text out.
//
// The connections that the statements run on have standard_conforming_strings on
// (internal/adminconn), so that a backslash is a backslash.
package pgsql

import (
	"fmt"
	"strings"
)

// Ident quotes an identifier. NUL bytes, which no name in PostgreSQL can have, are
// left out.
func Ident(name string) string {
	return `"` + strings.ReplaceAll(strings.ReplaceAll(name, "\x00", ""), `"`, `""`) + `"`
}

// Idents quotes names as SQL identifiers, in a list.
func Idents(names []string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = Ident(name)
	}
	return strings.Join(quoted, ", ")
}

// Literal quotes a string. NUL bytes, which PostgreSQL's strings cannot hold, are left
// out.
func Literal(s string) string {
	return "'" + strings.ReplaceAll(strings.ReplaceAll(s, "\x00", ""), "'", "''") + "'"
}

// BodyLiteral is Literal for the inside of a dollar-quoted body, which a dollar sign
// in the string could end.
func BodyLiteral(s string) string {
	if strings.Contains(s, "$") {
		return "convert_from(decode('" + fmt.Sprintf("%x", s) + "', 'hex'), 'UTF8')"
	}
	return Literal(s)
}

// Names lists names in a message, the first five of many.
func Names(names []string) string {
	const most = 5
	quoted := make([]string, 0, most)
	for _, n := range names[:min(len(names), most)] {
		quoted = append(quoted, fmt.Sprintf("%q", n))
	}
	text := strings.Join(quoted, ", ")
	if len(names) > most {
		text += fmt.Sprintf(" and %d more", len(names)-most)
	}
	return text
}
