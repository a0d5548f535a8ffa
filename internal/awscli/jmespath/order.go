package jmespath

import (
	"math/big"
	"slices"
	"strings"

	"github.com/daypass/daypass/internal/awscli/pyvalue"
)

// order compares two strings or two numbers. It does not compare a string with a
// number: callers check the types first.
func order(a, b any) int {
	if s, ok := a.(string); ok {
		return strings.Compare(s, b.(string))
	}
	n, _ := pyvalue.CompareNumbers(a, b)
	return n
}

// extreme returns the first of the largest (sign 1) or smallest (sign -1)
// elements, or null for an empty list.
func extreme(list []any, sign int) any {
	if len(list) == 0 {
		return nil
	}
	best := list[0]
	for _, element := range list[1:] {
		if order(element, best)*sign > 0 {
			best = element
		}
	}
	return best
}

// byKey evaluates the expression for each element; every result must have one
// of the types.
func byKey(function string, list []any, key *expref, types ...string) ([]any, error) {
	results := make([]any, len(list))
	for i, element := range list {
		result, err := key.eval(element)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(types, typeName(result)) {
			return nil, typeError(function, result, typeName(result), types)
		}
		results[i] = result
	}
	return results, nil
}

func extremeBy(function string, args []any, sign int) (any, error) {
	list := args[0].([]any)
	by, err := byKey(function, list, args[1].(*expref), "number", "string")
	if err != nil || len(list) == 0 {
		return nil, err
	}
	best := 0
	for i := range list {
		if typeName(by[i]) != typeName(by[best]) {
			sign := map[int]string{1: ">", -1: "<"}[sign]
			return nil, &EvalError{"'" + sign + "' not supported between instances of '" + pyvalue.TypeName(by[i]) + "' and '" + pyvalue.TypeName(by[best]) + "'"}
		}
		if order(by[i], by[best])*sign > 0 {
			best = i
		}
	}
	return list[best], nil
}

func sortList(args []any) (any, error) {
	list := slices.Clone(args[0].([]any))
	slices.SortStableFunc(list, order)
	return list, nil
}

func sortBy(args []any) (any, error) {
	list := args[0].([]any)
	if len(list) == 0 {
		return list, nil
	}
	first, err := args[1].(*expref).eval(list[0])
	if err != nil {
		return nil, err
	}
	kind := typeName(first)
	if kind != "number" && kind != "string" {
		return nil, typeError("sort_by", list[0], kind, []string{"string", "number"})
	}
	by, err := byKey("sort_by", list, args[1].(*expref), kind)
	if err != nil {
		return nil, err
	}
	places := make([]int, len(list))
	for i := range places {
		places[i] = i
	}
	slices.SortStableFunc(places, func(a, b int) int { return order(by[a], by[b]) })
	sorted := make([]any, len(list))
	for i, place := range places {
		sorted[i] = list[place]
	}
	return sorted, nil
}

func toNumber(args []any) (any, error) {
	switch v := args[0].(type) {
	case *big.Int, float64:
		return v, nil
	case string:
		if n, ok := pyvalue.ParseInt(v); ok {
			return n, nil
		}
		if f, ok := pyvalue.ParseFloat(v); ok {
			return f, nil
		}
	}
	return nil, nil
}
