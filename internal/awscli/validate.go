package awscli

import (
	"fmt"
	"math/big"
	"net/url"
	"strings"

	"github.com/daypass/daypass/internal/awscli/pyvalue"
	"github.com/daypass/daypass/internal/awsconfig"
)

// validate checks parameters against the model, and reports all faults in the AWS CLI's
// words and order. The model has types and required members; the service checks the
// values.
func validate(params *object, input *shape) error {
	var faults []string
	for _, m := range input.members {
		if _, ok := params.Get(m.name); m.required && !ok {
			faults = append(faults, fmt.Sprintf("Missing required parameter in input: %q", m.name))
		}
	}
	for key := range params.All() {
		if input.member(key) == nil {
			faults = append(faults, fmt.Sprintf(`Unknown parameter in input: "%s", must be one of: %s`, key, strings.Join(input.memberNames(), ", ")))
		}
	}
	for key, value := range params.All() {
		if m := input.member(key); m != nil {
			faults = append(faults, validateValue(key, value, m.shape)...)
		}
	}
	if len(faults) > 0 {
		return fail(awsconfig.ExitUsage, "Parameter validation failed:\n%s", strings.Join(faults, "\n"))
	}
	return nil
}

func validateValue(name string, value any, s *shape) []string {
	want := map[kind]string{
		kindString:  "<class 'str'>",
		kindInteger: "<class 'int'>",
		kindBoolean: "<class 'bool'>",
		kindList:    "<class 'list'>, <class 'tuple'>",
	}[s.kind]
	ok := false
	switch value := value.(type) {
	case string:
		ok = s.kind == kindString
	case *big.Int:
		ok = s.kind == kindInteger
	case bool: // also counts as a number, to the AWS CLI
		ok = s.kind == kindBoolean || s.kind == kindInteger
	case []any:
		if s.kind == kindList {
			var faults []string
			for i, element := range value {
				faults = append(faults, validateValue(fmt.Sprintf("%s[%d]", name, i), element, s.element)...)
			}
			return faults
		}
	}
	if ok {
		return nil
	}
	return []string{fmt.Sprintf("Invalid type for parameter %s, value: %s, type: <class '%s'>, valid types: %s",
		name, pyvalue.Str(value), pyvalue.TypeName(value), want)}
}

// encode returns valid parameters as a form, in their order, for the request body.
func encode(op *operation, params *object) string {
	var b strings.Builder
	add := func(name, value string) {
		if b.Len() > 0 {
			b.WriteByte('&')
		}
		b.WriteString(url.QueryEscape(name))
		b.WriteByte('=')
		b.WriteString(url.QueryEscape(value))
	}
	add("Action", op.name)
	add("Version", apiVersion)
	for key, value := range params.All() {
		s := op.input.member(key).shape
		switch value := value.(type) {
		case bool:
			if s.kind == kindBoolean {
				add(key, fmt.Sprint(value))
			} else {
				add(key, pyvalue.Str(value))
			}
		case []any:
			if len(value) == 0 {
				add(key, "")
			}
			for i, element := range value {
				add(fmt.Sprintf("%s.%s.%d", key, s.tag, i+1), pyvalue.Str(element))
			}
		default:
			add(key, pyvalue.Str(value))
		}
	}
	return b.String()
}
