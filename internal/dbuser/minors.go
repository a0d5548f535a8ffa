package dbuser

import (
	"fmt"
	"strconv"
	"strings"
)

// minimumMinor is, for each major version, the first minor version on which a session keeps the
// role that ALTER ROLE … SET role gives it. The minor version before that does not apply the
// setting at logon at all (the fix of CVE-2024-10978 was incomplete); older ones drop it at
// DISCARD ALL. 18 and later never had either fault.
var minimumMinor = map[int]int{13: 18, 14: 15, 15: 10, 16: 6, 17: 2}

// MinimumMinors lists the versions, for messages.
const MinimumMinors = "at least 13.18, 14.15, 15.10, 16.6 or 17.2"

// MinorFault returns the known fault of the minor version in a server_version such as
// "15.9 (Debian 15.9-1)", as a predicate. It is empty if there is none.
func MinorFault(version string) string {
	major, minor, ok := parseVersion(version)
	least, old := minimumMinor[major]
	switch {
	case !ok || !old || minor >= least:
		return ""
	case minor == least-1:
		return fmt.Sprintf("does not apply ALTER ROLE … SET role at logon: update to %d.%d or later", major, least)
	default:
		return fmt.Sprintf("drops the role of ALTER ROLE … SET role at DISCARD ALL: update to %d.%d or later", major, least)
	}
}

// parseVersion reads the major and minor version; a beta has no minor version.
func parseVersion(version string) (major, minor int, ok bool) {
	word, _, _ := strings.Cut(version, " ")
	first, second, found := strings.Cut(word, ".")
	if !found {
		return 0, 0, false
	}
	major, err1 := strconv.Atoi(first)
	minor, err2 := strconv.Atoi(second)
	return major, minor, err1 == nil && err2 == nil
}

// LosesRoleAtLogon reports whether the version does not apply the role at logon, so
// that logons without groups are refused.
func LosesRoleAtLogon(version string) bool {
	major, minor, ok := parseVersion(version)
	return ok && minimumMinor[major] > 0 && minor == minimumMinor[major]-1
}
