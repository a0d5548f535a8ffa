package api

import (
	"strings"

	"github.com/daypass/daypass/internal/iam"
)

// recordable returns the test for values of a parameter that are written to the audit
// log as they are. It accepts more than the action does, so that most refused names can
// be read in the log, but only values that are short and have no special characters.
// Parameters without a test, and documents, are recorded by their length.
func recordable(parameter string) func(string) bool {
	if valid, ok := recordables[parameter]; ok {
		return valid
	}
	return isNothing
}

func isNothing(string) bool { return false }

// recordables does not change.
var recordables = map[string]func(string) bool{
	"DbUser":                     short(256, "_+.@-:=,"), // also the name at logon: IAMA:alice:analysts, IAM:a=b
	"DbName":                     short(64, "_+.@-:=,"),
	"DbGroups":                   short(64, "_+.@-:=,"),
	"ClusterIdentifier":          short(63, "._-"),
	"CustomDomainName":           short(253, "._-"),
	"CustomDomainCertificateArn": isPlainARN,
	"DurationSeconds":            short(11, "-"),
	"AutoCreate":                 short(5, ""),
	"MaxRecords":                 short(11, "-"),
	"MaxItems":                   short(11, "-"),
	"Marker":                     short(1024, "+/=-_"),
	"TagKeys":                    isTagText,
	"TagValues":                  isTagText,
	"TransitiveTagKeys":          isTagText,
	"CredentialId":               short(64, "-_"),
	"SessionId":                  short(64, "-_"),
	"Principal":                  isPlainARN,
	"IssuedBefore":               short(40, ":.+-"),
	"CallerArn":                  isPlainARN,
	"ResourceOwner":              isPlainARN,
	"ResourceArns":               func(value string) bool { return value == "*" || isPlainARN(value) },
	"ActionNames":                short(128, ":*?-"),
}

// fieldNames has the fieldName of each parameter in recordables. It does not change.
var fieldNames = func() map[string]string {
	names := make(map[string]string, len(recordables))
	for name := range recordables {
		names[name] = lowerCamel(name)
	}
	return names
}()

func isTagText(value string) bool { return tagValue.check("", value) == nil }

// short accepts up to most ASCII letters, digits and characters of others.
func short(most int, others string) func(string) bool {
	return func(value string) bool {
		if len(value) > most {
			return false
		}
		for i := 0; i < len(value); i++ {
			if c := value[i]; !isLetter(c) && (c < '0' || c > '9') && strings.IndexByte(others, c) < 0 {
				return false
			}
		}
		return true
	}
}

// isPlainARN accepts ARNs of printable ASCII up to AWS's maximum length.
func isPlainARN(value string) bool {
	if len(value) > arnText.max || strings.ContainsFunc(value, func(r rune) bool { return r < '!' || r > '~' }) {
		return false
	}
	_, err := iam.ParseARN(value)
	return err == nil
}

// isAction accepts texts that may be the name of an action.
var isAction = short(128, "")
