package awsquery

import (
	"iter"
	"slices"
	"strconv"
	"strings"
)

// Params are the parameters of a call, or of one structure in it. They do not
// change and are safe for concurrent use. All errors are *Error values that name
// the parameter in full and the rule, never the value.
type Params struct {
	// sorted by name; names are those on the wire, with the prefix.
	sorted []parameter
	// prefix is what names in this structure begin with: "Tags.member.1.".
	prefix string
}

type parameter struct {
	name, value string
}

func search(sorted []parameter, name string) (int, bool) {
	return slices.BinarySearchFunc(sorted, name, func(p parameter, name string) int {
		return strings.Compare(p.name, name)
	})
}

// below returns the parameters whose names begin with name and a dot. They stand
// side by side, as the list is sorted.
func (p *Params) below(name string) []parameter {
	from, _ := slices.BinarySearchFunc(p.sorted, name, compareDotted)
	to := from
	for to < len(p.sorted) && isBelow(p.sorted[to].name, name) {
		to++
	}
	return p.sorted[from:to]
}

func isBelow(parameter, name string) bool {
	return len(parameter) > len(name) && parameter[len(name)] == '.' && parameter[:len(name)] == name
}

// compareDotted compares a parameter's name with name followed by a dot. It does not build that
// string, because it runs for every parameter that is read.
func compareDotted(p parameter, name string) int {
	n := min(len(p.name), len(name))
	if order := strings.Compare(p.name[:n], name); order != 0 {
		return order
	}
	if len(p.name) == n {
		return -1
	}
	return strings.Compare(p.name[n:], ".")
}

// String returns a parameter's value, and whether the request has the parameter. An
// empty parameter is present; callers for which blank means absent compare with "". The
// error is about a list or a structure in place of a single value.
func (p *Params) String(name string) (value string, present bool, err error) {
	name = p.prefix + name
	if len(p.below(name)) > 0 {
		return "", true, Invalid(name, "must be a single value")
	}
	i, ok := search(p.sorted, name)
	if !ok {
		return "", false, nil
	}
	return p.sorted[i].value, true, nil
}

// Int returns the value of an integer: an optional minus sign and decimal digits, in the 32 bits
// that an Integer has at AWS. An empty value, as in "DurationSeconds=", is an error, not the
// default.
func (p *Params) Int(name string) (value int, present bool, err error) {
	s, present, err := p.String(name)
	if err != nil || !present {
		return 0, present, err
	}
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || s[0] == '+' {
		return 0, true, Invalid(p.prefix+name, "must be an integer")
	}
	return int(n), true, nil
}

// Bool returns the value of a boolean, "true" or "false".
func (p *Params) Bool(name string) (value, present bool, err error) {
	s, present, err := p.String(name)
	if err != nil || !present {
		return false, present, err
	}
	switch s {
	case "true":
		return true, true, nil
	case "false":
		return false, true, nil
	}
	return false, true, Invalid(p.prefix+name, "must be true or false")
}

// List returns a list of values in the order of their numbers, and whether the request
// has the list. Members are named name.member.1, name.member.2 and so on, with the
// member name of the service's model ("DbGroup") or "member", which is always accepted
// for requests that were written by hand. "name=" is the empty list.
//
// It refuses a plain value, a list with both ways of naming members, numbers that do not run from 1
// without a gap, numbers that are not plain decimal, and more than MaxList members.
func (p *Params) List(name, member string) (values []string, present bool, err error) {
	members, prefix, present, err := p.members(name, member)
	if err != nil || len(members) == 0 {
		return nil, present, err
	}
	values = make([]string, len(members))
	for i, m := range members {
		if len(m) != 1 || len(m[0].name) != len(prefix)+digits(i+1) {
			return nil, true, Invalid(prefix+strconv.Itoa(i+1), "must be a single value")
		}
		values[i] = m[0].value
	}
	return values, true, nil
}

// Structs returns a list of structures: name.member.1.Key, name.member.1.Value and so
// on. The names in each are those after the number ("Key"); errors have the full names.
// The rules are List's; an absent list and an empty one are both nil.
func (p *Params) Structs(name, member string) ([]*Params, error) {
	members, prefix, _, err := p.members(name, member)
	if err != nil || len(members) == 0 {
		return nil, err
	}
	structs := make([]*Params, len(members))
	for i, m := range members {
		inner := prefix + strconv.Itoa(i+1)
		// The name that ends with the number sorts first. If it is empty, the structure
		// has no members.
		if m[0].name == inner {
			if len(m) > 1 || m[0].value != "" {
				return nil, Invalid(inner, "must be a structure")
			}
			m = nil
		}
		structs[i] = &Params{sorted: m, prefix: inner + "."}
	}
	return structs, nil
}

// Name returns the full name of a parameter in this structure, for messages.
func (p *Params) Name(name string) string { return p.prefix + name }

// All returns all parameters by their names on the wire, sorted bytewise. Values
// may be secret.
func (p *Params) All() iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		for _, one := range p.sorted {
			if !yield(one.name, one.value) {
				return
			}
		}
	}
}

// members returns the parameters of each member of a list, and the prefix of their names:
// everything before the number.
func (p *Params) members(name, member string) (members [][]parameter, prefix string, present bool, err error) {
	name = p.prefix + name
	all := p.below(name)
	i, bare := search(p.sorted, name)
	switch {
	case bare && p.sorted[i].value != "":
		return nil, "", true, Invalid(name, "must be a list")
	case bare && len(all) > 0:
		return nil, "", true, Invalid(name, "must not be empty and have members")
	case len(all) == 0:
		return nil, "", bare, nil
	}
	prefix = name + "." + member + "."
	if byHand := name + ".member."; strings.HasPrefix(all[0].name, byHand) {
		prefix = byHand
	}
	runs, rule := splitMembers(all, prefix)
	if rule != "" {
		return nil, "", true, Invalid(name, rule)
	}
	members = make([][]parameter, len(runs))
	for i, r := range runs {
		if r.number != i+1 {
			return nil, "", true, Invalid(name, "must have members numbered without a gap: "+
				prefix+strconv.Itoa(i+1)+" is missing")
		}
		members[i] = r.parameters
	}
	return members, prefix, true, nil
}

// run has the parameters of one member of a list.
type run struct {
	number     int
	parameters []parameter
}

// splitMembers splits the parameters of a list by member, in the order of their
// numbers, or returns the rule that they break. The parameters of one member are
// adjacent, since no character that can follow a number sorts before the dot.
func splitMembers(all []parameter, prefix string) (runs []run, rule string) {
	for i, one := range all {
		number, ok := strings.CutPrefix(one.name, prefix)
		if !ok {
			return nil, "must have members of the form " + prefix + "N"
		}
		number, _, _ = strings.Cut(number, ".")
		n, ok := memberNumber(number)
		switch {
		case !ok:
			return nil, "must have members numbered 1, 2, 3 and so on"
		case n > MaxList:
			return nil, "must not have more than " + strconv.Itoa(MaxList) + " members"
		}
		if last := len(runs) - 1; last >= 0 && runs[last].number == n {
			mine := runs[last].parameters
			runs[last].parameters = mine[:len(mine)+1] // all[i] is the next one
		} else {
			runs = append(runs, run{n, all[i : i+1]})
		}
	}
	slices.SortFunc(runs, func(a, b run) int { return a.number - b.number })
	return runs, ""
}

// memberNumber parses 1, 2, 3 …, but not 01, which would be a second name for 1. A
// number that is too long for any limit becomes MaxList+1.
func memberNumber(s string) (int, bool) {
	if s == "" || s[0] == '0' {
		return 0, false
	}
	n := 0
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = min(n*10+int(s[i]-'0'), MaxList+1)
	}
	return n, true
}

func digits(n int) int { return len(strconv.Itoa(n)) }
