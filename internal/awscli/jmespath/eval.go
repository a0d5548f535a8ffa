package jmespath

import (
	"fmt"
	"math/big"
	"strings"

	"github.com/daypass/daypass/internal/awscli/pyvalue"
)

type opcode int

const (
	opIdentity   opcode = iota
	opField             // name
	opLiteral           // value
	opChain             // args[1] applied to the result of args[0]
	opIndex             // value
	opSlice             // bounds
	opFlatten           // args[0]
	opProjection        // args[1] for each element of args[0]
	opValues            // args[1] for each value of the object args[0]
	opFilter            // args[1] for each element of args[0] for which args[2] is true
	opOr
	opAnd
	opNot
	opCompare // name
	opList
	opHash // keys
	opCall // name
	opExpref
)

type node struct {
	op      opcode
	name    string
	value   any
	keys    []string
	bounds  [3]*big.Int
	indexed bool
	args    []*node
}

var identity = &node{op: opIdentity}

// expref is an expression that is an argument of a function.
type expref struct{ body *node }

func (n *node) eval(value any) (any, error) {
	switch n.op {
	case opIdentity:
		return value, nil
	case opLiteral:
		return n.value, nil
	case opField:
		if object, ok := value.(*pyvalue.Object); ok {
			field, _ := object.Get(n.name)
			return field, nil
		}
		return nil, nil
	case opChain:
		left, err := n.args[0].eval(value)
		if err != nil {
			return nil, err
		}
		return n.args[1].eval(left)
	case opIndex:
		return index(value, n.value.(*big.Int)), nil
	case opSlice:
		return slice(value, n.bounds)
	case opFlatten:
		return n.flatten(value)
	case opProjection, opFilter, opValues:
		return n.project(value)
	case opOr, opAnd:
		left, err := n.args[0].eval(value)
		if err != nil || isFalse(left) == (n.op == opAnd) {
			return left, err
		}
		return n.args[1].eval(value)
	case opNot:
		inner, err := n.args[0].eval(value)
		return isFalse(inner), err
	case opCompare:
		left, err := n.args[0].eval(value)
		if err != nil {
			return nil, err
		}
		right, err := n.args[1].eval(value)
		if err != nil {
			return nil, err
		}
		return compare(n.name, left, right)
	case opList:
		if value == nil {
			return nil, nil
		}
		return evalAll(n.args, value)
	case opHash:
		if value == nil {
			return nil, nil
		}
		object := new(pyvalue.Object)
		for i, arg := range n.args {
			field, err := arg.eval(value)
			if err != nil {
				return nil, err
			}
			object.Set(n.keys[i], field)
		}
		return object, nil
	case opCall:
		args, err := evalAll(n.args, value)
		if err != nil {
			return nil, err
		}
		return callFunction(n.name, args)
	case opExpref:
		return &expref{body: n.args[0]}, nil
	}
	panic("internal error: jmespath: unknown node")
}

func evalAll(nodes []*node, value any) ([]any, error) {
	results := make([]any, 0, len(nodes))
	for _, n := range nodes {
		result, err := n.eval(value)
		if err != nil {
			return nil, err
		}
		results = append(results, result)
	}
	return results, nil
}

// project applies args[1] to each element, and drops null results.
func (n *node) project(value any) (any, error) {
	base, err := n.args[0].eval(value)
	if err != nil {
		return nil, err
	}
	var elements []any
	switch base := base.(type) {
	case []any:
		if n.op == opValues {
			return nil, nil
		}
		elements = base
	case *pyvalue.Object:
		if n.op != opValues {
			return nil, nil
		}
		for _, v := range base.All() {
			elements = append(elements, v)
		}
	default:
		return nil, nil
	}
	results := []any{}
	for _, element := range elements {
		if n.op == opFilter {
			keep, err := n.args[2].eval(element)
			if err != nil {
				return nil, err
			}
			if isFalse(keep) {
				continue
			}
		}
		result, err := n.args[1].eval(element)
		if err != nil {
			return nil, err
		}
		if result != nil {
			results = append(results, result)
		}
	}
	return results, nil
}

func (n *node) flatten(value any) (any, error) {
	base, err := n.args[0].eval(value)
	list, ok := base.([]any)
	if err != nil || !ok {
		return nil, err
	}
	merged := []any{}
	for _, element := range list {
		if inner, ok := element.([]any); ok {
			merged = append(merged, inner...)
		} else {
			merged = append(merged, element)
		}
	}
	return merged, nil
}

func index(value any, at *big.Int) any {
	list, ok := value.([]any)
	if !ok || !at.IsInt64() {
		return nil
	}
	i := at.Int64()
	if i < 0 {
		i += int64(len(list))
	}
	if i < 0 || i >= int64(len(list)) {
		return nil
	}
	return list[i]
}

// slice returns every step-th element from start to before end.
func slice(value any, bounds [3]*big.Int) (any, error) {
	list, ok := value.([]any)
	if !ok {
		return nil, nil
	}
	length := len(list)
	step := 1
	if bounds[2] != nil {
		if bounds[2].Sign() == 0 {
			return nil, &EvalError{"slice step cannot be zero"}
		}
		step = clamp(bounds[2], -length-1, length+1)
	}
	first, last := 0, length
	if step < 0 {
		first, last = length-1, -1
	}
	bound := func(b *big.Int, otherwise int) int {
		if b == nil {
			return otherwise
		}
		i := clamp(b, -length-1, length+1)
		if i < 0 {
			i += length
		}
		if step < 0 {
			return min(max(i, -1), length-1)
		}
		return min(max(i, 0), length)
	}
	start, end := bound(bounds[0], first), bound(bounds[1], last)
	results := []any{}
	for i := start; step > 0 && i < end || step < 0 && i > end; i += step {
		results = append(results, list[i])
	}
	return results, nil
}

func clamp(n *big.Int, low, high int) int {
	if n.Cmp(pyvalue.Int(int64(low))) < 0 {
		return low
	}
	if n.Cmp(pyvalue.Int(int64(high))) > 0 {
		return high
	}
	return int(n.Int64())
}

var operatorSigns = map[string]string{"lt": "<", "lte": "<=", "gt": ">", "gte": ">="}

func compare(op string, left, right any) (any, error) {
	switch op {
	case "eq":
		return operandsEqual(left, right), nil
	case "ne":
		return !operandsEqual(left, right), nil
	}
	order, ok := 0, true
	l, leftText := left.(string)
	r, rightText := right.(string)
	switch {
	case leftText && rightText:
		order = strings.Compare(l, r)
	case pyvalue.IsNumber(left) && pyvalue.IsNumber(right):
		order, ok = pyvalue.CompareNumbers(left, right)
	case (leftText || pyvalue.IsNumber(left)) && (rightText || pyvalue.IsNumber(right)):
		return nil, &EvalError{fmt.Sprintf("'%s' not supported between instances of '%s' and '%s'",
			operatorSigns[op], pyvalue.TypeName(left), pyvalue.TypeName(right))}
	default:
		return nil, nil
	}
	switch op {
	case "lt":
		return ok && order < 0, nil
	case "lte":
		return ok && order <= 0, nil
	case "gt":
		return ok && order > 0, nil
	}
	return ok && order >= 0, nil
}
