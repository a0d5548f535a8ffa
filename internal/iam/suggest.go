package iam

import (
	"bytes"
	"encoding/json"
	"strings"
)

// AllowStatement returns the statement that allows one action on one resource and
// nothing more, as JSON on one line. equal are required values of condition keys,
// atMost are upper bounds, more are further conditions; all are optional. Characters
// with a meaning in policies are written as variables, except in more, which needs a
// document of version 2012-10-17. It does not fit an action of a role trust policy,
// whose statements name principals and no resources.
func AllowStatement(action, resource string, equal, atMost map[string]string, more []WrittenCondition) string {
	conditions := map[string]map[string]any{}
	set := func(operator, key string, value any) {
		if conditions[operator] == nil {
			conditions[operator] = map[string]any{}
		}
		conditions[operator][key] = value
	}
	for _, c := range more {
		if len(c.Values) == 1 {
			set(c.Operator, c.Key, c.Values[0])
		} else {
			set(c.Operator, c.Key, c.Values)
		}
	}
	for key, value := range equal {
		set("StringEquals", key, literalReplacer.Replace(value))
	}
	for key, value := range atMost {
		set("NumericLessThanEquals", key, value)
	}
	statement := struct {
		Effect, Action, Resource string
		Condition                map[string]map[string]any `json:",omitempty"`
	}{"Allow", action, resource, conditions}
	if resource != "*" {
		statement.Resource = literalReplacer.Replace(resource)
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(statement); err != nil {
		panic("internal error: strings have a JSON form: " + err.Error())
	}
	return strings.TrimSuffix(b.String(), "\n")
}

var literalReplacer = strings.NewReplacer("*", "${*}", "?", "${?}", "$", "${$}")
