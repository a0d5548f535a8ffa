// Package quote writes values for the programs and people that read them: one
// function for each format, and each escapes everything that its format gives a
// meaning to. A value may come from anyone: a server, a database, a policy file.
//
// The formats are a POSIX shell's words, libpq's connection strings
// (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING), its
// URIs, its password file, and a terminal. A value that a format cannot hold is an
// error; it is never dropped or shortened.
//
// Quoting does not decide whether a value makes sense. A host name that looks like a
// socket directory is quoted as it is: check it first.
package quote

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

var errNUL = errors.New("the value contains a NUL byte")

// Shell writes words for a POSIX shell, separated by spaces, and quotes only those that
// need it. The caller has to avoid words that look like options. A NUL byte, which no
// shell word can hold, is an error.
func Shell(words ...string) (string, error) {
	quoted := make([]string, len(words))
	for i, word := range words {
		if strings.IndexByte(word, 0) >= 0 {
			return "", errNUL
		}
		// zsh expands a leading equals sign.
		if plain(word, "/._-+:=@,%") && word[0] != '=' {
			quoted[i] = word
		} else {
			quoted[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " "), nil
}

// MustShell is Shell for words that cannot contain NUL bytes: existing paths, and words of this
// process's own command line. It panics if one does.
func MustShell(words ...string) string {
	line, err := Shell(words...)
	if err != nil {
		panic("internal error: " + err.Error())
	}
	return line
}

// Conninfo writes a value of a libpq connection string of keywords and values.
func Conninfo(value string) (string, error) {
	if strings.IndexByte(value, 0) >= 0 {
		return "", errNUL
	}
	if plain(value, "/._-+:@,%") {
		return value, nil
	}
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'", nil
}

// plain reports whether a word is not empty and contains only ASCII letters, digits and the
// characters in others.
func plain(word, others string) bool {
	for i := range len(word) {
		if !letterOrDigit(word[i]) && strings.IndexByte(others, word[i]) < 0 {
			return false
		}
	}
	return word != ""
}

func letterOrDigit(c byte) bool {
	return 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9'
}

// URI writes one part of a URI: everything but the unreserved characters of RFC 3986
// is percent-encoded. libpq refuses a NUL byte, also an encoded one.
func URI(part string) (string, error) {
	var b strings.Builder
	for i := range len(part) {
		switch c := part[i]; {
		case c == 0:
			return "", errNUL
		case letterOrDigit(c) || strings.IndexByte("-._~", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String(), nil
}

// PassFile writes one line of a libpq password file, without its end: host, port,
// database, user and password. It returns an error for a value that a line cannot hold
// or would give another meaning: control characters, an empty field, a field that is
// the wildcard *, a host that begins like a comment, and space at either end of the
// line, which some readers remove.
func PassFile(host, port, database, user, password string) (string, error) {
	fields := []string{host, port, database, user, password}
	for i, field := range fields {
		switch {
		case field == "" || field == "*":
			return "", fmt.Errorf("a password file cannot hold a field that is %q", field)
		case strings.IndexFunc(field, unicode.IsControl) >= 0 || !utf8.ValidString(field):
			return "", errors.New("a password file cannot hold control characters")
		}
		fields[i] = strings.NewReplacer(`\`, `\\`, `:`, `\:`).Replace(field)
	}
	line := strings.Join(fields, ":")
	if line[0] == '#' || strings.TrimSpace(line) != line {
		return "", errors.New("a line of a password file cannot begin with # or a space, or end with a space")
	}
	return line, nil
}
