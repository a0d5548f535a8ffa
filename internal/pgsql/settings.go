package pgsql

import (
	"slices"
	"strings"
)

// listSettings hold lists of names. PostgreSQL stores each element quoted as an
// identifier, so it has to be taken apart before it is written again: one
// string would become one name. Extensions cannot add to these.
var listSettings = []string{
	"local_preload_libraries", "search_path", "session_preload_libraries",
	"shared_preload_libraries", "temp_tablespaces", "unix_socket_directories",
}

// IsList reports whether the value of a setting is a list of names.
func IsList(name string) bool { return slices.Contains(listSettings, strings.ToLower(name)) }

// Assignment renders "name = value" for ALTER ROLE SET from the stored form.
func Assignment(name, value string) string {
	var b strings.Builder
	b.WriteString(SettingName(name))
	b.WriteString(" = ")
	if !IsList(name) {
		b.WriteString(Literal(value))
		return b.String()
	}
	for i, element := range SplitList(value) {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(Literal(element))
	}
	return b.String()
}

// SettingName quotes each part of a name such as work_mem or audit.level.
func SettingName(name string) string {
	parts := strings.Split(name, ".")
	for i, p := range parts {
		parts[i] = Ident(p)
	}
	return strings.Join(parts, ".")
}

// SplitList takes a list apart as PostgreSQL stores it: elements separated by
// commas, each a plain name or one in double quotes. It returns at least one element.
func SplitList(value string) []string {
	var elements []string
	for rest := value; ; {
		rest = strings.TrimLeft(rest, " \t\n\r\f\v")
		var element strings.Builder
		if strings.HasPrefix(rest, `"`) {
			rest = rest[1:]
			for {
				i := strings.IndexByte(rest, '"')
				if i < 0 { // never stored; taken as it stands
					element.WriteString(rest)
					rest = ""
					break
				}
				element.WriteString(rest[:i])
				rest = rest[i+1:]
				if !strings.HasPrefix(rest, `"`) {
					break
				}
				element.WriteByte('"')
				rest = rest[1:]
			}
			_, rest = cutAtComma(rest)
		} else {
			var name string
			name, rest = cutAtComma(rest)
			element.WriteString(strings.TrimSpace(name))
		}
		elements = append(elements, element.String())
		if rest == "" {
			return elements
		}
		rest = rest[1:]
	}
}

// cutAtComma cuts before the next comma, which stays in the rest.
func cutAtComma(s string) (before, rest string) {
	if i := strings.IndexByte(s, ','); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}
