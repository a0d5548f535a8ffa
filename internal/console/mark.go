package console

import (
	"html/template"
	"regexp"
	"strings"
)

// parameterIn finds the parameter that an error of the API is about.
var parameterIn = regexp.MustCompile(`(?i)\b(ClusterIdentifier|DbUser|DbName|DbGroups|Principal|PolicySourceArn|PolicyInputList|ActionNames|ResourceArns|ContextEntries)\b`)

// fieldOf names the form field of each parameter, which is in lower case here: the words of an error vary.
var fieldOf = map[string]string{
	"clusteridentifier": "cluster", "dbuser": "user", "dbname": "database", "dbgroups": "groups",
	"principal": "principal", "policysourcearn": "principal", "policyinputlist": "policy",
	"actionnames": "actions", "resourcearns": "resources", "contextentries": "context",
}

// field returns the form field that the refusal is about, or "".
func (r *refusal) field() string {
	if r.Field != "" || r.Code == "AccessDenied" {
		return r.Field
	}
	return fieldOf[strings.ToLower(parameterIn.FindString(r.Message))]
}

// mark returns the attributes of a form field that lead a screen reader from the field to its hints,
// which are elements of the page. A field that a refusal is about gets the focus, is called invalid, and leads
// to the refusal as well.
func mark(r *refusal, field string, hints ...string) template.HTMLAttr {
	attributes := ""
	if r != nil && r.field() == field {
		attributes, hints = ` autofocus aria-invalid="true"`, append([]string{"refusal"}, hints...)
	}
	if len(hints) > 0 {
		attributes += ` aria-describedby="` + template.HTMLEscapeString(strings.Join(hints, " ")) + `"`
	}
	return template.HTMLAttr(attributes) // made of constants
}
