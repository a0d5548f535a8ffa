package iam

import (
	"slices"
	"strings"
)

// globalKey is a condition key that every action has.
type globalKey struct {
	name string // a key that ends in / is a prefix
	test test   // the type of the key's values; testString stands for any text operator
	list bool
}

// globalKeys is a constant: the keys of UG reference_policies_condition-keys and
// reference_policies_iam-condition-keys that Daypass fills, in lower case.
var globalKeys = [...]globalKey{
	{"aws:username", testString, false},
	{"aws:userid", testString, false},
	{"aws:principalarn", testARN, false},
	{"aws:principalaccount", testString, false},
	{"aws:principaltype", testString, false},
	{"aws:principaltag/", testString, false},
	{"aws:requesttag/", testString, false},
	{"aws:resourcetag/", testString, false},
	{"aws:tagkeys", testString, true},
	{"aws:sourceip", testAddress, false},
	{"aws:currenttime", testDate, false},
	{"aws:epochtime", testDate, false},
	{"aws:tokenissuetime", testDate, false},
	{"aws:securetransport", testBool, false},
	{"aws:multifactorauthpresent", testBool, false},
	{"aws:multifactorauthage", testNumber, false},
	{"aws:requestedregion", testString, false},
	{"aws:useragent", testString, false},
	{"aws:referer", testString, false},
	{"aws:viaawsservice", testBool, false},
	{"aws:principalisawsservice", testBool, false},
	{"aws:federatedprovider", testString, false},
	{"aws:sourceidentity", testString, false},
	{"sts:transitivetagkeys", testString, true},
}

func findGlobalKey(key string) (globalKey, bool) {
	for _, g := range globalKeys {
		if isKey(g.name, key) {
			return g, true
		}
	}
	return globalKey{}, false
}

// isKey reports whether a key is the known key. A known key that ends in / is a prefix, and key
// must be longer than it. Both are in the form of lowerKey.
func isKey(known, key string) bool {
	if strings.HasSuffix(known, "/") {
		return strings.HasPrefix(key, known) && len(key) > len(known)
	}
	return key == known
}

func (l *linter) conditions(s *statement) {
	for i := range s.unfilled {
		e := &s.unfilled[i]
		switch {
		case len(s.conditions) > 0:
			l.warn(e.at, e.path(), "the operator has no condition keys, so it has no effect; remove it or fill it in")
		case s.allow:
			l.warn(e.at, e.path(), "the condition is empty, so the statement allows without any; remove it or fill it in")
		default:
			l.warn(e.at, e.path(), "the condition is empty, so the statement always denies; remove it or fill it in")
		}
	}
	for i := range s.conditions {
		c := &s.conditions[i]
		l.key(s, c.at, c.path(), c.key, c.name, c.absence(s))
		l.conditionSet(s, c)
		l.conditionValues(s, c)
	}
}

// key warns of condition keys that requests for the statement's actions never have, and
// describes the consequence.
func (l *linter) key(s *statement, at Position, path, key, name, consequence string) {
	service, _, found := strings.Cut(key, ":")
	if _, known := findGlobalKey(key); known && service == "aws" {
		return
	}
	switch {
	case !found:
		l.warn(at, path, "%s is no condition key; %s", name, consequence)
	case service == "aws":
		l.warn(at, path, "Daypass does not fill the key %s%s; %s", name, keySuggestion(key), consequence)
	case !served(service):
		// The key belongs to an identity provider or to another service.
	case !slices.ContainsFunc(actions[:], func(a action) bool { return a.hasKey(key) }):
		l.warn(at, path, "no action has the condition key %s; %s", name, consequence)
	default:
		l.actionsWithoutKey(s, at, path, key, name, consequence)
	}
}

// actionsWithoutKey warns if actions that the statement names without wildcards lack the key.
func (l *linter) actionsWithoutKey(s *statement, at Position, path, key, name, consequence string) {
	if s.notAction {
		return
	}
	for i := range s.actions {
		row := knownAction(s.actions[i].text)
		if row >= 0 && !actions[row].hasKey(key) {
			l.warn(at, path, "%s does not have the condition key %s; %s", actions[row].name, name, consequence)
		}
	}
}

// keySuggestion returns the key whose name is nearest to a misspelt one.
func keySuggestion(key string) string {
	best, distance := "", 2 // aws:SourceVpc must not suggest aws:SourceIp
	for _, g := range globalKeys {
		if d := editDistance(key, g.name); d < distance {
			best, distance = g.name, d
		}
	}
	if best == "" || strings.HasSuffix(best, "/") {
		return ""
	}
	return " (is " + best + " meant?)"
}

func (a *action) hasKey(key string) bool {
	return slices.ContainsFunc(a.keys, func(k string) bool { return isKey(lowerKey(k), key) })
}

// absence describes the consequence if the condition's key is always absent.
func (c *condition) absence(s *statement) string {
	switch {
	case c.holds(nil, !s.allow, new(work)):
		return "the condition always holds"
	case s.allow:
		return "the condition never holds"
	default:
		return "the condition never holds, and the Deny denies nothing there"
	}
}

// conditionSet warns of a set operator that is misleading, or that is missing.
func (l *linter) conditionSet(s *statement, c *condition) {
	from := len(l.warnings)
	global, known := findGlobalKey(c.key)
	list := known && global.list || strings.HasSuffix(c.key, ":amr")
	switch {
	case c.test == testNull && c.set == forAllValues:
		l.warn(c.at, c.path(), "ForAllValues with Null always holds")
	case c.test == testNull && c.set == forAnyValue:
		l.warn(c.at, c.path(), "ForAnyValue with Null never holds")
		l.deny(s, from)
	case c.set == noSet && list && c.test != testNull:
		l.warn(c.at, c.path(), "the key has several values and needs ForAllValues or ForAnyValue")
	case c.set == forAllValues && s.allow && !s.guarded(c.key):
		l.warn(c.at, c.path(), `ForAllValues also holds when the key is absent; add {"Null": {%q: "false"}}`, c.name)
	case c.set != noSet && known && !list:
		l.warn(c.at, c.path(), "the key has a single value; the set operator is out of place")
	}
}

// guarded reports whether the statement requires a key to be present.
func (s *statement) guarded(key string) bool {
	return slices.ContainsFunc(s.conditions, func(c condition) bool {
		return c.key == key && c.set != forAllValues && !c.holds(nil, false, new(work))
	})
}

func (l *linter) conditionValues(s *statement, c *condition) {
	from := len(l.warnings)
	if c.empty() {
		l.warn(c.at, c.path(), "the list of values is empty")
		if !c.negated && !c.ifExists && c.set != forAllValues {
			l.deny(s, from)
		}
		return
	}
	l.logonNames(s, c)
	for i := range c.texts {
		text := c.texts[i].text
		l.variables(s, c.at, c.path(), text, &c.texts[i])
		if c.test != testLike && strings.ContainsAny(withoutVariables(text), "*?") {
			l.warn(c.at, c.path(), "%s has no wildcards; is StringLike meant?", c.operator)
		}
	}
	for i := range c.arns {
		a := &c.arns[i]
		parts := make([]*pattern, len(a.parts))
		for j := range a.parts {
			parts[j] = &a.parts[j]
		}
		l.variables(s, c.at, c.path(), a.text, parts...)
		if len(a.parts) == 6 {
			l.partition(c.at, c.path(), a.parts[1].text)
		}
		if len(a.parts) == 1 && !a.any && !strings.Contains(a.text, "${") {
			if s.allow == c.negated {
				l.warn(c.at, c.path(), "an ARN has six parts; %q is compared as StringLike compares", a.text)
			} else {
				l.warn(c.at, c.path(), "an ARN has six parts; %q matches none", a.text)
			}
		}
	}
	global, known := findGlobalKey(c.key)
	switch {
	case !known || c.test == testNull:
	case global.test == testAddress && c.test != testAddress:
		l.warn(c.at, c.path(), "the value of the key is an address; use IpAddress")
	case global.test == testDate && c.test != testDate && (c.test != testNumber || c.key != "aws:epochtime"):
		l.warn(c.at, c.path(), "the value of the key is a date; use a Date operator")
	case global.test == testNumber && c.test != testNumber:
		l.warn(c.at, c.path(), "the value of the key is a number; use a Numeric operator")
	}
	if c.key == "aws:multifactorauthpresent" && c.test == testBool && c.wantFalse && !c.ifExists && !s.allow {
		l.warn(c.at, c.path(), "long-term access keys do not have the key, so this Deny spares them; use BoolIfExists")
	}
}

// logonNames warns if a condition compares redshift:DbUser, which is a plain name, with a name
// for logging on, such as "IAM:alice".
func (l *linter) logonNames(s *statement, c *condition) {
	if c.key != "redshift:dbuser" || c.negated {
		return
	}
	from, found := len(l.warnings), 0
	for i := range c.texts {
		if text := c.texts[i].text; strings.HasPrefix(text, "IAM:") || strings.HasPrefix(text, "IAMA:") {
			found++
		}
	}
	if found == 0 {
		return
	}
	l.warn(c.at, c.path(), "redshift:DbUser is the plain DbUser; the prefix is part of the name that logs on")
	if found == len(c.texts) && !c.ifExists {
		l.deny(s, from)
	}
}

// withoutVariables removes ${…}, including literals such as ${*}.
func withoutVariables(text string) string {
	for {
		before, rest, found := strings.Cut(text, "${")
		if !found {
			return text
		}
		_, after, _ := strings.Cut(rest, "}")
		text = before + after
	}
}
