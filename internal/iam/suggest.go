package iam

import (
	"bytes"
	"encoding/json"
	"strings"
)

// AllowStatement is the statement that allows one action on one resource and
// nothing more, as JSON on one line. Characters of the resource that mean
// something in a policy are written as the variables that stand for them, which
// needs a document of version 2012-10-17. For an action of a role trust policy it
// is not the statement to add: that names principals, and no resource.
func AllowStatement(action, resource string) string {
	if resource != "*" {
		resource = literalReplacer.Replace(resource)
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(struct{ Effect, Action, Resource string }{"Allow", action, resource})
	if err != nil {
		panic("internal error: strings have a JSON form: " + err.Error())
	}
	return strings.TrimSuffix(b.String(), "\n")
}

var literalReplacer = strings.NewReplacer("*", "${*}", "?", "${?}", "$", "${$}")
