package dbuser

import (
	"slices"
	"strings"
)

// neverLends reports whether the configuration names the role as one that is not
// lent, as a user or as a group.
func (c *Config) neverLends(name string) bool {
	return slices.ContainsFunc(c.NeverLend, func(pattern string) bool { return matchesName(pattern, name) })
}

// matchesName reports whether a name matches a pattern, in which each * stands for
// any characters.
func matchesName(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	first, last := parts[0], parts[len(parts)-1]
	if len(parts) == 1 {
		return pattern == name
	}
	if !strings.HasPrefix(name, first) || len(name) < len(first)+len(last) || !strings.HasSuffix(name, last) {
		return false
	}
	rest := name[len(first) : len(name)-len(last)]
	for _, part := range parts[1 : len(parts)-1] {
		at := strings.Index(rest, part)
		if at < 0 {
			return false
		}
		rest = rest[at+len(part):]
	}
	return true
}
