package api

import (
	"strings"

	"github.com/daypass/daypass/internal/iam"
)

// recordable returns what a parameter's value has to look like to be written to the
// audit log as it is. It is looser than what the action takes, so that a name that is
// refused for another reason can be read in the log, but whatever is written is short
// and plain. A parameter without a rule here is recorded by its length, and so are
// documents.
func recordable(parameter string) func(string) bool {
	switch parameter {
	case "DbUser":
		// Also as a logon calls it: IAMA:alice:analysts, IAM:a=b.
		return short(256, "_+.@-:=,")
	case "DbName", "DbGroups":
		return short(64, "_+.@-:=,")
	case "ClusterIdentifier":
		return short(63, "._-")
	case "CustomDomainName":
		return short(253, "._-")
	case "DurationSeconds", "MaxRecords", "MaxItems":
		return short(11, "-")
	case "AutoCreate":
		return short(5, "")
	case "CredentialId", "SessionId":
		return short(64, "-_")
	case "IssuedBefore":
		return short(40, ":.+-")
	case "Marker":
		return short(1024, "+/=-_")
	case "Principal", "CustomDomainCertificateArn", "CallerArn", "ResourceOwner":
		return isPlainARN
	case "ResourceArns":
		return func(value string) bool { return value == "*" || isPlainARN(value) }
	case "ActionNames":
		return short(128, ":*?-")
	case "TagKeys", "TagValues", "TransitiveTagKeys":
		return func(value string) bool { return tagValue.check("", value) == nil }
	}
	return func(string) bool { return false }
}

// short accepts up to most ASCII letters, digits and others.
func short(most int, others string) func(string) bool {
	allowed := wordOr(others)
	return func(value string) bool {
		return len(value) <= most && !strings.ContainsFunc(value, func(r rune) bool { return !allowed(r) })
	}
}

// isPlainARN accepts ARNs of printable ASCII, as long as AWS has them.
func isPlainARN(value string) bool {
	if len(value) > arnText.max || strings.ContainsFunc(value, func(r rune) bool { return r < '!' || r > '~' }) {
		return false
	}
	_, err := iam.ParseARN(value)
	return err == nil
}
