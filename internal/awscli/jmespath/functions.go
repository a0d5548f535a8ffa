package jmespath

import (
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/daypass/daypass/internal/awscli/pyvalue"
)

// function is a function of the language: the types that each argument may have, in the
// specification's words, and the implementation. With variadic the last argument may be
// repeated.
type function struct {
	signature [][]string
	variadic  bool
	call      func(args []any) (any, error)
}

func one(types ...string) [][]string { return [][]string{types} }

func two(first, second string) [][]string {
	return [][]string{strings.Fields(first), strings.Fields(second)}
}

func lookup(name string) (function, bool) {
	switch name {
	case "abs":
		return function{signature: one("number"), call: abs}, true
	case "avg":
		return function{signature: one("array-number"), call: avg}, true
	case "ceil":
		return function{signature: one("number"), call: func(a []any) (any, error) { return round(a[0], math.Ceil) }}, true
	case "contains":
		return function{signature: two("array string", ""), call: contains}, true
	case "ends_with":
		return function{signature: two("string", "string"), call: func(a []any) (any, error) {
			return strings.HasSuffix(a[0].(string), a[1].(string)), nil
		}}, true
	case "floor":
		return function{signature: one("number"), call: func(a []any) (any, error) { return round(a[0], math.Floor) }}, true
	case "join":
		return function{signature: two("string", "array-string"), call: join}, true
	case "keys":
		return function{signature: one("object"), call: keys}, true
	case "length":
		return function{signature: one("string", "array", "object"), call: length}, true
	case "map":
		return function{signature: two("expref", "array"), call: mapEach}, true
	case "max":
		return function{signature: one("array-number", "array-string"), call: func(a []any) (any, error) { return extreme(a[0].([]any), 1), nil }}, true
	case "max_by":
		return function{signature: two("array", "expref"), call: func(a []any) (any, error) { return extremeBy("max_by", a, 1) }}, true
	case "merge":
		return function{signature: one("object"), variadic: true, call: merge}, true
	case "min":
		return function{signature: one("array-number", "array-string"), call: func(a []any) (any, error) { return extreme(a[0].([]any), -1), nil }}, true
	case "min_by":
		return function{signature: two("array", "expref"), call: func(a []any) (any, error) { return extremeBy("min_by", a, -1) }}, true
	case "not_null":
		return function{signature: one(), variadic: true, call: notNull}, true
	case "reverse":
		return function{signature: one("array", "string"), call: reverse}, true
	case "sort":
		return function{signature: one("array-string", "array-number"), call: sortList}, true
	case "sort_by":
		return function{signature: two("array", "expref"), call: sortBy}, true
	case "starts_with":
		return function{signature: two("string", "string"), call: func(a []any) (any, error) {
			return strings.HasPrefix(a[0].(string), a[1].(string)), nil
		}}, true
	case "sum":
		return function{signature: one("array-number"), call: func(a []any) (any, error) { return sum(a[0].([]any)), nil }}, true
	case "to_array":
		return function{signature: one(), call: toArray}, true
	case "to_number":
		return function{signature: one(), call: toNumber}, true
	case "to_string":
		return function{signature: one(), call: toString}, true
	case "type":
		return function{signature: one(), call: typeOf}, true
	case "values":
		return function{signature: one("object"), call: values}, true
	}
	return function{}, false
}

func callFunction(name string, args []any) (any, error) {
	f, ok := lookup(name)
	if !ok {
		return nil, &EvalError{fmt.Sprintf("Unknown function: %s()", name)}
	}
	want := len(f.signature)
	if f.variadic && len(args) < want || !f.variadic && len(args) != want {
		least, noun := "", "arguments"
		if f.variadic {
			least = "at least "
		}
		if want == 1 {
			noun = "argument"
		}
		return nil, &EvalError{fmt.Sprintf("Expected %s%d %s for function %s(), received %d", least, want, noun, name, len(args))}
	}
	for i, types := range f.signature {
		if err := checkType(name, args[i], types); err != nil {
			return nil, err
		}
	}
	return f.call(args)
}

func typeError(function string, value any, got string, want []string) error {
	return &EvalError{fmt.Sprintf("In function %s(), invalid type for value: %s, expected one of: %s, received: \"%s\"",
		function, pyvalue.Str(value), nameList(want), got)}
}

// checkType checks an argument against the types it may have. A type like
// array-number asks for the type of the elements too.
func checkType(function string, value any, types []string) error {
	if len(types) == 0 {
		return nil
	}
	var elements []string
	matched := false
	for _, t := range types {
		whole, element, typed := strings.Cut(t, "-")
		if typed {
			elements = append(elements, element)
		}
		matched = matched || whole == typeName(value)
	}
	if !matched {
		return typeError(function, value, typeName(value), types)
	}
	list, ok := value.([]any)
	if !ok || len(elements) == 0 || len(list) == 0 {
		return nil
	}
	allowed := elements[0]
	if len(elements) > 1 {
		if allowed = typeName(list[0]); !slices.Contains(elements, allowed) {
			return typeError(function, list[0], pyvalue.TypeName(list[0]), types)
		}
	}
	for _, element := range list {
		if typeName(element) != allowed {
			return typeError(function, element, pyvalue.TypeName(element), types)
		}
	}
	return nil
}

func (e *expref) eval(value any) (any, error) { return e.body.eval(value) }

func abs(args []any) (any, error) {
	if n, ok := args[0].(*big.Int); ok {
		return new(big.Int).Abs(n), nil
	}
	return math.Abs(args[0].(float64)), nil
}

func round(n any, to func(float64) float64) (any, error) {
	f, ok := n.(float64)
	if !ok {
		return n, nil
	}
	switch {
	case math.IsNaN(f):
		return nil, &EvalError{"cannot convert float NaN to integer"}
	case math.IsInf(f, 0):
		return nil, &EvalError{"cannot convert float infinity to integer"}
	}
	whole, _ := big.NewFloat(to(f)).Int(nil)
	return whole, nil
}

func add(a, b any) any {
	x, xInt := a.(*big.Int)
	y, yInt := b.(*big.Int)
	if xInt && yInt {
		return new(big.Int).Add(x, y)
	}
	return toFloat(a) + toFloat(b)
}

func toFloat(n any) float64 {
	if i, ok := n.(*big.Int); ok {
		f, _ := new(big.Float).SetInt(i).Float64()
		return f
	}
	return n.(float64)
}

func sum(list []any) any {
	var total any = pyvalue.Int(0)
	for _, n := range list {
		total = add(total, n)
	}
	return total
}

func avg(args []any) (any, error) {
	list := args[0].([]any)
	if len(list) == 0 {
		return nil, nil
	}
	total := sum(list)
	if n, ok := total.(*big.Int); ok {
		f, _ := new(big.Rat).SetFrac(n, pyvalue.Int(int64(len(list)))).Float64()
		return f, nil
	}
	return total.(float64) / float64(len(list)), nil
}

func contains(args []any) (any, error) {
	switch subject := args[0].(type) {
	case string:
		search, ok := args[1].(string)
		if !ok {
			return nil, &EvalError{fmt.Sprintf("'in <string>' requires string as left operand, not %s", pyvalue.TypeName(args[1]))}
		}
		return strings.Contains(subject, search), nil
	case []any:
		for _, element := range subject {
			if pyvalue.Equal(element, args[1]) {
				return true, nil
			}
		}
	}
	return false, nil
}

func join(args []any) (any, error) {
	var parts []string
	for _, part := range args[1].([]any) {
		parts = append(parts, part.(string))
	}
	return strings.Join(parts, args[0].(string)), nil
}

func keys(args []any) (any, error) {
	list := []any{}
	for key := range args[0].(*pyvalue.Object).All() {
		list = append(list, key)
	}
	return list, nil
}

func values(args []any) (any, error) {
	list := []any{}
	for _, value := range args[0].(*pyvalue.Object).All() {
		list = append(list, value)
	}
	return list, nil
}

func length(args []any) (any, error) {
	switch v := args[0].(type) {
	case string:
		return pyvalue.Int(int64(utf8.RuneCountInString(v))), nil
	case []any:
		return pyvalue.Int(int64(len(v))), nil
	}
	return pyvalue.Int(int64(args[0].(*pyvalue.Object).Len())), nil
}

func mapEach(args []any) (any, error) {
	list := []any{}
	for _, element := range args[1].([]any) {
		result, err := args[0].(*expref).eval(element)
		if err != nil {
			return nil, err
		}
		list = append(list, result)
	}
	return list, nil
}

func merge(args []any) (any, error) {
	merged := new(pyvalue.Object)
	for _, arg := range args {
		switch arg := arg.(type) {
		case *pyvalue.Object:
			for key, value := range arg.All() {
				merged.Set(key, value)
			}
		case []any: // an empty list: nothing to merge
			if len(arg) > 0 {
				return nil, &EvalError{"cannot convert dictionary update sequence element #0 to a sequence"}
			}
		default:
			return nil, &EvalError{fmt.Sprintf("'%s' object is not iterable", pyvalue.TypeName(arg))}
		}
	}
	return merged, nil
}

func notNull(args []any) (any, error) {
	for _, arg := range args {
		if arg != nil {
			return arg, nil
		}
	}
	return nil, nil
}

func reverse(args []any) (any, error) {
	if s, ok := args[0].(string); ok {
		runes := []rune(s)
		slices.Reverse(runes)
		return string(runes), nil
	}
	list := slices.Clone(args[0].([]any))
	slices.Reverse(list)
	return list, nil
}

func toArray(args []any) (any, error) {
	if _, ok := args[0].([]any); ok {
		return args[0], nil
	}
	return []any{args[0]}, nil
}

func toString(args []any) (any, error) {
	if _, ok := args[0].(string); ok {
		return args[0], nil
	}
	return pyvalue.CompactJSON(args[0]), nil
}

func typeOf(args []any) (any, error) {
	switch name := typeName(args[0]); name {
	case "expref", "unknown":
		return nil, nil
	default:
		return name, nil
	}
}
