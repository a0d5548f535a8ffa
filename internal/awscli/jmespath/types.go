package jmespath

import (
	"math/big"

	"github.com/daypass/daypass/internal/awscli/pyvalue"
)

// operandsEqual is the operator ==, for which 0 and 1 do not equal false and true.
func operandsEqual(a, b any) bool {
	_, aBool := a.(bool)
	_, bBool := b.(bool)
	if aBool != bBool && (pyvalue.IsNumber(a) || pyvalue.IsNumber(b)) {
		return false
	}
	return pyvalue.Equal(a, b)
}

// isFalse reports whether a condition with this value fails. The number 0 does not.
func isFalse(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		return !v
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	case *pyvalue.Object:
		return v.Len() == 0
	}
	return false
}

// typeName returns the name of a value's type in error messages and in type().
func typeName(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case *big.Int, float64:
		return "number"
	case []any:
		return "array"
	case *pyvalue.Object:
		return "object"
	case *expref:
		return "expref"
	}
	return "unknown"
}
