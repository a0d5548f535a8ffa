package api

import (
	"slices"
	"strconv"

	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/awsquery"
)

// optional is a parameter that may be left out. An empty value counts as given.
type optional struct {
	value string
	given bool
}

// reader reads an action's parameters as they were sent, and keeps each of them for the
// audit line. Secret parameters are read with hidden.
type reader struct {
	*call
	err error // the first one
}

// fail keeps the first error.
func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// keep keeps a parameter for the audit line.
func (r *reader) keep(f audit.Field) {
	if r.request == nil {
		r.request = r.space.request[:0]
	}
	r.request = append(r.request, f)
}

// text reads a parameter that is a single value.
func (r *reader) text(name string) optional {
	return r.textAs(name, recordable(name))
}

// textAs reads a parameter that is a single value. The audit line has it if it is
// valid, otherwise its length.
func (r *reader) textAs(name string, valid func(string) bool) optional {
	value, given, err := r.query.Params.String(name)
	if err != nil {
		r.fail(err)
		return optional{}
	}
	switch {
	case !given:
	case valid(value):
		r.keep(audit.String(fieldName(name), value))
	default:
		r.keep(audit.Omitted(fieldName(name), len(value)))
	}
	return optional{value, given}
}

// required reads a parameter without which there is nothing to authorise.
func (r *reader) required(name string) string {
	p := r.text(name)
	switch {
	case !p.given:
		r.fail(awsquery.Missing(name))
	case p.value == "":
		r.fail(blank(name))
	}
	return p.value
}

// list reads a list of values. most is the maximum number.
func (r *reader) list(name, member string, most int) []string {
	values, given, err := r.query.Params.List(name, member)
	if err != nil {
		r.fail(err)
		return nil
	}
	if len(values) > most {
		r.fail(awsquery.Invalid(name, "must not have more than "+strconv.Itoa(most)+" members"))
		return nil
	}
	if given {
		r.keepList(name, values, recordable(name))
	}
	return values
}

// keepList keeps a list for the audit line if all its values are valid, otherwise their
// total length.
func (r *reader) keepList(name string, values []string, valid func(string) bool) {
	size, whole := 0, true
	for _, value := range values {
		size += len(value)
		whole = whole && valid(value)
	}
	if whole {
		r.keep(audit.Strings(fieldName(name), values))
	} else {
		r.keep(audit.Omitted(fieldName(name), size))
	}
}

// fieldName returns the name of a parameter as CloudTrail writes it.
func fieldName(name string) string {
	if known, ok := fieldNames[name]; ok {
		return known
	}
	return lowerCamel(name)
}

func lowerCamel(name string) string {
	return string(name[0]|0x20) + name[1:]
}

// unique removes duplicates.
func unique(names []string) []string {
	for i := 1; i < len(names); i++ {
		if slices.Contains(names[:i], names[i]) {
			names = slices.Delete(names, i, i+1)
			i--
		}
	}
	return names
}
