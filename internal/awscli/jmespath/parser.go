package jmespath

import (
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/daypass/daypass/internal/awscli/pyvalue"
)

// The parser is a top-down operator-precedence parser: prefix parses the beginning of
// an expression, infix its continuation. A token binds as tightly as its number here; a
// token that is not listed ends an expression.
var bindingPower = map[string]int{
	"pipe":    1,
	"or":      2,
	"and":     3,
	"eq":      5,
	"gt":      5,
	"lt":      5,
	"gte":     5,
	"lte":     5,
	"ne":      5,
	"flatten": 9,
	// Everything above stops a projection.
	"star":     20,
	"filter":   21,
	"dot":      40,
	"not":      45,
	"lbrace":   50,
	"lbracket": 55,
	"lparen":   60,
}

const projectionStop = 10

// maxDepth bounds how deep expressions nest.
const maxDepth = 500

type parser struct {
	text   string
	tokens []token
	at     int
	depth  int
}

func (p *parser) current() token { return p.tokens[p.at] }
func (p *parser) kind() string   { return p.tokens[p.at].kind }

// ahead returns the type of the token n places further on; past the end it is eof.
func (p *parser) ahead(n int) string {
	return p.tokens[min(p.at+n, len(p.tokens)-1)].kind
}

func (p *parser) advance() token {
	t := p.tokens[p.at]
	if p.at < len(p.tokens)-1 {
		p.at++
	}
	return t
}

func (p *parser) fail(t token, reason string) error {
	return &SyntaxError{fmt.Sprintf("%s: Parse error at column %d, token \"%s\" (%s), for expression:\n\"%s\"\n%s^",
		reason, t.start, pyvalue.Str(t.value), strings.ToUpper(t.kind), p.text, strings.Repeat(" ", t.start+1))}
}

func (p *parser) incomplete() error {
	return &SyntaxError{fmt.Sprintf("Invalid jmespath expression: Incomplete expression:\n\"%s\"\n%s^",
		p.text, strings.Repeat(" ", len([]rune(p.text))+1))}
}

func (p *parser) expect(kinds ...string) error {
	if slices.Contains(kinds, p.kind()) {
		p.advance()
		return nil
	}
	if p.kind() == "eof" {
		return p.incomplete()
	}
	expected := kinds[0]
	if len(kinds) > 1 {
		expected = nameList(kinds)
	}
	return p.fail(p.current(), fmt.Sprintf("Expecting: %s, got: %s", expected, p.kind()))
}

func nameList(names []string) string {
	list := make([]any, len(names))
	for i, name := range names {
		list[i] = name
	}
	return pyvalue.Repr(list)
}

func (p *parser) parse() (*node, error) {
	root, err := p.expression(0)
	if err != nil {
		return nil, err
	}
	if t := p.current(); t.kind != "eof" {
		return nil, p.fail(t, "Unexpected token: "+pyvalue.Str(t.value))
	}
	return root, nil
}

func (p *parser) expression(power int) (*node, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, p.fail(p.current(), "expression nests too deep")
	}
	defer func() { p.depth-- }()
	left, err := p.prefix(p.advance())
	for err == nil && power < bindingPower[p.kind()] {
		left, err = p.infix(left, p.advance())
	}
	return left, err
}

func (p *parser) prefix(t token) (*node, error) {
	switch t.kind {
	case "literal":
		return &node{op: opLiteral, value: t.value}, nil
	case "unquoted_identifier":
		return &node{op: opField, name: t.value.(string)}, nil
	case "quoted_identifier":
		if p.kind() == "lparen" {
			open := p.current()
			open.start = 0
			return nil, p.fail(open, "Quoted identifier not allowed for function names.")
		}
		return &node{op: opField, name: t.value.(string)}, nil
	case "current":
		return identity, nil
	case "star":
		if p.kind() == "rbracket" {
			return &node{op: opValues, args: []*node{identity, identity}}, nil
		}
		return p.projection(opValues, identity, bindingPower["star"])
	case "filter":
		return p.filter(identity)
	case "lbrace":
		return p.multiSelectHash()
	case "lparen":
		inner, err := p.expression(0)
		if err != nil {
			return nil, err
		}
		return inner, p.expect("rparen")
	case "flatten":
		return p.projection(opProjection, &node{op: opFlatten, args: []*node{identity}}, bindingPower["flatten"])
	case "not":
		inner, err := p.expression(bindingPower["not"])
		return &node{op: opNot, args: []*node{inner}}, err
	case "expref":
		inner, err := p.expression(0)
		return &node{op: opExpref, args: []*node{inner}}, err
	case "lbracket":
		switch {
		case p.kind() == "number" || p.kind() == "colon":
			return p.indexed(identity)
		case p.kind() == "star" && p.ahead(1) == "rbracket":
			p.advance()
			p.advance()
			return p.projection(opProjection, identity, bindingPower["star"])
		}
		return p.multiSelectList()
	case "eof":
		return nil, p.incomplete()
	}
	return nil, p.fail(t, "invalid token")
}

func (p *parser) infix(left *node, t token) (*node, error) {
	switch t.kind {
	case "dot":
		if p.kind() == "star" {
			p.advance()
			return p.projection(opValues, left, bindingPower["dot"])
		}
		right, err := p.afterDot(bindingPower["dot"])
		return &node{op: opChain, args: []*node{left, right}}, err
	case "pipe":
		return p.binary(opChain, left, t)
	case "or":
		return p.binary(opOr, left, t)
	case "and":
		return p.binary(opAnd, left, t)
	case "eq", "ne", "gt", "gte", "lt", "lte":
		n, err := p.binary(opCompare, left, t)
		if n != nil {
			n.name = t.kind
		}
		return n, err
	case "filter":
		return p.filter(left)
	case "flatten":
		return p.projection(opProjection, &node{op: opFlatten, args: []*node{left}}, bindingPower["flatten"])
	case "lparen":
		return p.call(left)
	case "lbracket":
		if p.kind() == "number" || p.kind() == "colon" {
			return p.indexed(left)
		}
		if err := p.expect("star"); err != nil {
			return nil, err
		}
		if err := p.expect("rbracket"); err != nil {
			return nil, err
		}
		return p.projection(opProjection, left, bindingPower["star"])
	}
	return nil, p.fail(t, "invalid token")
}

func (p *parser) binary(op opcode, left *node, t token) (*node, error) {
	right, err := p.expression(bindingPower[t.kind])
	if err != nil {
		return nil, err
	}
	return &node{op: op, args: []*node{left, right}}, nil
}

// projection parses the expression that is applied to each element of left.
func (p *parser) projection(op opcode, left *node, power int) (*node, error) {
	right, err := p.projected(power)
	if err != nil {
		return nil, err
	}
	return &node{op: op, args: []*node{left, right}}, nil
}

func (p *parser) projected(power int) (*node, error) {
	switch kind := p.kind(); {
	case bindingPower[kind] < projectionStop:
		return identity, nil
	case kind == "lbracket" || kind == "filter":
		return p.expression(power)
	case kind == "dot":
		p.advance()
		return p.afterDot(power)
	}
	return nil, p.fail(p.current(), "syntax error")
}

func (p *parser) afterDot(power int) (*node, error) {
	switch p.kind() {
	case "quoted_identifier", "unquoted_identifier", "star":
		return p.expression(power)
	case "lbracket":
		p.advance()
		return p.multiSelectList()
	case "lbrace":
		p.advance()
		return p.multiSelectHash()
	}
	allowed := nameList([]string{"quoted_identifier", "unquoted_identifier", "lbracket", "lbrace"})
	return nil, p.fail(p.current(), fmt.Sprintf("Expecting: %s, got: %s", allowed, p.kind()))
}

func (p *parser) filter(left *node) (*node, error) {
	condition, err := p.expression(0)
	if err != nil {
		return nil, err
	}
	if err := p.expect("rbracket"); err != nil {
		return nil, err
	}
	right := identity
	if p.kind() != "flatten" {
		if right, err = p.projected(bindingPower["filter"]); err != nil {
			return nil, err
		}
	}
	return &node{op: opFilter, args: []*node{left, right, condition}}, nil
}

// call parses the arguments of a function. The AWS CLI does not ask for the
// commas between them.
func (p *parser) call(left *node) (*node, error) {
	if left.op != opField {
		t := p.tokens[max(p.at-2, 0)]
		return nil, p.fail(t, fmt.Sprintf("Invalid function name '%s'", pyvalue.Str(t.value)))
	}
	n := &node{op: opCall, name: left.name}
	for p.kind() != "rparen" {
		arg, err := p.expression(0)
		if err != nil {
			return nil, err
		}
		if p.kind() == "comma" {
			p.advance()
		}
		n.args = append(n.args, arg)
	}
	p.advance()
	return n, nil
}

// indexed parses [n] or a slice after left. A slice is a projection, except directly
// after another index, where the AWS CLI treats its result as a list.
func (p *parser) indexed(left *node) (*node, error) {
	if p.kind() != "colon" && p.ahead(1) != "colon" {
		index := &node{op: opIndex, value: p.advance().value}
		if err := p.expect("rbracket"); err != nil {
			return nil, err
		}
		return &node{op: opChain, indexed: true, args: []*node{left, index}}, nil
	}
	slice, err := p.slice()
	if err != nil {
		return nil, err
	}
	n := &node{op: opChain, indexed: true, args: []*node{left, slice}}
	if left.op == opChain && left.indexed {
		return n, nil
	}
	return p.projection(opProjection, n, bindingPower["star"])
}

func (p *parser) slice() (*node, error) {
	n := &node{op: opSlice}
	for part := 0; p.kind() != "rbracket" && part < 3; {
		switch t := p.current(); t.kind {
		case "colon":
			if part++; part == 3 {
				return nil, p.fail(t, "syntax error")
			}
		case "number":
			n.bounds[part] = t.value.(*big.Int)
		default:
			return nil, p.fail(t, "syntax error")
		}
		p.advance()
	}
	return n, p.expect("rbracket")
}

func (p *parser) multiSelectList() (*node, error) {
	n := &node{op: opList}
	for {
		element, err := p.expression(0)
		if err != nil {
			return nil, err
		}
		n.args = append(n.args, element)
		if p.kind() == "rbracket" {
			p.advance()
			return n, nil
		}
		if err := p.expect("comma"); err != nil {
			return nil, err
		}
	}
}

func (p *parser) multiSelectHash() (*node, error) {
	n := &node{op: opHash}
	for {
		key := p.current()
		if err := p.expect("quoted_identifier", "unquoted_identifier"); err != nil {
			return nil, err
		}
		if err := p.expect("colon"); err != nil {
			return nil, err
		}
		value, err := p.expression(0)
		if err != nil {
			return nil, err
		}
		n.keys = append(n.keys, key.value.(string))
		n.args = append(n.args, value)
		switch p.kind() {
		case "comma":
			p.advance()
		case "rbrace":
			p.advance()
			return n, nil
		}
	}
}
