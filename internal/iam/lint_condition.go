package iam

import (
	"slices"
	"strings"
)

// globalKey is a condition key of every action.
type globalKey struct {
	name string // a key that ends in / is a prefix
	test test   // what the values are made for; testString takes any text operator
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
		if g.name == key || strings.HasSuffix(g.name, "/") && strings.HasPrefix(key, g.name) && len(key) > len(g.name) {
			return g, true
		}
	}
	return globalKey{}, false
}

func (l *linter) conditions(s *statement) {
	for i := range s.conditions {
		c := &s.conditions[i]
		l.conditionKey(s, c)
		l.conditionSet(s, c)
		l.conditionValues(s, c)
	}
}

// conditionKey warns of keys that a request of the statement's actions never has.
func (l *linter) conditionKey(s *statement, c *condition) {
	service, _, _ := strings.Cut(c.key, ":")
	if _, known := findGlobalKey(c.key); known && service == "aws" {
		return
	}
	switch {
	case service == "aws":
		l.warn(c.at, c.path, "Daypass does not fill the key %s; %s", c.name, c.absence(s))
	case !served(service):
		// A key of an identity provider or of another service.
	case !slices.ContainsFunc(actions[:], func(a action) bool { return a.hasKey(c.key) }):
		l.warn(c.at, c.path, "no action has the condition key %s; %s", c.name, c.absence(s))
	default:
		l.actionsWithoutKey(s, c)
	}
}

// actionsWithoutKey warns of the actions of a statement that are written out and
// lack the key.
func (l *linter) actionsWithoutKey(s *statement, c *condition) {
	if s.notAction {
		return
	}
	for i := range s.actions {
		row := knownAction(s.actions[i].text)
		if row >= 0 && !actions[row].hasKey(c.key) {
			l.warn(c.at, c.path, "%s does not have the condition key %s; %s", actions[row].name, c.name, c.absence(s))
		}
	}
}

func (a *action) hasKey(key string) bool {
	return slices.ContainsFunc(a.keys, func(k string) bool {
		k = lowerKey(k)
		return k == key || strings.HasSuffix(k, "/") && strings.HasPrefix(key, k)
	})
}

// absence says what comes of a key that is never there.
func (c *condition) absence(s *statement) string {
	if c.holds(nil, !s.allow) {
		return "the condition always holds"
	}
	return "the condition never holds"
}

// conditionSet warns of set operators where they mislead or are missing.
func (l *linter) conditionSet(s *statement, c *condition) {
	global, known := findGlobalKey(c.key)
	list := known && global.list || strings.HasSuffix(c.key, ":amr")
	switch {
	case c.test == testNull && c.set == forAllValues:
		l.warn(c.at, c.path, "ForAllValues with Null always holds")
	case c.test == testNull && c.set == forAnyValue:
		l.warn(c.at, c.path, "ForAnyValue with Null never holds")
	case c.set == noSet && list && c.test != testNull:
		l.warn(c.at, c.path, "the key has several values and needs ForAllValues or ForAnyValue")
	case c.set == forAllValues && s.allow && !s.guarded(c.key):
		l.warn(c.at, c.path, `ForAllValues also holds when the key is absent; add {"Null": {%q: "false"}}`, c.name)
	case c.set != noSet && known && !list:
		l.warn(c.at, c.path, "the key has a single value; the set operator is out of place")
	}
}

// guarded reports whether the statement demands that a key is there.
func (s *statement) guarded(key string) bool {
	return slices.ContainsFunc(s.conditions, func(c condition) bool {
		return c.key == key && c.set != forAllValues && !c.holds(nil, false)
	})
}

func (l *linter) conditionValues(s *statement, c *condition) {
	if c.empty() {
		l.warn(c.at, c.path, "the list of values is empty")
		return
	}
	for i := range c.texts {
		text := c.texts[i].text
		l.variables(c.at, c.path, text)
		if c.test != testLike && strings.ContainsAny(withoutVariables(text), "*?") {
			l.warn(c.at, c.path, "%s has no wildcards; is StringLike meant?", c.operator)
		}
	}
	for i := range c.arns {
		a := &c.arns[i]
		l.variables(c.at, c.path, a.text)
		if len(a.parts) == 1 && !a.any && !strings.Contains(a.text, "${") {
			l.warn(c.at, c.path, "an ARN has six parts; %q matches none", a.text)
		}
	}
	global, known := findGlobalKey(c.key)
	switch {
	case !known || c.test == testNull:
	case global.test == testAddress && c.test != testAddress:
		l.warn(c.at, c.path, "the value of the key is an address; use IpAddress")
	case global.test == testDate && c.test != testDate && (c.test != testNumber || c.key != "aws:epochtime"):
		l.warn(c.at, c.path, "the value of the key is a date; use a Date operator")
	case global.test == testNumber && c.test != testNumber:
		l.warn(c.at, c.path, "the value of the key is a number; use a Numeric operator")
	}
	if c.key == "aws:multifactorauthpresent" && c.test == testBool && c.wantFalse && !c.ifExists && !s.allow {
		l.warn(c.at, c.path, "long-term access keys do not have the key, so this Deny spares them; use BoolIfExists")
	}
}

// withoutVariables leaves out ${…}, literals like ${*} among them.
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
