package iam

import (
	"bytes"
	"encoding/json"
	"strings"
)

// AllowStatement is the statement that allows one action on one resource and
// nothing more, as JSON on one line. equal are condition keys with the values they
// have to have, atMost those that may not be over a number; both are optional.
// Characters that mean something in a policy are written as the variables that
// stand for them, which needs a document of version 2012-10-17. For an action of a
// role trust policy it is not the statement to add: that names principals, and no
// resource.
func AllowStatement(action, resource string, equal, atMost map[string]string) string {
	type conditions map[string]map[string]string
	statement := struct {
		Effect, Action, Resource string
		Condition                conditions `json:",omitempty"`
	}{"Allow", action, resource, conditions{}}
	if resource != "*" {
		statement.Resource = literalReplacer.Replace(resource)
	}
	for key, value := range equal {
		if statement.Condition["StringEquals"] == nil {
			statement.Condition["StringEquals"] = map[string]string{}
		}
		statement.Condition["StringEquals"][key] = literalReplacer.Replace(value)
	}
	if len(atMost) > 0 {
		statement.Condition["NumericLessThanEquals"] = atMost
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
