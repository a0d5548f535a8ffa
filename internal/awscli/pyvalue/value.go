package pyvalue

import (
	"iter"
	"math"
	"math/big"
)

// Object is a JSON object that keeps its keys in the order in which they were
// first set. The zero Object is empty and ready to use. It is safe for
// concurrent reading.
type Object struct {
	keys   []string
	values map[string]any
}

// Set sets a key. An existing key keeps its place.
func (o *Object) Set(key string, value any) {
	if o.values == nil {
		o.values = make(map[string]any)
	}
	if _, ok := o.values[key]; !ok {
		o.keys = append(o.keys, key)
	}
	o.values[key] = value
}

// Get returns the value of a key, and whether the object has the key.
func (o *Object) Get(key string) (any, bool) {
	value, ok := o.values[key]
	return value, ok
}

// Delete removes a key, if the object has it.
func (o *Object) Delete(key string) {
	if _, ok := o.values[key]; !ok {
		return
	}
	delete(o.values, key)
	for i, k := range o.keys {
		if k == key {
			o.keys = append(o.keys[:i:i], o.keys[i+1:]...)
			return
		}
	}
}

// Len returns the number of keys.
func (o *Object) Len() int { return len(o.keys) }

// Keys returns the keys in order. The caller must not change the slice.
func (o *Object) Keys() []string { return o.keys }

// All iterates over keys and values in order.
func (o *Object) All() iter.Seq2[string, any] {
	return func(yield func(string, any) bool) {
		for _, key := range o.keys {
			if !yield(key, o.values[key]) {
				return
			}
		}
	}
}

// Time is a moment. JSON has a "T" between date and time, text has a space.
type Time struct {
	Date, Clock string
}

func (t Time) String() string { return t.Date + " " + t.Clock }

// Int returns an integer value.
func Int(i int64) *big.Int { return big.NewInt(i) }

// IsNumber reports whether a value is an integer or a fraction.
func IsNumber(v any) bool {
	switch v.(type) {
	case *big.Int, float64:
		return true
	}
	return false
}

// CompareNumbers orders two numbers exactly, even a large integer and a float.
// ok is false when one of them is NaN or not a number.
func CompareNumbers(a, b any) (order int, ok bool) {
	switch a := a.(type) {
	case *big.Int:
		switch b := b.(type) {
		case *big.Int:
			return a.Cmp(b), true
		case float64:
			order, ok = CompareNumbers(b, a)
			return -order, ok
		}
	case float64:
		if math.IsNaN(a) {
			return 0, false
		}
		switch b := b.(type) {
		case *big.Int:
			if math.IsInf(a, 0) {
				return int(math.Copysign(1, a)), true
			}
			return big.NewFloat(a).Cmp(new(big.Float).SetInt(b)), true
		case float64:
			switch {
			case math.IsNaN(b):
				return 0, false
			case a < b:
				return -1, true
			case a > b:
				return 1, true
			}
			return 0, true
		}
	}
	return 0, false
}

// asNumber lets true and false count as 1 and 0, as they do inside lists and
// objects that are compared.
func asNumber(v any) any {
	if b, ok := v.(bool); ok {
		if b {
			return Int(1)
		}
		return Int(0)
	}
	return v
}

// Equal reports whether two values are equal. The order of the keys of an
// object does not matter, and neither does the type of a number.
func Equal(a, b any) bool {
	switch x := a.(type) {
	case nil:
		return b == nil
	case string:
		y, ok := b.(string)
		return ok && x == y
	case bool, *big.Int, float64:
		order, ok := CompareNumbers(asNumber(a), asNumber(b))
		return ok && order == 0
	case []any:
		y, ok := b.([]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for i := range x {
			if !Equal(x[i], y[i]) {
				return false
			}
		}
		return true
	case *Object:
		y, ok := b.(*Object)
		if !ok || x.Len() != y.Len() {
			return false
		}
		for key, value := range x.All() {
			other, ok := y.Get(key)
			if !ok || !Equal(value, other) {
				return false
			}
		}
		return true
	case Time:
		y, ok := b.(Time)
		return ok && x == y
	}
	return a == b // expressions of the query language
}

// TypeName returns the name of a value's type in the AWS CLI's messages: str, int,
// float, bool, list, dict, NoneType.
func TypeName(v any) string {
	switch v.(type) {
	case nil:
		return "NoneType"
	case bool:
		return "bool"
	case string:
		return "str"
	case *big.Int:
		return "int"
	case float64:
		return "float"
	case []any:
		return "list"
	case *Object:
		return "dict"
	case Time:
		return "datetime"
	}
	return "_Expression"
}
